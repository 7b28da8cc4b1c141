"""The inpainter's own: its networks, its step, its command on files."""

import io
import json

import dicom_cases
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from places import CONFIGS, ROOT
import pydicom
import pytest

from jaxfake import configuration, contracts, data, errors, main, named, tamper
from jaxfake.data import tampered
from jaxfake.data.phantom import anatomy
from jaxfake.generators import common, filling, inpainter, registry, translator
from jaxfake.models import inpainter as networks

CONFIG = CONFIGS / "inpainter.py:tiny"
SIZE = 32


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def batch(n=4):
  rng = np.random.default_rng(0)
  mask = np.zeros((n, SIZE, SIZE, 1), np.uint8)
  for i in range(n):
    mask[i, 8 : 20 + i, 10:22] = 255
  image = rng.integers(0, 256, mask.shape).astype(np.uint8)
  return {"image": image, "mask": mask, "label": np.zeros(n, np.int32)}


def floats(n=2):
  image, mask, _ = batch(n).values()
  return [np.asarray(x) for x in filling.to_float(image, mask)]


@pytest.fixture(scope="module")
def state():
  return jax.jit(inpainter.initial(config(), ()))(jax.random.key(0))


def test_only_the_region_changes_and_nothing_of_it_is_seen(state):
  net, critic = inpainter.networks(config())
  image, mask = floats()
  noise = np.random.default_rng(1).normal(size=image.shape)
  apply = jax.jit(
    lambda x, noise: inpainter.filled(net, state.ema, x, mask, noise)
  )
  one = apply(image, noise)
  inside = mask > 0
  np.testing.assert_array_equal(one[~inside], image[~inside])
  assert jnp.abs(one[inside] - image[inside]).max() > 0.1
  # Another picture beneath, and noise elsewhere, change nothing.
  beneath = apply(np.where(inside, -image, image), np.where(inside, noise, 7))
  np.testing.assert_allclose(beneath, one, atol=1e-6)
  assert (apply(image, -noise)[inside] != one[inside]).any()
  score = jax.jit(
    lambda x, y: critic.apply(
      {"params": state.discriminator.params}, x, mask, y
    )
  )
  beneath = score(np.where(inside, -image, image), one)
  np.testing.assert_allclose(beneath, score(image, one), atol=1e-6)
  assert jnp.abs(score(-image, one) - score(image, one)).max() > 1e-6


def test_the_network_sees_the_whole_window():
  net = networks.Generator(2)
  x, mask = np.zeros((1, 32, 32, 1)), np.zeros((1, 32, 32, 1))
  mask[0, 16, 16] = 1
  params = jax.jit(net.init)(jax.random.key(0), x, mask, x)
  noise = np.zeros_like(x)
  middle = lambda x: net.apply(params, x, mask, noise)[0, 16, 16, 0]
  slope = jax.jit(jax.grad(middle))(x)[0, ..., 0]
  corners = slope[[0, 0, -1, -1], [0, -1, 0, -1]]
  assert (corners != 0).all()
  assert slope[16, 16] == 0  # It is to be filled.


def test_one_step_is_the_paper_s(state, monkeypatch):
  """Equations 1, 3 and 4 written out, and Adam's first step, which is the
  gradient's sign."""
  monkeypatch.setattr(inpainter.augment, "turned", lambda key, *x: x)
  c = config(l1=10.0)
  g, d = inpainter.networks(c)
  image, mask = floats(4)
  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  noise = jax.random.normal(jax.random.split(key)[1], image.shape)
  score = lambda params, x: d.apply({"params": params}, image, mask, x)
  make = lambda params: inpainter.filled(g, params, image, mask, noise)

  def d_loss(params):
    fake = make(state.generator.params)
    p_real = jax.nn.sigmoid(score(params, image))
    p_fake = jax.nn.sigmoid(score(params, fake))
    return [-(jnp.log(p_real).mean() + jnp.log(1 - p_fake).mean()) / 2]

  after, seen = jax.jit(inpainter.stepper(c))(state, batch())

  def g_loss(params):
    x = make(params)
    off = jnp.abs(x - image)[mask > 0].mean()
    p = jax.nn.sigmoid(score(after.discriminator.params, x))
    return [-jnp.log(p).mean(), c.l1 * off]

  for loss, before, now, terms in (
    (d_loss, state.discriminator, after.discriminator, ["d_loss"]),
    (
      g_loss,
      state.generator,
      after.generator,
      ["g_loss_adversarial", "g_loss_l1"],
    ),
  ):
    wanted = jax.jit(lambda p, loss=loss: jnp.stack(loss(p)))
    np.testing.assert_allclose(
      [seen[name] for name in terms], wanted(before.params), rtol=1e-4
    )
    slope = jax.jit(jax.grad(lambda p, loss=loss: sum(loss(p))))(before.params)
    for x, y, moved in zip(
      *map(jax.tree.leaves, (before.params, now.params, slope)), strict=True
    ):
      clear = np.abs(moved) > 1e-4
      want = -c.opt.lr * np.sign(moved)
      np.testing.assert_allclose((y - x)[clear], want[clear], atol=2e-5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("inpainter") / "run"
  argv = [f"--config={ROOT}/configs/inpainter.py:tiny", f"--workdir={path}"]
  assert main.main(["", *argv]) == 0
  return path


def test_a_run_says_how_far_its_fills_are_from_the_truth(workdir):
  figures = json.loads((workdir / "result.json").read_text())["metrics"]
  assert 0 < figures["eval/region_error_harmonic"] < 40
  assert figures["eval/region_error"] > figures["eval/region_error_harmonic"]


def test_samples_are_held_out_windows_filled(workdir):
  model = registry.load(workdir)
  assert named.members(contracts.Inpainter) <= {*dir(model)}
  n = 8
  index, label = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
  made = np.asarray(model.sample(0, index, label))
  origins = model.origins(0, index, label)
  assert len({x["original"] for x in origins}) == n
  kept = common.restored(workdir, inpainter.initial)[0]
  assert kept.data.size == model.size == made.shape[1]
  windows = translator.Originals(workdir)
  ids = windows.column("id")
  for row, image in zip(origins, made, strict=True):
    window = windows[ids.index(row["original"])]
    inside = window["mask"] > 0
    np.testing.assert_array_equal(image[~inside], window["image"][~inside])
    assert (image[inside] != window["image"][inside]).any()


def run(*argv):
  return tamper.main([str(x) for x in argv])


BOX = "40,44,24,20"
LEARNT = "--box", BOX, "--method", "learnt", "--model"


def test_files_are_filled_and_keep_their_bits(workdir, tmp_path, capsys):
  folder, out = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  gray = anatomy.radiograph(0, 3, size=128)["image"]
  Image.fromarray(gray).save(folder / "a.png")
  cells = dicom_cases.container(gray.astype(int) * 16, 16, 12, 11, junk=0)
  dicom_cases.write(dicom_cases.dataset(cells, 12, 11), folder / "b.dcm")
  (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:900])
  flags = folder, "--inject", *LEARNT, workdir, "--out"
  assert run(*flags, out) == 1
  assert "c.png: is damaged" in capsys.readouterr().err
  lines = (out / "manifest.jsonl").read_text().splitlines()
  rows = {x["file"][0]: x for x in map(json.loads, lines)}
  model = registry.load(workdir)
  for row in rows.values():
    assert row["method"] == "learnt" and row["model_sha256"] == model.sha256
    mask = np.asarray(Image.open(out / row["mask"])) > 0
    content = (out / row["file"]).read_bytes()
    if row["file"].endswith(".dcm"):
      ds = pydicom.dcmread(io.BytesIO(content))
      now = np.frombuffer(ds.PixelData, "<u2").reshape(cells.shape)
      before = cells
    else:
      now, before = np.asarray(Image.open(io.BytesIO(content))), gray
    np.testing.assert_array_equal(now[~mask], before[~mask])
    assert (now[mask] != before[mask]).mean() > 0.5
  assert run(*flags, tmp_path / "again") == 1
  for row in rows.values():
    again = (tmp_path / "again" / row["file"]).read_bytes()
    assert again == (out / row["file"]).read_bytes()
  assert run(*flags, tmp_path / "seed", "--seed", 1) == 1
  other = (tmp_path / "seed" / rows["a"]["file"]).read_bytes()
  assert other != (out / rows["a"]["file"]).read_bytes()


def test_another_kind_and_another_family_are_refused(
  workdir, tmp_path, capsys, monkeypatch
):
  path = tmp_path / "a.png"
  Image.fromarray(anatomy.radiograph(0, 3, size=128)["image"]).save(path)
  out = tmp_path / "out"
  assert run(path, "--remove", *LEARNT, workdir, "--out", out) == 2
  assert "learnt to inject: expected one that learnt to remove" in (
    capsys.readouterr().err
  )
  monkeypatch.setattr(inpainter, "load", lambda path: object())
  assert run(path, "--inject", *LEARNT, workdir, "--out", out) == 2
  assert "expected one of an inpainter" in capsys.readouterr().err
  assert not out.exists()


def test_a_set_is_made_by_it_where_its_folder_is_named(workdir):
  flags = ["data.name=tampered", f"data.tampered.inject_model={workdir}"]
  argv = [f"--config={CONFIGS}/classifier.py:tiny"]
  argv += [f"--config.{x}" for x in [*flags, "data.phantom.images=40"]]
  c = configuration.parse(["", *argv])[0].data
  assert tampered.names(c.tampered, "inject")[-1] == "learnt"
  assert "learnt" not in tampered.names(c.tampered, "remove")
  plain = data.prepare(c).facts["content_sha256"]
  c.tampered.inject = "learnt"
  dataset = data.prepare(c)
  assert dataset.facts["content_sha256"] != plain
  same, injected = (dataset.source("train")[i] for i in range(2))
  assert injected["method"] == "inject learnt"
  differ = same["image"] != injected["image"]
  assert differ.any() and (injected["mask"][differ] == 255).all()
  c.tampered.remove_model = str(workdir)
  with pytest.raises(errors.ConfigError, match=r"remove_model .* to inject"):
    data.prepare(c)


def test_other_data_are_refused():
  with pytest.raises(errors.ConfigError, match="name is 'phantom'"):
    inpainter.check(config(data__name="phantom"))

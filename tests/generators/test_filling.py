"""What all inpainters do with held-out windows, with files, with sets."""

import io
import json

import dicom_cases
import numpy as np
from PIL import Image
from places import CONFIGS, ROOT
import pydicom
import pytest

from jaxfake import configuration, contracts, data, errors, main, named, tamper
from jaxfake.data import tampered
from jaxfake.data.phantom import anatomy
from jaxfake.generators import registry, translator

FAMILIES = ("diffusion_inpainter", "inpainter")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
  return request.param


@pytest.fixture(scope="module")
def workdir(family, tmp_path_factory):
  path = tmp_path_factory.mktemp(family) / "run"
  argv = [f"--config={ROOT}/configs/{family}.py:tiny", f"--workdir={path}"]
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
  assert model.size == made.shape[1] == 32
  windows = translator.Originals(workdir)
  ids = windows.column("id")
  for row, image in zip(origins, made, strict=True):
    window = windows[ids.index(row["original"])]
    inside = window["mask"] > 0
    np.testing.assert_array_equal(image[~inside], window["image"][~inside])
    assert (image[inside] != window["image"][inside]).any()


def test_a_fill_is_a_function_of_picture_region_and_noise(workdir):
  model, rng = registry.load(workdir), np.random.default_rng(0)
  image, noise = rng.uniform(-1, 1, (2, 32, 32)).astype(np.float32)
  mask = np.zeros((32, 32), bool)
  mask[8:20, 10:22] = True
  one = model.fill(image, mask, noise)
  assert one.dtype == np.float32 and np.abs(one).max() <= 1
  beneath = np.where(mask, -image, image), mask, np.where(mask, noise, 7)
  np.testing.assert_array_equal(model.fill(*beneath)[mask], one[mask])
  np.testing.assert_array_equal(one[~mask], image[~mask])
  assert (model.fill(image, mask, -noise)[mask] != one[mask]).any()
  assert (model.fill(-image, mask, noise)[mask] != one[mask]).any()


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
  family, workdir, tmp_path, capsys, monkeypatch
):
  path = tmp_path / "a.png"
  Image.fromarray(anatomy.radiograph(0, 3, size=128)["image"]).save(path)
  out = tmp_path / "out"
  assert run(path, "--remove", *LEARNT, workdir, "--out", out) == 2
  assert "learnt to inject: expected one that learnt to remove" in (
    capsys.readouterr().err
  )
  module = named.find("task", family, contracts.Family).load()
  monkeypatch.setattr(module, "load", lambda path: object())
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

"""The CycleGAN's own: its history of fakes, its step, what it translates."""

import csv
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
from places import CONFIGS
import pytest

from jaxfake import configuration, contracts, errors, named, sample
from jaxfake import data as datasets
from jaxfake.data import pipeline, sources
from jaxfake.generators import (
  common,
  cyclegan,
  guards,
  registry,
  translations,
  translator,
)
from jaxfake.models import cyclegan as networks

CONFIG = CONFIGS / "cyclegan.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


class Items:
  """Images of one gray level each, by label: contracts.Items."""

  def __init__(self, labels, size=32):
    self.labels, self.size = list(labels), size

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, i):
    image = np.full((self.size, self.size, 1), i, np.uint8)
    return {"image": image, "label": np.int32(self.labels[i])}

  def column(self, name):
    names = [f"{name}{i}" for i in range(len(self))]
    return self.labels if name == "label" else names


def test_the_networks_are_the_authors():
  """Parameters as their code prints them, 11.378 M and 2.765 M, less the biases
  before norms, which have no effect."""
  model = dict(width=64, blocks=9, channels=3, patch=70)
  x = jnp.zeros((1, 64, 64, 3))
  before_norms = 64 + 128 + 256 + 18 * 256 + 128 + 64, 128 + 256 + 512
  for net, theirs, less in zip(
    networks.networks(SimpleNamespace(**model)),
    (11_378_179, 2_764_737),
    before_norms,
    strict=True,
  ):
    made = jax.eval_shape(net.init, jax.random.key(0), x)
    assert sum(p.size for p in jax.tree.leaves(made)) == theirs - less


@pytest.mark.parametrize("patch", networks.PATCHES)
def test_a_score_is_of_a_patch(patch, monkeypatch):
  """Without norms, which see the whole picture."""
  monkeypatch.setattr(networks, "instance_norm", lambda x, dtype: x)
  net = networks.Discriminator(1, networks.PATCHES[patch])
  x = np.random.default_rng(0).normal(size=(1, 128, 128, 1))
  shapes = jax.eval_shape(net.init, jax.random.key(0), x)
  params = jax.tree.map(lambda w: np.full(w.shape, 0.5, w.dtype), shapes)
  middle = lambda x: net.apply(params, x)[0, 8, 8]
  rows, columns = np.nonzero(jax.jit(jax.grad(middle))(x)[0, ..., 0])
  assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == patch


def test_an_image_goes_through_by_itself():
  for net in networks.networks(config().model):
    x = np.random.default_rng(0).normal(size=(3, 16, 16, 1))
    params = jax.jit(net.init)(jax.random.key(0), x)
    apply = jax.jit(net.apply)
    all_ = apply(params, x)
    np.testing.assert_allclose(apply(params, x[1:2]), all_[1:2], atol=1e-5)
    assert jnp.abs(all_[0] - all_[1]).max() > 1e-3
  assert all_.ndim == 3  # Scores of patches.


def test_history_is_the_authors():
  """Fakes one by one, as in their ImagePool; 3 at a time into 7."""
  rng = np.random.default_rng(0)
  history, theirs = jnp.zeros((7, 1, 1, 1)), []
  seen_older = 0
  for step in range(12):
    key = jax.random.key(step)
    fakes = rng.normal(size=(3, 1, 1, 1)).astype(np.float32)
    shown, history = jax.jit(cyclegan.recalled)(
      key, history, fakes, jnp.int32(3 * step)
    )
    k_swap, k_place = jax.random.split(key)
    swap = jax.random.bernoulli(k_swap, 0.5, (3,))
    place = jax.random.randint(k_place, (3,), 0, 7)
    expected = []
    for i, fake in enumerate(fakes):
      if len(theirs) < 7:
        theirs.append(fake)
        expected.append(fake)
      elif swap[i]:
        expected.append(theirs[place[i]])
        theirs[place[i]] = fake
      else:
        expected.append(fake)
    np.testing.assert_array_equal(shown, expected)
    seen_older += int((np.stack(expected) != fakes).sum())
  np.testing.assert_array_equal(history, theirs)
  assert 5 < seen_older < 29 - 5  # Half of 29.


def test_the_rate_falls_to_0_in_the_second_half():
  adam = cyclegan.optimiser(config(total_steps=8, opt__lr=1.0))
  state, rates = adam.init(1.0), []
  for _ in range(8):
    # Of a constant gradient Adam's step is the rate.
    update, state = adam.update(1.0, state)
    rates.append(-float(update))
  expected = [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
  np.testing.assert_allclose(rates, expected, atol=1e-5)


def test_step_is_the_papers():
  """Against its equations written out plainly."""
  c = config(batch_size=2, history=2, total_steps=100, model__width=2)
  c.data.size = 16
  generator, discriminator = cyclegan.networks(c)
  state = jax.jit(cyclegan.initial(c, ("a", "b")))(jax.random.key(0))
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 2, 16, 16, 1), np.uint8)
  batch = {"image": image[0], "other": image[1]}
  # As after a step that filled the history: half of these fakes stay out.
  old = jnp.asarray(rng.uniform(-1, 1, (2, 2, 16, 16, 1)), jnp.float32)
  state = state.replace(step=jnp.int32(1), history=(old[0], old[1]))
  new, seen = jax.jit(cyclegan.stepper(c))(state, batch)

  key = jax.random.fold_in(jax.random.key(c.seed), 1)
  x, y = image.astype(np.float32) / 127.5 - 1
  adam = optax.adam(2e-4, b1=0.5)
  l1 = lambda a, b: jnp.abs(a - b).mean()

  @jax.jit
  def expected():
    (dx, dy), params = state.discriminators.params, state.generators.params
    D = lambda p, x: discriminator.apply({"params": p}, x)

    def of_generators(params):
      F = lambda y: generator.apply({"params": params[0]}, y)
      G = lambda x: generator.apply({"params": params[1]}, x)
      gan = ((D(dy, G(x)) - 1) ** 2).mean() + ((D(dx, F(y)) - 1) ** 2).mean()
      cycle = l1(F(G(x)), x) + l1(G(F(y)), y)
      identity = l1(F(x), x) + l1(G(y), y)
      return gan + 10 * cycle + 5 * identity, (F(y), G(x))

    def of_discriminators(params, fakes):
      return sum(
        ((D(p, real) - 1) ** 2).mean() / 2 + (D(p, fake) ** 2).mean() / 2
        for p, real, fake in zip(params, (x, y), fakes, strict=True)
      )

    (loss, fakes), gradient = jax.value_and_grad(of_generators, has_aux=True)(
      params
    )
    updates, _ = adam.update(gradient, adam.init(params), params)
    shown = [
      cyclegan.recalled(
        jax.random.fold_in(key, k), old[k], fakes[k], jnp.int32(2)
      )[0]
      for k in range(2)
    ]
    d_loss, gradient = jax.value_and_grad(of_discriminators)((dx, dy), shown)
    d_updates, _ = adam.update(gradient, adam.init((dx, dy)))
    return (
      (loss, d_loss),
      optax.apply_updates(params, updates),
      optax.apply_updates((dx, dy), d_updates),
    )

  losses, g, d = expected()
  terms = sum(v for name, v in seen.items() if name.startswith("g_loss_"))
  np.testing.assert_allclose([terms, seen["d_loss"]], losses, rtol=1e-4)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
  jax.tree.map(close, new.generators.params, g)
  jax.tree.map(close, new.discriminators.params, d)
  # Of the second step, 2 / 11 old.
  mixed = jax.tree.map(
    lambda a, b: (2 * a + 9 * b) / 11, state.ema, new.generators.params
  )
  jax.tree.map(close, new.ema, mixed)


def test_two_classes_of_three_in_pairs():
  items = Items([2, 0, 1, 2, 0, 0, 2, 0, 0])
  splits = pipeline.Splits(("A", "B", "C"), items, sources.NOTHING, items)
  two = cyclegan.of_classes(splits, "C", "A")
  assert two.classes == ("A", "C") and two.val is sources.NOTHING
  assert two.train.column("label") == [1, 0, 1, 0, 0, 1, 0, 0]
  assert [int(x["label"]) for x in two.train] == two.train.column("label")
  pairs = cyclegan.Pairs(two.train)
  of = [pairs[i] for i in range(len(pairs))]
  found = [[int(x[name].max()) for x in of] for name in ("image", "other")]
  assert found == [[1, 4, 5, 7, 8], [0, 3, 6, 0, 3]]


@pytest.mark.parametrize(
  ("classes", "labels", "error", "message"),
  [
    ((), [0, 1] * 3, errors.ConfigError, "from_class is 'A', but not every"),
    (("A", "C"), [0, 1] * 3, errors.ConfigError, "to_class is 'B'"),
    (("A", "B"), [0, 0, 0, 1], errors.DataError, "1 images of B in train"),
  ],
)
def test_too_few_classes_or_images_are_named(classes, labels, error, message):
  splits = pipeline.Splits(classes, Items(labels), sources.NOTHING, Items([]))
  with pytest.raises(error, match=message):
    cyclegan.of_classes(splits, "A", "B")


def test_fakes_that_are_measured_are_made_of_held_out_images_once():
  """In the class mix of train images."""
  train, held = Items([0] * 30 + [1] * 10), Items([1] * 8 + [0] * 6)
  splits = pipeline.Splits(("A", "B"), train, sources.NOTHING, held)
  translate = cyclegan.translating(config())
  measures = translations.Measures(config(), splits, translate)
  assert measures._limit == 10  # 8 of class B make 8 of A, with 2 of B.
  chosen = measures._originals(np.array([0] * 7 + [1] * 2))
  own = [int(x["label"]) for x in chosen]
  assert own == [1] * 7 + [0] * 2
  assert len({int(x["image"].max()) for x in chosen}) == 9


@pytest.fixture
def inverted(tmp_path, monkeypatch):
  """A run that keeps 5 and 4 images and inverts what it is given."""
  items = Items([0, 1, 0, 1, 0, 1, 0, 1, 0], 16)
  data = translator.packed(items)
  (tmp_path / translator.FILE).write_bytes(data)
  state = SimpleNamespace(ema=np.zeros(1), step=np.int32(3))
  monkeypatch.setattr(common.checkpoint, "sha256", lambda state: "0" * 64)

  def load(path, step):
    draw = jax.jit(lambda ema, image, label: 255 - image)
    of = translator.Originals(tmp_path)
    c = config()
    c.data.size = 16
    return translator.Translator(draw, "inverted", c, "AB", state, of)

  monkeypatch.setattr(registry, "load", load)
  unknown = lambda path, generator: guards.unknown("there is no run")
  monkeypatch.setattr(guards, "of_run", unknown)
  return load(tmp_path, None)


def made(out, *flags):
  argv = ["--workdir=unused", f"--out={out}", "--batch=4", *flags]
  code = sample.main(argv)
  if code:
    return code
  rows = [json.loads(x) for x in (out / "manifest.jsonl").open()]
  return rows, [np.asarray(Image.open(out / x["file"])) for x in rows]


def test_a_translator_has_what_its_contract_says(inverted):
  assert named.members(contracts.Translator) <= {*dir(inverted)}


def test_each_held_out_image_is_translated_once(inverted, tmp_path, capsys):
  rows, images = made(tmp_path / "8", "--count=8")
  assert [x["class"] for x in rows] == ["A", "B"] * 4
  originals = [int(x["original"].removeprefix("id")) for x in rows]
  assert len(set(originals)) == 8
  for row, original, image in zip(rows, originals, images, strict=True):
    assert original % 2 != row["label"]  # Of the other class.
    assert row["patient"] == f"patient{original}"
    assert (image == 255 - original).all()
  data = config().data
  data.name, data.dir, data.size = "generated", str(tmp_path / "8"), 16
  again = datasets.prepare(data).source("train")
  assert again.column("patient") == [x["patient"] for x in rows]
  assert again.column("id") == [f"synthetic-0-{i}" for i in range(8)]
  of_one, _ = made(tmp_path / "one", "--count=5", "--class=B")
  assert len({x["original"] for x in of_one}) == 5
  other, _ = made(tmp_path / "seed", "--count=8", "--seed=1")
  assert [x["original"] for x in other] != [x["original"] for x in rows]
  capsys.readouterr()
  assert made(tmp_path / "many", "--count=5", "--class=A") == 2
  assert "keeps held-out images for 4" in capsys.readouterr().err


@pytest.mark.parametrize("n", range(1, 9))
def test_no_original_twice_whether_labels_are_one_or_take_turns(n, tmp_path):
  items = Items([0] * n + [1] * n, 1)
  (tmp_path / translator.FILE).write_bytes(translator.packed(items))
  originals = translator.Originals(tmp_path)
  index = np.arange(2 * n)
  for label in (np.zeros(n, int), np.ones(n, int), index % 2):
    chosen = originals.chosen(5, index[: len(label)], label)
    assert len(set(chosen)) == len(label)


def test_files_of_ones_own_are_translated_and_linked(inverted, tmp_path):
  """To many sources each is its original's patient's, in the same split."""
  reals, fakes = tmp_path / "reals", tmp_path / "fakes"
  for i in range(12):
    file = reals / f"case_{i // 2}" / f"{i}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    gray = np.random.default_rng(i).integers(0, 256, (20, 16), np.uint8)
    Image.fromarray(gray).save(file)
  flags = f"--from={reals}", "--class=B"
  rows, images = made(fakes, *flags)
  assert [x["original"] for x in rows[:3]] == [
    *("case_0/0.png", "case_0/1.png", "case_1/2.png")
  ]
  assert {x["class"] for x in rows} == {"B"} and len(rows) == 12
  for row, image in zip(rows, images, strict=True):
    real = np.asarray(Image.open(reals / row["original"]))
    np.testing.assert_array_equal(image, 255 - real[2:-2])
    with Image.open(fakes / row["file"]) as png:
      assert "made of another" in png.text["Comment"]
      assert row["original"] not in png.text["jaxfake"]  # It may be a name.
  with open(fakes / "sources.csv") as file:
    listed = list(csv.DictReader(file))
  assert [x["original"] for x in listed] == [x["original"] for x in rows]

  data = config().data
  data.name, data.dir = "many_sources", f"HOSPITAL={reals},CYCLEGAN={fakes}"
  data.split = "patient"
  found = datasets.prepare(data)
  splits = {}
  for split in found.facts["counts"]:
    source = found.source(split)
    for label, patient in zip(
      source.column("label"), source.column("patient"), strict=True
    ):
      splits.setdefault(patient, []).append((split, label))
  assert len(splits) == 6
  for places in splits.values():  # Two of each kind, in one split.
    assert len({split for split, _ in places}) == 1
    assert sorted(label for _, label in places) == [0, 0, 1, 1]

  shutil.copytree(reals, tmp_path / "others")
  data.dir += f",OTHER={tmp_path}/others"
  with pytest.raises(errors.DataError, match="a real image of several of the"):
    datasets.prepare(data)


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--from=FOLDER"], "expected --class, too, one of A, B"),
    (["--from=FOLDER", "--class=C"], "--class is 'C'"),
    (["--from=FOLDER", "--class=A", "--count=3"], "has 2 files"),
    (["--from=FOLDER", "--class=A"], "a.png: is "),
    (["--from=/nowhere", "--class=A"], "/nowhere: no such folder (--from)"),
    ([], "--count: expected how many"),
  ],
)
def test_a_mistake_with_a_folder_is_named(
  flags, message, inverted, tmp_path, capsys
):
  folder = tmp_path / "folder"
  folder.mkdir()
  for name in ("a", "b"):
    (folder / f"{name}.png").write_text("no picture")
  flags = [x.replace("FOLDER", str(folder)) for x in flags]
  assert made(tmp_path / "out", *flags) == 2
  assert message in capsys.readouterr().err


def test_another_familys_run_takes_no_folder(tmp_path, monkeypatch, capsys):
  other = SimpleNamespace(conditional=True, classes=("A", "B"))
  monkeypatch.setattr(registry, "load", lambda path, step: other)
  flags = f"--from={tmp_path}", "--class=A"
  assert made(tmp_path / "out", *flags) == 2
  assert "unused is no translator" in capsys.readouterr().err

"""The localizer: its loss, its maps, a run, and what it says of files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from places import CONFIGS
import pytest
from scipy import ndimage

from jaxfake import configuration, detect, errors, main
from jaxfake.classifiers import localizer, picture_maps
from jaxfake.data.sources import Rows
from jaxfake.data.tampered.windows import ALTERED, UNALTERED
from jaxfake.evaluation import localization
from jaxfake.models import localizer as models
from jaxfake.models import pixel_unet
from jaxfake.runtime import disk
from jaxfake.training import loop

CONFIG = CONFIGS / "localizer.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def smoothed(n=16, side=32, seed=0):
  """Pairs of noise, the second of each with a smooth square, and masks."""
  rng = np.random.default_rng(seed)
  image = rng.normal(120, 12, (n // 2, side, side)).repeat(2, 0)
  mask = np.zeros(image.shape, np.uint8)
  for k in range(0, n, 2):
    y, x = rng.integers(2, side - 14, 2)
    mask[k : k + 2, y : y + 12, x : x + 12] = [[[UNALTERED]], [[ALTERED]]]
  blurred = ndimage.gaussian_filter(image, (0, 2, 2))
  image = np.where(mask == ALTERED, blurred, image).clip(0, 255)
  return Rows(image=image.astype(np.uint8)[..., None], mask=mask[..., None])


def batch(source):
  rows = [source[i] for i in range(len(source))]
  return jax.tree.map(lambda *x: np.stack(x), *rows)


def paired(source):
  rows = batch(source)
  return Rows(**{k: x.reshape(-1, 2, *x.shape[1:]) for k, x in rows.items()})


def gather(fn, source):
  return jax.tree.map(np.asarray, fn(batch(source)))


def test_altered_pixels_weigh_as_much_as_all_others():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 8, 8))
  mask = rng.choice([ALTERED, UNALTERED, 0], (3, 8, 8), p=(0.1, 0.2, 0.7))
  p = 1 / (1 + np.exp(-logits))
  mean = lambda which, p: -np.log(p[which]).mean()
  want = (
    mean(mask == ALTERED, p) / 2
    + mean(mask == UNALTERED, 1 - p) / 4
    + mean(mask == 0, 1 - p) / 4
  )
  seen = mask.astype(np.uint8)[..., None]
  parts = localizer.losses(jnp.asarray(logits), jnp.asarray(seen))
  assert float(localizer.balanced(parts)) == pytest.approx(want, rel=1e-5)
  none = localizer.losses(jnp.asarray(logits), jnp.zeros_like(seen))
  want = -np.log(1 - p).mean() / 4
  assert float(localizer.balanced(none)) == pytest.approx(want, rel=1e-5)


def test_places_are_told_from_the_same_unaltered():
  """Marking where others are altered is worth nothing."""
  c = config()
  source = smoothed()
  learning = localizer.Learning(c, paired(source), steps=1)

  def evaluated(logits):
    learning._logits = lambda state, batch: logits
    return learning.evaluate(None, gather)

  mask = batch(source)["mask"][..., 0]
  where = jnp.where(mask > 0, 5.0, -5.0)
  blind, sees = evaluated(where), evaluated(jnp.where(mask == ALTERED, 5.0, -5))
  assert blind["pixel_auc"] == 1 and blind["place_auc"] == 0.5
  assert sees["place_auc"] == 1 and sees["loss"] < 0.01 < 1 < blind["loss"]


@pytest.fixture(scope="module")
def score():
  """Of a network with random weights and statistics."""
  net = localizer.network(config())
  x = jnp.zeros((1, 64, 64, 1))
  made = jax.jit(lambda key: net.init(key, x, train=False))(jax.random.key(0))
  rng = np.random.default_rng(0)
  stats = jax.tree.map(
    lambda x: x + rng.uniform(-0.1, 0.1, x.shape).astype(np.float32),
    made["batch_stats"],
  )
  fn = jax.jit(localizer.scorer(config()))
  return lambda image: fn(made | {"batch_stats": stats}, image)


def test_a_map_by_tiles_is_the_map_at_once(score):
  rng = np.random.default_rng(1)
  gray = rng.integers(0, 256, (70, 150), np.uint8)
  whole = picture_maps.mapped(score, gray)
  assert whole.shape == gray.shape and whole.std() > 0
  by_tiles = picture_maps.mapped(score, gray, tile=64)
  np.testing.assert_allclose(by_tiles, whole, atol=1e-5 * abs(whole).max())


def test_a_pixel_is_seen_as_far_as_said(score):
  image = np.full((1, 192, 192, 1), 120, np.uint8)
  reached = []
  for at in range(
    92, 92 + pixel_unet.MULTIPLE
  ):  # Each place in a coarse pixel.
    changed = image.copy()
    changed[0, at, at] = 255
    moved = np.asarray(score(changed) - score(image))[0] != 0
    rows, columns = np.nonzero(moved)
    reached.append(max(abs(rows - at).max(), abs(columns - at).max()))
  assert 24 < max(reached) <= models.REACH


def test_pictures_are_taken_from_all_of_a_source_altered_and_not():
  class Pairs:
    def column(self, name):
      return [0, 1] * 30

  some = localizer.spread(Pairs(), 12)
  labels = some.column("label")
  assert len(labels) == 12 and sum(labels) == 6
  assert some._indices[0] < 2 and some._indices[-1] > 45
  assert len(localizer.spread(Pairs(), 1000)) == 60


def test_learns_what_is_obvious():
  c = config(opt__lr=0.03, opt__warmup=0.0)
  train, val = smoothed(), smoothed(seed=1)
  learning = localizer.Learning(c, paired(val), steps=50)
  state = jax.jit(learning.init)(jax.random.key(0))
  before = learning.evaluate(state, gather)
  step = jax.jit(learning.step)
  pairs = batch(paired(train))
  for _ in range(50):
    state, _ = step(state, pairs)
  after = learning.evaluate(state, gather)
  assert after["pixel_auc"] > 0.9 > before["pixel_auc"]
  assert after["loss"] < before["loss"] / 1.5


def run(path, *flags):
  return main.main(["", f"--config={CONFIG}", f"--workdir={path}", *flags])


def result(path):
  return json.loads((path / "result.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("localizer") / "run"
  assert run(path) == 0
  return path


def test_a_run_reports_by_way_what_its_rows_say(trained):
  outcome = result(trained)
  rows = disk.read_csv(trained / "predictions.csv")
  test = [x for x in rows if x["split"] == "test"]
  assert len(test) == outcome["counts"]["test"]["images"]
  altered = [x for x in test if x["way"] != "none"]
  assert 0 < len(altered) < len(test)
  table = {x["way"]: x for x in outcome["ways"]}
  assert table.keys() == {"all", *(x["way"] for x in altered)}
  assert table["all"]["pictures"] == len(altered)
  for way, row in table.items():
    those = [x for x in altered if way in ("all", x["way"])]
    for figure, column in (("pixel_auc", "pixel_auc"), ("iou", "iou")):
      mean = np.mean([float(x[column]) for x in those])
      assert row[figure]["value"] == pytest.approx(mean, abs=1e-4)
  pictures = {x.name for x in (trained / "pictures").iterdir()}
  assert {"maps-00000004.png", "preview-00000004.png"} <= pictures


def test_a_stopped_run_ends_equal(trained, tmp_path, monkeypatch):
  add = loop.Window.add

  def killed(self, steps, metrics):
    if 3 in steps:
      raise KeyboardInterrupt
    add(self, steps, metrics)

  with monkeypatch.context() as patch:
    patch.setattr(loop.Window, "add", killed)
    assert run(tmp_path / "run") == errors.INTERRUPTED
  assert run(tmp_path / "run") == 0
  for name in ("state_sha256", "calibration", "ways", "best"):
    assert result(tmp_path / "run")[name] == result(trained)[name]


def test_detect_draws_its_maps(trained, tmp_path, capsys):
  rng = np.random.default_rng(0)
  rows, columns = np.indices((80, 70))
  gray = 128 + 60 * np.sin(rows / 9) * np.cos(columns / 7)
  gray = (gray + rng.normal(0, 4, gray.shape)).clip(0, 255).astype(np.uint8)
  Image.fromarray(gray).save(tmp_path / "lungs.png")
  flags = ["--model", trained, "--maps", tmp_path / "maps"]
  flags += ["--jsonl", tmp_path / "rows.jsonl", tmp_path / "lungs.png"]
  assert detect.main([str(x) for x in flags]) == 0
  row = json.loads((tmp_path / "rows.jsonl").read_text())
  found = localizer.load(trained)
  (said,) = found.judge([gray])
  assert row["p_fake"] == said["p_fake"] and row["verdict"] == said["verdict"]
  (drawn,) = (tmp_path / "maps").iterdir()
  assert np.asarray(Image.open(drawn)).shape == (80, 70, 3)
  # The score is of the map, and the map's 1 is the threshold.
  logits = picture_maps.mapped(found.score, gray)
  p = found.rule.probability(localization.top(logits))
  assert said["p_fake"] == pytest.approx(p)
  above = logits >= found.rule.threshold
  np.testing.assert_array_equal(found.map(gray) >= 1, above)


def test_thresholds_are_validations():
  rng = np.random.default_rng(0)
  rows = []
  for k in range(40):
    logits = rng.normal(-4, 1, (20, 20))
    mask = np.zeros(logits.shape, bool)
    mask[5:10, 5:10] = k % 2
    logits[mask] = rng.normal(6, 0.2, mask.sum())
    row = {"label": k % 2, "score": localization.top(logits)}
    if k % 2:
      row |= localization.measured(logits, mask, picture_maps.THRESHOLDS)
    rows.append(row)
  rule, chosen = picture_maps.settle(rows)
  assert 0 <= rule.threshold < 5.5
  assert rule.threshold == picture_maps.THRESHOLDS[chosen]
  p = rule.probability([x["score"] for x in rows])
  labels = np.array([x["label"] for x in rows])
  assert p[labels == 1].min() >= rule.fake_at_least > 0.5
  assert p[labels == 0].max() <= rule.real_at_most < 0.5


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(data__name="phantom"), "data.name is 'phantom': task localizer"),
    (dict(window=36), "window is 36: expected a multiple of 8 pixels"),
    (
      dict(window=16),
      "window is 16: expected a multiple of 8 pixels, at least",
    ),
    (dict(most_val=1), "most_val is 1: expected at least 2"),
    (dict(compressed=1.5), "compressed is 1.5: expected a share"),
    (dict(model__width=0), "model.width is 0: expected at least 1"),
    (dict(opt__lr=0.0), "opt.lr is 0.0: expected above 0"),
    (dict(opt__warmup=1.0), "opt.warmup is 1.0: expected 0 to below 1"),
    (dict(dtype="float16"), "dtype is 'float16'"),
    (dict(data__tampered__jpeg=101), "data.tampered.jpeg is 101"),
    (dict(data__tampered__draws=0), "data.tampered.draws is 0: expected"),
    (dict(data__tampered__leaky=True), "data.tampered.leaky is True"),
    (dict(data__tampered__region=64), "data.tampered.region is 64: expected 0"),
  ],
)
def test_mistakes_are_refused_by_name(changes, message):
  with pytest.raises(errors.ConfigError, match=message):
    localizer.check(config(**changes))


def test_pictures_are_not_resampled(tmp_path, capsys):
  assert run(tmp_path / "run", "--config.data.fit=crop") == errors.MISTAKE
  assert "data.fit is 'crop': expected one of native" in capsys.readouterr().err

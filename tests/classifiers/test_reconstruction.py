"""The reconstruction: what it hides, its maps, a run, what it says of files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from places import CONFIGS
import pytest

from jaxfake import configuration, detect, errors, main
from jaxfake.classifiers import rarity, reconstruction
from jaxfake.data.sources import Rows
from jaxfake.data.tampered import windows
from jaxfake.evaluation import localization
from jaxfake.models import reconstruction as models
from jaxfake.runtime import disk
from jaxfake.training import loop

CONFIG = CONFIGS / "reconstruction.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def lungs(shape=(80, 70), seed=0):
  """A picture that passes for a radiograph."""
  rows, columns = np.indices(shape)
  gray = 128 + 60 * np.sin(rows / 9) * np.cos(columns / 7)
  gray += np.random.default_rng(seed).normal(0, 4, shape)
  return gray.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("period", reconstruction.PERIODS)
def test_every_pixel_is_hidden_once(period):
  every = reconstruction.ways((37, 50), 4, period)
  assert every.shape == (37, 50, period**2)
  assert (every.sum(-1) == 1).all()
  # In whole squares, away from the border.
  assert every[:4, :4, 0].all() and not every[4:8, :8, 0].any()


def test_a_run_hides_at_random_what_a_map_hides_in_turn():
  c = config()
  which = np.asarray(
    reconstruction.drawn(jax.random.key(0), c, (64, 32, 32, 1))
  )
  shares = which.mean((1, 2, 3))
  assert abs(shares - 1 / c.period**2).max() < 0.1
  assert len({x.tobytes() for x in which}) > 20
  every = reconstruction.ways((32, 32), c.square, c.period)
  in_turn = {x.tobytes() for x in np.moveaxis(every, -1, 0)}
  assert in_turn & {x[..., 0].tobytes() for x in which}


@pytest.fixture(scope="module")
def score():
  """Of a network with random weights and statistics."""
  made = jax.jit(lambda key: reconstruction.begun(config(), key))(
    jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  stats = jax.tree.map(
    lambda x: x + rng.uniform(-0.1, 0.1, x.shape).astype(np.float32),
    made["batch_stats"],
  )
  made = made | {"batch_stats": stats}
  fn = jax.jit(reconstruction.scorer(config()))
  net = reconstruction.network(config())
  said = jax.jit(lambda *x: net.apply(made, *x, train=False))
  return lambda image: fn(made, image), said


def test_a_hidden_pixel_has_no_part_in_what_is_said_of_it(score):
  c, gray = config(), lungs((64, 64)).astype(np.float32)
  which = reconstruction.ways(gray.shape, c.square, c.period)[..., 3]
  rng = np.random.default_rng(1)
  other = np.where(which, rng.uniform(0, 255, gray.shape), gray)
  seen = np.where(which, gray, rng.uniform(0, 255, gray.shape))

  def said(x):
    mean, deviation = score[1](
      x[None, ..., None].astype(np.float32),
      which[None, ..., None].astype(np.float32),
    )
    assert (deviation >= models.LEAST).all()
    return np.stack([mean[0], deviation[0]])[:, which]

  np.testing.assert_array_equal(said(other), said(gray))
  assert (said(seen) != said(gray)).mean() > 0.9


def test_a_map_by_tiles_is_the_map_at_once(score):
  gray = lungs((70, 150))
  whole = reconstruction.mapped(score[0], config(), gray)
  assert whole.shape == gray.shape and (whole != 0).all()
  by_tiles = reconstruction.mapped(score[0], config(), gray, tile=64)
  np.testing.assert_allclose(by_tiles, whole, atol=1e-4 * abs(whole).max())


def test_the_loss_is_laplaces_of_hidden_pixels():
  rng = np.random.default_rng(0)
  gray = rng.uniform(0, 255, (2, 8, 8, 1))
  which = rng.integers(0, 2, gray.shape)
  mean, deviation = rng.uniform(1, 9, (2, 2, 8, 8))
  parts = reconstruction.likelihood(
    *map(jnp.asarray, (gray, which, mean)), deviation
  )
  off = abs(gray[..., 0] - mean)
  density = np.exp(-off / deviation) / (2 * deviation)
  hidden = which[..., 0] > 0
  assert float(parts[:, 0].sum()) == pytest.approx(
    -np.log(density[hidden]).sum(), rel=1e-4
  )
  assert float(parts[:, 1].sum()) == pytest.approx(off[hidden].sum(), rel=1e-4)
  assert float(parts[:, 2].sum()) == hidden.sum()


def test_windows_lie_anywhere_in_an_original():
  rows, columns = np.indices((40, 50))
  image = np.stack([rows + 4 * columns] * 2).astype(np.uint8)[..., None]
  some = windows.Squares(Rows(image=image), 32, 0.0, 30, seed=0)
  assert len(some) == 60
  corners = set()
  for i in range(60):
    cut = some[i]["image"]
    assert cut.shape == (32, 32, 1)
    x, y = divmod(int(cut[0, 0, 0]), 4)
    corners.add((x, y))
  assert len(corners) > 20
  np.testing.assert_array_equal(some[7]["image"], some[7]["image"])
  jpegs = windows.Squares(Rows(image=image), 64, 1.0, 1, seed=0)
  assert jpegs[0]["image"].shape == (64, 64, 1)
  assert (jpegs[0]["image"][:40, :50] != image[0]).any()


def test_what_is_smooth_and_what_is_rough_stand_out():
  rng = np.random.default_rng(0)
  plain = rng.laplace(size=(3, 64, 64)).astype(np.float32)
  gray = rng.integers(1, 255, (64, 64), np.uint8)
  rule = rarity.settle([rarity.unusual(x, gray, 4) for x in plain])
  off = plain[0].copy()
  off[8:24, 8:24] /= 6
  off[40:56, 40:56] *= 6
  gray[:32, 40:] = 255
  signed = rarity.unusual(off, gray, 4)
  assert signed[12:20, 12:20].max() < 0 < signed[44:52, 44:52].min()
  found = rule.evidence(signed)
  for place in (slice(12, 20), slice(44, 52)):
    assert found[place, place].mean() > 2 > 4 * np.median(found)
  assert found[4:28, 44:].max() == 0  # Saturated.
  assert found[:4].max() == found[:, -4:].max() == 0 < found[4:, 4:-4].max()


def run(path, *flags):
  return main.main(["", f"--config={CONFIG}", f"--workdir={path}", *flags])


def result(path):
  return json.loads((path / "result.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """On the phantom as it is: no set of altered pictures is made."""
  path = tmp_path_factory.mktemp("reconstruction") / "run"
  assert run(path) == 0
  return path


def test_a_run_learns_from_originals_and_reports(trained):
  outcome = result(trained)
  assert outcome["dataset"]["name"] == "phantom"
  assert outcome["counts"]["test"] == {"images": 4, "patients": 3}
  rows = disk.read_csv(trained / "predictions.csv")
  val, test = (
    [x for x in rows if x["split"] == name] for name in ("val", "test")
  )
  scores = outcome["calibration"]["scores"]
  told = sorted(float(x["score"]) for x in val)
  assert told == pytest.approx(scores, rel=1e-4)
  for name, share in outcome["test_originals"].items():
    assert share == np.mean([x["verdict"] == name for x in test])
  pictures = {x.name for x in (trained / "pictures").iterdir()}
  assert {"maps-00000004.png", "preview-00000004.png"} <= pictures
  lines = disk.read_lines(trained / "metrics.jsonl")
  assert all(x["eval/error"] > 0 for x in lines if "eval/loss" in x)


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
  for name in ("state_sha256", "calibration", "best"):
    assert result(tmp_path / "run")[name] == result(trained)[name]


def test_detect_draws_its_maps(trained, tmp_path, capsys):
  gray = lungs()
  Image.fromarray(gray).save(tmp_path / "lungs.png")
  flags = ["--model", trained, "--maps", tmp_path / "maps"]
  flags += ["--jsonl", tmp_path / "rows.jsonl", tmp_path / "lungs.png"]
  assert detect.main([str(x) for x in flags]) == 0
  row = json.loads((tmp_path / "rows.jsonl").read_text())
  found = reconstruction.load(trained)
  (said,) = found.judge([gray])
  assert {k: row[k] for k in said} == said
  (drawn,) = (tmp_path / "maps").iterdir()
  assert np.asarray(Image.open(drawn)).shape == (80, 70, 3)
  # The rank is of the map's score, and the map's 1 is the threshold.
  evidence = found.evidence(gray)
  scores = result(trained)["calibration"]["scores"]
  below = np.sum(np.array(scores) < localization.top(evidence))
  assert said["p_fake"] == below / (len(scores) + 1)
  above = evidence >= rarity.THRESHOLD
  np.testing.assert_array_equal(found.map(gray) >= 1, above)


def test_thresholds_are_of_validations_originals():
  rng = np.random.default_rng(0)
  # The upper tail is longer than the lower.
  made = lambda: np.exp(rng.normal(size=(60, 60))) - 1
  rule = rarity.settle([made() for _ in range(199)])
  found = np.concatenate([rule.evidence(made()).ravel() for _ in range(50)])
  for rare in (1, 2, 3):
    share = (found >= rare).mean()
    assert share == pytest.approx(10.0**-rare, rel=0.3)
  # Further than any, and still told apart.
  far = rule.evidence(np.array([100.0, 200.0]))
  assert 4 < far[0] < far[1]
  # Of 200 that are alike, a new one among them, 2 are called fake.
  scores = np.array(rule.scores)
  among = rule.rank(np.append(scores + 1e-9, scores[0] - 1))
  said = rule.verdicts(among)
  assert said.count("fake") == 2 and said.count("real") == 181
  few = rarity.settle([made() for _ in range(50)])
  assert few.verdicts(few.rank([1e9])) == ["uncertain"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(data__name="tampered"), "data.name is 'tampered': expected one of"),
    (dict(window=36), "window is 36: expected a multiple of 8 pixels"),
    (dict(period=5), "period is 5: expected one of 2, 3, 4"),
    (dict(square=1), "square is 1: expected at least 2 pixels"),
    (dict(square=17), "square is 17: expected at least 2 pixels, and period"),
    (dict(draws=0), "draws is 0: expected at least 1"),
    (dict(most_val=1), "most_val is 1: expected at least 2"),
  ],
)
def test_mistakes_are_refused_by_name(changes, message):
  with pytest.raises(errors.ConfigError, match=message):
    reconstruction.check(config(**changes))

"""Localizers that learn half of the patients of others' pictures."""

import jax
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import errors
from jaxfake.classifiers import localizer, picture_maps
from jaxfake.configuration import parse
from jaxfake.data import reading
from jaxfake.data.tampered.windows import ALTERED, UNALTERED
from jaxfake.experiments.tampering import centres, halves, maps
from jaxfake.runtime import disk

CONFIG = CONFIGS / "tampering.py:tiny"
RADIUS = 6.0


def slices(folder, n=12, side=96, patients=6):
  """Dark noise with a bright disc, left in one and right in the next."""
  rng = np.random.default_rng(0)
  folder.mkdir()
  lines = ["file,type,patient,x,y"]
  for k in range(n):
    x, y = int(rng.integers(15, 35)), int(rng.integers(15, 80))
    x = x if k % 2 else side - 1 - x
    gray = rng.integers(20, 60, (side, side), np.uint8)
    gray[centres.disc(gray.shape, [(x, y)], RADIUS)] += 150
    (folder / f"{k}.png").write_bytes(reading.png(gray))
    lines.append(f"{k}.png,{('FB', 'FM')[k % 3 > 0]},{k % patients},{x},{y}")
  (folder / "labels.csv").write_text("\n".join(lines) + "\n")
  return folder


def configured(folder, *flags):
  mine = [f"--config.centres={folder}", f"--config.centres_px={RADIUS}"]
  return parse(["", f"--config={CONFIG}", *mine, *flags])[0]


def picture(*middles, side=96):
  gray = np.full((side, side), 50, np.uint8)
  gray[centres.disc(gray.shape, middles, RADIUS)] = 200
  return {"file": "a.png", "gray": gray, "middles": list(middles)}


def test_a_disc_stands_beside_its_place_in_the_mirror():
  pairs = halves.Discs([picture((38, 40))], 48, RADIUS, seed=0)
  assert len(pairs) == halves.DRAWS
  seen = set()
  for i in range(len(pairs)):
    image, mask = (pairs[i][name][..., 0] for name in ("image", "mask"))
    assert image.shape == mask.shape == (2, 48, 48)
    # Bright is what is altered; in the mirror it has no loss.
    np.testing.assert_array_equal(image[1] == 200, mask[1] == ALTERED)
    np.testing.assert_array_equal(image[0] == 200, mask[0] == halves.NEITHER)
    same = np.where(image[0] == 200, halves.NEITHER, mask[1])
    same = np.where(same == ALTERED, UNALTERED, same)
    np.testing.assert_array_equal(mask[0], same)
    seen.add(tuple(np.argwhere(mask[1]).min(0)))
  assert len(seen) > halves.DRAWS / 2
  again = halves.Discs([picture((38, 40))], 48, RADIUS, seed=0)
  other = halves.Discs([picture((38, 40))], 48, RADIUS, seed=1)
  same = lambda a, b: all(
    (a[i]["image"] == b[i]["image"]).all() for i in range(len(a))
  )
  assert same(pairs, again) and not same(pairs, other)


def test_what_lies_on_its_mirror_image_is_not_learnt():
  middle, pair = (47, 40), [(20, 30), (78, 30)]
  made = lambda *which: len(halves.Discs([*which], 48, RADIUS, seed=0))
  assert made(picture(middle)) == made(picture(*pair)) == 0
  assert made(picture(pair[0])) == made(picture(pair[0], middle))


def test_no_loss_is_of_what_is_altered_in_the_mirror():
  mask = np.array([halves.NEITHER, UNALTERED], np.uint8).reshape(1, 1, 2, 1)
  gradient = jax.grad(lambda x: localizer.balanced(localizer.losses(x, mask)))
  slope = np.asarray(gradient(np.zeros((1, 1, 2), np.float32)))
  np.testing.assert_allclose(slope.ravel(), [0, 1 / 8])


def test_every_patient_is_in_one_half():
  pictures = [{"patient": str(k % 7)} for k in range(20)]
  first, second = halves.split(pictures, 0)
  assert first | second == set("0123456") and not first & second
  assert {len(first), len(second)} == {3, 4}
  assert any(halves.split(pictures, k)[0] != first for k in range(1, 4))


def test_figures_are_those_written_out():
  rng = np.random.default_rng(0)
  evidence = rng.integers(0, 9, (12, 10)).astype(np.float32)
  near = centres.disc(evidence.shape, [(3, 4)], 2)
  found = centres.figures(evidence, near)
  inside, outside = evidence[near], evidence[~near]
  wins = inside[:, None] - outside
  assert found["auc"] == pytest.approx(((np.sign(wins) + 1) / 2).mean())
  mirrored = [evidence[y, 9 - x] for y, x in np.argwhere(near)]
  assert found["above"] == (inside.mean() > np.mean(mirrored))
  turned = centres.figures(-evidence, near)
  assert turned["above"] == 1 - found["above"]
  assert centres.figures(0 * evidence, near)["above"] == 0.5


def test_each_half_is_measured_by_what_learnt_the_other(tmp_path):
  steps = ["--config.centres_steps=40", "--config.left_out="]
  learns = ["--config.localizer.opt.lr=0.03"]
  config = configured(slices(tmp_path / "slices"), *steps, *learns)
  halves.check(config)
  path = tmp_path / "run"
  assert halves.train(config, path) == 0
  pictures = centres.read(tmp_path / "slices")
  own = halves.split(pictures, config.seed)
  of = halves.trained(config, path)
  for half, other in ((0, 1), (1, 0)):
    c = halves.learning(config, other)
    model = localizer.restored(halves.folder(path, other), c)
    for about in [x for x in pictures if x["patient"] in own[half]][:1]:
      gray = centres.opened(tmp_path / "slices", about)
      (drawn,) = of(about["patient"])
      score = lambda x, model=model: localizer.scorer(config.localizer)(
        model, x
      )
      want = picture_maps.mapped(score, gray)
      np.testing.assert_allclose(drawn.of(gray), want, rtol=1e-3, atol=1e-3)
  rows = {x["type"]: x for x in centres.measured(config, of)}
  assert rows.keys() == {"all", "FB", "FM"}
  assert rows["all"]["map"] == maps.HALF and rows["all"]["patients"] == 6
  assert rows["all"]["auc"]["value"] > 0.9 > 0.5 > rows["all"]["chance"]
  assert rows["all"]["above"]["value"] > 0.9
  result = disk.read_json(path / "runs/half-1/result.json")
  assert result["dataset"]["patients"] == 3 and result["config"]["start"] == ""
  # What is finished is not done again.
  result["step"] = "kept"
  disk.write_json(path / "runs/half-1/result.json", result)
  assert halves.train(config, path) == 0
  assert disk.read_json(path / "runs/half-1/result.json")["step"] == "kept"


def test_begins_as_the_localizer_of_all_methods(tmp_path, monkeypatch):
  begun = []

  def train(config, task, source, run):
    begun.append(task.start and task.start(localizer.State(*range(5))))
    return 0

  restored = lambda path, config: {"params": path, "batch_stats": None}
  monkeypatch.setattr(halves.loop, "train", train)
  monkeypatch.setattr(localizer, "restored", restored)
  folder, path = slices(tmp_path / "slices"), tmp_path / "run"
  assert halves.train(configured(folder), path) == 0
  assert halves.train(configured(folder, "--config.left_out="), path) == 0
  known, new = begun[:2], begun[2:]
  assert {x.params for x in known} == {path / "runs/all-methods"}
  assert known[0].step == 0 and new == [None, None]


def test_mistakes_are_refused_by_name(tmp_path):
  few = slices(tmp_path / "few", patients=3)
  message = "names 3 patients, expected at least 4"
  with pytest.raises(errors.ConfigError, match=message):
    halves.check(configured(few))
  halves.check(configured(few, "--config.centres_steps=0"))
  with pytest.raises(errors.ConfigError, match="centres_steps is -1: expected"):
    halves.check(configured(few, "--config.centres_steps=-1"))
  flags = "--config.localizer.window=9", "--config.left_out="
  narrow = configured(slices(tmp_path / "narrow"), *flags)
  with pytest.raises(errors.ConfigError, match="window is 9: expected a mult"):
    halves.check(narrow)
  small = slices(tmp_path / "small", side=96)
  config = configured(small, "--config.localizer.window=128")
  message = "has 96 x 96 pixels: expected at least localizer.window, 128"
  with pytest.raises(errors.DataError, match=message):
    halves.train(config, tmp_path / "run")
  labels = small / "labels.csv"
  labels.write_text(labels.read_text().replace("0.png,FB,0,", "0.png,FB,0,1"))
  message = r"a middle of 0.png at 1\d+, \d+: expected one within its 96 x 96"
  with pytest.raises(errors.DataError, match=message):
    halves.opened(configured(small), 0)
    halves.opened(configured(small), 1)

"""Finding altered regions by their noise, and the experiment."""

import json

import numpy as np
from places import CONFIGS
import pytest
from scipy import ndimage

from jaxfake import errors, main
from jaxfake.classifiers import inconsistency
from jaxfake.configuration import parse
from jaxfake.data import reading
from jaxfake.evaluation import localization
from jaxfake.experiments import tampering
from jaxfake.experiments.tampering import centres, maps
from jaxfake.runtime import disk

CONFIG = CONFIGS / "tampering.py:tiny"


def noisy(seed=0, gain=1.0):
  """A picture whose noise grows with its gray level, darker to the left."""
  rng = np.random.default_rng(seed)
  gray = 40 + np.indices((128, 128))[1] + 20 * np.hypot(*rng.normal(size=2))
  return rng.normal(gray, gain * np.sqrt(gray / 4))


def test_a_blob_without_noise_is_found_and_gray_levels_are_not():
  picture = noisy()
  mask = np.zeros(picture.shape, bool)
  mask[60:80, 90:110] = True
  blurred = ndimage.gaussian_filter(picture, 3)
  altered = np.where(mask, blurred, picture).clip(0, 255).astype(np.uint8)
  found = inconsistency.evidence(altered)
  got = localization.measured(found, mask, maps.THRESHOLDS)
  assert got["auc"] > 0.95 and got["hit"] and max(got["iou"]) > 0.6
  # The dark side has less noise, as the picture's own function predicts.
  plain = inconsistency.evidence(picture.clip(0, 255).astype(np.uint8))
  assert abs(plain[:, :40].mean() - plain[:, -40:].mean()) < 0.3
  assert plain.max() < 0.6 * found.max()
  # What is saturated has no noise, and is no evidence.
  cut = np.where(mask, 255, picture.clip(0, 240)).astype(np.uint8)
  assert inconsistency.evidence(cut)[64:76, 94:106].max() == 0


def altered_by_others(folder):
  """Pictures of noise, of four patients, that have a middle each."""
  rng = np.random.default_rng(0)
  table_of(folder, [(f"{k}.png", "FM", k, 8, 16 + k) for k in range(4)])
  for k in range(4):
    gray = rng.integers(0, 256, (40, 48), np.uint8)
    (folder / f"{k}.png").write_bytes(reading.png(gray))
  return folder


def test_the_experiment_runs_and_goes_on(tmp_path, monkeypatch, capsys):
  path = tmp_path / "run"
  others = altered_by_others(tmp_path / "others")
  argv = ["", f"--config={CONFIG}", f"--workdir={path}"]
  argv += [f"--config.centres={others}", "--config.centres_px=4.0"]
  done, of_original = [], tampering.of_original

  def killed(*args):
    if len(done) == 2:
      raise KeyboardInterrupt
    done.append(args)
    return of_original(*args)

  with monkeypatch.context() as patch:
    patch.setattr(tampering, "of_original", killed)
    assert main.main(argv) == errors.INTERRUPTED
  assert len((path / "rows.jsonl").read_text().splitlines()) == 2
  assert main.main(argv) == 0
  result = json.loads((path / "result.json").read_text())
  known = {
    name: {
      x["way"]: x
      for x in localization.of(result["ways"], map=name, delivery="as it is")
    }
    for name in ("noise", "reconstruction", "trained", "left out")
  }
  ways = known["noise"]
  assert len(ways) == 15 and ways["untampered"]["pictures"] == 6
  assert known["trained"].keys() == ways.keys()
  assert known["reconstruction"].keys() == ways.keys()
  assert result["thresholds"].keys() == {"noise", "reconstruction"}
  original = disk.read_json(path / "runs/reconstruction/result.json")
  assert original["dataset"] == result["dataset"]["originals"]
  # One of its ways alone was left out.
  assert known["left out"].keys() == {
    *("untampered", "remove harmonic", "remove harmonic, touched up")
  }
  plate = ways["remove biharmonic"]["pixel_auc"]
  assert plate["low"] > ways["untampered"]["pixel_auc"]["value"]
  assert {x["delivery"] for x in result["ways"]} == {
    *("as it is", "JPEG 90", "JPEG 75", "resize 0.5")
  }
  assert {x["mm"] for x in result["sizes"]} == {16, 40}
  assert {"containers", "shortcut_probe", "leaks"} <= result["audit"].keys()
  rows = disk.read_csv(path / "cells.csv")
  test = localization.of(rows, split="test")
  assert len(localization.of(test, map="noise")) == 6 * (15 + 8 * 3)
  harmonic = dict(way="remove harmonic", delivery="as it is", map="left out")
  mine = [float(x["auc"]) for x in localization.of(test, **harmonic)]
  assert known["left out"]["remove harmonic"]["pixel_auc"][
    "value"
  ] == pytest.approx(np.mean(mine))
  others = {x["map"]: x["pictures"] for x in result["centres"]}
  each = "noise", "reconstruction", "trained", "other half"
  assert others == dict.fromkeys(each, 4)
  learnt = disk.read_json(path / "runs/without-remove-harmonic/config.json")
  assert learnt["data"]["tampered"]["remove"] == "median,copy-move,biharmonic"
  assert learnt["data"]["tampered"]["inject"] == ""
  for page in ("report.md", "report.html"):
    text = (path / page).read_text()
    assert "remove harmonic, touched up" in text and "AUC of pixels" in text
    assert "above its mirror image" in text and "other half" in text
  assert len(list((path / "pictures").glob("*.png"))) == 14


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--config.deliveries=JPEG 91", "deliveries is 'JPEG 91'"),
    ("--config.sizes_mm=(0.0,)", "expected one at least, and millimetres"),
    ("--config.left_out=remove plate", "left_out is 'remove plate': expected"),
    ("--config.localizer.window=9", "window is 9: expected a multiple"),
    ("--config.reconstruction.square=1", "square is 1: expected at least 2"),
    ("--config.data.tampered.leaky=True", "leaky is True: expected False"),
    ("--config.most=1", "most is 1: expected at least 2"),
    ("--config.data.name=phantom", "data.name is 'phantom': expected tampered"),
  ],
)
def test_mistakes_are_refused_by_name(flag, message):
  config = parse(["", f"--config={CONFIG}", flag])[0]
  with pytest.raises(errors.ConfigError, match=message.replace("(", r"\(")):
    tampering.check(config)


def test_the_only_method_of_a_kind_cannot_be_left_out():
  flags = ["--config.data.tampered.inject=nodule"]
  flags += ["--config.left_out=inject nodule"]
  config = parse(["", f"--config={CONFIG}", *flags])[0]
  message = "left_out is 'inject nodule': expected another method to inject"
  with pytest.raises(errors.ConfigError, match=message):
    tampering.check(config)


def table_of(folder, rows, header="file,type,patient,x,y"):
  folder.mkdir(exist_ok=True)
  lines = [header, *(",".join(map(str, row)) for row in rows)]
  (folder / "labels.csv").write_text("\n".join(lines) + "\n")
  return parse(["", f"--config={CONFIG}", f"--config.centres={folder}"])[0]


def test_peaks_near_the_known_middle_are_counted(tmp_path):
  rows = [
    ("a.png", "FM", 1, 30, 60),
    ("b.png", "FB", 2, 90, 20),
    ("b.png", "FM", 2, 40, 100),
    ("c.png", "FM", 3, 64, 64),
  ]
  config = table_of(tmp_path, rows)
  for name, (x, y) in {"a": (30, 60), "b": (45, 95), "c": (100, 100)}.items():
    gray = np.zeros((128, 128), np.uint8)
    gray[y, x] = 200
    (tmp_path / f"{name}.png").write_bytes(reading.png(gray))
  centres.check(config)
  seen = maps.Map("itself", "", lambda x: x.astype(np.float32), None, None)
  table = {
    x["type"]: x for x in centres.measured(config, lambda patient: [seen])
  }
  assert {k: x["hit"]["value"] for k, x in table.items()} == {
    "all": pytest.approx(2 / 3),
    "FB+FM": 1,
    "FM": 0.5,
  }
  assert table["all"]["patients"] == 3
  disc = np.pi * 20**2 / 128**2
  assert table["FM"]["chance"] == pytest.approx(disc, rel=0.03)


@pytest.mark.parametrize(
  ("rows", "header", "message"),
  [
    ([("a.png", "FM", 1, 5, 5)], "file,type,patient,x,y", "1 are missing"),
    ([], "file,type,patient,x,y", "names 0 pictures"),
    ([("a.png", 5, 5)], "file,x,y", "is no table of file, type, patient"),
    ([("a.png", "FM", 1, "left", 5)], "file,type,patient,x,y", "is no table"),
  ],
)
def test_a_folder_without_its_table_is_refused(tmp_path, rows, header, message):
  with pytest.raises(errors.ConfigError, match=message):
    tampering.check(table_of(tmp_path / "others", rows, header))

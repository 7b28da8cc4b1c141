"""The protocol of fewer than 100 train images."""

import csv
import json

import numpy as np
from places import CONFIGS
import pytest

from jaxfake import errors, main
from jaxfake.experiments import few_images

CONFIG = CONFIGS / "few_images.py:tiny"


def test_a_draw_is_balanced_and_of_different_patients():
  labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
  patients = ["a", "a", "b", "c", "c", "d", "e", "f"]
  for seed in range(20):
    chosen = few_images.draw(labels, patients, 4, np.random.default_rng(seed))
    assert sorted(labels[chosen]) == [0, 0, 1, 1]
    assert len({patients[i] for i in chosen}) == 4
  draws = {
    tuple(few_images.draw(labels, patients, 4, np.random.default_rng(s)))
    for s in range(20)
  }
  assert len(draws) > 5
  with pytest.raises(errors.DataError, match="1 are missing"):
    few_images.draw(labels, patients, 6, np.random.default_rng(0))


def test_rows_by_hand():
  draws = [
    {"images": 4, "draw": i, "program": p, "auc": a, "balanced_accuracy": 0.5}
    for p, aucs in (("reservoir", (0.7, 0.9)), ("hog", (0.6, 0.9)))
    for i, a in enumerate(aucs)
  ]
  ours, other = few_images.rows(draws)
  assert ours["auc_mean"] == pytest.approx(0.8) and "lead_mean" not in ours
  assert other["lead_mean"] == pytest.approx(0.05)
  assert other["lead_low"] == pytest.approx(0.0025)


def test_the_protocol_runs_and_every_draw_is_kept(tmp_path, capsys):
  path = tmp_path / "run"
  argv = ["", f"--config={CONFIG}", f"--workdir={path}"]
  assert main.main(argv) == 0
  result = json.loads((path / "result.json").read_text())
  draws = list(csv.DictReader((path / "draws.csv").open()))
  assert len(draws) == 2 * 3 * 5
  row = result["rows"][0]
  of = [
    float(x["auc"])
    for x in draws
    if (x["images"], x["program"]) == (str(row["images"]), row["program"])
  ]
  assert row["auc_mean"] == pytest.approx(np.mean(of))
  assert (path / "auc.png").exists()
  assert "| reservoir |" in (path / "table.md").read_text()
  # The phantom the CNN was trained on has other patients.
  phantom = json.loads((path / "runs/phantom/config.json").read_text())
  assert phantom["data"]["phantom"]["seed"] == 1
  assert result["config"]["data"]["phantom"]["seed"] == 0


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--config.programs=hog", "expected reservoir among them"),
    ("--config.programs=reservoir,svm", "programs is 'svm'"),
    ("--config.sizes=(5,)", "sizes has 5: expected even"),
    ("--config.resamples=1", "resamples is 1"),
  ],
)
def test_mistakes_are_refused_by_name(flag, message, capsys):
  assert main.main(["", f"--config={CONFIG}", flag]) == 2
  assert message in capsys.readouterr().err

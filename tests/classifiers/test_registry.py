"""Programs fitted at once train, and score from their folder, in one way;
networks do so in test_neural.py."""

import json

import numpy as np
from places import CONFIGS
import pytest

from jaxfake import data, errors, main
from jaxfake.classifiers import registry
from jaxfake.data import pipeline

CONFIG = CONFIGS / "classifier.py:tiny"
SMALL = {  # Flags that make a program small.
  "svm": ("--config.classical.features=pixels,spectrum",),
  "random_forest": ("--config.classical.features=hog",),
  "decision_tree": ("--config.classical.features=network",),
  "reservoir": ("--config.reservoir.units=20",),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_program_trains_and_its_folder_scores(name, tmp_path):
  path = tmp_path / "run"
  flags = (f"--config.model.name={name}", *SMALL[name])
  argv = ["", f"--config={CONFIG}", f"--workdir={path}", *flags]
  assert main.main(argv) == 0
  result = json.loads((path / "result.json").read_text())
  assert {"auc", "accuracy", "ece", "brier"} <= result["figures"].keys()
  assert result["cost"]["parameters"] > 0
  classifier = registry.load(path)
  assert classifier.classes == ("NORMAL", "PNEUMONIA")
  assert classifier.threshold == result["calibration"]["threshold"]
  source = data.prepare(classifier.config.data).source("test")
  source = pipeline.Images(source, classifier.config.data)
  images = np.stack([source[i]["image"] for i in range(len(source))])
  p = classifier.probabilities(images)
  np.testing.assert_allclose(p.sum(1), 1)
  # One at a time gives the same: nothing depends on the batch.
  np.testing.assert_allclose(
    classifier.probabilities(images[3:4]), p[3:4], atol=1e-5
  )
  lines = (path / "predictions.csv").read_text().splitlines()[1:]
  want = [float(x.split(",")[-1]) for x in lines if x.startswith("test,")]
  np.testing.assert_allclose(p[:, 1], want, atol=1e-4)
  # The same command again does no harm.
  assert main.main(argv) == 0


def test_folders_of_other_things_are_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match="not a run's folder"):
    registry.load(tmp_path)
  (tmp_path / "result.json").write_text("{}")
  with pytest.raises(errors.ConfigError, match="not of a classifier"):
    registry.load(tmp_path)

"""The study's chain: what it trains, what it says, and going on."""

import json
import re

import numpy as np
import pytest

from jaxfake import configuration, errors, run
from jaxfake.classifiers import registry
from jaxfake.evaluation import metrics
from jaxfake.experiments import study
from jaxfake.experiments.study import configs, figures

TINY = "configs/study.py:tiny"


def config(*flags):
  return configuration.parse(["", f"--config={TINY}", *flags])[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A study interrupted in the middle, and gone on with."""
  path = tmp_path_factory.mktemp("study")
  c = config("--config.show_leaking=True")
  started = []

  def interrupted(run_config, place):
    started.append(place.name)
    if place.name == "unseen":
      return 75
    return run.train(run_config, place)

  def train(run_config, place):
    started.append(place.name)
    return run.train(run_config, place)

  assert study.run(c, path, interrupted) == 75
  assert not (path / "result.json").exists()
  assert study.run(c, path, train) == 0
  return path, json.loads((path / "result.json").read_text()), started


def test_it_goes_on_where_it_stopped(finished):
  path, _, started = finished
  twice = {name for name in started if started.count(name) > 1}
  assert started.index("unseen") == started.index("other_seed") + 1
  # The classifier `cnn` and the detector of that name are two runs.
  assert twice == {"unseen", "cnn"} and started.count("cnn") == 2
  before = (path / "detectors" / "cnn" / "result.json").stat().st_mtime_ns
  assert study.run(config("--config.show_leaking=True"), path, None) == 0
  after = (path / "detectors" / "cnn" / "result.json").stat().st_mtime_ns
  assert before == after


def test_figures_are_of_the_programs_that_were_trained(finished):
  path, result, _ = finished
  c = config()
  tested = configs.detector(c, "cnn", path, "unseen")
  images, labels, patients, _ = figures.test_images(tested)
  p = registry.load(path / "detectors" / "cnn").probabilities(images)
  (row,) = (
    row
    for row in result["detection"]
    if (row["detector"], row["fakes_by"]) == ("cnn", "unseen")
  )
  assert row["figures"]["auc"]["value"] == metrics.auc(labels, p[:, 1])
  counted = np.array([list(x.values()) for x in row["verdicts"].values()])
  np.testing.assert_array_equal(counted.sum(1), np.bincount(labels))
  reals = {who for who, fake in zip(patients, labels, strict=True) if not fake}
  assert reals and not any(who.startswith("synthetic") for who in reals)


def test_the_drop_counts_every_fake_once(finished):
  _, result, _ = finished
  (row,) = result["classifiers"]
  assert result["fakes"] == {"NORMAL": 10, "PNEUMONIA": 10}
  accuracy = row["fakes"]["accuracy"]
  assert accuracy["interval"] == "exact binomial"
  low, high = metrics.clopper_pearson(round(20 * accuracy["value"]), 20)
  assert (accuracy["low"], accuracy["high"]) == (low, high)
  assert [x["trained_on"] for x in result["grid"]] == ["originals", "fakes"]


def test_generators_never_see_held_out_patients(finished):
  path, result, _ = finished
  splits = {
    json.loads((path / place / "dataset.json").read_text())["fingerprint"]
    for place in ("classifiers/cnn", "generators/source")
  }
  assert splits == {result["dataset"]["fingerprint"]}
  assert sum(result["dataset"]["patient_overlap"].values()) == 0


def test_the_page_needs_nothing_else(finished):
  path, result, _ = finished
  page = (path / "report.html").read_text()
  assert not re.findall(r'(?:src|href)="(?!data:)', page)
  text = (path / "report.md").read_text()
  for name in ("source", "other_seed", "unseen"):
    assert f"AUC, {name}" in page and f"AUC, {name}" in text
  for link in re.findall(r"!\[.*?\]\((.*?)\)", text):
    assert (path / link).exists()
  if result["audit"]["leaks"]:
    assert "LEAKING" in page


def test_figures_are_withheld_where_the_audit_finds_a_leak(
  finished, monkeypatch
):
  path, result, _ = finished
  leak = dict(result["audit"], leaks=["the files differ in size"])
  monkeypatch.setattr(study.figures, "audit", lambda config: leak)
  assert study.run(config(), path, None) == 0
  withheld = json.loads((path / "result.json").read_text())
  assert withheld["detection"] is None
  text = (path / "report.md").read_text()
  assert "Withheld" in text and "the files differ in size" in text
  assert "AUC, unseen" not in text


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--config.data.name=generated"], "data.name"),
    (["--config.unseen=source"], "unseen is 'source'"),
    (["--config.unseen=nobody"], "expected nobody among them"),
    (["--config.fakes.classifiers=0"], "fakes.classifiers is 0"),
    (["--config.detectors.cnn.budget=none"], "detectors.cnn.budget"),
    (["--config.data.size=48"], "data.size"),
  ],
)
def test_bad_values_are_refused_before_anything(flags, message, tmp_path):
  with pytest.raises(errors.ConfigError, match=message):
    study.run(config(*flags), tmp_path / "run", None)
  assert not (tmp_path / "run").exists()


def test_a_generator_may_have_a_file_of_its_own():
  c = config().unlock()
  c.data.name = "chest_xray"
  own = {"config": "configs/edm.py:tiny", "sampler": {"steps": 2}}
  c.generators.unseen = own
  made = configs.generator(c, "unseen")
  assert (made.task, made.sampler.steps) == ("edm", 2)
  assert made.model.width == 8  # Of `:tiny`.
  assert (made.data.name, made.data.split) == ("chest_xray", "patient")
  c.generators.unseen.config = "configs/emd.py"
  with pytest.raises(errors.ConfigError, match=r"unseen\.config configs/emd"):
    configs.generator(c, "unseen")
  c.generators.unseen = {"config": "configs/edm.py:tiny", "loss": "hinge"}
  with pytest.raises(errors.ConfigError, match="there is no field 'loss'"):
    configs.generator(c, "unseen")


def test_another_run_in_a_runs_place_is_refused(finished):
  path, _, _ = finished
  with pytest.raises(errors.ConfigError, match="seed"):
    study.run(config("--config.generators.other_seed.seed=5"), path, None)

"""Generators side by side: figures, the table, what is done once."""

import csv
import hashlib
import json
import types

import numpy as np
from places import CONFIGS, ROOT, TESTS
import pytest

from jaxfake import configuration, errors, main
from jaxfake.evaluation import distances, manifold
from jaxfake.experiments import generator_comparison
from jaxfake.experiments.generator_comparison import figures, measured, plan
from jaxfake.models.weights import fid_weights

CONFIG = CONFIGS / "generators.py"


def config(*flags):
  return configuration.parse(["", f"--config={CONFIG}:tiny", *flags])[0]


def seen(x, patients):
  zero = np.zeros(len(x))
  return figures.Seen(zero, zero, patients, {"any": x}, x + 1)


def test_patients_are_drawn_whole():
  patients = np.array(["a", "b", "a", "c", "c", "c"])
  rng = np.random.default_rng(0)
  draws = [figures.redrawn(patients, rng) for _ in range(50)]
  for i in draws:
    often = np.bincount(i, minlength=6)
    assert often[0] == often[2] and often[3] == often[4] == often[5]
    assert often[[0, 1, 3]].sum() == 3  # As many patients.
  assert len({tuple(i) for i in draws}) > 5


def test_figures_are_those_of_the_sets_and_lie_in_their_intervals():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(80, 3)), rng.normal(size=(80, 3)) + 0.5
  found = figures.of_sets(
    seen(a, np.arange(80) // 2), seen(b, np.arange(80)), 100, 0
  )
  x, y = distances.standardise(a, b)
  frechet = found["frechet_any"]
  assert frechet["value"] == pytest.approx(distances.frechet_distance(x, y))
  assert found["kernel_any"]["value"] == distances.kernel_distance(x, y)
  for name, figure in found.items():
    assert figure["low"] < figure["value"] < figure["high"], name
  # Twice as many images of each patient say no more: as wide, not narrower.
  wide = lambda x: x["high"] - x["low"]
  twice = figures.of_sets(
    seen(np.repeat(a, 2, 0), np.arange(160) // 4),
    seen(np.repeat(b, 2, 0), np.arange(160) // 2),
    100,
    0,
  )
  assert wide(twice["frechet_any"]) == pytest.approx(wide(frechet), rel=0.4)


def test_in_the_space_of_inception_distances_are_fid_and_kid():
  rng = np.random.default_rng(0)
  a, b = rng.gamma(1, size=(20, 3)), rng.gamma(1, 3, size=(20, 3))
  real, fake = (
    seen(x, np.arange(20))._replace(features={plan.INCEPTION: x})
    for x in (a, b)
  )
  found = figures.of_sets(real, fake, 2, 0)
  assert not found.keys() & {"frechet_inception", "kernel_inception"}
  # Of the features as they are, not standardised.
  assert found["fid"]["value"] == distances.frechet_distance(a, b)
  assert found["kid"]["value"] == distances.kernel_distance(a, b)
  precision = manifold.outcomes(a, b)["precision"].mean()
  assert found["precision_inception"]["value"] == precision


def test_where_all_draws_agree_the_interval_is_exact():
  none = figures.share(np.zeros(20), [np.arange(20)], np.arange(20) // 2)
  assert (none["value"], none["low"]) == (0, 0)
  assert none["high"] == pytest.approx(1 - 0.025 ** (1 / 10))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
  """A toy that the comparison trains, and a copier that is there already."""
  place = tmp_path_factory.mktemp("comparison")
  toy = f"--config={TESTS}/toys/memoriser.py"
  data = "--config.data.split=patient", "--config.data.phantom.images=160"
  assert main.main(["", toy, f"--workdir={place}/copier", *data]) == 0
  assert main.main(["", *flags(place)]) == 0
  return place


def flags(place):
  runs = f"--config.runs=copier={place}/copier"
  file = f"--config={TESTS}/toys/generators_config.py"
  return [file, f"--workdir={place}/run", "--config.only=means", runs]


def test_the_table_is_what_was_measured(compared):
  path = compared / "run"
  rows = json.loads((path / "result.json").read_text())["rows"]
  assert [x["generator"] for x in rows] == [plan.HELD, "means", "copier"]
  held, means, copier = (x["figures"] for x in rows)
  # Copies are where the train images are; means of eight are in their midst.
  for name in ("recall_random_filters", "coverage_random_filters"):
    assert copier[name]["value"] > means[name]["value"], name
  assert means["precision_random_filters"]["value"] == 1
  name = "frechet_random_filters"
  assert held[name]["value"] < means[name]["value"]
  assert rows[1]["guard"]["why"].startswith("too few images")
  table = list(csv.DictReader((path / "table.csv").open()))
  assert float(table[1][f"{name}_value"]) == means[name]["value"]
  page = (path / "table.html").read_text()
  assert page.count("data:image/png;base64,") == 2 and "http" not in page
  assert "| copier | " in (path / "table.md").read_text()


def test_only_published_weights_make_a_fid(compared, monkeypatch, tmp_path):
  held = json.loads((compared / "run/result.json").read_text())["rows"][0]
  assert not {"fid", "kid"} & held["figures"].keys()
  assert "| FID |" not in (compared / "run/table.md").read_text()
  file = tmp_path / "weights.pth"
  file.write_bytes(b"other weights")
  with_inception = [
    f"--config={TESTS}/toys/generators_config.py",
    f"--workdir={tmp_path}/run",
    f"--config.runs=copier={compared}/copier",
    "--config.spaces=random_filters,inception",
    f"--config.inception_weights={file}",
  ]
  assert main.main(["", *with_inception]) == errors.MISTAKE
  corners = lambda x: x[:, ::8, ::8, 0].reshape(len(x), -1) / np.float32(16)
  monkeypatch.setattr(figures.inception, "extractor", lambda path: corners)
  sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
  monkeypatch.setattr(fid_weights, "SHA256", sha256)
  assert main.main(["", *with_inception]) == 0
  rows = list(csv.DictReader((tmp_path / "run/table.csv").open()))
  assert float(rows[1]["fid_value"]) < float(rows[0]["fid_value"])  # Copies.
  page = (tmp_path / "run/table.md").read_text()
  assert "| generator | FID | KID | precision |" in page
  assert "FID falls as images are added" in page


def test_agreement_is_with_what_was_meant():
  told = np.array([0, 0, 1, 1, 1])
  said = np.array([0, 1, 1, 1, 0])
  program = types.SimpleNamespace(
    classes=("a", "b"), probabilities=lambda images: np.eye(2)[images]
  )
  fakes = figures.Seen(said, told, np.arange(5), {}, np.zeros((5, 1)))
  found = figures.agreement(program, fakes)["agreement"]
  assert found["value"] == 0.6 and found["low"] < 0.6 < found["high"]


def test_what_is_done_is_not_done_again(compared, monkeypatch):
  monkeypatch.setattr(measured.Beside, "_measure", None)
  monkeypatch.setattr(measured.figures, "reals", None)  # None is read.
  assert main.main(["", *flags(compared)]) == 0


def test_a_run_of_other_images_is_refused(compared, capsys):
  facts = json.loads((compared / "copier/dataset.json").read_text())
  other = facts | {"content_sha256": "0" * 64}
  (compared / "copier/dataset.json").write_text(json.dumps(other))
  (compared / "run/measured/copier.json").unlink()
  assert main.main(["", *flags(compared)]) == 1
  assert "copier learnt from other images" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--config.only=dcgam", "only is 'dcgam': expected one of dcgan"),
    ("--config.spaces=fid", "spaces is 'fid'"),
    ("--config.spaces=inception", "inception_weights is '': expected the file"),
    ("--config.images=5", "images is 5: expected at least 6"),
    ("--config.resamples=1", "resamples is 1"),
    ("--config.runs=FOLDER", "expected NAME=FOLDER"),
    ("--config.runs=a=FOLDER,a=OTHER", "another name than held-out reals, a"),
    ("--config.classifier.model.name=svm", "classifier.model.name is 'svm'"),
    ("--config.classifier.model.channels=3", "expected 1 and centred"),
    ("--config.generators.dcgan.config=configs/no.py", "no such file"),
  ],
)
def test_mistakes_are_found_before_anything_runs(flag, message):
  with pytest.raises(errors.ConfigError, match=message):
    generator_comparison.check(config(flag))


def test_runs_alone_or_beside_those_that_are_named():
  names = lambda *flags: [x.name for x in plan.runs(config(*flags), ROOT)]
  assert names() == ["dcgan"]
  assert names("--config.runs=a=x,b=y/z") == ["a", "b"]
  assert names("--config.only=dcgan", "--config.runs=a=x") == ["dcgan", "a"]


def test_a_wrong_field_of_a_row_is_named():
  c = config()
  with c.unlocked():
    c.generators.dcgan = dict(config="configs/dcgan.py:tiny", los="hinge")
  with pytest.raises(
    errors.ConfigError, match=r"dcgan\.los: there is no field"
  ):
    generator_comparison.check(c)
  with c.unlocked():
    c.generators.dcgan = dict(loss="hinge")
  with pytest.raises(errors.ConfigError, match=r"dcgan\.config is missing"):
    generator_comparison.check(c)

"""Copies are refused, honest generators are not, and what cannot be told is
said."""

import json

import numpy as np
from places import ROOT
import pytest
import scipy.stats
from toys import memoriser

from jaxfake import main, sample
from jaxfake.generators import guards

DATA = (
  "--config.data.split=patient",
  "--config.data.phantom.images=600",  # About 120 are held out.
)


def trained(path, mixed, *flags):
  config = f"--config={ROOT}/tests/toys/memoriser.py"
  argv = ["", config, f"--workdir={path}", f"--config.mixed={mixed}"]
  assert main.main([*argv, *DATA, *flags]) == 0
  return path


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
  return trained(tmp_path_factory.mktemp("copier") / "run", 1)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
  return trained(tmp_path_factory.mktemp("honest") / "run", 8)


def make(run, out, *flags):
  return sample.main([f"--workdir={run}", f"--out={out}", "--count=8", *flags])


def verdict(run):
  (found,) = json.loads((run / guards.FILE).read_text()).values()
  return found


def guard(out):
  return json.loads((out / "sampler.json").read_text())["guard"]


def test_a_generator_that_copies_is_refused(copier, tmp_path, capsys):
  found = verdict(copier)
  assert found["verdict"] == guards.FAILED
  assert found["copies"]["thumbnails"]["share"] > 0.9
  assert found["held_out_images"] >= guards.FEWEST
  capsys.readouterr()
  assert make(copier, tmp_path / "out") == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "copies its train images" in line and "--allow-copies" in line
  assert not (tmp_path / "out").exists()
  assert make(copier, tmp_path / "out", "--allow-copies") == 0
  assert guard(tmp_path / "out") == found


def test_an_honest_one_is_not(honest, tmp_path, capsys):
  found = verdict(honest)
  assert found["verdict"] == guards.PASSED
  assert found["false_alarms"] <= 0.05
  capsys.readouterr()
  assert make(honest, tmp_path / "out") == 0
  assert guard(tmp_path / "out") == found
  assert "copies of train images" not in capsys.readouterr().out


def test_membership_is_told_from_copies_alone(copier, honest):
  for auc in verdict(copier)["membership_auc"].values():
    assert auc["low"] > 0.6
  for auc in verdict(honest)["membership_auc"].values():
    assert auc["low"] < 0.6


def test_the_guard_is_not_done_twice(copier, tmp_path, monkeypatch):
  monkeypatch.setattr(guards, "examined", None)
  monkeypatch.setattr(guards, "data", None)
  assert make(copier, tmp_path / "out", "--allow-copies") == 0
  trained(copier, 1)  # It has ended, and its verdict is known.
  monkeypatch.setattr(guards, "of_run", None)
  assert make(copier, tmp_path / "out", "--allow-copies") == 0
  assert make(copier, tmp_path / "out") == 2


def test_without_the_verdict_it_is_found_where_the_images_are(
  copier, tmp_path, monkeypatch, capsys
):
  before = verdict(copier)
  kept = (copier / guards.FILE).read_text()
  facts = json.loads((copier / "dataset.json").read_text())
  try:
    (copier / guards.FILE).unlink()
    assert guards.of_run(copier, memoriser.load(copier)) == before
    # Of other images than are there now.
    other = facts | {"content_sha256": "0" * 64}
    (copier / "dataset.json").write_text(json.dumps(other))
    assert make(copier, tmp_path / "out") == 0
    assert guard(tmp_path / "out")["verdict"] == guards.UNKNOWN
    assert "not those that the run learnt from" in capsys.readouterr().out
  finally:
    (copier / guards.FILE).write_text(kept)
    (copier / "dataset.json").write_text(json.dumps(facts))


def test_nearness_by_hand():
  bank = np.zeros((4, 4))
  bank[:, 0] = 2 * np.array([1, 3, 6, 10])
  bare, relative = guards.nearness(np.zeros((1, 4)), bank).T
  assert bare == pytest.approx(1) and relative == pytest.approx(3 / 19)


def test_the_threshold_counts_as_estimated():
  """Held-out reals in the fakes' place fail as often as the level says, even if
  a threshold is the nearest of few."""
  rng = np.random.default_rng(0)
  p = []
  for _ in range(1000):
    x = np.repeat(rng.normal(size=(400, 1)), 2, 1)  # Both measures agree.
    p.append(guards.copies(x[:100], x[100:])["p"])
  for level in (0.01, 0.05):
    assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=level / 2)


def test_both_measures_must_agree():
  held = np.random.default_rng(0).uniform(1, 2, size=(200, 2))
  fake = np.array([[0.5, 0.5], [0.5, 1.5], [1.5, 0.5]])
  assert guards.copies(held, fake)["copies"] == 1


def test_too_few_images_tell_nothing():
  assert guards.too_few(guards.FEWEST) is None
  told = guards.too_few(guards.FEWEST - 1)
  assert told["verdict"] == guards.UNKNOWN and "too few images" in told["why"]


@pytest.mark.parametrize(("n", "k", "held"), [(1, 1, 50), (512, 5, 500)])
def test_the_chance_of_so_many_is_beta_binomial(n, k, held):
  b = held - k + 1
  of_scipy = scipy.stats.betabinom(n, k, b)
  for count in {0, 1, n // 50, n // 3, n}:
    chance = guards.at_least(count, n, k, b)
    assert chance == pytest.approx(of_scipy.sf(count - 1), abs=1e-9)

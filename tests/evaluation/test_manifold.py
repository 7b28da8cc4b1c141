"""Precision, recall, density and coverage against loops and known cases."""

import numpy as np
import pytest

from jaxfake.evaluation import manifold


def figures(real, fake):
  return {k: x.mean() for k, x in manifold.outcomes(real, fake).items()}


def test_outcomes_by_their_definitions():
  rng = np.random.default_rng(0)
  real, fake = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)) + 0.5
  apart = lambda a, b: np.sqrt(((a - b) ** 2).sum())

  def radius(points, i, k):
    others = [apart(points[i], x) for j, x in enumerate(points) if j != i]
    return sorted(others)[k - 1]

  def within(x, points, i, k):
    return apart(x, points[i]) <= radius(points, i, k)

  n, m = range(len(real)), range(len(fake))
  want = {
    "precision": [any(within(y, real, i, 3) for i in n) for y in fake],
    "recall": [any(within(x, fake, j, 3) for j in m) for x in real],
    "density": [sum(within(y, real, i, 5) for i in n) / 5 for y in fake],
    "coverage": [any(within(y, real, i, 5) for y in fake) for i in n],
  }
  found = manifold.outcomes(real, fake)
  assert found.keys() == want.keys()
  for name, values in want.items():
    np.testing.assert_array_equal(found[name], values, err_msg=name)
  # None of them is trivial here.
  assert all(0 < figures(real, fake)[name] < 1 for name in want)


def test_sets_that_are_alike_apart_or_collapsed():
  rng = np.random.default_rng(1)
  real, fake = rng.normal(size=(2, 400, 4))
  alike = figures(real, fake)
  assert min(alike["precision"], alike["recall"], alike["coverage"]) > 0.85
  assert alike["density"] == pytest.approx(1, abs=0.1)
  assert not any(figures(real, fake + 100).values())
  # All fakes near one real: they look real, and show next to nothing.
  collapsed = figures(real, real[:1] + 1e-3 * fake)
  assert collapsed["precision"] == 1
  assert collapsed["recall"] < 0.02 and collapsed["coverage"] < 0.1


def test_an_outlier_among_fakes_widens_recall_and_not_coverage():
  """Figure 1 of Naeem et al.: the fakes' balls are as wide as outliers are."""
  rng = np.random.default_rng(2)
  real = rng.normal(size=(200, 2))
  fake = 50 + rng.normal(size=(200, 2))
  fake[:4] = -50 * real[:4]
  found = figures(real, fake)
  assert found["recall"] > 0.9 and found["coverage"] == 0


def test_too_few_points_are_refused():
  with pytest.raises(ValueError, match="3 points: expected more than k, 3"):
    manifold.radii(np.zeros((3, 2)), 3)

"""The closed-form discriminant and scatter."""

import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from jaxfake.classifiers import discriminant


def examples(n=600, d=6, apart=1.0, seed=0):
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % 2
  x = rng.standard_normal((n, d))
  x[:, 0] += apart * labels
  return x, labels, np.arange(n)


def parts(x, groups, cuts=1):
  """In several parts of unlike size, each weighing what its examples do."""
  ends = np.linspace(0, 1, cuts + 1) ** 2 * len(x)
  ends = ends.astype(int)
  return [
    (b - a, discriminant.moments(x[a:b], groups[a:b]))
    for a, b in itertools.pairwise(ends)
  ]


def fitted(x, labels, groups, group_weight=1e-9, ridge=1e-6, cuts=1):
  classes = [parts(x[labels == k], groups[labels == k], cuts) for k in (0, 1)]
  return discriminant.discriminant(
    *classes, group_weight=group_weight, ridge=ridge
  )


def test_means_score_minus_one_and_one():
  x, labels, groups = examples()
  found = fitted(x, labels, groups)
  assert found.score(x[labels == 0]).mean() == pytest.approx(-1, abs=1e-6)
  assert found.score(x[labels == 1]).mean() == pytest.approx(1, abs=1e-6)


def test_is_fishers():
  from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

  x, labels, groups = examples(apart=0.7)
  x = x @ np.random.default_rng(1).standard_normal((6, 6))
  ours = fitted(x, labels, groups).score(x)
  theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, labels)
  assert np.corrcoef(ours, theirs.decision_function(x))[0, 1] > 0.9999


def test_what_pictures_scatter_in_counts_for_little():
  """Two directions part the classes alike; in one, reals of different pictures
  lie far apart, and those of one picture do not."""
  rng = np.random.default_rng(0)
  pictures, each = 60, 6
  groups = np.repeat(np.arange(pictures), each)
  level = rng.standard_normal(pictures)[groups]
  real = rng.standard_normal((pictures * each, 2))
  real[:, 1] = level + 0.1 * real[:, 1]
  fake = real + 1.0
  x = np.concatenate([real, fake])
  labels = np.repeat([0, 1], len(real))
  groups = np.concatenate([groups, groups])
  plain = fitted(x, labels, groups).weights
  held = fitted(x, labels, groups, group_weight=30).weights
  share = lambda w: abs(w[1]) / abs(w).sum()
  assert share(held) < share(plain) / 2


@pytest.mark.parametrize("group_weight", [1e-9, 30])
def test_parts_are_as_good_as_the_whole(group_weight):
  x, labels, _ = examples()
  x[::7] += 2  # So that parts have means of their own.
  groups = np.arange(len(x)) // 4 * 2 + labels  # Of two examples, none is cut.
  whole, cut = (
    fitted(x, labels, groups, group_weight, cuts=cuts) for cuts in (1, 5)
  )
  assert np.allclose(whole.score(x), cut.score(x), atol=0.02)
  scatter = lambda cuts: discriminant.scatter(
    parts(x, groups, cuts), rank=3, floor=1e-9
  )
  assert np.allclose(scatter(1).distance(x), scatter(5).distance(x), atol=1e-3)


def test_pooled_parts_are_the_whole():
  x, _, _ = examples()
  x[::7] += 2
  groups = np.arange(len(x)) // 4
  whole = discriminant.moments(x, groups)
  cut = [
    discriminant.moments(x[a], groups[a])
    for a in (slice(0, 100), slice(100, None))
  ]
  for a, b in zip(discriminant.pooled(cut), whole, strict=True):
    assert np.allclose(a, b, atol=1e-5)


def test_some_numbers_are_as_if_there_were_no_others():
  x, _, _ = examples()
  groups = np.arange(len(x)) // 3
  which = np.array([0, 2, 5])
  some = discriminant.moments(x, groups).of_numbers(which)
  for a, b in zip(some, discriminant.moments(x[:, which], groups), strict=True):
    assert np.allclose(a, b, atol=1e-6)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(st.floats(0.1, 100), st.floats(-50, 50))
def test_units_of_a_number_do_not_matter(scale, shift):
  x, labels, groups = examples()
  y = x * scale + shift
  a, b = (
    fitted(x, labels, groups, ridge=0.1),
    fitted(y, labels, groups, ridge=0.1),
  )
  assert np.allclose(a.score(x), b.score(y), atol=2e-2)


def test_distance_is_mahalanobis():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((4000, 5)) @ rng.standard_normal((5, 5))
  found = discriminant.scatter(parts(x, np.arange(len(x))), rank=4, floor=1e-9)
  z = x - x.mean(0)
  exact = np.einsum("ni,ij,nj->n", z, np.linalg.inv(z.T @ z / len(z)), z) / 5
  assert np.allclose(np.exp(found.distance(x)), exact, rtol=0.02)


def test_distance_of_class_is_one_and_grows_away_from_it():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((500, 40)).astype(np.float32)
  found = discriminant.scatter(parts(x, np.arange(len(x))), rank=5, floor=0.05)
  assert np.exp(found.distance(x)).mean() == pytest.approx(1, abs=0.1)
  assert (found.distance(x + 3) > found.distance(x)).all()

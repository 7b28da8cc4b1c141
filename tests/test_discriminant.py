"""The closed-form discriminant and scatter."""

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


def fitted(x, labels, groups, group_weight=1e-9, ridge=1e-6, weight=None):
  weight = np.ones(len(x)) if weight is None else weight
  return discriminant.discriminant(
    x, labels, weight, groups, group_weight=group_weight, ridge=ridge
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


def test_weight_of_zero_is_as_if_it_were_not_there():
  x, labels, groups = examples()
  weight = np.ones(len(x))
  weight[:100] = 0
  a = fitted(x, labels, groups, weight=weight)
  b = fitted(x[100:], labels[100:], groups[100:])
  assert np.allclose(a.score(x), b.score(x))


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
  found = discriminant.scatter(x, rank=4, floor=1e-9)
  z = x - x.mean(0)
  exact = np.einsum("ni,ij,nj->n", z, np.linalg.inv(z.T @ z / len(z)), z) / 5
  assert np.allclose(np.exp(found.distance(x)), exact, rtol=0.02)


def test_distance_of_class_is_one_and_grows_away_from_it():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((500, 40)).astype(np.float32)
  found = discriminant.scatter(x, rank=5, floor=0.05)
  assert np.exp(found.distance(x)).mean() == pytest.approx(1, abs=0.1)
  assert (found.distance(x + 3) > found.distance(x)).all()

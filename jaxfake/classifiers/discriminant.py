"""Two classes told apart along one line, and one class known, in closed form.

Fisher's discriminant (1936, doi:10.1111/j.1469-1809.1936.tb02137.x) looks where
the classes' means lie apart in units of the scatter within classes. Here the
scatter has a second part with a weight of its own: that of groups, of pictures,
about the mean of their class. Reals of different pictures and hospitals differ
by more than a fake differs from the real it was made of, so directions in which
pictures scatter must count for little, however well they part the training set.
Speaker recognition met the same (Hatch, Kajarekar and Stolcke, 2006,
Within-class covariance normalization for SVM-based speaker recognition).
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg


class Discriminant(NamedTuple):
  """`score` of class 0's mean is -1, of class 1's +1."""

  mean: np.ndarray  # (d,)
  weights: np.ndarray  # (d,)
  offset: np.ndarray  # ()

  def score(self, x: np.ndarray) -> np.ndarray:
    """(n,) of (n, d)."""
    return (x - self.mean) @ self.weights + self.offset


class Scatter(NamedTuple):
  """One class's: what is like it, and how far from it something is.

  Probabilistic principal components (Tipping and Bishop, 1999,
  doi:10.1111/1467-9868.00196): k directions, and noise of one strength.
  """

  mean: np.ndarray  # (d,)
  scale: np.ndarray  # (d,)
  directions: np.ndarray  # (d, k), orthonormal.
  variances: np.ndarray  # (k,)
  noise: np.ndarray  # ()

  def distance(self, x: np.ndarray) -> np.ndarray:
    """Logarithm of Mahalanobis's distance, squared and over d, (n,) of (n,
    d)."""
    z = (x - self.mean) / self.scale
    along = np.square(z @ self.directions)
    rest = np.maximum(np.square(z).sum(1) - along.sum(1), 0)
    length = (along / self.variances).sum(1) + rest / self.noise
    return np.log(length / z.shape[1] + 1e-12)


def discriminant(
  x: np.ndarray,
  labels: np.ndarray,
  weight: np.ndarray,
  groups: np.ndarray,
  *,
  group_weight: float,
  ridge: float,
) -> Discriminant:
  """Of examples (n, d), labels (n,) 0 or 1, weights (n,), and the group of
  each.

  `group_weight` is that of the scatter of class 0's groups beside the scatter
  within classes; `ridge` is added to the variance of each number, 1 since they
  are standardised.
  """
  used = weight > 0
  x, labels, groups = x[used], labels[used], groups[used]
  w = weight[used] / weight[used].sum()
  centre = w @ x
  scale = np.sqrt(w @ np.square(x - centre)) + 1e-3
  z = (x - centre) / scale
  means = np.stack(
    [np.average(z[labels == k], 0, w[labels == k]) for k in (0, 1)]
  )
  rest = z - means[labels]
  within = _gram(rest, w)
  between = _of_groups(rest[labels == 0], groups[labels == 0])
  system = within + group_weight * between + ridge * np.eye(len(centre))
  apart = means[1] - means[0]
  direction = scipy.linalg.solve(system, apart, assume_a="pos")
  direction *= 2 / (direction @ apart)
  offset = np.asarray(-direction @ means.sum(0) / 2)
  return Discriminant(centre, direction / scale, offset)


def _of_groups(rest: np.ndarray, groups: np.ndarray) -> np.ndarray:
  """Scatter of the means of groups of two or more: (d, d)."""
  _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
  total = np.zeros((len(count), rest.shape[1]))
  np.add.at(total, index, rest)
  several = count >= 2
  mean = total[several] / count[several, None]
  return _gram(mean, np.full(len(mean), 1 / max(len(mean), 1)))


def scatter(x: np.ndarray, *, rank: int, floor: float) -> Scatter:
  """Of one class's examples (n, d); `floor` is the least variance of noise, of
  numbers that are standardised."""
  mean, scale = x.mean(0, np.float64), x.std(0, np.float64) + 1e-3
  covariance = _gram((x - mean) / scale, np.full(len(x), 1 / len(x)))
  d = len(mean)
  rank = min(rank, d - 1)
  values, vectors = scipy.linalg.eigh(
    covariance, subset_by_index=(d - rank, d - 1)
  )
  rest = (np.trace(covariance) - values.sum()) / (d - rank)
  noise = max(float(rest), floor)
  kept = np.maximum(values, noise)
  return Scatter(mean, scale, vectors, kept, np.asarray(noise))


def _gram(z: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """sum of weight z z^T, (d, d) of (n, d). In float32, twice as fast: what
  rounding does to it is far below any ridge."""
  z = (z * np.sqrt(weight)[:, None]).astype(np.float32)
  return (z.T @ z).astype(np.float64)

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

from collections.abc import Iterable, Sequence
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


class Moments(NamedTuple):
  """What is kept of examples (n, d): enough for all fits to any choice of them.

  Groups are of two or more examples, of one picture each; their moments are
  about the mean of all.
  """

  count: int
  mean: np.ndarray  # (d,)
  covariance: np.ndarray  # (d, d), float32.
  groups: int
  group_mean: np.ndarray  # (d,)
  group_covariance: np.ndarray  # (d, d), float32.

  def of_numbers(self, which: np.ndarray | None) -> "Moments":
    """Of some of the d numbers only, by their indices (k,), or of k sums of
    them, by their weights (k, d); None is all of them."""
    if which is None:
      return self
    if which.ndim == 1:
      square = lambda x: x[np.ix_(which, which)]
    else:
      square = lambda x: (which @ x @ which.T).astype(np.float32)
    return self._replace(
      mean=of_numbers(self.mean, which),
      covariance=square(self.covariance),
      group_mean=of_numbers(self.group_mean, which),
      group_covariance=square(self.group_covariance),
    )


def of_numbers(x: np.ndarray, which: np.ndarray | None) -> np.ndarray:
  """The same of (..., d)."""
  if which is None:
    return x
  return x[..., which] if which.ndim == 1 else x @ which.T


def moments(x: np.ndarray, groups: np.ndarray) -> Moments:
  """Of examples (n, d) and the group of each (n,)."""
  mean = x.mean(0, dtype=np.float64)
  z = (x - mean).astype(np.float32)
  _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
  total = np.zeros((len(count), z.shape[1]), np.float32)
  np.add.at(total, index, z)
  several = count >= 2
  of_group = total[several] / count[several, None].astype(np.float32)
  n = max(len(of_group), 1)
  return Moments(
    len(x),
    mean,
    z.T @ z / np.float32(len(x)),
    len(of_group),
    of_group.sum(0, dtype=np.float64) / n,
    of_group.T @ of_group / np.float32(n),
  )


Weighted = Sequence[tuple[float, Moments]]


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
  return np.asarray(sum(arrays))


def _covariance(parts: Weighted, mean: np.ndarray) -> np.ndarray:
  """Weighted, about a mean that they need not have: (d, d)."""
  total = np.zeros((len(mean), len(mean)), np.float32)
  for weight, part in parts:
    total += np.float32(weight) * part.covariance
  off = np.stack([part.mean - mean for _, part in parts])
  weights = np.array([weight for weight, _ in parts])
  return total + (off * weights[:, None]).T @ off


def _of_groups(parts: Sequence[Moments], mean: np.ndarray) -> np.ndarray:
  """Covariance of the means of groups, each counting alike: (d, d)."""
  n = np.array([part.groups for part in parts], np.float64) / max(
    sum(part.groups for part in parts), 1
  )
  total = np.zeros((len(mean), len(mean)), np.float32)
  for weight, part in zip(n, parts, strict=True):
    total += np.float32(weight) * part.group_covariance
  off = np.stack([part.mean - mean for part in parts])
  inner = np.stack([part.group_mean for part in parts])
  cross = (off * n[:, None]).T @ inner
  return total + (off * n[:, None]).T @ off + cross + cross.T


def pooled(parts: Sequence[Moments]) -> Moments:
  """The moments of all parts' examples together."""
  return mixed([(part.count, part) for part in parts])


def mixed(parts: Weighted) -> Moments:
  """The same of parts that count as they are weighted."""
  count = sum(part.count for _, part in parts)
  share = sum(weight for weight, _ in parts)
  weighted = [(weight / share, part) for weight, part in parts]
  each = [part for _, part in parts]
  mean = _sum(weight * part.mean for weight, part in weighted)
  groups = sum(part.groups for part in each)
  of_groups = _sum(
    part.groups * (part.mean - mean + part.group_mean) for part in each
  )
  return Moments(
    count,
    mean,
    _covariance(weighted, mean).astype(np.float32),
    groups,
    of_groups / max(groups, 1),
    _of_groups(each, mean).astype(np.float32),
  )


def discriminant(
  reals: Weighted, fakes: Weighted, *, group_weight: float, ridge: float
) -> Discriminant:
  """Of both classes' examples, by parts with weights.

  `group_weight` is that of the scatter of the first's groups beside the scatter
  within classes; `ridge` is added to the variance of each number, 1 since they
  are standardised.
  """
  classes = reals, fakes
  share = [sum(weight for weight, _ in parts) for parts in classes]
  means = [
    _sum(weight * part.mean for weight, part in parts) / n
    for parts, n in zip(classes, share, strict=True)
  ]
  centre = (share[0] * means[0] + share[1] * means[1]) / sum(share)
  apart = means[1] - means[0]
  within = _sum(map(_covariance, classes, means)) / sum(share)
  spread = share[0] * share[1] / sum(share) ** 2 * np.square(apart)
  scale = np.sqrt(np.maximum(np.diag(within) + spread, 0)) + 1e-3
  system = within + group_weight * _of_groups([x for _, x in reals], means[0])
  system = system / np.outer(scale, scale) + ridge * np.eye(len(centre))
  apart = apart / scale
  direction = scipy.linalg.solve(system, apart, assume_a="pos")
  direction *= 2 / (direction @ apart)
  middle = ((means[0] + means[1]) / 2 - centre) / scale
  offset = np.asarray(-direction @ middle)
  return Discriminant(centre, direction / scale, offset)


def scatter(parts: Weighted, *, rank: int, floor: float) -> Scatter:
  """Of one class's examples, by parts with weights; `floor` is the least
  variance of noise, of numbers that are standardised."""
  total = sum(weight for weight, _ in parts)
  parts = [(weight / total, part) for weight, part in parts]
  mean = _sum(weight * part.mean for weight, part in parts)
  covariance = _covariance(parts, mean)
  scale = np.sqrt(np.diag(covariance)) + 1e-3
  covariance /= np.outer(scale, scale)
  d = len(mean)
  rank = min(rank, d - 1)
  values, vectors = scipy.linalg.eigh(
    covariance, subset_by_index=(d - rank, d - 1)
  )
  rest = (np.trace(covariance) - values.sum()) / (d - rank)
  noise = max(float(rest), floor)
  kept = np.maximum(values, noise)
  return Scatter(mean, scale, vectors, kept, np.asarray(noise))

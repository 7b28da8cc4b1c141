"""How many fakes look real, and how much of the reals' variety they reach.

A set's manifold is the union of balls about its points, each as wide as the
distance to the point's k-th nearest other. Precision and recall: Kynkäänniemi
et al., 2019, arXiv:1904.06991, equations 1 and 2. Density and coverage: Naeem
et al., 2020, arXiv:2002.09797, section 3, whose balls are those of the reals
alone, so that one fake far away from all others cannot widen anything.

Each figure is the mean of one outcome an image: resamples of images are means
of fewer or more of them, the balls as they are.
"""

import numpy as np
from scipy.spatial import distance

PRECISION_K, DENSITY_K = 3, 5  # As in the two papers.


def radii(points: np.ndarray, k: int) -> np.ndarray:
  """Distance (n,) of each point (n, d) to its k-th nearest other.

  Raises ValueError where there are not so many others.
  """
  if len(points) <= k:
    raise ValueError(f"{len(points)} points: expected more than k, {k}")
  apart = distance.cdist(points, points)
  np.fill_diagonal(apart, np.inf)
  return np.partition(apart, k - 1, axis=1)[:, k - 1]


def outcomes(real: np.ndarray, fake: np.ndarray) -> dict[str, np.ndarray]:
  """Of reals (n, d) and fakes (m, d), what each figure is the mean of:

  - precision (m,): whether a fake lies in the reals' manifold,
  - recall (n,): whether a real lies in the fakes' manifold,
  - density (m,): in how many reals' balls a fake lies, over k; 1 on average
    where the two are alike, and more where fakes crowd among reals,
  - coverage (n,): whether a real's ball holds a fake.

  Raises ValueError where a set has at most k points.
  """
  apart = distance.cdist(real, fake)
  by_real = apart <= radii(real, PRECISION_K)[:, None]
  by_fake = apart <= radii(fake, PRECISION_K)
  within = apart <= radii(real, DENSITY_K)[:, None]
  return {
    "precision": by_real.any(0).astype(float),
    "recall": by_fake.any(1).astype(float),
    "density": within.sum(0) / DENSITY_K,
    "coverage": within.any(1).astype(float),
  }

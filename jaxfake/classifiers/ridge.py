"""A linear readout in closed form: ridge regression of classes' indicators."""

import numpy as np
import scipy.linalg

# In units of the mean squared length of standardised features.
PENALTIES = 10.0 ** np.arange(-6, 4)


def fit(
  x: np.ndarray, y: np.ndarray, weight: np.ndarray, penalties: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
  """Weighted ridge regression: coefficients (d, k), intercepts (k,), penalty.

  Minimises sum_i w_i |y_i - c - x_i B|^2 + penalty |B|^2 for x (n, d) and
  y (n, k). The penalty is that of least squared leave-one-out error, weighted,
  which follows from one fit: an example's residual over 1 - h, with h its
  weight in its own prediction (Allen, 1974, Technometrics 16, 125).
  """
  w = weight[:, None] / weight.sum()
  x_mean, y_mean = (w * x).sum(0), (w * y).sum(0)
  root = np.sqrt(weight)[:, None]
  u, s, vt = scipy.linalg.svd(root * (x - x_mean), full_matrices=False)
  target = root * (y - y_mean)
  along = u.T @ target  # (rank, k)

  def loo_error(penalty):
    kept = (s**2 / (s**2 + penalty))[:, None]
    own = w + u**2 @ kept  # (n, 1)
    return (((target - u @ (kept * along)) / (1 - own)) ** 2).sum()

  best = min(penalties, key=loo_error)
  coef = vt.T @ ((s / (s**2 + best))[:, None] * along)
  return coef, y_mean - x_mean @ coef, float(best)


def readout(
  x: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
  """A ridge from standardised x (n, d) to indicators of the labels (n,).

  Returns coefficients (d, k) and intercepts (k,) that read x itself, and the
  penalty in units of d. Classes weigh the same however many examples each has.
  """
  x = x.astype(np.float64)
  counts = np.bincount(labels)
  mean, std = x.mean(0), x.std(0)
  std = np.where(std > 1e-6, std, 1)
  weight = len(labels) / (len(counts) * counts[labels])
  d = x.shape[1]
  coef, intercept, penalty = fit(
    (x - mean) / std, np.eye(len(counts))[labels], weight, PENALTIES * d
  )
  coef /= std[:, None]
  return coef, intercept - mean @ coef, penalty / d

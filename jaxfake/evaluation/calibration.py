"""Temperature, curve and threshold, fitted on validation images alone."""

from typing import cast

import numpy as np
import scipy.optimize
import scipy.special

from jaxfake import errors
from jaxfake.evaluation import metrics

TEMPERATURES = 0.05, 20.0  # A fit stays between, ends included.
# Least probability that has a logit: a forest says 0 and 1 outright, and one
# such mistake would otherwise cost infinitely much.
EPSILON = 1e-6


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
  """float64 probabilities (n, k) of logits (n, k) divided by a temperature.

  Raises ValueError for a logit that is not finite, a temperature not above 0.
  """
  if not 0 < temperature < np.inf:
    raise ValueError(f"temperature is {temperature}: expected a number above 0")
  return scipy.special.softmax(_check(logits) / temperature, axis=1)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
  """Logits (n, k) of probabilities (n, k): their logs, from log(EPSILON) up.

  For models that give no logits, as forests. softmax gives the probabilities
  back, all but those below EPSILON. Raises ValueError for what cannot be a
  probability.
  """
  p = np.asarray(probabilities, np.float64)
  if not ((p >= 0) & (p <= 1 + metrics.SUM_TOLERANCE)).all():
    raise ValueError("probabilities are not all between 0 and 1")
  return np.log(np.clip(p, EPSILON, 1))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
  """The temperature of least negative log likelihood for logits (n, k).

  Guo et al., 2017, arXiv:1706.04599, section 4.2. The likelihood is convex in
  1 / temperature, so its slope has one root, sought over the logarithm of the
  temperature between TEMPERATURES. Where the slope still points outwards at an
  end, that end is returned: the lower when every label has the highest logit,
  since ever sharper is then ever likelier (few validation images, all right,
  say little about sharpness); the upper when the logits know less than
  nothing. Logits that are equal in every row give 1. Raises DataError without
  images, ValueError for arrays of the wrong shapes or not finite.
  """
  logits = _check(logits)
  labels = np.asarray(labels)
  n, k = logits.shape
  if n == 0:
    raise errors.DataError("no validation images to fit a temperature on")
  if labels.shape != (n,) or labels.dtype.kind not in "biu":
    raise ValueError(
      f"labels are {labels.dtype} {labels.shape}: expected whole numbers ({n},)"
    )
  if labels.min() < 0 or labels.max() >= k:
    raise ValueError(
      f"labels run from {labels.min()} to {labels.max()}: expected 0 to {k - 1}"
    )
  # Relative to the true class's: exact where the label leads by far.
  margins = logits - logits[np.arange(n), labels.astype(int)][:, None]

  def slope(log_temperature):
    """Of the mean negative log likelihood, by 1 / temperature."""
    p = scipy.special.softmax(margins / np.exp(log_temperature), axis=1)
    return (p * margins).sum(1).mean()

  low, high = np.log(TEMPERATURES)
  if not margins.any():
    return 1.0
  if slope(low) <= 0:
    return TEMPERATURES[0]
  if slope(high) >= 0:
    return TEMPERATURES[1]
  root = cast(float, scipy.optimize.brentq(slope, low, high))
  return float(np.exp(root))


def fit_logistic(
  score: np.ndarray, labels: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
  """Slope and intercept of the logit of label 1 by a score (n,), of least
  weighted log loss (Platt, 1999), lightly held back: where the classes do not
  meet, no slope would be the last."""

  def loss(x):
    logit = x[0] * score + x[1]
    each = np.logaddexp(0, logit) - labels * logit
    return weight @ each + 1e-3 * x[0] ** 2

  fit = scipy.optimize.minimize(loss, np.array([1.0, 0.0]))
  return float(fit.x[0]), float(fit.x[1])


def choose_threshold(labels: np.ndarray, score: np.ndarray) -> float:
  """The threshold of best balanced accuracy: `score >= threshold` calls 1.

  Maximises Youden's J = TPR - FPR (Youden, 1950, Cancer 3 (1)) over labels (n,)
  of 0 and 1 and scores (n,). J is constant between neighbouring scores: of the
  best such gaps the widest is taken (of equally wide ones the highest) and its
  middle returned. Where no gap beats calling everything 1, that is what the
  lowest score, then returned, does. Raises DataError where a class is missing.
  """
  fpr, tpr, thresholds = metrics.roc(labels, score)
  # The infinite first, which calls nothing, is never better than the last.
  j, upper = (tpr - fpr)[1:], thresholds[1:]
  lower = np.append(upper[1:], upper[-1])
  # Different J are at least 1 / (positives * negatives) apart.
  best = j >= j.max() - 1e-12
  i = np.where(best, upper - lower, -1).argmax()
  middle = lower[i] + (upper[i] - lower[i]) / 2
  # Neighbouring floats have no middle.
  return float(middle if middle > lower[i] else upper[i])


def choose_uncertain(
  labels: np.ndarray, score: np.ndarray, share: float = 0.01
) -> tuple[float, float]:
  """Between which scores nothing is said: `score <= low` is 0, `>= high` is 1.

  One end is what `share` of class 0 lies above, the other what `share` of class
  1 lies below, of labels (n,) and scores (n,): where the classes overlap, the
  scores that both reach are uncertain, and where they do not, those that
  neither reaches. Raises DataError where a class is missing.
  """
  metrics.roc(labels, score)  # Checks them.
  labels, score = np.asarray(labels), np.asarray(score, np.float64)
  ends = (
    np.quantile(score[labels == 0], 1 - share, method="higher"),
    np.quantile(score[labels == 1], share, method="lower"),
  )
  return float(min(ends)), float(max(ends))


def _check(logits) -> np.ndarray:
  logits = np.asarray(logits, np.float64)
  if logits.ndim != 2 or logits.shape[1] < 2 or not np.isfinite(logits).all():
    raise ValueError(
      f"logits have shape {logits.shape}: expected (n, k), k >= 2, all finite"
    )
  return logits

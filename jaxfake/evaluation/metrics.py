"""How well images are told apart: figures with intervals, curves for plots.

All in float64, over all images at once: no figure depends on the order of the
images or on the batches they were scored in.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from jaxfake import errors

BINS = 15  # Of confidence, as in the tables of Guo et al.
SUM_TOLERANCE = 1e-4  # Of a row of probabilities; float32 keeps well within.
# Resamples are weighed in parts of about this many (resample, image) pairs.
PART = 2_000_000
FPR_LIMITS = {"tpr_at_1_percent_fpr": 0.01, "tpr_at_5_percent_fpr": 0.05}


def clopper_pearson(
  successes: float, n: float, level: float = 0.95
) -> tuple[float, float]:
  """Exact interval of a proportion, `successes` of `n`: low, high.

  Clopper and Pearson, 1934, Biometrika 26 (4), by quantiles of the beta
  distribution, which also take fractional successes. Raises ValueError where
  there is no trial or the successes are not among them.
  """
  if not (n > 0 and 0 <= successes <= n and 0 < level < 1):
    raise ValueError(
      f"{successes} successes of {n} at level {level}: expected at least one"
      " trial, 0 <= successes <= n and 0 < level < 1"
    )
  tail = (1 - level) / 2
  # Not of scipy.stats, which takes a second to import.
  beta = scipy.special.betaincinv
  low = beta(successes, n - successes + 1, tail) if successes > 0 else 0
  high = beta(successes + 1, n - successes, 1 - tail) if successes < n else 1
  return float(low), float(high)


def decide(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
  """Classes (n,) called for probabilities (n, k).

  Of two classes the second where its probability reaches the threshold; of
  more the likeliest, whatever the threshold.
  """
  if probabilities.shape[1] == 2:
    return (probabilities[:, 1] >= threshold).astype(int)
  return probabilities.argmax(1)


def confusion(labels: np.ndarray, predicted: np.ndarray, k: int) -> np.ndarray:
  """Counts (k, k): row the true class, column the class called."""
  labels = _check_labels(labels, k)
  predicted = _check_labels(predicted, k)
  if len(labels) != len(predicted):
    raise ValueError(f"{len(labels)} labels but {len(predicted)} predictions")
  return np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)


def roc(
  labels: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """False and true positive rates, and the thresholds they hold at, (t,) each.

  Labels (n,) are 0 or 1; `score >= threshold` calls 1. Thresholds fall from
  infinity, where nothing is called, through every distinct score. Raises
  DataError where a class is missing.
  """
  score = np.asarray(score, np.float64)
  labels = _check_labels(labels, 2)
  if score.shape != labels.shape or not np.isfinite(score).all():
    raise ValueError(
      f"scores have shape {score.shape}: expected {labels.shape}, all finite"
    )
  for c in (0, 1):
    if c not in labels:
      raise errors.DataError(f"no image has label {c}: a ROC needs both 0, 1")
  tp, fp = _curve(np.ones((1, len(labels))), labels == 1, score)
  thresholds = np.concatenate([[np.inf], np.unique(score)[::-1]])
  return fp[0] / fp[0, -1], tp[0] / tp[0, -1], thresholds


def auc(labels: np.ndarray, score: np.ndarray) -> float:
  """Area under `roc`, a tie counting half."""
  fpr, tpr, _ = roc(labels, score)
  return float(np.trapezoid(tpr, fpr))


def reliability(
  labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean confidence, accuracy and count (bins,) in equal bins of confidence.

  Confidence is the probability of the likeliest class; bin i holds those in
  (i / bins, (i + 1) / bins], as in Guo et al., 2017, arXiv:1706.04599, section
  2. An empty bin's mean and accuracy are NaN.
  """
  labels, probabilities = _check(labels, probabilities)
  confidence, right, index = _confidence(labels, probabilities, bins)
  count = np.bincount(index, minlength=bins)
  with np.errstate(invalid="ignore"):
    mean = np.bincount(index, confidence, bins) / count
    accuracy = np.bincount(index, right, bins) / count
  return mean, accuracy, count


def figures(
  labels: np.ndarray,
  probabilities: np.ndarray,
  patients: Sequence[str] | Sequence[int] | np.ndarray,
  *,
  classes: Sequence[str],
  threshold: float = 0.5,
  resamples: int = 1000,
  seed: int = 0,
) -> dict[str, dict]:
  """Every figure of a classifier, each with a 95 % interval.

  Takes labels (n,), probabilities (n, k) whose rows sum to 1, the patient of
  each image (n,) and the k classes' names. With two classes the second is the
  positive one, called where its probability reaches `threshold`; with more the
  likeliest is called. Returns {name: {"value", "low", "high", "interval"}}:

  - accuracy; balanced_accuracy, macro_f1: means over the classes among the
    labels; precision/X, recall/X, f1/X of each class X.
  - auc, average_precision: of the positive class, or with more than two
    classes the mean of one against the rest over the classes among the labels.
    Average precision steps from point to point, without interpolation.
  - With two classes eer, where the ROC, its points joined by straight lines,
    crosses fpr = 1 - tpr; and tpr_at_1_percent_fpr and tpr_at_5_percent_fpr,
    the largest true positive rate of any threshold whose false positive rate
    is at most that, not interpolated: with fewer than 100 negatives, 1 %
    allows no false positive.
  - ece: expected calibration error over 15 equal bins of confidence, Guo et
    al., 2017, arXiv:1706.04599, equation 3. It asks about probabilities, so
    the likeliest class counts, whatever the threshold. Biased upwards in small
    samples: a perfect model's is above 0.
  - brier: mean over images of the squared distance between probabilities and
    the one-hot label, summed over classes (Brier, 1950), from 0 to 2; with two
    classes twice the mean of (p - y)^2.

  A figure that is not defined has value, low, high and interval None and says
  why under "reason": precision of a class never called (it is not 0: nothing
  was called wrongly), recall and F1 of a class without images. F1 is 2 tp / (2
  tp + fp + fn), so 0 where a class has images and is never called.

  "interval" says which. "patient bootstrap" is the percentile interval over
  `resamples` draws of patients with replacement, all images of a patient
  together. A figure leaves out the draws in which it is not defined, as those
  without a class leave out that class's recall and every mean over classes:
  this is the distribution that drawing again would give, without also
  withholding such draws from accuracy, which they do define. For ece the
  interval is reflected about the value, as resampling adds once more the bias
  that the value has: where ece was truly 0.093 (300 images), 92 % of reflected
  and 86 % of plain intervals held it; of a perfect model 62 % and none held 0.

  "exact binomial" is Clopper and Pearson's: for accuracy, precision and recall
  where every image is its own patient; and, over patients, where the bootstrap
  knows nothing because all draws agree (20 right of 20 would be [1, 1]) or
  fewer than a tenth define the figure. In this second use a figure that is no
  proportion is treated as one of the patients of the rarest class (F1: of its
  own class; ece and brier: of all), which errs towards too wide. True positive
  rates at a false positive rate are always bootstrapped: their threshold is of
  the same images, and taking it as known, an interval of nominal 95 % held the
  truth in 30 to 80 % of simulated tests, the bootstrap's in 94 to 97 % (but in
  70 % at 1 % with only 100 negatives).

  Raises DataError where there are fewer than two images, patients or classes
  among the labels, ValueError for arrays that are not as said above.
  """
  labels, probabilities = _check(labels, probabilities)
  patients, classes = np.asarray(list(patients)), [str(c) for c in classes]
  _check_beside(probabilities, patients, classes, threshold, resamples)
  names, patient = np.unique(patients, return_inverse=True)
  _check_enough(labels, len(names), classes)

  # One order of rows, whatever order they came in: sums then round alike.
  order = np.lexsort((*probabilities.T, labels, patient))
  labels, patient = labels[order], patient[order]
  probabilities = probabilities[order]
  predicted = decide(probabilities, threshold)

  def measure(weights):
    return _measure(weights, labels, probabilities, predicted, classes)

  values = measure(np.ones((1, len(labels))))
  samples = _resampled(measure, patient, resamples, seed)
  counted = _counted(labels, predicted, patient, classes)
  single = len(names) == len(labels)
  return {
    name: _undefined(name)
    if np.isnan(value)
    else _with_interval(
      name, value, samples[name], patient[counted[name]], single
    )
    for name, (value,) in values.items()
  }


def _check_beside(
  probabilities, patients, classes, threshold: float, resamples: int
) -> None:
  n, k = probabilities.shape
  if len(classes) != k or len(set(classes)) != k:
    raise ValueError(f"classes are {classes}: expected {k} different names")
  if patients.shape != (n,) or (n and patients.dtype.kind not in "iuUS"):
    raise ValueError(
      f"patients are {patients.dtype} {patients.shape}: expected a string or"
      f" whole number for each of {n} images"
    )
  if not np.isfinite(threshold) or resamples < 1:
    raise ValueError(
      f"threshold is {threshold}, resamples {resamples}: expected a finite"
      " number and at least 1"
    )


def _resampled(
  measure: Callable, patient: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
  """Every figure (resamples,) over draws of patients; `patient` (n,) is the
  index of each image's."""
  rng = np.random.default_rng(seed)
  count, part = int(patient.max()) + 1, max(1, PART // len(patient))
  parts = []
  for first in range(0, resamples, part):
    draws = _draw(rng, min(part, resamples - first), count)
    parts.append(measure(draws[:, patient]))
  return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _undefined(name: str) -> dict:
  kind, _, of = name.partition("/")
  called = kind == "precision"
  reason = f"no image was called {of}" if called else f"no image is {of}"
  figure = dict.fromkeys(("value", "low", "high", "interval"))
  return figure | {"reason": reason}


def _with_interval(
  name: str, value: float, samples, of_patients, single: bool
) -> dict:
  """A figure as `figures` returns it. `of_patients` are those of the images it
  counts; `single` says that each image is its own."""
  interval = None
  proportion = name.partition("/")[0] in ("accuracy", "precision", "recall")
  if not (single and proportion):
    interval = _bootstrap(name, value, samples)
  how = "patient bootstrap" if interval else "exact binomial"
  if interval is None:
    trials = len(np.unique(of_patients))
    top = 2 if name == "brier" else 1  # The most that it can be.
    share = min(value / top, 1)  # Rows may sum to a little above 1.
    interval = top * np.array(clopper_pearson(share * trials, trials))
  low, high = interval
  return {
    "value": float(value),
    "low": float(min(low, value)),  # Reflected, it may leave the value out.
    "high": float(max(high, value)),
    "interval": how,
  }


def across_seeds(runs: Sequence[dict[str, dict]]) -> dict[str, dict]:
  """Figures of one model trained with several seeds, from those of each.

  Returns {name: {"value", "low", "high", "interval", "sd", "seeds"}}. The value
  is the mean over seeds; low and high are the means of the seeds' lows and
  highs, so they say what other patients might have given one such run, not how
  seeds differ. That is "sd", the standard deviation over seeds (ddof 1), None
  for one seed. A figure that is undefined for a seed stays undefined, since the
  mean of the others would be of chosen runs. Raises ValueError where there are
  no runs or their figures have different names.
  """
  if not runs or any(run.keys() != runs[0].keys() for run in runs):
    raise ValueError("expected the same figures from one or more runs")
  result = {}
  for name in runs[0]:
    mean: dict[str, Any]
    of = [run[name] for run in runs]
    reasons = [f["reason"] for f in of if f["value"] is None]
    if reasons:
      mean = dict.fromkeys(("value", "low", "high", "interval", "sd"))
      mean["reason"] = f"{reasons[0]} in {len(reasons)} of {len(of)} runs"
    else:
      mean = {
        key: float(np.mean([f[key] for f in of]))
        for key in ("value", "low", "high")
      }
      mean["interval"] = ", ".join(sorted({f["interval"] for f in of}))
      sd = np.std([f["value"] for f in of], ddof=1) if len(of) > 1 else None
      mean["sd"] = None if sd is None else float(sd)
    result[name] = mean | {"seeds": len(of)}
  return result


def _check_labels(labels, k: int) -> np.ndarray:
  labels = np.asarray(labels)
  if labels.ndim != 1 or (len(labels) and labels.dtype.kind not in "biu"):
    raise ValueError(
      f"labels are {labels.dtype} {labels.shape}: expected whole numbers (n,)"
    )
  labels = labels.astype(np.int64)
  if len(labels) and not (labels.min() >= 0 and labels.max() < k):
    raise ValueError(
      f"labels run from {labels.min()} to {labels.max()}: expected 0 to {k - 1}"
    )
  return labels


def _check(labels, probabilities) -> tuple[np.ndarray, np.ndarray]:
  """Labels as int64 (n,), probabilities as float64 (n, k); or ValueError."""
  probabilities = np.asarray(probabilities, np.float64)
  if probabilities.ndim != 2 or probabilities.shape[1] < 2:
    raise ValueError(
      f"probabilities have shape {probabilities.shape}: expected (n, k), k >= 2"
    )
  labels = _check_labels(labels, probabilities.shape[1])
  if len(labels) != len(probabilities):
    raise ValueError(
      f"{len(labels)} labels but {len(probabilities)} rows of probabilities"
    )
  bad = ~np.isfinite(probabilities).all(1) | (probabilities < 0).any(1)
  bad |= ~(np.abs(probabilities.sum(1) - 1) <= SUM_TOLERANCE)
  if bad.any():
    i = int(bad.argmax())
    raise ValueError(
      f"probabilities[{i}] is {probabilities[i].tolist()}: expected finite"
      " numbers, none negative, with sum 1"
    )
  return labels, probabilities


def _check_enough(labels, patients: int, classes) -> None:
  if len(labels) < 2:
    raise errors.DataError(
      f"{len(labels)} image(s) to score: figures need at least 2"
    )
  present = np.unique(labels)
  if len(present) < 2:
    missing = ", ".join(c for i, c in enumerate(classes) if i != present[0])
    raise errors.DataError(
      f"all {len(labels)} images to score are {classes[present[0]]}, none is"
      f" {missing}: figures need at least two classes"
    )
  if patients < 2:
    raise errors.DataError(
      f"all {len(labels)} images to score are of one patient: figures need at"
      " least 2"
    )


def _draw(rng, resamples: int, patients: int) -> np.ndarray:
  """How often each patient is drawn (resamples, patients), with replacement."""
  draws = rng.integers(patients, size=(resamples, patients))
  draws += np.arange(resamples)[:, None] * patients
  count = np.bincount(draws.ravel(), minlength=resamples * patients)
  return count.reshape(resamples, patients).astype(np.float64)


def _one_hot(index: np.ndarray, k: int) -> np.ndarray:
  return (index[:, None] == np.arange(k)).astype(np.float64)


def _confidence(labels, probabilities, bins: int):
  """Of each image: the likeliest class's probability, if right, its bin."""
  called = decide(probabilities)
  confidence = probabilities[np.arange(len(labels)), called]
  index = np.ceil(confidence * bins).astype(int) - 1
  return confidence, called == labels, np.clip(index, 0, bins - 1)


def _rank_score(probabilities: np.ndarray, c: int) -> np.ndarray:
  """Numbers (n,) that order images as the probability of class c does.

  Near 0 float64 tells 1e-300 from 1e-200, near 1 nothing above 1 - 1e-16: there
  the probability of the other classes still has the order. Without it a sharp
  temperature would make ties and so change the AUC.
  """
  rest = np.delete(probabilities, c, axis=1).sum(1)
  with np.errstate(divide="ignore"):
    beyond = 1 - np.log(rest)  # Above 1, up to infinity.
  near = probabilities[:, c] > 1 - 1e-9
  return np.where(near, beyond, probabilities[:, c])


def _curve(weights, positive, score) -> tuple[np.ndarray, np.ndarray]:
  """Weights (r, t) of true and of false positives, thresholds falling.

  The first of the t thresholds is above all scores (n,), the others are the
  distinct scores; equal scores pass together. `positive` (n,) is bool.
  """
  order = np.argsort(-score, kind="stable")
  falling = score[order]
  last = np.append(falling[1:] != falling[:-1], True)  # Of equal scores.
  weights, positive = weights[:, order], positive[order]
  zero = np.zeros((len(weights), 1))
  tp, fp = (
    np.hstack([zero, np.cumsum(weights * mask, 1)[:, last]])
    for mask in (positive, ~positive)
  )
  return tp, fp


def _auc(tp, fp) -> np.ndarray:
  """Area (r,) under the ROC by trapezoids, so a tie counts half."""
  area = (np.diff(fp) * (tp[:, 1:] + tp[:, :-1]) / 2).sum(1)
  return area / (tp[:, -1] * fp[:, -1])


def _average_precision(tp, fp) -> np.ndarray:
  gained, called = np.diff(tp), tp[:, 1:] + fp[:, 1:]
  # Without a call so far nothing was gained either.
  precision = tp[:, 1:] / np.where(called > 0, called, 1)
  value = (gained * precision).sum(1) / tp[:, -1]
  return np.where(fp[:, -1] > 0, value, np.nan)  # 1 whatever the scores.


def _eer(tpr, fpr) -> np.ndarray:
  """Rate (r,) at which the joined points of the ROC meet fpr = 1 - tpr."""
  total = tpr + fpr  # From 0 to 2, never falling.
  after = (total < 1).sum(1)
  row = np.arange(len(total))
  a, b = total[row, after - 1], total[row, after]
  share = (1 - a) / (b - a)
  return (1 - share) * fpr[row, after - 1] + share * fpr[row, after]


@np.errstate(divide="ignore", invalid="ignore")
def _measure(weights, labels, probabilities, predicted, classes):
  """{name: (r,)}: every figure, image i counted weights[:, i] times.

  NaN where a figure is not defined for those weights (r, n).
  """
  k = len(classes)
  present = np.unique(labels)
  total = weights.sum(1)
  cells = weights @ _one_hot(labels * k + predicted, k * k)
  cells = cells.reshape(-1, k, k)  # (r, true, called)
  right = np.diagonal(cells, axis1=1, axis2=2)  # (r, k)
  images, called = cells.sum(2), cells.sum(1)
  recall, precision = right / images, right / called
  f1 = np.where(images > 0, 2 * right / (images + called), np.nan)
  out = {
    "accuracy": right.sum(1) / total,
    "balanced_accuracy": recall[:, present].mean(1),
    "macro_f1": f1[:, present].mean(1),
  }
  for c, name in enumerate(classes):
    out[f"precision/{name}"] = precision[:, c]
    out[f"recall/{name}"] = recall[:, c]
    out[f"f1/{name}"] = f1[:, c]

  auc, average_precision = [], []
  for c in [1] if k == 2 else present:
    tp, fp = _curve(weights, labels == c, _rank_score(probabilities, c))
    auc.append(_auc(tp, fp))
    average_precision.append(_average_precision(tp, fp))
  out["auc"] = np.mean(auc, 0)
  out["average_precision"] = np.mean(average_precision, 0)
  if k == 2:
    tpr, fpr = tp / tp[:, -1:], fp / fp[:, -1:]
    out["eer"] = _eer(tpr, fpr)
    for name, limit in FPR_LIMITS.items():
      # Sound without a tolerance: 7 / 700 rounds to the same number as 0.01.
      best = np.where(fpr <= limit, tpr, 0).max(1)
      out[name] = np.where(np.isnan(fpr[:, -1]), np.nan, best)

  confidence, correct, index = _confidence(labels, probabilities, BINS)
  gap = _one_hot(index, BINS) * (correct - confidence)[:, None]
  out["ece"] = np.abs(weights @ gap).sum(1) / total
  square = ((probabilities - _one_hot(labels, k)) ** 2).sum(1)
  out["brier"] = weights @ square / total
  return out


def _counted(labels, predicted, patient, classes) -> dict[str, np.ndarray]:
  """{name: (n,) bool}: the images that an exact interval counts."""
  everything = np.ones(len(labels), bool)
  rarest = min(
    (labels == c for c in np.unique(labels)),
    key=lambda rows: len(np.unique(patient[rows])),
  )
  out = {name: everything for name in ("accuracy", "ece", "brier")}
  for name in ("balanced_accuracy", "macro_f1", "auc", "average_precision"):
    out[name] = rarest
  for name in ("eer", *FPR_LIMITS):
    out[name] = rarest
  for c, name in enumerate(classes):
    out[f"precision/{name}"] = predicted == c
    out[f"recall/{name}"] = out[f"f1/{name}"] = labels == c
  return out


def _bootstrap(name: str, value: float, samples: np.ndarray):
  """Low and high by samples (r,) of a figure, None where they say nothing."""
  defined = samples[~np.isnan(samples)]
  if len(defined) * 10 < len(samples):
    return None
  low, high = np.percentile(defined, [2.5, 97.5])
  if high - low < 1e-12:
    return None
  if name == "ece":
    return max(0, 2 * value - high), min(1, 2 * value - low)
  return low, high

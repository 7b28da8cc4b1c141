"""How any classifier is judged, from its logits on validation and test.

Whatever is fitted or chosen here (temperature, threshold) comes from
validation; the test images are only counted.
"""

from collections.abc import Callable, Iterator, Sequence
import statistics
import time
from typing import NamedTuple

import numpy as np

from jaxfake import contracts, errors
from jaxfake.evaluation import calibration, metrics, pictures

MISTAKES, SHOWN = 32, 128  # Mistakes shown, each of so many pixels or more.
TIMES = 5  # Scoring is timed.


def ms_per_image(score: Callable, source: contracts.Items, n: int) -> float:
  """Median time of score(uint8 images (n, s, s, 1)), after a first call."""
  images = np.stack([source[i % len(source)]["image"] for i in range(n)])
  score(images)  # May compile.
  seconds = []
  for _ in range(TIMES):
    begin = time.monotonic()
    score(images)
    seconds.append(time.monotonic() - begin)
  return 1e3 * statistics.median(seconds) / n


class Scored(NamedTuple):
  """Images of a split: logits (n, k) and facts (n,), in the split's order."""

  logits: np.ndarray
  labels: np.ndarray
  patients: list[str]
  ids: list[str]

  @classmethod
  def of(cls, logits: np.ndarray, source: contracts.Items) -> "Scored":
    labels = np.asarray(source.column("label"))
    return cls(logits, labels, source.column("patient"), source.column("id"))


def check(splits: contracts.Splits) -> None:
  """Raises DataError where a split lacks a class: nothing could be judged."""
  if len(splits.classes) < 2:
    raise errors.DataError(
      f"classes are {splits.classes or 'not known for every image'}: expected"
      " a class for each image, and at least two"
    )
  for split in ("train", "val", "test"):
    source = getattr(splits, split)
    labels = set(source.column("label")) if len(source) else set()
    missing = [c for i, c in enumerate(splits.classes) if i not in labels]
    if missing:
      raise errors.DataError(
        f"no {split} image is {', '.join(missing)}: expected images of every"
        " class in train, val and test (data.split=patient makes splits)"
      )


def validation(
  logits: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
  """Class-weighted loss, accuracy and balanced accuracy, no interval."""
  logits = np.asarray(logits, np.float64)
  p = calibration.softmax(logits)
  each = -np.log(np.maximum(p[np.arange(len(p)), labels], 1e-300))
  weight = np.asarray(weights, np.float64)[labels]
  right = p.argmax(1) == labels
  recalls = [right[labels == c].mean() for c in np.unique(labels)]
  return {
    "loss": (weight * each).sum() / weight.sum(),
    "accuracy": right.mean(),
    "balanced_accuracy": float(np.mean(recalls)),
  }


def conclude(splits: contracts.Splits, val: Scored, test: Scored) -> dict:
  """Calibration from `val`, figures of `test`, pictures, predictions.

  {"calibration": {"temperature", "threshold", "uncertain"}, "figures",
  "uncalibrated", "predictions", and pictures}: see metrics.figures and
  workdir.finish. `uncalibrated` has ece and brier before temperature scaling.
  """
  classes = splits.classes
  temperature = calibration.fit_temperature(val.logits, val.labels)
  probabilities = calibration.softmax(test.logits, temperature)
  threshold = uncertain = (
    None  # With more than two classes the likeliest is called.
  )
  if len(classes) == 2:
    p = calibration.softmax(val.logits, temperature)[:, 1]
    threshold = calibration.choose_threshold(val.labels, p)
    uncertain = calibration.choose_uncertain(val.labels, p)
  at = 0.5 if threshold is None else threshold

  def figures(p):
    return metrics.figures(
      test.labels, p, test.patients, classes=classes, threshold=at
    )

  raw = calibration.softmax(test.logits)
  before = figures(raw)
  predicted = metrics.decide(probabilities, at)
  counts = {
    name: {"images": len(x.labels), "patients": len(set(x.patients))}
    for name, x in (("val", val), ("test", test))
  }
  return {
    "calibration": {
      "temperature": temperature,
      "threshold": threshold,
      "uncertain": uncertain,
      "positive": classes[1] if len(classes) == 2 else None,
      "fitted_on": "val",
    },
    "counts": counts,
    "figures": figures(probabilities),
    "uncalibrated": {name: before[name] for name in ("ece", "brier")},
    "predictions": [
      row
      for name, x in (("val", val), ("test", test))
      for row in predictions(name, x, classes, temperature)
    ],
  } | plots(splits, test.labels, raw, probabilities, predicted)


def predictions(
  split: str, scored: Scored, classes: Sequence[str], temperature: float
) -> Iterator[dict]:
  """Rows of predictions.csv: one image each, calibrated probabilities."""
  p = calibration.softmax(scored.logits, temperature)
  for i in range(len(p)):
    yield {
      "split": split,
      "id": scored.ids[i],
      "patient": scored.patients[i],
      "label": classes[scored.labels[i]],
    } | {f"p_{c}": f"{p[i, j]:.6g}" for j, c in enumerate(classes)}


def plots(
  splits: contracts.Splits,
  labels: np.ndarray,
  raw: np.ndarray,
  probabilities: np.ndarray,
  predicted: np.ndarray,
) -> dict:
  """Pictures of a test set's ROC, calibration, confusion and worst mistakes."""
  classes = splits.classes
  scores = {
    c: (labels == i, probabilities[:, i]) for i, c in enumerate(classes)
  }
  if len(classes) == 2:
    scores.pop(classes[0])
  curves = {
    f"{c} against the rest" if len(classes) > 2 else c: metrics.roc(
      positive.astype(int), score
    )[:2]
    for c, (positive, score) in scores.items()
  }
  table = metrics.confusion(labels, predicted, len(classes))
  drawn = {
    "roc": pictures.roc(curves),
    "reliability": pictures.reliability(
      {
        "before temperature scaling": metrics.reliability(labels, raw),
        "after": metrics.reliability(labels, probabilities),
      }
    ),
    "confusion": pictures.confusion(table, classes),
  }
  wrong = np.flatnonzero(predicted != labels)
  if len(wrong):
    doubt = probabilities[wrong, labels[wrong]]
    wrong = wrong[np.argsort(doubt, kind="stable")][:MISTAKES]
    cells = [
      (
        f"{classes[labels[i]]}, p={probabilities[i, labels[i]]:.2g}",
        pictures.enlarged(splits.test[i]["image"][..., 0], SHOWN),
      )
      for i in map(int, wrong)
    ]
    drawn["mistakes"] = pictures.captioned(cells, 8)
  return drawn

"""How well a map says where a picture was altered: figures of one picture, and
means over many with intervals over patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfake.evaluation import metrics

TOP = 0.005  # Share of a picture's pixels, the highest, that its score is of.
RESAMPLES = 1000


def measured(
  evidence: np.ndarray, mask: np.ndarray, thresholds: np.ndarray
) -> dict:
  """Figures of a map (h, w) and where it should be high, bool (h, w), neither
  all nor nothing: AUC of pixels, IoU at each of some rising thresholds, whether
  the peak lies in the mask, and what share of the picture that is."""
  flat, inside = evidence.ravel(), mask.ravel()
  ordered, own = np.sort(flat), flat[inside]
  n = len(own)
  # Mann and Whitney's U, ties counting half; those inside beat n / 2 of theirs.
  below, upto = (ordered.searchsorted(own, side) for side in ("left", "right"))
  auc = ((below + upto).mean() / 2 - n / 2) / (flat.size - n)
  bins = thresholds.searchsorted(flat, "right")
  count = lambda which: np.bincount(bins[which], minlength=len(thresholds) + 1)
  # Pixels at or above each threshold.
  hit, miss = (
    count(which)[::-1].cumsum()[::-1][1:] for which in (inside, ~inside)
  )
  return {
    "auc": float(auc),
    "iou": (hit / (n + miss)).round(5).tolist(),
    "hit": float(inside[flat.argmax()]),
    "share": n / flat.size,
  }


def peak(evidence: np.ndarray) -> float:
  """A picture's score by its map: the maximum."""
  return float(evidence.max())


def top(evidence: np.ndarray) -> float:
  """A picture's score by its map: the mean of the TOP share of pixels, which no
  single pixel decides."""
  flat = evidence.ravel()
  n = max(1, round(TOP * flat.size))
  return float(np.partition(flat, -n)[-n:].mean())


def of(rows: list[dict], **values: Any) -> list[dict]:
  """The rows that have some values."""
  return [x for x in rows if all(x[k] == v for k, v in values.items())]


def best(rows: list[dict]) -> int:
  """Which of `measured`'s thresholds has the highest mean IoU."""
  return int(np.mean([x["iou"] for x in rows], 0).argmax())


def summary(rows: list[dict], chosen: int, reals: list[dict]) -> dict:
  """Means over pictures with 95 % intervals over patients, IoU at one of the
  thresholds, and by their `score` the AUC of pictures against those in which
  nothing was altered; None where none are given, or one patient has all."""
  patients = np.array([x["patient"] for x in rows])
  means = {
    "pictures": len(rows),
    "patients": len(set(patients)),
    "pixel_auc": interval([x["auc"] for x in rows], patients),
    "iou": interval([x["iou"][chosen] for x in rows], patients),
    "hit": interval([x["hit"] for x in rows], patients, share=True),
    "chance": float(np.mean([x["share"] for x in rows])),
  }
  if not reals or len(set(patients)) < 2:
    return means | {"picture_auc": None}
  both = [*reals, *rows]
  labels = np.arange(len(both)) >= len(reals)
  auc = metrics.figures(
    labels.astype(int),
    ranked(np.array([x["score"] for x in both])),
    [x["patient"] for x in both],
    classes=("untampered", "tampered"),
    resamples=200,
  )["auc"]
  return means | {"picture_auc": {k: auc[k] for k in ("value", "low", "high")}}


def ranked(score: np.ndarray) -> np.ndarray:
  """Probabilities (n, 2) in the order of a score; equal ones stay equal."""
  p = np.unique(score, return_inverse=True)[1] + 1
  p = p / (p.max() + 1)
  return np.stack([1 - p, p], 1)


def interval(
  values: Sequence[float] | np.ndarray,
  patients: np.ndarray,
  share: bool = False,
) -> dict:
  """Mean over pictures, and 95 % of the means of patients drawn again; of a
  share of 0 or 1, of which draws know nothing, Clopper and Pearson's interval
  over patients."""
  values = np.asarray(values, float)
  _, index = np.unique(patients, return_inverse=True)
  n = index.max() + 1
  total, count = (np.bincount(index, w, n) for w in (values, values * 0 + 1))
  draws = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
  means = total[draws].sum(1) / count[draws].sum(1)
  low, high = np.percentile(means, [2.5, 97.5])
  value = float(values.mean())
  if share and value in (0.0, 1.0):
    low, high = metrics.clopper_pearson(value * n, n)
  return {"value": value, "low": float(low), "high": float(high)}


def said(figure: dict | None, digits: int = 2) -> str:
  if figure is None:
    return "-"
  value, low, high = (
    f"{figure[k]:.{digits}f}".lstrip("0") or "0"
    for k in ("value", "low", "high")
  )
  return f"{value} ({low} to {high})"


def percent(figure: dict) -> str:
  value, low, high = (100 * figure[k] for k in ("value", "low", "high"))
  return f"{value:.0f}% ({low:.0f} to {high:.0f})"


def shown(row: dict) -> dict[str, str]:
  """A row of `summary` as people read it, of a way of altering."""
  return {
    "way": row["way"],
    "AUC of pixels": said(row["pixel_auc"]),
    "IoU": said(row["iou"]),
    "peak in mask": percent(row["hit"]),
    "chance": f"{row['chance']:.1%}",
    "AUC of pictures": said(row["picture_auc"]),
  }

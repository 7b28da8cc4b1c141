"""From every picture's figures to a row of each way."""

import numpy as np

from jaxfake.data import matching, pipeline, reading, sources
from jaxfake.evaluation import metrics
from jaxfake.experiments.study import leaks
from jaxfake.experiments.tampering.ways import NONE, names, ways

THRESHOLDS = np.arange(0, 10, 0.25)  # Of evidence.
RESAMPLES = 1000


def measured(evidence: np.ndarray, mask: np.ndarray) -> dict:
  """AUC of pixels, IoU at each of THRESHOLDS, whether the peak lies in the
  mask, what share of the picture that is, and the peak's evidence."""
  flat, inside = evidence.ravel(), mask.ravel()
  ordered, own = np.sort(flat), flat[inside]
  n = len(own)
  # Mann and Whitney's U, ties counting half; those inside beat n / 2 of theirs.
  below, upto = (ordered.searchsorted(own, side) for side in ("left", "right"))
  auc = ((below + upto).mean() / 2 - n / 2) / (flat.size - n)
  steps = np.floor(flat / THRESHOLDS[1]).clip(-1, len(THRESHOLDS) - 1)
  bins = steps.astype(np.int64) + 1
  count = lambda which: np.bincount(bins[which], minlength=len(THRESHOLDS) + 1)
  # Pixels at or above each threshold.
  hit, miss = (
    count(which)[::-1].cumsum()[::-1][1:] for which in (inside, ~inside)
  )
  peak = int(flat.argmax())
  return {
    "auc": float(auc),
    "iou": (hit / (n + miss)).round(5).tolist(),
    "hit": float(inside[peak]),
    "share": n / flat.size,
    "peak": float(flat[peak]),
  }


def figures(config, rows: list[dict]) -> dict:
  """The threshold of validation, and figures of test by way and delivery, by
  way and size."""
  first = names(config)[0]
  known = [
    x
    for x in rows
    if x["split"] == "val" and x["delivery"] == first and x["way"] != NONE
  ]
  chosen = int(np.mean([x["iou"] for x in known], 0).argmax())
  test = [x for x in rows if x["split"] == "test"]
  plain = [x for x in test if x["way"] == NONE]
  outcome = {"threshold": float(THRESHOLDS[chosen]), "ways": [], "sizes": []}
  for way in map(str, ways(config)):
    for name in names(config):
      those = of(test, way=way, delivery=name)
      if those:
        row = {"way": way, "delivery": name}
        reals = of(plain, delivery=name)
        outcome["ways"].append(row | summary(those, chosen, reals))
    for mm in config.sizes_mm:
      those = of(test, way=way, delivery=first, mm=mm)
      if those:
        reals = of(plain, delivery=first, mm=mm)
        row = {"way": way, "mm": mm}
        outcome["sizes"].append(row | summary(those, chosen, reals))
  return outcome


def of(rows: list[dict], **values) -> list[dict]:
  """The rows that have some values."""
  return [x for x in rows if all(x[k] == v for k, v in values.items())]


def summary(rows: list[dict], chosen: int, reals: list[dict]) -> dict:
  """Means over pictures with 95 % intervals over patients, and the AUC of
  pictures against the untampered ones by their peak."""
  patients = np.array([x["patient"] for x in rows])
  means = {
    "pictures": len(rows),
    "patients": len(set(patients)),
    "pixel_auc": interval([x["auc"] for x in rows], patients),
    "iou": interval([x["iou"][chosen] for x in rows], patients),
    "hit": interval([x["hit"] for x in rows], patients, share=True),
    "chance": float(np.mean([x["share"] for x in rows])),
  }
  if rows[0]["way"] == NONE or len(set(patients)) < 2:
    return means | {"picture_auc": None}
  both = [*reals, *rows]
  labels = np.arange(len(both)) >= len(reals)
  peak = np.array([x["peak"] for x in both])
  auc = metrics.figures(
    labels.astype(int),
    ranked(peak),
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


def interval(values, patients: np.ndarray, share: bool = False) -> dict:
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


def audit(config, dataset) -> dict:
  """leaks.audit of some pairs: what tells them apart without the region."""
  parts, each = [], 2
  for split in ("train", "test"):
    source = dataset.source(split)
    count = len(source) // each
    firsts = each * matching.evenly(
      np.arange(count), min(config.audited, count)
    )
    some = sources.Subset(source, np.stack([firsts, firsts + 1], 1).ravel())
    read = pipeline.arrays(pipeline.Images(some, config.data))
    parts.append((read["image"], read["label"], some.column("patient")))
  images, labels, _ = parts[1]
  files = [
    [reading.png(x[..., 0]) for x in images[labels == c]] for c in (0, 1)
  ]
  return leaks.audit(files, *parts)

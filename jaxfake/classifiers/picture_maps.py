"""Maps of whole pictures by a fully convolutional network, what is settled on
validation pictures, and what is said of test pictures.

A picture's score is the mean of the highest 0.5 % of its map. Settled are the
logit above which a pixel counts as altered, by the mean IoU, and what a score
says of a picture.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np
import scipy.special

from jaxfake import contracts
from jaxfake.classifiers import overlay
from jaxfake.data import work
from jaxfake.evaluation import calibration, localization
from jaxfake.models import localizer as models

THRESHOLDS = np.arange(-5, 15, 0.25)  # Of a pixel's logit.
FADE = 2.0  # A map is drawn from so much below the threshold.
# A picture's sides are rounded up to such multiples of pixels: few shapes are
# compiled. What is larger than a tile is mapped by several.
ROUNDED, TILE = 64, 1024
EXAMPLES = 8  # Test pictures whose maps are drawn.


def mapped(
  score: Callable,
  picture: np.ndarray,
  tile: int = TILE,
  reach: int = models.REACH,
) -> np.ndarray:
  """Logits (h, w) of a picture uint8 (h, w), or (h, w, c) with what else is
  known of its pixels, by `score(uint8 (1, h', w', c))`, which sees so many
  pixels around one.

  The picture is mirrored at its borders, and mapped by tiles that overlap as
  far as a pixel sees: the same as at once, in bounded memory.
  """
  shape = picture.shape[:2]
  inner = [min(tile, -(-n // ROUNDED) * ROUNDED) for n in shape]
  ends = [-(-n // side) * side for n, side in zip(shape, inner, strict=True)]
  pads = [(reach, reach + e - n) for n, e in zip(shape, ends, strict=True)]
  padded = np.pad(picture.reshape(*shape, -1), [*pads, (0, 0)], "symmetric")
  logits = np.empty(ends, np.float32)
  for top in range(0, ends[0], inner[0]):
    for left in range(0, ends[1], inner[1]):
      bottom, right = top + inner[0], left + inner[1]
      part = padded[top : bottom + 2 * reach, left : right + 2 * reach]
      seen = np.asarray(score(part[None]))[0]
      logits[top:bottom, left:right] = seen[reach:-reach, reach:-reach]
  return logits[: shape[0], : shape[1]]


def scored(score: Callable, source: contracts.Items) -> list[dict]:
  """A row for each whole picture of a tampered source."""
  rows = []
  with work.shown("pictures mapped", len(source)) as advance:
    for i in range(len(source)):
      item = source[i]
      logits = mapped(score, item["image"][..., 0])
      mask = item["mask"][..., 0] > 0
      row = {name: item[name] for name in ("id", "patient", "label")}
      row["way"] = item["method"] + ", touched up" * item["touch_up"]
      row["score"] = localization.top(logits)
      if mask.any():
        row |= localization.measured(logits, mask, THRESHOLDS)
      rows.append(row)
      advance()
  return rows


@dataclasses.dataclass(frozen=True)
class Rule:
  """From a map to what is drawn, from a score to a probability and a
  verdict."""

  threshold: float  # A pixel's logit from which on it counts as altered.
  slope: float  # Of the logit of an altered picture, by its score.
  intercept: float
  real_at_most: float  # Probabilities.
  fake_at_least: float

  def shown(self, logits: np.ndarray) -> np.ndarray:
    """Logits as a map to draw: 1 at the threshold, 0 at FADE below it."""
    return (logits - self.threshold) / FADE + 1

  def probability(self, score: Sequence[float] | np.ndarray) -> np.ndarray:
    """Of an altered picture, by scores (n,)."""
    return scipy.special.expit(self.slope * np.asarray(score) + self.intercept)


def settle(rows: list[dict]) -> tuple[Rule, int]:
  """What validation's rows say, and which of THRESHOLDS is the best."""
  altered = np.array([x["label"] > 0 for x in rows])
  chosen = localization.best([x for x in rows if x["label"]])
  score = np.array([x["score"] for x in rows])
  weight = 0.5 / np.where(altered, altered.sum(), (~altered).sum())
  curve = calibration.fit_logistic(score, altered, weight)
  settled = Rule(float(THRESHOLDS[chosen]), *curve, 0.0, 1.0)
  ends = calibration.choose_uncertain(
    altered.astype(int), settled.probability(score)
  )
  low, high = ends
  return (
    dataclasses.replace(settled, real_at_most=low, fake_at_least=high),
    chosen,
  )


def by_way(rows: list[dict], chosen: int) -> list[dict]:
  """A row of figures for each way of altering, and one for all of them."""
  reals = localization.of(rows, label=0)
  altered = [x for x in rows if x["label"]]
  table = []
  for way in ("all", *sorted({x["way"] for x in altered})):
    those = altered if way == "all" else localization.of(altered, way=way)
    table.append({"way": way} | localization.summary(those, chosen, reals))
  return table


def predicted(split: str, row: dict, settled: Rule, chosen: int) -> dict:
  """A line of predictions.csv; figures of pixels where any were altered."""
  altered = "auc" in row
  return {
    "split": split,
    "id": row["id"],
    "patient": row["patient"],
    "way": row["way"],
    "score": f"{row['score']:.6g}",
    "p_fake": f"{settled.probability(row['score']):.6g}",
    "pixel_auc": f"{row['auc']:.4f}" if altered else "",
    "iou": f"{row['iou'][chosen]:.4f}" if altered else "",
    "peak_in_mask": int(row["hit"]) if altered else "",
  }


def examples(heatmap: Callable, source: contracts.Items) -> np.ndarray:
  """Altered test pictures about the mask: as they are, with the mask's outline
  and under the map. uint8 (h, w, 3)."""
  altered = np.flatnonzero(source.column("label"))
  count = min(EXAMPLES, len(altered))
  strips = []
  for i in altered[np.arange(count) * len(altered) // count]:
    item = source[int(i)]
    gray, mask = item["image"][..., 0], item["mask"][..., 0] > 0
    strips.append(overlay.strip(gray, mask, heatmap(gray)))
  return np.concatenate(strips)

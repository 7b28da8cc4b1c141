"""From the errors of a reconstruction to evidence and a verdict, settled on
originals alone.

An error counts by how rare it is on its own side, smaller or larger than usual,
among the pixels of validation's originals: what is filled smoothly errs less
than said, what does not belong more. A picture's score, the mean of the highest
0.5 % of its map, is ranked among theirs, as conformal prediction counts it
(Vovk, Gammerman and Shafer, 2005, doi:10.1007/b106715).
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage

from jaxfake.classifiers import inconsistency
from jaxfake.evaluation import localization
from jaxfake.evaluation.verdicts import verdicts

REAL_AT_MOST, FAKE_AT_LEAST = 0.9, 0.99  # Of p_fake.
# Minus the decimal logarithms of the shares of pixels beyond which a side's
# values are kept; rarer ones are told by the last two.
RARE = np.arange(0.5, 4.5, 0.5)
# Evidence from which on a pixel is drawn as altered: one of 200 of originals'
# pixels is. A map is drawn from so much below it.
THRESHOLD, FADE = -np.log10(0.005), 1.0


def unusual(off: np.ndarray, gray: np.ndarray, square: int) -> np.ndarray:
  """float32 (h, w) of a picture's errors (h, w), in deviations: how much larger
  they are about each pixel than usual, or smaller, below 0. It is 0 where the
  picture is saturated, and less than a square from its border, where a hidden
  square has surroundings on fewer sides."""
  size = ndimage.uniform_filter(np.abs(off), square)
  # A quarter of a deviation counts as none: black is told without any error.
  energy = np.log(np.maximum(size, 0) + 0.25)
  found = inconsistency.standardised(energy, gray, square)
  inner = tuple(slice(square, max(n - square, square)) for n in gray.shape)
  shown = np.zeros_like(found)
  shown[inner] = found[inner]
  return shown


@dataclasses.dataclass(frozen=True)
class Rule:
  """From what is unusual to a map, from a map's score to its rank and a
  verdict."""

  # Of validation's pixels, values of `unusual` beyond which RARE of them lie:
  # minus those at the lower end, and those at the upper.
  low: Sequence[float]
  high: Sequence[float]
  scores: Sequence[float] = ()  # Of validation's originals, rising.
  real_at_most: float = REAL_AT_MOST
  fake_at_least: float = FAKE_AT_LEAST

  def evidence(self, unusual: np.ndarray) -> np.ndarray:
    """float32 (h, w) of `unusual` alike: minus the decimal logarithm of the
    share of originals' pixels that are so unusual, 0 for most."""
    sides = rarity(-unusual, self.low), rarity(unusual, self.high)
    rare = np.maximum(*sides) - np.log10(2)  # One side or the other.
    return np.maximum(rare, 0).astype(np.float32)

  def shown(self, evidence: np.ndarray) -> np.ndarray:
    """Evidence as a map to draw: 1 at THRESHOLD, 0 at FADE below it."""
    return (evidence - THRESHOLD) / FADE + 1

  def rank(self, score: Sequence[float] | np.ndarray) -> np.ndarray:
    """The share of validation's originals that look less altered than scores
    (n,), a picture itself counting as one of them."""
    return np.searchsorted(self.scores, score) / (len(self.scores) + 1)

  def verdicts(self, rank: np.ndarray) -> list[str]:
    return verdicts(rank, (self.real_at_most, self.fake_at_least))


def rarity(values: np.ndarray, ends: Sequence[float]) -> np.ndarray:
  """RARE of values, which is at `ends`; beyond the last of these as steep as
  before it, as an exponential tail is."""
  far = 100  # Of the last step.
  step = max(ends[-1] - ends[-2], 1e-3)
  knots = [*ends, ends[-1] + far * step]
  rare = [*RARE, RARE[-1] + far * (RARE[-1] - RARE[-2])]
  return np.interp(values, knots, rare, left=0.0)


def settle(maps: list[np.ndarray]) -> Rule:
  """What validation's maps of the unusual (h, w) say."""
  pixels = np.concatenate([x[x != 0] for x in maps])
  share = 10.0**-RARE
  low, high = np.quantile(pixels, share), np.quantile(pixels, 1 - share)
  rule = Rule((-low).tolist(), high.tolist())
  scores = sorted(localization.top(rule.evidence(x)) for x in maps)
  return dataclasses.replace(rule, scores=scores)

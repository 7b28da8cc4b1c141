"""Whether a gray picture can be a radiograph at all.

Only what is certainly none is named: an unseen hospital's pictures must pass.
Over 1,800 radiographs of five collections the nearest to a limit had 61 levels
between its 1st and 99th percentile, 52 % of its pixels within nine levels of
each other, 61 % within two such bands, 68 levels in all, and sides 1 to 2.3.
Noise passes, as a poor generator's fakes may look like it, and so does another
photograph: telling what a picture shows would take a network.
"""

import numpy as np

LEAST_SIDE = 24  # Pixels; sets of 28 px exist.
LONGEST = 4  # Times the shorter side.
LEAST_RANGE = 16  # Levels from the 1st to the 99th percentile.
LEAST_LEVELS = 16
MOST_IN_ONE, MOST_IN_TWO = 0.85, 0.9  # Of the pixels, in bands of levels.
BAND = 9  # Levels; JPEG's noise around one gray.
MOST_PLANE = 0.99  # Of the variance, explained by a plane.
_LOOKED_AT = 128  # Pixels along the shorter side, at most.


def no_radiograph(gray: np.ndarray) -> str | None:
  """Why uint8 gray (h, w) is no radiograph, or None."""
  h, w = gray.shape
  short, long = sorted((h, w))
  if short < LEAST_SIDE:
    return f"no radiograph: {w} x {h} pixels"
  if long > LONGEST * short:
    return f"no radiograph: a strip of {w} x {h} pixels"
  step = -(-short // _LOOKED_AT)
  seen = gray[::step, ::step]
  shares = np.bincount(seen.ravel(), minlength=256) / seen.size
  low, high = np.searchsorted(shares.cumsum(), (0.01, 0.99))
  if high - low < LEAST_RANGE:
    return f"no radiograph: nearly uniform, gray levels {low} to {high}"
  if (levels := np.count_nonzero(shares)) < LEAST_LEVELS:
    return f"no radiograph: {levels} gray levels"
  first, rest = _fullest(shares)
  second, _ = _fullest(rest)
  if first > MOST_IN_ONE:
    return f"no radiograph: {first:.0%} of it is one gray"
  if first + second > MOST_IN_TWO:
    return f"no radiograph: {first + second:.0%} of it is two grays"
  if _plane(seen) > MOST_PLANE:
    return "no radiograph: a gradient"
  return None


def _fullest(shares):
  """The share of the fullest band of levels, and the shares without it."""
  sums = np.convolve(shares, np.ones(BAND), "valid")
  start = int(sums.argmax())
  rest = shares.copy()
  rest[start : start + BAND] = 0
  return float(sums[start]), rest


def _plane(seen):
  """How much of the variance a plane explains: 0 to 1."""
  x = seen - seen.mean(dtype=np.float32)
  total = float((x * x).mean())
  explained = 0.0
  for axis, n in enumerate(x.shape):
    along = np.linspace(-1, 1, n)
    means = x.mean(1 - axis)
    explained += float((means * along).mean() ** 2 / (along**2).mean())
  return explained / total

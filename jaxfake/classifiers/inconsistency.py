"""Where a picture has less noise than it has elsewhere at the same gray level.

Needs no fakes to learn from: the noise level function is fitted on the picture
itself, so the evidence is of a part against the rest (Mahdian and Saic, 2009,
doi:10.1016/j.imavis.2009.02.001, look for inconsistent noise, too). What is
filled smoothly lacks noise; so does what was smooth before. More noise than
expected is no evidence here: ribs and vessels look like it.
"""

import numpy as np
from scipy import ndimage

from jaxfake.data.tampered import noise

BLOCK = 5  # Pixels a side, over which a variance is taken.


def evidence(picture: np.ndarray, block: int = BLOCK) -> np.ndarray:
  """float32 (h, w) of gray values (h, w): how much noise is lacking, in units
  of how far the picture's parts differ anyway; 0 where it is saturated.

  `standardised` is minus the logarithm of the local variance of the residual
  over that which the local gray predicts.
  """
  gray, variance = noise.local(picture, block)
  expected = noise.level(gray, variance)(gray)
  lacking = np.log(
    (expected + noise.ROUNDING) / (variance + noise.ROUNDING)
  ).astype(np.float32)
  return standardised(lacking, picture, block)


def standardised(
  evidence: np.ndarray, picture: np.ndarray, block: int
) -> np.ndarray:
  """float32 (h, w) of a map alike and its picture: less the map's median, over
  its median absolute deviation; 0 where the picture is saturated, of which a
  block of so many pixels a side has a fifth."""
  evidence = evidence - np.median(evidence)
  spread = 1.4826 * float(np.median(np.abs(evidence)))
  ends = (picture == picture.min()) | (picture == picture.max())
  saturated = ndimage.uniform_filter(ends.astype(np.float32), block) > 0.2
  return np.where(saturated, 0, evidence / max(spread, 1e-6))

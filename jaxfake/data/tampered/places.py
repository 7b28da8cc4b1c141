"""Where lesions are put, or taken out, when no box is given."""

import numpy as np
from scipy import ndimage

from jaxfake.data.tampered import region, scene
from jaxfake.data.tampered.region import Box


def side(mm: float, shape: tuple[int, int], cm: float = 0.0) -> int:
  """Pixels of a box so many mm wide; `cm` a pixel's side, or 0: not known."""
  cm = cm or scene.FIELD_CM / min(shape)
  most = min(region.MOST, min(shape) // 2)
  return int(np.clip(round(mm / 10 / cm), region.LEAST, most))


def lungs(gray: np.ndarray) -> np.ndarray:
  """Bool (h, w): where a plain rule expects lung in a frontal radiograph.

  In the middle of each half, what is darker than half of it, smoothed. Nothing
  is learnt, and the rule errs; it keeps lesions off the arms, the neck and the
  background.
  """
  h, w = gray.shape
  smooth = ndimage.gaussian_filter(gray.astype(np.float32), 0.02 * min(h, w))
  lungs = np.zeros((h, w), bool)
  rows = slice(round(0.22 * h), round(0.68 * h))
  for left, right in ((0.14, 0.42), (0.58, 0.86)):
    part = rows, slice(round(left * w), round(right * w))
    lungs[part] = smooth[part] < np.median(smooth[part])
  return lungs


def in_lung(gray: np.ndarray, side: int, rng: np.random.Generator) -> Box:
  """A square box whose middle is drawn in the lungs of a picture (h, w)."""
  h, w = gray.shape
  places = np.flatnonzero(lungs(gray))
  y, x = divmod(int(places[rng.integers(len(places))]), w)
  corner = lambda at, n: int(np.clip(at - side // 2, 0, n - side))
  return Box(corner(x, w), corner(y, h), side, side)


def of_lesion(mask: np.ndarray, rng: np.random.Generator) -> Box | None:
  """A box about one of the lesions of a mask (h, w) and a little more; None
  where it has none."""
  spots = np.zeros(mask.shape, np.int32)
  ndimage.label(mask, output=spots)
  lesions = ndimage.find_objects(spots)
  if not lesions:
    return None
  rows, columns = lesions[rng.integers(len(lesions))]
  h, w = rows.stop - rows.start, columns.stop - columns.start
  # The box's ellipse covers the lesion.
  height, width = (
    int(np.clip(round(1.3 * n) + 2, region.LEAST, min(region.MOST, most)))
    for n, most in zip((h, w), mask.shape, strict=True)
  )
  y = (rows.start + rows.stop - height) // 2
  x = (columns.start + columns.stop - width) // 2
  y = int(np.clip(y, 0, mask.shape[0] - height))
  x = int(np.clip(x, 0, mask.shape[1] - width))
  return Box(x, y, width, height)

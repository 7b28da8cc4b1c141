"""A detector's map over its picture, to look at."""

import numpy as np
from PIL import Image
from scipy import ndimage

# From what a map calls uncertain to what it calls fake: yellow to red.
COLOURS = np.array([[255, 220, 60], [230, 30, 30]], np.float32)
STRENGTH = 0.6  # Of the colour where a map is at 1, beside the picture.


def overlay(gray: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
  """uint8 (h, w, 3) of a picture uint8 (h, w) and its map (h, w): as it is
  where the map is at or below 0, red where it is at or above 1."""
  share = np.clip(heatmap, 0, 1).astype(np.float32)[..., None]
  colour = COLOURS[0] * (1 - share) + COLOURS[1] * share
  strength = STRENGTH * share
  mixed = gray[..., None] * (1 - strength) + colour * strength
  return np.rint(mixed).astype(np.uint8)


def strip(
  gray: np.ndarray, mask: np.ndarray, heatmap: np.ndarray
) -> np.ndarray:
  """A picture uint8 (h, w) about a mask, three times side by side: as it is,
  with the mask's outline, under a map. uint8 (280, 840, 3)."""
  seen = coloured(gray), outlined(gray, mask), overlay(gray, heatmap)
  return np.concatenate([zoomed(x, mask) for x in seen], 1)


def outlined(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """uint8 (h, w, 3) of a picture uint8 (h, w), a line around a mask."""
  picture = coloured(gray)
  picture[mask ^ ndimage.binary_dilation(mask)] = COLOURS[0]
  return picture


def coloured(gray: np.ndarray) -> np.ndarray:
  return np.repeat(gray[..., None], 3, 2)


def zoomed(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """A square about a mask, 280 px a side."""
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  side = max(3 * len(rows), 3 * len(columns), min(mask.shape) // 2)
  side = min(side, *mask.shape)
  corner = [
    int(np.clip((x[0] + x[-1] - side) // 2, 0, n - side))
    for x, n in zip((rows, columns), mask.shape, strict=True)
  ]
  part = picture[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
  image = Image.fromarray(np.ascontiguousarray(part))
  return np.asarray(image.resize((280, 280), Image.Resampling.BICUBIC))

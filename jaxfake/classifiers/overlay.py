"""A detector's map over its picture, to look at."""

import numpy as np

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

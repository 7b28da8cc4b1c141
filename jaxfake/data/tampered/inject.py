"""What is put into a radiograph: a drawn nodule, a piece of another picture, a
piece of the same."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from jaxfake.data.phantom import xray_physics
from jaxfake.data.tampered import blending
from jaxfake.data.tampered.region import Box, ellipse

if TYPE_CHECKING:
  from jaxfake.data.tampered.scene import Scene


def nodule(scene: "Scene", rng: np.random.Generator) -> tuple:
  """A lump of soft tissue in place of lung, by the phantom's physics.

  Its outline, depth and profile (from a ball's to a bell's) are drawn. X-rays
  lose exp(-mu t) on their way through it (Beer-Lambert), scatter dilutes that,
  and a film's sigmoid curve turns it into gray, as in phantom/xray_physics.
  """
  box, cm = scene.box, scene.cm
  y, x = (
    (2 * np.arange(n, dtype=np.float64) + 1 - n) / n
    for n in (box.height, box.width)
  )
  radius, angle = np.hypot(x, y[:, None]), np.arctan2(y[:, None], x)
  outline = np.ones_like(radius)
  for k in range(2, 6):
    size, phase = rng.normal(0, 0.12 / k), rng.uniform(0, 2 * np.pi)
    outline += size * np.cos(k * angle + phase)
  outline *= 0.96 / outline.max()
  depth = np.sqrt(box.width * box.height) * cm * rng.uniform(0.8, 1.1)
  profile = xray_physics.chord((radius / outline) ** 2)
  thickness = depth * profile ** rng.uniform(1.0, 2.2)  # cm
  # Focus and detector blur 0.15 to 0.6 mm, as the phantom draws.
  blur = max(0.1 * rng.uniform(0.15, 0.6) / cm, 0.5)
  thickness = ndimage.gaussian_filter(thickness, blur, mode="constant")
  mask = (thickness > 0.02 * thickness.max()) & (radius <= 1)
  mu = xray_physics.MU
  line = np.where(mask, thickness, 0) * (mu["soft"] - mu["lung"])
  line /= 1 + rng.uniform(0.15, 0.6)  # Scattered photons over primary ones.
  # The film's, and the unsharp mask's that digital systems add.
  gain = rng.uniform(0.9, 1.5) * (1 + rng.uniform(0.3, 0.9))
  low, high = scene.ends
  values = scene.values[box.place].astype(np.float64)
  share = np.clip((values - low) / (high - low), 0.02, 0.98)
  brighter = 1 / (1 + (1 - share) / share * np.exp(-gain * line))
  return values + (brighter - share) * (high - low), mask


def splice(scene: "Scene", rng: np.random.Generator) -> tuple:
  """A piece of another picture, blended in: of `scene.donor_box`, or else of a
  place that looks most like a lesion, at the same scale."""
  donor, box = scene.donor, scene.donor_box
  assert donor is not None  # A splice is asked for with one.
  if box is None:
    scale = min(donor.values.shape) / min(scene.values.shape)
    height, width = (
      max(3, round(n * scale)) for n in (scene.box.height, scene.box.width)
    )
    box = lesion_like(donor.values, donor.ends, height, width, None, rng)
  # One gray scale: that of the picture it goes into.
  share = (donor.values - donor.ends[0]) / (donor.ends[1] - donor.ends[0])
  low, high = scene.ends
  source = resized(piece(low + share * (high - low), box), _around(scene.box))
  return _blended(scene, source)


def copy_move(scene: "Scene", rng: np.random.Generator) -> tuple:
  """A piece of the same picture that looks like a lesion, blended in."""
  box, values = scene.box, scene.values
  lesion = lesion_like(values, scene.ends, box.height, box.width, box, rng)
  return _blended(scene, piece(values, lesion))


def _around(box: Box) -> tuple[int, int]:
  """Height and width with the pixel about a box that blending looks at."""
  return box.height + 2, box.width + 2


def piece(values: np.ndarray, box: Box) -> np.ndarray:
  """A box of a picture and one pixel about it, float64 (h + 2, w + 2)."""
  return held(values, Box(box.x - 1, box.y - 1, box.width + 2, box.height + 2))


def held(values: np.ndarray, box: Box) -> np.ndarray:
  """A box that may reach beyond the picture, whose border is repeated there:
  float64 (h, w)."""
  rows = np.arange(box.y, box.y + box.height)
  columns = np.arange(box.x, box.x + box.width)
  h, w = values.shape
  at = np.ix_(np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1))
  return values[at].astype(np.float64)


def resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  image = Image.fromarray(values.astype(np.float32))
  height, width = shape
  image = image.resize((width, height), Image.Resampling.BICUBIC)
  return np.asarray(image, np.float64)


def _blended(scene, source: np.ndarray) -> tuple:
  """A source (height + 2, width + 2) blended into the scene's box."""
  return blended(scene.values, scene.box, source)


def blended(values: np.ndarray, box: Box, source: np.ndarray) -> tuple:
  """(values (height, width), mask) of a box with a source of its size, and a
  pixel more about it, blended in."""
  mask = ellipse(box)
  around = box.grown(1, values.shape)
  y, x = around.y - (box.y - 1), around.x - (box.x - 1)
  source = source[y : y + around.height, x : x + around.width]
  inner = box._replace(x=box.x - around.x, y=box.y - around.y)
  whole = np.zeros((around.height, around.width), bool)
  whole[inner.place] = mask
  blended_in = blending.blend(values[around.place], source, whole)
  return blended_in[inner.place], mask


def lesion_like(
  values: np.ndarray,
  ends: tuple[float, float],
  height: int,
  width: int,
  apart: Box | None,
  rng: np.random.Generator,
) -> Box:
  """A box of a picture whose middle is brighter than its surroundings in all
  directions, drawn among the best 2 %: in the middle of the picture, not of
  lead letters, not overlapping `apart`.

  Where `apart` leaves no room, one that overlaps it.
  """
  h, w = values.shape
  height, width = min(height, h), min(width, w)
  step = max(1, min(height, width) // 6)
  small = ndimage.uniform_filter(values.astype(np.float32), step)[
    ::step, ::step
  ]
  side = np.sqrt(height * width) / step
  # Bright in all directions, and so no rib: the lesser of both curvatures.
  curved = lambda down, right: ndimage.gaussian_filter(
    small,
    side / 5,
    order=(down, right),  # pyright: ignore[reportArgumentType]
  )
  rows, columns, both = curved(2, 0), curved(0, 2), curved(1, 1)
  spread = np.hypot(rows - columns, 2 * both)
  blob = -(rows + columns + spread) * (side / 5) ** 2
  # Nor with edges in it.
  fine = small - ndimage.gaussian_filter(small, side / 5)
  edges = ndimage.uniform_filter(fine * fine, round(side) | 1)
  blob -= 0.7 * np.sqrt(np.maximum(edges, 0))
  brightest = ndimage.maximum_filter(small, round(side) | 1)
  y, x = (np.arange(n) * step for n in small.shape)
  y, x = y - height // 2, x - width // 2
  fits = (
    (y >= 0.12 * h)[:, None]
    & (y + height <= 0.8 * h)[:, None]
    & (x >= 0.12 * w)
    & (x + width <= 0.88 * w)
  )
  if not fits.any():
    return Box((w - width) // 2, (h - height) // 2, width, height)
  good = fits & (brightest < ends[1])
  if apart is not None:
    beside = (x >= apart.x + apart.width) | (x + width <= apart.x)
    above = (y >= apart.y + apart.height) | (y + height <= apart.y)
    good &= beside | above[:, None]
  good = good if good.any() else fits
  places = np.flatnonzero(good)
  order = places[np.argsort(-blob.ravel()[places], kind="stable")]
  chosen = order[rng.integers(max(1, len(order) // 50))]
  row, column = np.unravel_index(chosen, small.shape)
  return Box(int(x[column]), int(y[row]), width, height)


METHODS = {"nodule": nodule, "splice": splice, "copy-move": copy_move}

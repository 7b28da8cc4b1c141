"""What takes a lesion out of a radiograph: fills that go on with what is around
it, and pieces from elsewhere in the picture."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from jaxfake.data.tampered import blending, inject
from jaxfake.data.tampered.region import Box, ellipse

if TYPE_CHECKING:
  from jaxfake.data.tampered.scene import Scene

# Pixels of a box's longer side where medians are taken, and at most where a
# plate is solved for.
_MEDIAN_SIDE, _PLATE_SIDE = 24, 96


def median(scene: "Scene", rng: np.random.Generator) -> tuple:
  """The median of the surroundings, of a window twice as wide as the box, at a
  coarse scale; blending takes the seam away."""
  del rng
  box = scene.box
  around, small, step = _coarse(scene, _MEDIAN_SIDE)
  window = 2 * max(box[2:]) // step | 1
  filled = ndimage.median_filter(small, window, mode="nearest")
  return _enlarged(scene, around, filled)


def copy_move(scene: "Scene", rng: np.random.Generator) -> tuple:
  """A piece from beside the lesion or from the other lung, mirrored, whose
  surroundings fit best, blended in (see blending.blend)."""
  box, values = scene.box, scene.values
  h, w = values.shape
  reach = max(2, min(box[2:]) // 6)
  frame = box.grown(reach, values.shape)
  want = values[frame.place].astype(np.float64)
  outside = np.ones(want.shape, bool)
  outside[_within(frame, box).place] = False
  best = None
  for mirrored, picture in ((False, values), (True, values[:, ::-1])):
    steps = np.linspace(-2, 2, 9)
    for down in steps:
      for right in steps:
        x = frame.x + round(right * box.width)
        y = frame.y + round(down * box.height)
        place = frame._replace(x=x, y=y)
        # A mirrored picture's own box lies at the other end.
        own = box._replace(x=w - box.x - box.width) if mirrored else box
        if not place.inside((h, w)) or place.overlaps(own):
          continue
        candidate = picture[place.place].astype(np.float64)
        apart = np.std((candidate - want)[outside])
        # The piece itself should be no lesion.
        bright = candidate[~outside].mean() - candidate[outside].mean()
        cost = apart + abs(bright)
        if best is None or cost < best[0]:
          shift = box._replace(x=x + box.x - frame.x, y=y + box.y - frame.y)
          best = cost, inject.piece(picture, shift)
  if best is None:  # No room beside it.
    return harmonic(scene, rng)
  return inject.blended(values, box, best[1])


def harmonic(scene: "Scene", rng: np.random.Generator) -> tuple:
  """The smoothest membrane over the surroundings (see blending.harmonic)."""
  del rng
  return _filled(scene, 1, blending.harmonic)


def biharmonic(scene: "Scene", rng: np.random.Generator) -> tuple:
  """The smoothest plate, which goes on with slopes too (see
  blending.biharmonic); of a large box at a coarser scale."""
  del rng
  if max(scene.box[2:]) <= _PLATE_SIDE:
    return _filled(scene, 2, blending.biharmonic)
  around, small, step = _coarse(scene, _PLATE_SIDE)
  inner = np.zeros((around.height, around.width), bool)
  inner[_within(around, scene.box).place] = ellipse(scene.box)
  # All that a coarse pixel touches of the region is unknown.
  inner = ndimage.maximum_filter(inner, 2 * step + 1)
  mask = inject.resized(inner, small.shape) > 0.01
  return _enlarged(scene, around, blending.biharmonic(small, mask))


def _filled(scene, reach, fill):
  box, mask = scene.box, ellipse(scene.box)
  around = box.grown(reach, scene.values.shape)
  inner = _within(around, box)
  whole = np.zeros((around.height, around.width), bool)
  whole[inner.place] = mask
  return fill(scene.values[around.place], whole)[inner.place], mask


def _within(around: Box, box: Box) -> Box:
  """A box, counted from the corner of one that holds it."""
  return box._replace(x=box.x - around.x, y=box.y - around.y)


def _coarse(scene, side: int) -> tuple:
  """(a box about the scene's, three times as wide; its values, shrunk so far
  that the scene's box has about so many pixels a side; how far)."""
  longer = max(scene.box[2:])
  around = scene.box.grown(longer, scene.values.shape)
  step = -(-longer // side)
  near = scene.values[around.place]
  shape = -(-near.shape[0] // step), -(-near.shape[1] // step)
  return around, inject.resized(near, shape), step


def _enlarged(scene, around: Box, small: np.ndarray) -> tuple:
  """A coarse fill of `around`, blended into the scene's box."""
  smooth = np.array(scene.values, np.float64)
  smooth[around.place] = inject.resized(small, (around.height, around.width))
  return inject.blended(
    scene.values, scene.box, inject.piece(smooth, scene.box)
  )


METHODS = {
  "median": median,
  "copy-move": copy_move,
  "harmonic": harmonic,
  "biharmonic": biharmonic,
}

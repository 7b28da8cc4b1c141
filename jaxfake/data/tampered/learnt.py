"""Regions filled by a trained inpainter (configs/inpainter.py,
configs/diffusion_inpainter.py): what it sees of a picture, and how what it
makes is put back.

It sees a square about the box, of whose side the box takes at most half. Where
that square has more pixels than the network, it is shrunk, and the fill is
enlarged again.
"""

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from jaxfake import contracts, errors, named
from jaxfake.data.tampered import inject
from jaxfake.data.tampered.region import Box, ellipse
from jaxfake.runtime import disk

NAME = "learnt"


class Question(NamedTuple):
  """What an inpainter is asked."""

  image: np.ndarray  # float32 (s, s), -1 nearly black to 1 nearly white.
  mask: np.ndarray  # bool (s, s), where to fill.
  noise: np.ndarray  # float32 (s, s), normal deviates.


class Answer(NamedTuple):
  """An inpainter's answer, in place of it: where a region is altered need not
  be where the network runs."""

  filled: np.ndarray  # float32 (s, s)

  @property
  def size(self) -> int:
    return len(self.filled)

  def fill(self, *question: Any) -> np.ndarray:
    del question
    return self.filled


def learnt(scene: Any, rng: np.random.Generator) -> tuple:
  """What `scene.model`, a contracts.Inpainter, makes of the surroundings; of a
  fill that was enlarged, blending takes the seam away."""
  question = asked(scene, scene.model.size, rng)
  return put_back(scene, scene.model.fill(*question))


def asked(scene: Any, size: int, rng: np.random.Generator) -> Question:
  """What an inpainter of so many pixels a side is asked about a scene."""
  seen, mask = window(scene.values, scene.box, size)
  noise = rng.standard_normal(mask.shape, np.float32)
  return Question(scaled(seen, scene.ends), mask, noise)


def scaled(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
  """Values as float32 from -1 to 1, between what counts as black and white."""
  low, high = ends
  return np.clip(2 * (values - low) / (high - low) - 1, -1, 1).astype(
    np.float32
  )


def window(
  values: np.ndarray, box: Box, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """The surroundings of a box in values (h, w), the border repeated beyond it,
  float64 (size, size); and what is to be filled of them, bool."""
  square, _ = _square(box, size)
  region = np.zeros(values.shape, bool)
  region[box.place] = ellipse(box)
  # The border repeats what is to be filled there, too.
  seen, mask = inject.held(values, square), inject.held(region, square) > 0
  if square.width > size:
    # All that the shrunk region could be guessed from is filled as well: a
    # bicubic kernel reaches two pixels of the smaller picture.
    reach = math.ceil(2 * square.width / size)
    mask = ndimage.maximum_filter(mask, 2 * reach + 1)
    mask = inject.resized(mask, (size, size)) > 0.01
    seen = inject.resized(seen, (size, size))
  return seen, mask


def put_back(scene: Any, filled: np.ndarray) -> tuple:
  """(values (height, width), mask) of a scene's box, of a fill (size, size).

  A window that was not shrunk has the picture's own values around the region,
  to which blending adds nothing.
  """
  size = len(filled)
  square, inner = _square(scene.box, size)
  seen, mask = window(scene.values, scene.box, size)
  low, high = scene.ends
  gray = low + (filled.astype(np.float64) + 1) / 2 * (high - low)
  composed = np.where(mask, gray, seen)
  enlarged = inject.resized(composed, (square.height, square.width))
  source = inject.piece(enlarged, inner)
  return inject.blended(scene.values, scene.box, source)


def _square(box: Box, size: int) -> tuple[Box, Box]:
  """What a window shows, which may reach beyond the picture, and the box
  counted from its corner."""
  side = max(size, 2 * max(box.width, box.height))
  left, top = (side - box.width) // 2, (side - box.height) // 2
  square = Box(box.x - left, box.y - top, side, side)
  return square, box._replace(x=left, y=top)


def load(field: str, path: str, kind: str) -> Any:
  """The inpainter of a run's folder: a contracts.Inpainter. Raises ConfigError
  where the folder has none, or one that learnt the other kind."""
  folder = pathlib.Path(path)
  task = disk.read_json(folder / "config.json")["task"]
  family = named.find(f"{path}/config.json: task", task, contracts.Family)
  model = family.load().load(folder)
  if not named.members(contracts.Inpainter) <= {*dir(model)}:
    raise errors.ConfigError(
      f"{field} {path} is a run of {task}: expected one of an inpainter, such"
      " as that of configs/inpainter.py"
    )
  if model.kind != kind:
    raise errors.ConfigError(
      f"{field} {path} learnt to {model.kind}: expected one that learnt to"
      f" {kind} (data.inpainting.fill of configs/inpainter.py)"
    )
  return model


METHODS = {NAME: learnt}

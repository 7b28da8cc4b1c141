"""Windows of pictures at their own resolution, to learn from where they were
altered: resampling would take the traces away."""

from collections.abc import Mapping

import numpy as np

from jaxfake import contracts
from jaxfake.data import deliveries
from jaxfake.data.tampered import places

FEATURES: Mapping[str, str] = {"image": "image", "mask": "image"}


class Windows:
  """A square of each picture of a tampered source, and of its mask.

  Of an altered picture it holds the middle of what was altered, anywhere: a
  network sees where a window ends, and would learn to look at its middle. Of
  another it holds a place in the lungs alike. A share of them is compressed as
  JPEG. What a picture is too small for is mirrored. Window i is a function of
  (seed, i).
  """

  features = FEATURES

  def __init__(
    self, source: contracts.Items, side: int, compressed: float, seed: int
  ):
    self._source, self._side = source, side
    self._compressed, self._seed = compressed, seed

  def __len__(self) -> int:
    return len(self._source)

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Windows({len(self)}, {self._side} px)"

  def column(self, name: str) -> list:
    """One fact of every picture, such as "label"."""
    return self._source.column(name)

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    item, side = self._source[i], self._side
    rng = np.random.default_rng((self._seed, i))
    image, mask = (
      mirrored(item[name][..., 0], side) for name in ("image", "mask")
    )
    corner = [
      int(np.clip(at - rng.integers(side), 0, n - side))
      for at, n in zip(_middle(image, mask, rng), image.shape, strict=True)
    ]
    place = tuple(slice(at, at + side) for at in corner)
    image, mask = np.ascontiguousarray(image[place]), mask[place]
    if rng.random() < self._compressed:
      ends = deliveries.LEAST_QUALITY, deliveries.MOST_QUALITY + 1
      image = deliveries.jpeg(image, (int(rng.integers(*ends)),))
    return {"image": image[..., None], "mask": mask[..., None]}


def mirrored(image: np.ndarray, least: int) -> np.ndarray:
  """An image (h, w), mirrored below and to the right to at least so many pixels
  a side."""
  return np.pad(
    image, [(0, max(least - n, 0)) for n in image.shape], "symmetric"
  )


def _middle(image, mask, rng) -> tuple[int, int]:
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  if len(rows):
    return (rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2
  box = places.in_lung(image, 1, rng)
  return box.y, box.x

"""The region of a picture that is altered."""

from typing import NamedTuple

import numpy as np

from jaxfake import errors

LEAST, MOST = 6, 640  # Pixels of a box's side.


class Box(NamedTuple):
  """A rectangle of pixels, from the upper left."""

  x: int
  y: int
  width: int
  height: int

  def __str__(self) -> str:
    return f"{self.x},{self.y},{self.width},{self.height}"

  @property
  def place(self) -> tuple[slice, slice]:
    """Its rows and columns."""
    return (
      slice(self.y, self.y + self.height),
      slice(self.x, self.x + self.width),
    )

  def inside(self, shape: tuple[int, int]) -> bool:
    """Whether it lies in a picture (h, w)."""
    fits = self.y + self.height <= shape[0] and self.x + self.width <= shape[1]
    return self.x >= 0 and self.y >= 0 and fits

  def grown(self, by: int, shape: tuple[int, int]) -> "Box":
    """With so many pixels more on each side, as far as a picture goes."""
    x, y = max(self.x - by, 0), max(self.y - by, 0)
    right = min(self.x + self.width + by, shape[1])
    low = min(self.y + self.height + by, shape[0])
    return Box(x, y, right - x, low - y)

  def overlaps(self, other: "Box") -> bool:
    apart = (
      self.x >= other.x + other.width
      or other.x >= self.x + self.width
      or self.y >= other.y + other.height
      or other.y >= self.y + self.height
    )
    return not apart


def around(image: np.ndarray, box: Box, side: int) -> np.ndarray:
  """The square (side, side) about a box's middle of an image (h, w), as far in
  it as it goes; what the image is too small for is mirrored."""
  image = mirrored(image, side)
  middle = box.y + box.height // 2, box.x + box.width // 2
  y, x = (
    int(np.clip(at - side // 2, 0, n - side))
    for at, n in zip(middle, image.shape, strict=True)
  )
  return np.ascontiguousarray(image[y : y + side, x : x + side])


def mirrored(image: np.ndarray, least: int) -> np.ndarray:
  """An image (h, w), mirrored below and to the right to at least so many pixels
  a side."""
  return np.pad(
    image, [(0, max(least - n, 0)) for n in image.shape], "symmetric"
  )


def parse(flag: str, text: str) -> Box:
  """X,Y,W,H of a flag. Raises ConfigError."""
  try:
    box = Box(*map(int, text.split(",")))
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(
      f"{flag} {text}: expected X,Y,W,H, whole numbers of pixels from the"
      " upper left"
    ) from error
  if min(box.x, box.y) < 0:
    raise errors.ConfigError(f"{flag} {text}: expected X and Y from 0")
  if not LEAST <= min(box[2:]) <= max(box[2:]) <= MOST:
    raise errors.ConfigError(
      f"{flag} {text}: is {box.width} x {box.height} pixels, expected {LEAST}"
      f" to {MOST} a side"
    )
  return box


def ellipse(box: Box) -> np.ndarray:
  """Bool (height, width) of the ellipse in a box: the region of all methods
  that draw no shape of their own."""
  y, x = (
    (2 * np.arange(n) + 1 - n) / n  # From -1 to 1.
    for n in (box.height, box.width)
  )
  return x * x + (y * y)[:, None] <= 1

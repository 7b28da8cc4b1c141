"""Windows of pictures at their own resolution, to learn from where they were
altered, or from originals alone what is usual: resampling would take the traces
away."""

from collections.abc import Mapping

import numpy as np

from jaxfake import contracts
from jaxfake.data import deliveries
from jaxfake.data.tampered import region

FEATURES: Mapping[str, str] = {"image": "image", "mask": "image"}
# A window's mask where it was altered, and where its twin was; else 0.
ALTERED, UNALTERED = 255, 128


def compressed(
  images: list[np.ndarray], share: float, rng: np.random.Generator
) -> list[np.ndarray]:
  """Images uint8 (h, w) as they are, or with a chance of `share` as JPEGs of
  one drawn quality."""
  if rng.random() >= share:
    return images
  ends = deliveries.LEAST_QUALITY, deliveries.MOST_QUALITY + 1
  quality = int(rng.integers(*ends))
  return [deliveries.jpeg(x, (quality,)) for x in images]


class Squares:
  """So many squares of each picture of a source, anywhere in it: images
  (side, side, 1).

  A share of them is compressed as JPEG. What a picture is too small for is
  mirrored. Square i is a function of (seed, i).
  """

  features: Mapping[str, str] = {"image": "image"}

  def __init__(
    self,
    source: contracts.Items,
    side: int,
    compressed: float,
    draws: int,
    seed: int,
  ):
    self._source, self._side, self._draws = source, side, draws
    self._compressed, self._seed = compressed, seed

  def __len__(self) -> int:
    return len(self._source) * self._draws

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Squares({len(self)}, {self._side} px)"

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((self._seed, i))
    image = self._source[i // self._draws]["image"][..., 0]
    image = region.mirrored(image, self._side)
    y, x = (int(rng.integers(n - self._side + 1)) for n in image.shape)
    cut = np.ascontiguousarray(image[y : y + self._side, x : x + self._side])
    (cut,) = compressed([cut], self._compressed, rng)
    return {"image": cut[..., None]}


class Pairs:
  """A square of each altered picture of a tampered source, and before it the
  same square of the same original as it is: images, masks (2, side, side, 1).

  It holds the middle of what was altered, anywhere: a network sees where a
  window ends, and would learn to look at its middle. What was there before
  cannot tell the two apart. A share of the pairs is compressed as JPEG. What a
  picture is too small for is mirrored. Pair i is a function of (seed, i).
  """

  features = FEATURES

  def __init__(
    self, source: contracts.Items, side: int, compressed: float, seed: int
  ):
    self._source, self._side = source, side
    self._compressed, self._seed = compressed, seed
    columns = map(source.column, ("original", "draw"))
    labels, drawn = source.column("label"), [*zip(*columns, strict=True)]
    plain = {x: i for i, x in enumerate(drawn) if not labels[i]}
    self._pairs = [(plain[x], i) for i, x in enumerate(drawn) if labels[i]]

  def __len__(self) -> int:
    return len(self._pairs)

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Pairs({len(self)}, {self._side} px)"

  def column(self, name: str) -> list:
    """One fact of every altered picture, such as "patient"."""
    column = self._source.column(name)
    return [column[altered] for _, altered in self._pairs]

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((self._seed, i))
    items = [self._source[at] for at in self._pairs[i]]
    altered = region.mirrored(items[1]["mask"][..., 0], self._side) > 0
    place = self._place(altered, rng)
    images = [
      np.ascontiguousarray(
        region.mirrored(x["image"][..., 0], self._side)[place]
      )
      for x in items
    ]
    images = compressed(images, self._compressed, rng)
    masks = [np.where(altered[place], x, 0) for x in (UNALTERED, ALTERED)]
    return {
      "image": np.stack(images)[..., None],
      "mask": np.stack(masks).astype(np.uint8)[..., None],
    }

  def _place(self, mask: np.ndarray, rng) -> tuple[slice, ...]:
    """A square about the middle of a mask, which lies anywhere in it."""
    side, corner = self._side, []
    for axis, n in enumerate(mask.shape):
      marked = np.flatnonzero(mask.any(1 - axis))
      middle = (marked[0] + marked[-1]) // 2
      corner.append(int(np.clip(middle - rng.integers(side), 0, n - side)))
    return tuple(slice(at, at + side) for at in corner)

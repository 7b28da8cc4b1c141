"""Crops to learn from: pieces of pictures at their own resolution.

A real picture is first brought to one of many sizes, as hospitals and data sets
do, since a detector meets pictures of 112 px and of 3,000; a fake keeps its
own, which its generator gave it. Real and fake may then take the same random
deliveries (see deliveries). A fake and the real it was made of take the same
one, so that they differ in the generator's traces alone.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from jaxfake import contracts
from jaxfake.data import deliveries

SIDE = 96  # Pixels of a crop.
WINDOW = 192  # Pixels of the piece that is delivered before it is cropped.
SIZES = 112, 128, 160, 192, 224, 256, 320, 448, 640, 1024  # Shorter sides.
OWN_SIZE = 0.25  # Share of reals that keep their size.
SAME_SIZE = 4  # Crops of a real picture at one size, before another.


@dataclasses.dataclass(frozen=True)
class Job:
  """Pieces uint8 (h, w) that take one delivery; `rows` says whose they are, and
  those of one `group` are of one picture at one size."""

  pieces: tuple[np.ndarray, ...]
  rows: tuple[int, ...]
  group: int
  seed: tuple[int, ...]
  deliver: bool = True


def piece(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """At most WINDOW x WINDOW pixels of uint8 (h, w), anywhere."""
  h, w = image.shape
  top = rng.integers(max(h - WINDOW, 0) + 1)
  left = rng.integers(max(w - WINDOW, 0) + 1)
  return np.ascontiguousarray(image[top : top + WINDOW, left : left + WINDOW])


def real_size(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """A real picture at one of SIZES that are smaller, or at its own."""
  shorter = min(image.shape)
  smaller = [size for size in SIZES if size < shorter]
  if not smaller or rng.random() < OWN_SIZE:
    return image
  factor = smaller[rng.integers(len(smaller))] / shorter
  # Boxes and triangles leave less aliasing out than what viewers use.
  kernel = deliveries.SHRINKING[rng.integers(1, len(deliveries.SHRINKING))]
  return deliveries.resized(image, factor, kernel)


def delivered(job: Job) -> tuple[Job, np.ndarray]:
  """A job without its pieces, and uint8 (n, SIDE, SIDE) of them; a worker's
  work."""
  deliver = deliveries.draw(np.random.default_rng(job.seed), SIDE)
  deliver = deliver if job.deliver else lambda image: image
  crops = []
  for image in job.pieces:
    rng = np.random.default_rng((*job.seed, 1))  # The same for all of them.
    crops.append(cropped(deliver(image), rng))
  return dataclasses.replace(job, pieces=()), np.stack(crops)


def cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """SIDE x SIDE pixels, anywhere, turned by quarters, perhaps mirrored."""
  h, w = image.shape
  top, left = rng.integers(h - SIDE + 1), rng.integers(w - SIDE + 1)
  image = image[top : top + SIDE, left : left + SIDE]
  image = np.rot90(image, int(rng.integers(4)))
  return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)


def jobs(
  source: contracts.Items,
  chosen: Sequence[int],
  each: int,
  seed: int,
  delivered: int = 0,
) -> Iterator[Job]:
  """`each` crops of every chosen item of a many_sources source, but those
  smaller than a crop, the first `delivered` of them behind deliveries.

  A fake brings the real along that it was made of, where the source has it in
  the same size.
  """
  labels, originals = source.column("label"), source.column("original")
  place = {id: i for i, id in enumerate(source.column("id"))}
  for i in chosen:
    image = source[i]["image"][..., 0]
    if min(image.shape) < SIDE:
      continue
    real = place.get(originals[i]) if labels[i] else None
    partner = None if real is None else source[real]["image"][..., 0]
    if partner is None or partner.shape != image.shape:
      real = partner = None
    for k in range(each):
      variant = k // SAME_SIZE
      key, group = (seed, i, k), i * each + variant
      if real is not None and partner is not None:
        pieces = tuple(
          piece(x, np.random.default_rng(key)) for x in (partner, image)
        )
        # All that were made of one real are of one group.
        yield Job(pieces, (real, i), real * each, key, k < delivered)
        continue
      own = image
      if not labels[i]:
        own = real_size(image, np.random.default_rng((seed, i, variant, 0)))
      own = piece(own, np.random.default_rng(key))
      yield Job((own,), (i,), group, key, k < delivered)

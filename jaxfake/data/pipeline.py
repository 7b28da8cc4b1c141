"""Grain: images of one size, and a batch that is a function of the step."""

from collections.abc import Iterator, Sequence
import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxfake import errors, task

KERNELS = {  # Pillow's, all antialiased when shrinking.
  "box": Image.Resampling.BOX,
  "bilinear": Image.Resampling.BILINEAR,
  "bicubic": Image.Resampling.BICUBIC,
  "lanczos": Image.Resampling.LANCZOS,
}
FITS = ("crop", "pad", "stretch")
CACHE_BYTES = 2**31
EPOCHS = 2**31  # As good as endless.


def fit(image: np.ndarray, size: int, how: str, kernel: str) -> np.ndarray:
  """uint8 (h, w) to (size, size): "crop" the centre square, "pad" with black,
  or "stretch" (aspect lost), then resize with the named kernel."""
  h, w = image.shape
  if how == "crop":
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    image = image[top : top + side, left : left + side]
  elif how == "pad":
    side = max(h, w)
    top, left = (side - h) // 2, (side - w) // 2
    image = np.pad(image, ((top, side - h - top), (left, side - w - left)))
  if image.shape == (size, size):
    return image
  resized = Image.fromarray(np.ascontiguousarray(image)).resize(
    (size, size), KERNELS[kernel]
  )
  return np.asarray(resized)


class Images:
  """A data set at one size: [i] -> {"image" uint8 (s, s, 1), "label" int32}.

  Item i depends on i alone. Where the whole set takes at most 2 GB each image
  is decoded once and kept; a larger set is decoded again every epoch.
  """

  def __init__(self, source: Sequence, data):
    self._source = source
    self._fit = functools.partial(
      fit, size=data.size, how=data.fit, kernel=data.kernel
    )
    self._cache = None
    if len(source) * data.size**2 <= CACHE_BYTES:
      self._cache = [None] * len(source)

  def __len__(self) -> int:
    return len(self._source)

  def column(self, name: str) -> list:
    """One fact of every image, such as "patient", in order."""
    return self._source.column(name)

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Images({len(self)})"

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    if self._cache is not None and self._cache[i] is not None:
      return self._cache[i]
    example = self._source[i]
    image = self._fit(example["image"][..., 0])[..., None]
    item = {"image": image, "label": np.int32(example["label"])}
    if self._cache is not None:
      self._cache[i] = item
    return item


def batches(
  source: Sequence,
  seed: int,
  batch_size: int,
  first: int,
  host: int = 0,
  hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """This host's rows of the global batches first, first + 1, ... without end.

  Batch n is a function of (seed, n): an endless shuffled stream, a new order
  each epoch, cut into pieces of batch_size / hosts that hosts take in turn, so
  that 1, 2 or 4 hosts see the same rows in the same order.
  """
  import grain  # 1.5 seconds to import.

  stream = grain.MapDataset.source(source).seed(seed).shuffle()
  # Not repeat(): without an end it cannot be sliced where a host's part of a
  # batch is one image.
  stream = stream.repeat(EPOCHS).batch(batch_size // hosts)[host::hosts]
  # Grain's own default reads 500 batches ahead, 2 GB of them at 256 px.
  ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
  return iter(stream[first:].to_iter_dataset(ahead))


class Splits(NamedTuple):
  """What a task trains on, chooses by, and is measured against."""

  classes: tuple[str, ...]
  train: Sequence
  val: Sequence
  test: Sequence

  @property
  def held_out(self) -> Sequence:
    """The larger of val and test: Kaggle's val has 16 images."""
    return max(self.val, self.test, key=len)


def splits(dataset, data) -> Splits:
  """A prepared data set at the size of a config's `data`.

  A set with images of no class has no classes. Raises DataError where there
  are too few images to measure anything by.
  """
  counts = {k: sum(v.values()) for k, v in dataset.facts["counts"].items()}
  held = max(("val", "test"), key=lambda k: counts.get(k, 0))
  for split in ("train", held):
    if counts.get(split, 0) < 2:
      raise errors.DataError(
        f"{dataset.name}: {counts.get(split, 0)} images in {split}: expected at"
        " least 2 to train on and 2 held out (data.split=patient makes splits)"
      )
  known = set(dataset.classes)
  if any(set(n) - known for n in dataset.facts["counts"].values()):
    known = set()
  images = {
    split: Images(dataset.source(split), data) if counts.get(split) else ()
    for split in ("train", "val", "test")
  }
  if 0 < data.train_images < len(images["train"]):
    n = len(images["train"])
    chosen = np.arange(data.train_images) * n // data.train_images
    images["train"] = task.Subset(images["train"], chosen)
  return Splits(dataset.classes if known else (), **images)


def check(data) -> None:
  """Raises ConfigError for values of a config's `data` no set could take."""
  errors.check_choice("data.fit", data.fit, FITS)
  errors.check_choice("data.kernel", data.kernel, KERNELS)
  if data.train_images < 0:
    raise errors.ConfigError(
      f"data.train_images is {data.train_images}: expected a number, or 0 for"
      " all"
    )

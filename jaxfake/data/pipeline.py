"""Images of one size, by split."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxfake import errors
from jaxfake.contracts import Config, Dataset, Examples, Items
from jaxfake.data import sources, work

# Pillow's, all antialiased when shrinking.
KERNELS = ("box", "bilinear", "bicubic", "lanczos")
FITS = ("crop", "pad", "stretch")
NATIVE = "native"  # Pictures as they are, for tasks that read them so.
FEEDS = ("auto", "device", "stream")
CACHE_BYTES = 2**31
FEATURES = ("image", "label")  # Where a task asks for no others.


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
    (size, size), Image.Resampling[kernel.upper()]
  )
  return np.asarray(resized)


class Images:
  """A data set at one size: [i] -> its features by name, NumPy arrays.

  An image is uint8 (s, s, 1), another such as a mask fitted alike but to the
  nearest pixel, so that it has no new values. An integer is int32; so is a
  text, as its place among all the different ones of the source in order.

  Item i depends on i alone. Where the whole set takes at most 2 GB each image
  is decoded once and kept; a larger set is decoded again every epoch, and so is
  one that worker processes read.
  """

  def __init__(
    self,
    source: Items,
    data: Config,
    keep: bool = True,
    features: Sequence[str] = FEATURES,
  ):
    """Raises ConfigError where the source has no such feature."""
    self._source, self._data, self._features = source, data, features
    self._codes = {}
    for name in set(features) - set(FEATURES):
      errors.check_choice(
        f"a feature that the task reads of data.name={data.name}",
        name,
        source.features,
      )
      if source.features[name] == "text":
        values = sorted(set(source.column(name)))
        self._codes[name] = {value: i for i, value in enumerate(values)}
    self._cache: list[Any] | None = None
    if keep and len(source) * data.size**2 <= CACHE_BYTES:
      self._cache = [None] * len(source)

  def __reduce__(self):
    return Images, (self._source, self._data, False, self._features)

  def __len__(self) -> int:
    return len(self._source)

  @property
  def features(self) -> Mapping[str, str]:
    return self._source.features

  def reading(self, features: Sequence[str]) -> "Images":
    """The same images with these features. Raises ConfigError."""
    return Images(self._source, self._data, features=features)

  def column(self, name: str) -> list:
    """One fact of every image, such as "patient", in order."""
    return self._source.column(name)

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Images({len(self)})"

  def __getitem__(self, i: int) -> dict[str, Any]:
    if self._cache is not None and self._cache[i] is not None:
      return self._cache[i]
    example = self._source[i]
    item = {name: self._array(name, example[name]) for name in self._features}
    if self._cache is not None:
      self._cache[i] = item
    return item

  def _array(self, name: str, value) -> np.ndarray | np.int32:
    if name in self._codes:
      return np.int32(self._codes[name][value])
    if not isinstance(value, np.ndarray):
      return np.int32(value)
    kernel = self._data.kernel if name == "image" else "nearest"
    size, how = self._data.size, self._data.fit
    return fit(value[..., 0], size, how, kernel)[..., None]


def arrays(source: Examples) -> dict[str, np.ndarray]:
  """All items of a source, stacked: {"image": uint8 (n, s, s, 1), ...}."""
  with (
    work.threads() as pool,
    work.shown("reading images", len(source)) as advance,
  ):
    items = []
    for item in work.in_order(pool, source.__getitem__, range(len(source))):
      items.append(item)
      advance()
  return {name: np.stack([x[name] for x in items]) for name in items[0]}


class Splits(NamedTuple):
  """What a task trains on, chooses by, and is measured against."""

  classes: tuple[str, ...]
  train: Items
  val: Items
  test: Items

  @property
  def held_out_split(self) -> str:
    """The larger of val and test: Kaggle's val has 16 images."""
    return max(("val", "test"), key=lambda name: len(getattr(self, name)))

  @property
  def held_out(self) -> Items:
    """The images of `held_out_split`."""
    return getattr(self, self.held_out_split)

  def reading(self, *features: str) -> "Splits":
    """The same images, and of each what a task's step reads by name: image,
    label, mask, patient, source and so on. Raises ConfigError where the data
    have no such feature."""
    parts = {name: getattr(self, name) for name in ("train", "val", "test")}
    return self._replace(
      **{name: x and x.reading(features) for name, x in parts.items()}
    )


def splits(dataset: Dataset, data: Config) -> Splits:
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
  view = (lambda x: x) if data.fit == NATIVE else (lambda x: Images(x, data))
  images = {
    split: view(dataset.source(split)) if counts.get(split) else sources.NOTHING
    for split in ("train", "val", "test")
  }
  if 0 < data.train_images < len(images["train"]):
    n = len(images["train"])
    chosen = np.arange(data.train_images) * n // data.train_images
    images["train"] = sources.Subset(images["train"], chosen)
  return Splits(dataset.classes if known else (), **images)


def check(data: Config, fits: Sequence[str] = FITS) -> None:
  """Raises ConfigError for values of a config's `data` no set could take, or of
  `fit` that the task cannot."""
  errors.check_choice("data.fit", data.fit, fits)
  errors.check_choice("data.kernel", data.kernel, KERNELS)
  errors.check_choice("data.feed", data.feed, FEEDS)
  if data.train_images < 0:
    raise errors.ConfigError(
      f"data.train_images is {data.train_images}: expected a number, or 0 for"
      " all"
    )

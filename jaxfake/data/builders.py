"""TFDS builders: PNG bytes into ArrayRecord shards, without TensorFlow.

`ShardBasedBuilder`, not `GeneratorBasedBuilder`: the latter keeps a whole
split in memory to shuffle it, and past 1 GB spills through `tf.io`, which is
TensorFlow. The order on disk is that of the items; Grain shuffles when
reading.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
import hashlib
import io
import operator
from typing import cast

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from jaxfake import errors
from jaxfake.data import folders, image_error, patients, work

UNLABELLED = "(no class)"  # Counted under this name; label -1.
SHARD = 256  # Images; TFDS holds one shard in memory while it is written.


KINDS = {  # Of what items hold; see contracts.Items.
  "image": functools.partial(tfds.features.Image, shape=(None, None, 1)),
  "integer": functools.partial(tfds.features.Scalar, np.int64),
  "text": tfds.features.Text,
}


@dataclasses.dataclass(eq=False)
class Recipe(tfds.core.BuilderConfig):
  """What one prepared data set is made of; `name` is its folder's name.

  `items` by split go through `read`, in the threads or processes of `pool`;
  an ImageError in place of a record is listed, and stops the preparation or
  is left out, as `unreadable` says.
  """

  # Out of repr, which TFDS logs.
  items: dict[str, list] = dataclasses.field(default_factory=dict, repr=False)
  classes: tuple[str, ...] = ()
  read: Callable = dataclasses.field(kw_only=True)
  pool: Callable = dataclasses.field(kw_only=True)
  unreadable: str = "stop"
  # Beside image, label, patient and id: {name: one of KINDS}.
  features: dict = dataclasses.field(default_factory=dict)
  # Of a folder: each item -> what is to be seen of it first, and how that
  # settles patients and splits; see `_settled`.
  look: Callable | None = None
  settle: Callable | None = None


class _Info(tfds.core.DatasetInfo):
  def initialize_from_bucket(self):
    pass  # Google's bucket has nothing of ours; asking leaves a folder in /tmp.


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """Writes a Recipe's items; counts them into `info.metadata` as it goes."""

  VERSION = tfds.core.Version("2.0.0")  # Raise when records would differ.
  # Where TFDS looks for checksums of downloads. There are none, and its search
  # needs importlib_resources, which it does not declare.
  code_path = None

  @property
  def _recipe(self) -> Recipe:
    return cast(Recipe, self.builder_config)

  def _info(self):
    recipe = self._recipe
    kinds = {"patient": "text", "id": "text"} | recipe.features
    features = {
      "image": KINDS["image"](),
      "label": tfds.features.ClassLabel(names=list(recipe.classes)),
    } | {name: KINDS[kind]() for name, kind in kinds.items()}
    return _Info(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(),
    )

  def _log_download_bytes(self):
    pass  # Nothing is downloaded; `work.shown` says what goes on.

  def _log_download_done(self):
    pass

  def _shard_iterators_per_split(self, dl_manager):
    return {
      split: [
        functools.partial(self._shard, split, items[i : i + SHARD])
        for i in range(0, len(items), SHARD)
      ]
      for split, items in self._items.items()
      if items
    }

  def _shard(self, split, items):
    for record in work.in_order(self._pool, self._recipe.read, items):
      self._advance()
      if isinstance(record, image_error.ImageError):
        self._unreadable.append(record)
        continue
      self._tally.add(split, record)
      yield record["id"], {**record, "image": record["image"].data}

  def _download_and_prepare(self, dl_manager, download_config=None):
    recipe = self._recipe
    self._unreadable, self._tally = [], Tally(recipe.classes)
    total = sum(map(len, recipe.items.values()))
    with recipe.pool() as self._pool:
      self._items, settled = self._settled(total)
      left = sum(map(len, self._items.values()))
      with work.shown(f"preparing {self.name}", left) as self._advance:
        super()._download_and_prepare(dl_manager, download_config)
    if self._unreadable and recipe.unreadable == "stop":
      raise unreadable_error(map(str, self._unreadable), total)
    for split, info in self.info.splits.items():
      if not info.num_examples:
        raise errors.DataError(f"none of the {split} images can be read")
    metadata = self.info.metadata
    assert metadata is not None  # See `_info`.
    metadata.update(
      self._tally.facts(),
      **settled,
      skipped=[str(e) for e in self._unreadable],
    )

  def _settled(self, total):
    """The recipe's items by their final split, without those already found
    unreadable; and facts about that."""
    recipe = self._recipe
    if recipe.look is None or recipe.settle is None:
      return recipe.items, {}
    items, seen = [], []
    every = [item for items in recipe.items.values() for item in items]
    with work.shown(f"looking through {self.name}", total) as advance:
      looks = work.in_order(self._pool, recipe.look, every)
      for item, result in zip(every, looks, strict=True):
        advance()
        if isinstance(result, image_error.ImageError):
          self._unreadable.append(result)
        else:
          items.append(item)
          seen.append(result)
    if not items or (self._unreadable and recipe.unreadable == "stop"):
      raise unreadable_error(map(str, self._unreadable), total)
    return recipe.settle(items, seen)


def builder(source: str) -> type[_Builder]:
  """Of a source's records."""
  body = {"name": f"jaxfake_{source}", "__doc__": _Builder.__doc__}
  return type(source, (_Builder,), body, skip_registration=True)


class Tally:
  """Counts records as they pass; `facts()` is JSON-able."""

  def __init__(self, classes: Sequence[str]):
    self._classes = classes
    self._counts = collections.defaultdict(collections.Counter)
    self._patients = collections.defaultdict(set)
    self._unknown = collections.Counter()
    self._shapes = collections.Counter()
    self._digest = hashlib.sha256()

  def add(self, split: str, record: dict) -> None:
    label = record["label"]
    name = self._classes[label] if label >= 0 else UNLABELLED
    self._counts[split][name] += 1
    self._patients[split].add(record["patient"])
    self._unknown[split] += not patients.known(record["patient"])
    self._shapes[record["image"].shape] += 1
    self._digest.update(
      f"{split}\n{name}\n{record['id']}\n".encode() + record["image"].sha256
    )

  def facts(self) -> dict:
    sets = self._patients
    names = [s for s in folders.SPLITS if s in sets]
    return {
      "counts": {
        s: {c: 0 for c in self._classes} | dict(self._counts[s]) for s in names
      },
      "patients": {s: len(sets[s]) for s in names},
      "patients_unknown": {s: self._unknown[s] for s in names},
      "patient_overlap": {
        f"{a}-{b}": len(sets[a] & sets[b])
        for i, a in enumerate(names)
        for b in names[i + 1 :]
      },
      "image_sizes": _sizes(self._shapes),
      "content_sha256": self._digest.hexdigest(),
    }


def _sizes(shapes):
  """Counter of (h, w) -> min, median, max of each side; commonest sizes."""
  if not shapes:
    return {}
  pairs = np.array(list(shapes))  # (n, 2)
  each = np.repeat(pairs, list(shapes.values()), axis=0)
  h, w = each.T
  return {
    "height": [int(h.min()), float(np.median(h)), int(h.max())],
    "width": [int(w.min()), float(np.median(w)), int(w.max())],
    "distinct": len(shapes),
    "commonest": [[*shape, n] for shape, n in shapes.most_common(5)],
  }


def unreadable_error(lines: Iterable[str], total: int) -> errors.DataError:
  """Returns the error that lists every unreadable file at once."""
  lines = list(lines)
  return errors.DataError(
    f"{len(lines)} of {total} images cannot be read; mend or remove them, or"
    " leave them out with data.unreadable=skip:\n  " + "\n  ".join(lines)
  )


class Source:
  """A split read at random: `len`, and `[i]` -> one image with its label.

  {"image": uint8 (h, w, 1), "label": int, "patient": str, "id": str}, with
  "mask" uint8 (h, w, 1) and the like where the set has them. Threads may read
  it, and it can be pickled.
  """

  def __init__(self, directory: str, split: str):
    self._made_of = directory, split
    builder = tfds.builder_from_directory(directory)
    features = cast(tfds.features.FeaturesDict, builder.info.features)
    types = {tfds.features.Image: "image", tfds.features.Text: "text"}
    self.features = {
      name: types.get(type(feature), "integer")
      for name, feature in features.items()
    }
    self._images = [k for k, v in self.features.items() if v == "image"]
    # Decoded here: TFDS prefers OpenCV where there is one, and warns where
    # there is none.
    skip = {k: tfds.decode.SkipDecoding() for k in self._images}
    self._records = builder.as_data_source(
      split,  # pyright: ignore[reportCallIssue]
      decoders=skip,
    )
    self._name = f"{builder.name}/{split}"

  def __reduce__(self):
    return Source, self._made_of

  def __len__(self) -> int:
    return len(self._records)

  def __repr__(self) -> str:
    return f"Source({self._name}, {len(self)} images)"

  @functools.cached_property
  def _facts(self) -> dict[str, list]:
    """All but the images: a column would read and parse every record again."""
    names = self.features.keys() - {*self._images}
    facts = {name: [] for name in names}
    for i in range(len(self)):
      record = self._records[i]
      for name in names:
        x = record[name]
        facts[name].append(x.decode() if isinstance(x, bytes) else x)
    return facts

  def column(self, name: str) -> list:
    """One fact of every image, such as "label", without decoding any."""
    return [*self._facts[name]]

  def __getitem__(self, i: int) -> dict:
    i = operator.index(i)
    if not -len(self) <= i < len(self):
      raise IndexError(f"{self._name} has {len(self)} images; asked for {i}")
    item = dict(self._records[i % len(self)])
    for key, value in item.items():
      if key in self._images:
        with Image.open(io.BytesIO(value), formats=["PNG"]) as image:
          item[key] = np.array(image)[..., None]
      elif isinstance(value, bytes):
        item[key] = value.decode()
      elif isinstance(value, np.integer):
        item[key] = int(value)
    return item

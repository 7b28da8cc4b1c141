"""Radiographs as they are, with a lesion put in, and with one taken out.

Of each original there is one item a class, in the same split, so that a
picture's pairs stay together; but with `leaky`, to see what other splits in the
literature hide. An original of train may be altered several times, each at a
place and in a way of its own (`draws`). What could tell them apart without
looking at the region is taken away: all are decoded, altered or not at the size
they have, compressed alike (`jpeg`) and fitted to one size by the same kernel.
Items have a `mask`, 255 where they were altered.

With `region` an item is a square of so many pixels about what was altered, at
the picture's own resolution; an untampered one is the square where another item
of the same original is altered. `four` makes the classes of Mirsky et al. 2019
and of Solaiyappan and Wen 2022: lung as it is (TB) and the same place with a
lesion put in (FM), a lesion as it is (TM) and the same place without it (FB).

Injected lesions are rendered or moved, never real findings of the patient.
Where the originals have masks of lesions, as the phantom's nodules, those are
taken out; elsewhere a place in the lungs is filled, whatever is there.
"""

from collections.abc import Mapping
import functools
import hashlib
import itertools
import json
from typing import Any

import numpy as np

from jaxfake import contracts, errors
from jaxfake import data as datasets
from jaxfake.data import deliveries, folders, sources
from jaxfake.data import patients as whose
from jaxfake.data.tampered import region

ABOUT = "originals of a source beside the same with a region altered"
READS_PATIENTS = True
CLASSES = "untampered", "injected", "removed"
BINARY = "untampered", "tampered"
FOUR = "TB", "TM", "FB", "FM"  # True or false, benign or malign.
KIND_OF = dict(injected="inject", removed="remove", FB="remove", FM="inject")
TWIN = {"TB": "FM", "TM": "FB"}  # Of FOUR, which alters the same place.
KINDS = "inject", "remove"
FEATURES = {
  "image": "image",
  "mask": "image",
  "label": "integer",
  "patient": "text",
  "id": "text",
  "original": "text",
  "method": "text",
  "touch_up": "integer",
  "draw": "integer",
}


class Source:
  """All items of the originals of one split, altered so many times each:
  contracts.Items."""

  def __init__(
    self, originals: contracts.Items, own: Mapping[str, Any], draws: int = 1
  ):
    self.features = FEATURES
    self._draws = draws
    if own["four"]:
      counts = originals.column("nodule_count")
      originals = sources.Subset(
        originals, [i for i, n in enumerate(counts) if n]
      )
    self._originals, self._own = originals, dict(own)
    self._classes = classes(own)
    self._each = len(self._classes)
    self._patients = originals.column("patient")
    self._ids = originals.column("id")

  def __len__(self) -> int:
    return len(self._originals) * self._draws * self._each

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Source(tampered, {len(self)} images)"

  def column(self, name: str) -> list:
    """One fact of every image, such as "label", without decoding any."""
    drawn = name in ("method", "touch_up")
    facts = self._how if drawn else self._whose
    return [facts(i)[name] for i in range(len(self))]

  def _at(self, i) -> tuple[int, int, int]:
    """Of an item: which original, which of its draws, and the class."""
    rest, label = divmod(i, self._each)
    at, draw = divmod(rest, self._draws)
    return at, draw, label

  def _whose(self, i) -> dict:
    at, draw, label = self._at(i)
    name = f"{self._ids[at]} {self._classes[label]}"
    return {
      "label": label,
      "patient": self._patients[at],
      "id": f"{name} {draw}" if draw else name,
      "original": self._ids[at],
      "draw": draw,
    }

  def _how(self, i) -> dict:
    """What was drawn; nothing of an original as it is."""
    if self._untampered(i):
      return {"method": "none", "touch_up": 0}
    kind, method, touch_up, _ = self._drawn(i)
    return {"method": f"{kind} {method}", "touch_up": int(touch_up)}

  def _untampered(self, i) -> bool:
    return self._at(i)[2] < self._each // 2

  def _twin(self, i) -> int:
    """The item that is altered at the place that an untampered one shows."""
    at, draw, label = self._at(i)
    if self._own["four"]:
      return i - label + FOUR.index(TWIN[FOUR[label]])
    rng = np.random.default_rng((self._own["seed"], at, draw, self._each))
    return i + int(rng.integers(1, self._each))

  def _drawn(self, i):
    """(kind, method, whether it is touched up, a generator for the rest)."""
    at, draw, label = self._at(i)
    again = (draw,) if draw else ()
    rng = np.random.default_rng((self._own["seed"], at, label, *again))
    if self._each == 2:
      kind = KINDS[rng.integers(2)]
    else:
      kind = KIND_OF[self._classes[label]]
    of_kind = names(self._own, kind)
    method = of_kind[rng.integers(len(of_kind))]
    return kind, method, bool(rng.random() < self._own["touch_up"]), rng

  def __getitem__(self, i: int) -> dict:
    if not 0 <= i < len(self):
      raise IndexError(f"{len(self)} images; asked for {i}")
    original = self._originals[self._at(i)[0]]
    image = original["image"][..., 0]
    mask, box = np.zeros(image.shape, bool), None
    if not self._untampered(i):
      image, mask, box = self._altered(i, original)
    elif self._own["region"]:
      kind, *_, rng = self._drawn(self._twin(i))
      box = self._box(i, kind, original, rng)
    if self._own["jpeg"]:
      image = deliveries.jpeg(image, (self._own["jpeg"],))
    mask = np.where(mask, 255, 0).astype(np.uint8)
    if box and self._own["region"]:
      image, mask = (
        region.around(x, box, self._own["region"]) for x in (image, mask)
      )
    both = {"image": image[..., None], "mask": mask[..., None]}
    return self._whose(i) | self._how(i) | both

  def _box(self, i, kind, original, rng):
    """Where a picture is altered, or would be. Raises DataError where all of a
    lung has lesions and one without is wanted (`four`)."""
    from jaxfake.data.tampered import places

    image = original["image"][..., 0]
    lengths = np.log([self._own["least_mm"], self._own["most_mm"]])
    side = places.side(np.exp(rng.uniform(*lengths)), image.shape)
    lesions = original.get("mask", np.zeros((1, 1, 1)))[..., 0] > 0
    box = places.in_lung(image, side, rng)
    if kind == "remove":
      return places.of_lesion(lesions, rng) or box
    if not self._own["four"]:
      return box
    for _ in range(100):
      if not lesions[box.place].any():  # Lung as it is has none.
        return box
      box = places.in_lung(image, side, rng)
    raise errors.DataError(
      f"{self._whose(i)['original']}: a lesion in each of 100 places of"
      f" {side} pixels a side in its lungs (data.tampered.four): expected lung"
      " without one; a smaller data.tampered.most_mm may find it"
    )

  def _altered(self, i, original):
    """(the picture, where it is altered, the box)."""
    from jaxfake.data.tampered import scene

    image = original["image"][..., 0]
    kind, method, touch_up, rng = self._drawn(i)
    box, other = self._box(i, kind, original, rng), None
    if method == "splice":
      at = of_another(self._patients, self._at(i)[0], rng)
      other = scene.donor(self._originals[at]["image"][..., 0])
    seed = int(rng.integers(2**32))
    altered, mask = scene.tampered(
      image,
      box,
      kind,
      method,
      seed,
      touch_up=touch_up,
      other=other,
      model=model(self._own, kind, method),
    )
    return altered, mask, box


def of_another(patients: list, at: int, rng: np.random.Generator) -> int:
  """An image of another patient than that of `at`, where there is one."""
  others = [j for j, who in enumerate(patients) if who != patients[at]]
  others = others or list(range(len(patients)))
  return int(others[rng.integers(len(others))])


def classes(own: Mapping[str, Any]) -> tuple[str, ...]:
  return FOUR if own["four"] else BINARY if own["binary"] else CLASSES


def names(own: Mapping[str, Any], kind: str) -> list[str]:
  """The methods of a kind that a set is made by; where none is named all, but
  `learnt` only where the kind has an inpainter."""
  from jaxfake.data.tampered import learnt, scene

  given = [x.strip() for x in own[kind].split(",") if x.strip()]
  has = own[f"{kind}_model"]
  return given or [x for x in scene.METHODS[kind] if has or x != learnt.NAME]


def model(own: Mapping[str, Any], kind: str, method: str) -> Any:
  """The inpainter that a method needs; None for one that needs none. Raises
  ConfigError."""
  from jaxfake.data.tampered import learnt

  if method != learnt.NAME:
    return None
  return _loaded(f"data.tampered.{kind}_model", own[f"{kind}_model"], kind)


@functools.cache
def _loaded(field: str, path: str, kind: str) -> Any:
  from jaxfake.data.tampered import learnt

  return learnt.load(field, path, kind)


def check(own: contracts.Config) -> None:
  """Raises ConfigError for values of a config's data.tampered."""
  from jaxfake.data.tampered import learnt, scene

  for kind in KINDS:
    for name in names(own, kind):
      errors.check_choice(f"data.tampered.{kind}", name, scene.METHODS[kind])
    if learnt.NAME in names(own, kind) and not own[f"{kind}_model"]:
      raise errors.ConfigError(
        f"data.tampered.{kind} names learnt, and data.tampered.{kind}_model is"
        " empty: expected the folder of a run of configs/inpainter.py"
      )
  if not 0 < own.least_mm <= own.most_mm:
    raise errors.ConfigError(
      f"data.tampered.least_mm is {own.least_mm}, most_mm {own.most_mm}:"
      " expected millimetres, the first at most the second"
    )
  if own.region and own.region < region.LEAST:
    raise errors.ConfigError(
      f"data.tampered.region is {own.region}: expected at least"
      f" {region.LEAST} pixels, or 0 for whole pictures"
    )
  if own.four and (own.binary or not own.region):
    raise errors.ConfigError(
      "data.tampered.four is set: expected data.tampered.region, since a"
      " picture as it is would be TB and TM, and no data.tampered.binary"
    )
  if own.draws < 1:
    raise errors.ConfigError(
      f"data.tampered.draws is {own.draws}: expected at least 1"
    )
  if not 0 <= own.touch_up <= 1:
    raise errors.ConfigError(
      f"data.tampered.touch_up is {own.touch_up}: expected a share, 0 to 1"
    )
  if own.jpeg not in range(101):
    raise errors.ConfigError(
      f"data.tampered.jpeg is {own.jpeg}: expected a quality of 1 to 100, or 0"
      " for none"
    )


def check_pairs(own: contracts.Config, reason: str) -> None:
  """Raises ConfigError unless each whole picture stands beside the same as it
  was altered; `reason` says why it has to."""
  for name in ("leaky", "four", "region"):
    if own[name]:
      raise errors.ConfigError(
        f"data.tampered.{name} is {own[name]}: expected {type(own[name])()},"
        f" {reason}"
      )


def originals(data: contracts.Config) -> datasets.Dataset:
  """The set that data.tampered.real names. Raises ConfigError, DataError."""
  datasets.check_originals("data.tampered.real", data.tampered.real)
  changed = data.copy_and_resolve_references()
  changed.name = data.tampered.real
  return datasets.prepare(changed)


def prepare(data: contracts.Config) -> datasets.Dataset:
  """What `config.data` names: `tampered.real` is the kind of `dir`'s data.

  Raises ConfigError, DataError.
  """
  own = data.tampered
  check(own)
  real = originals(data)
  if own.four and "nodule_count" not in real.source("train").features:
    raise errors.ConfigError(
      "data.tampered.four is set: expected originals with masks of lesions,"
      " as data.tampered.real=phantom with data.phantom.nodules has them;"
      f" {own.real} has none"
    )
  given = {
    split: real.source(split)
    for split in folders.SPLITS
    if split in real.facts["counts"]
  }
  if own.leaky:
    every = sources.Joined(*given.values())
    parts = leaked(Source(every, own.to_dict(), own.draws))
  else:
    parts = {
      split: Source(x, own.to_dict(), own.draws if split == "train" else 1)
      for split, x in given.items()
    }
  facts, read = _facts(data, real, parts), parts.__getitem__
  return datasets.Dataset(data.name, classes(own), facts, read, real.litter)


def leaked(source: Source) -> dict[str, sources.Subset]:
  """All items of a source, each in the split of its own name: a patient, and
  even a picture and the same altered, stand in several."""
  splits = [folders.split_of(name) for name in source.column("id")]
  return {
    split: sources.Subset(
      source, [i for i, x in enumerate(splits) if x == split]
    )
    for split in folders.SPLITS
    if split in splits
  }


def _facts(data, real, parts) -> dict:
  own = data.tampered.to_dict()
  models = [model(own, kind, x) for kind in KINDS for x in names(own, kind)]
  # An inpainter's state makes another set, and not the folder it lies in.
  fields = {k: v for k, v in own.items() if not k.endswith("_model")}
  for name in ("region", "four"):  # Sets without them keep their fingerprint.
    if not fields[name]:
      del fields[name]
  made_of = [real.facts["content_sha256"], fields]
  made_of += [x.sha256 for x in models if x]
  made_of = json.dumps(made_of, sort_keys=True)
  digest = hashlib.sha256(made_of.encode()).hexdigest()
  each = classes(own)
  counts, unknown, patients = {}, {}, {}
  for split, source in parts.items():
    labels = source.column("label")
    counts[split] = {name: labels.count(i) for i, name in enumerate(each)}
    owners = source.column("patient")
    unknown[split] = sum(not whose.known(name) for name in owners)
    patients[split] = set(owners)
  same = (
    "split",
    "patients_by",
    "kept_together",
    "too_alike",
    "image_sizes",
    "skipped",
    "skipped_files",
  )
  return {
    "name": data.name,
    "fingerprint": digest[:16],
    "content_sha256": digest,
    "classes": list(each),
    "counts": counts,
    "patients": {split: len(names) for split, names in patients.items()},
    "patients_unknown": unknown,
    "patient_overlap": {
      f"{a}-{b}": len(patients[a] & patients[b])
      for a, b in itertools.combinations(patients, 2)
    },
    "originals": real.facts,
  } | {name: real.facts[name] for name in same}

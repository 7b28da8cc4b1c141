"""Data sets, all alike: `prepare(config.data).source("train")[i]`.

Importing this is cheap; TFDS is imported by `prepare`.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys

from jaxfake import errors
from jaxfake.data import folders, patients

NAMES = "phantom", "chest_xray", "generated", "many_sources"
COMPOSED = "real_or_fake"  # Of two of these.
POLICIES = "official", "patient"
UNREADABLE = "stop", "skip"
VIEWS = 4  # Images of one phantom patient: anatomy.VIEWS_PER_PATIENT.
FEW = 256  # Phantoms; below, starting processes costs more than it saves.
# Patients 0 to 9, and so on: 70 % train, 10 % val, 20 % test. The first three
# differ, so that a set of three patients has all splits.
_PHANTOM_SPLITS = "train test val train train train test train train train"


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A prepared data set. `facts` is JSON-able: what a result says of its data.

  `facts` has name, fingerprint, content_sha256, split (the policy), classes,
  counts {split: {class: n}}, patients {split: n}, patients_unknown {split:
  images}, patient_overlap {"a-b": n}, patients_by {what told: images},
  kept_together and too_alike (near-duplicates, see grouping), image_sizes,
  skipped (count) and skipped_files. `litter` counts what was passed over.
  Of many_sources also sources {split: {source: n}}, left_out (names), and
  dropped_between_sources, dropped_of_training_patients, of_other_licences.
  """

  name: str
  classes: tuple[str, ...]
  facts: dict = dataclasses.field(repr=False)
  directory: str  # Of the prepared records, for tfds.builder_from_directory.
  litter: int = 0  # No fact: a desktop leaves some at any time.

  def summary(self) -> str:
    """One line: images, how they were split, and what is wrong with that."""
    facts = self.facts
    counts = ", ".join(
      f"{split} {sum(n.values()):,} ({facts['patients'][split]:,} patients)"
      for split, n in facts["counts"].items()
    )
    text = f"{self.name}: {counts}; {facts['split']} split"
    if shared := {k: v for k, v in facts["patient_overlap"].items() if v}:
      text += "; patients in two splits: " + ", ".join(
        f"{k} {v}" for k, v in shared.items()
      )
    notes = [patients.unknown(facts), *patients.kept(facts)]
    if n := facts["patients_by"][patients.FOLDER]:
      notes.append(f"{n:,} images: each folder beneath a class is a patient")
    if "dropped_between_sources" in facts:
      from jaxfake.data import many_sources

      notes += many_sources.notes(facts)
    if self.litter:
      notes.append(f"{self.litter:,} system or hidden files passed over")
    return "; ".join([text, *filter(None, notes)])

  def source(self, split: str):
    """Returns `builders.Source` of "train", "val" or "test"."""
    from jaxfake.data import builders

    if split not in self.facts["counts"]:
      raise errors.DataError(
        f"{self.name} has no {split} images, only"
        f" {', '.join(self.facts['counts'])}; it is too small, or split"
        " otherwise (data.split)"
      )
    return builders.Source(self.directory, split)


def prepare(data) -> Dataset:
  """Prepares what `config.data` names, once, and returns it to be read.

  `data` has name, dir, size, split, unreadable, patients, phantom.{images,
  seed, nodules}, many_sources.{leave_out, licences}. Written to TFDS_DATA_DIR
  or ~/tensorflow_datasets; a second process waits for the first. ConfigError
  and DataError say what to put right.
  """
  for field, allowed in (
    ("name", (*NAMES, COMPOSED)),
    ("split", POLICIES),
    ("unreadable", UNREADABLE),
  ):
    if data[field] not in allowed:
      raise errors.ConfigError(
        f"data.{field}={data[field]!r}: expected one of {', '.join(allowed)}"
      )
  if data.name == COMPOSED:
    from jaxfake.data import real_or_fake

    return real_or_fake.prepare(data)
  if data.name != "chest_xray" and _table(data):
    raise errors.ConfigError(
      f"data.patients is {data.patients!r}, but data.name={data.name} knows"
      " whose its images are: only chest_xray reads it"
    )
  recipes = dict(
    phantom=_phantom,
    chest_xray=_folder,
    generated=_folder,
    many_sources=_many_sources,
  )
  cls, recipe, facts, litter = recipes[data.name](data)
  directory = _prepared(cls, recipe)
  found = json.loads((directory / "metadata.json").read_text())
  skipped = found.pop("skipped")
  if skipped and data.unreadable == "stop":
    from jaxfake.data import builders

    total = sum(map(len, recipe.items.values()))
    raise builders.unreadable_error(skipped, total)
  facts = {
    "name": data.name,
    **facts,
    "classes": list(recipe.classes),
    "patients_by": dict.fromkeys(patients.WAYS, 0),
    "kept_together": 0,
    "too_alike": 0,
    **found,
    "skipped": len(skipped),
    "skipped_files": skipped,
  }
  return Dataset(data.name, recipe.classes, facts, str(directory), litter)


def _phantom(data):
  """Returns builder class, recipe, and facts of the phantom; no litter."""
  from jaxfake.data import builders, work

  if data.dir:
    raise errors.ConfigError(
      f"data.dir is {data.dir!r}, but data.name=phantom reads no files: for a"
      " folder of radiographs add data.name=chest_xray"
    )
  n, seed, nodules = (data.phantom[k] for k in ("images", "seed", "nodules"))
  if seed < 0:
    raise errors.ConfigError(f"data.phantom.seed={seed}: at least 0")
  if data.size < 16:
    raise errors.ConfigError(f"data.size={data.size}: at least 16 pixels")
  if n < 3 * VIEWS:
    raise errors.ConfigError(
      f"data.phantom.images={n}: at least {3 * VIEWS}, for a patient in each"
      " of train, val and test"
    )
  pattern = _PHANTOM_SPLITS.split()
  items = {split: [] for split in folders.SPLITS}
  for i in range(n):
    split = pattern[i // VIEWS % len(pattern)]
    items[split].append((seed, i, data.size, bool(nodules)))
  # The drawing's own code is part of the key: a better phantom is drawn anew.
  here = pathlib.Path(__file__).parent
  digest = hashlib.blake2b(repr((n, seed, data.size, bool(nodules))).encode())
  for name in "anatomy.py", "organs.py", "xray_physics.py":
    digest.update((here / name).read_bytes())
  key = digest.hexdigest()[:16]
  recipe = builders.Recipe(
    name=f"{n}-seed{seed}-{data.size}px-{key}",
    items=items,
    classes=("NORMAL", "PNEUMONIA"),
    read=builders.draw_phantom,
    pool=work.threads if n < FEW else work.processes,
    extra=builders.mask_features() if nodules else {},
  )
  facts = {"fingerprint": key, "split": "patient"}
  return builders.Phantom, recipe, facts, 0


def _table(data) -> str:
  """data.patients; runs made before there was one have none."""
  return data.get("patients") or ""


def entries(data) -> tuple[list[folders.Entry], tuple[str, ...]]:
  """Returns the entries of the folder that `data` names, and its classes."""
  if data.name == "chest_xray":
    return folders.kaggle(data.dir, data.split, _table(data))
  if data.name == "many_sources":
    from jaxfake.data import many_sources

    found, _, _ = many_sources.listing(data)
    return found.entries, found.classes
  from jaxfake.data import generated

  return generated.entries(data.dir, data.split)


def _folder(data):
  """Returns builder class, recipe, facts and litter of a folder of images."""
  from jaxfake.data import builders, generated, grouping

  if data.name == "generated":
    found = folders.Listing(*generated.entries(data.dir, data.split), 0)
    cls, options = builders.Generated, {"extra": builders.provenance_features()}
  else:
    found = folders.listing(data.dir, data.split, _table(data))
    cls, official = builders.ChestXray, data.split == "official"
    options = {
      "look": grouping.header if official else grouping.picture,
      "settle": functools.partial(grouping.settle, data.split),
    }
  key = folders.fingerprint(found.entries)
  recipe = _recipe(f"{data.split}-{key}", found, data, options)
  return cls, recipe, {"fingerprint": key, "split": data.split}, found.litter


def _many_sources(data):
  """The same of many sources; always split by patient."""
  from jaxfake.data import builders, grouping, many_sources

  found, test_alone, facts = many_sources.listing(data)
  key = folders.fingerprint(found.entries)
  # Which are in test alone decides splits, and is no fact of any file.
  decides = repr((key, sorted(test_alone)))
  digest = hashlib.blake2b(decides.encode(), digest_size=8)
  options = {
    "extra": builders.source_features(),
    "look": grouping.picture,
    "settle": functools.partial(many_sources.settle, test_alone),
  }
  recipe = _recipe(digest.hexdigest(), found, data, options)
  facts |= {"fingerprint": key, "split": "patient"}
  return builders.ManySources, recipe, facts, found.litter


def _recipe(name, found: folders.Listing, data, options):
  from jaxfake.data import builders, decoders, reading

  return builders.Recipe(
    name=name,
    items={
      s: [e for e in found.entries if e.split == s] for s in folders.SPLITS
    },
    classes=found.classes,
    read=reading.read_entry,
    pool=functools.partial(decoders.Pool, reading.place),
    unreadable=data.unreadable,
    **options,
  )


def root() -> pathlib.Path:
  """Returns where data sets are prepared, the same folder as TFDS's own."""
  path = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  return pathlib.Path(path).expanduser().absolute()


def _prepared(cls, recipe) -> pathlib.Path:
  """Returns the folder of a recipe's records, on disk and whole."""
  home = root() / cls.name / recipe.name
  # TFDS writes elsewhere and renames, so what has this name is whole.
  directory = home / str(cls.VERSION)
  if directory.exists():
    return directory
  try:
    with _locked(home.with_name(f"{recipe.name}.lock")), _quiet():
      # What a killed preparation left behind: nobody else is at work.
      for rest in home.glob("incomplete.*"):
        shutil.rmtree(rest)
      builder = cls(data_dir=root(), config=recipe, file_format="array_record")
      builder.download_and_prepare()  # Nothing, where another process did it.
  except (OSError, RuntimeError) as error:
    # ArrayRecord's failed writes are RuntimeErrors that name the file.
    if isinstance(error, RuntimeError) and str(home) not in str(error):
      raise
    raise errors.DataError(
      f"{home}: cannot be written ({error}); is the disk full? TFDS_DATA_DIR"
      " names another place"
    ) from error
  return directory


@contextlib.contextmanager
def _locked(path) -> Iterator[None]:
  """Holds a lock file; waits, and says so, while another process has it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(
        f"waiting: another process is preparing {path.stem}", file=sys.stderr
      )
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps TFDS from logging and from showing its own progress."""
  from absl import logging
  import tensorflow_datasets as tfds

  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    yield
  finally:
    logging.set_verbosity(level)

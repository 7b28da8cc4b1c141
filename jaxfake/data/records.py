"""Data sets of our own records: read once, written as PNG, read at random."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING, Any

from jaxfake import contracts, errors
from jaxfake import data as datasets
from jaxfake.data import folders, patients

if TYPE_CHECKING:
  from jaxfake.data import builders


@dataclasses.dataclass(frozen=True)
class Records:
  """Reads what was prepared, from its folder, as tfds has it."""

  directory: str

  def __call__(self, split: str):
    from jaxfake.data import builders

    return builders.Source(self.directory, split)


def prepare(
  data: contracts.Config,
  recipe: "builders.Recipe",
  facts: dict,
  litter: int = 0,
  notes: Callable | None = None,
) -> datasets.Dataset:
  """The data set of a recipe (builders.Recipe), prepared where it is not yet.

  `facts` are those of its source, fingerprint and split among them;
  `notes(facts)` are lines for its summary.
  """
  from jaxfake.data import builders

  name = data.name.replace(".", "_")  # Of a module of the user's.
  directory = _prepared(builders.builder(name), recipe)
  metadata = json.loads((directory / "metadata.json").read_text())
  skipped = metadata.pop("skipped")
  if skipped and data.unreadable == "stop":
    total = sum(map(len, recipe.items.values()))
    raise builders.unreadable_error(skipped, total)
  facts = {
    "name": data.name,
    **facts,
    "classes": list(recipe.classes),
    "patients_by": dict.fromkeys(patients.WAYS, 0),
    "kept_together": 0,
    "too_alike": 0,
    **metadata,
    "skipped": len(skipped),
    "skipped_files": skipped,
  }
  lines = tuple(notes(facts)) if notes else ()
  read = Records(str(directory))
  return datasets.Dataset(data.name, recipe.classes, facts, read, litter, lines)


def of_entries(
  name: str, listing: folders.Listing, data: contracts.Config, **options: Any
) -> "builders.Recipe":
  """The recipe of a folder's files; `name` is that of its records."""
  from jaxfake.data import builders, decoders, reading

  return builders.Recipe(
    name=name,
    items={
      s: [e for e in listing.entries if e.split == s] for s in folders.SPLITS
    },
    classes=listing.classes,
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

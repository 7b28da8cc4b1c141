"""A user's folder of images -> one `Entry` per image: split, class, patient.

No image is opened here: this is names, sizes, times and the user's CSV file.
What images hold, DICOM's PatientID and near-duplicates, comes while they are
prepared: see grouping.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import re
from typing import Any
import unicodedata

from jaxfake import errors
from jaxfake.data import patients
from jaxfake.runtime import litter

SPLITS = "train", "val", "test"
LAYOUT = "{train,val,test}/CLASS/*.png or *.jpeg, such as train/NORMAL/a.png"
# Public sets whose folders are patients; no one's class.
_NO_CLASS = re.compile(r"patient[_\- ]?\d+|p\d{8}", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One image to prepare. `path` is absolute; `id` is unique in the folder.

  `extra` holds what else the record keeps, by feature name; `record` is the
  place in an ArrayRecord shard, where `path` is one. `known` says what told
  the patient, "" where nothing did; `key` is what the split is a hash of.
  """

  split: str
  label: int
  patient: str
  id: str
  path: str
  extra: dict = dataclasses.field(default_factory=dict)
  record: int | None = None
  known: str = ""
  key: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
  """What a folder holds; `litter` counts what was passed over."""

  entries: list[Entry]
  classes: tuple[str, ...]
  litter: int


def patient_of(name: str) -> str:
  """Returns the patient that a public set's file name tells; else its stem."""
  return patients.by_convention(name) or patients.stem(name)


def split_of(patient: str) -> str:
  """Returns the split of a patient: about 70 % train, 10 % val, 20 % test.

  A hash of the name alone decides, so a patient stays where it is when others
  join or leave the folder.
  """
  digest = hashlib.blake2b(patient.encode(), digest_size=8).digest()
  part = int.from_bytes(digest) / 2**64
  return "train" if part < 0.7 else "val" if part < 0.8 else "test"


def kaggle(
  folder: str, policy: str, table: str = ""
) -> tuple[list[Entry], tuple[str, ...]]:
  """Returns the entries and class names of `listing`."""
  listed = listing(folder, policy, table)
  return listed.entries, listed.classes


def listing(folder: str, policy: str, table: str = "") -> Listing:
  """Returns what a folder in Kaggle's layout holds.

  `policy` "official" takes the folders train, val and test as the splits;
  "patient" pools them (or classes directly beneath) and splits by patient.
  Images lie at any depth beneath a class. Folders whose names differ in case,
  in Unicode's form or in spaces at their ends are one class: file systems and
  archives change these. `table` is the user's CSV file of patients, or "".
  Entries come by split, then by path. DataError says which folder lacks what.
  """
  base = root(folder, f"expected {LAYOUT}")
  walk = Walk()
  # Folder -> its split; "Train" is train.
  tops = {
    path: name
    for name in SPLITS
    for path in walk.folders(base)
    if plain(path.name).casefold() == name
  }
  parts = list(tops.values())
  if policy == "official" and len(parts) < len(SPLITS):
    missing = [name for name in SPLITS if name not in parts]
    raise errors.DataError(
      f"{base}: no folder {' or '.join(missing)}; data.split=official expects"
      f" {LAYOUT}; use data.split=patient to pool what is there"
    )
  tops = tops or {base: ""}
  places = _classes(base, tops, walk)
  classes = tuple(sorted(places))
  images = []  # (split, label, path beneath the class, path)
  for label, name in enumerate(classes):
    empty = []
    for top in tops:
      files = [
        (tops[top], label, os.fspath(file.relative_to(place)), file)
        for place in places[name][top]
        for file in walk.files(place)
      ]
      images += files
      if not files:
        empty.append((places[name][top] or [top / name])[0])
    # Pooled, a class need only be somewhere.
    if empty and (policy == "official" or len(empty) == len(tops)):
      raise errors.DataError(
        f"{empty[0]}: no images; each of {', '.join(map(str, tops))} must"
        f" hold images of every class ({', '.join(classes)}): remove the empty"
        " folder, or pool what is there with data.split=patient"
      )
  entries = _entries(base, images, policy, table)
  entries.sort(key=order)
  return Listing(entries, classes, walk.litter)


def order(entry: Entry) -> tuple[int, str]:
  """The key that entries are sorted by."""
  return SPLITS.index(entry.split), entry.id


def plain(name: str) -> str:
  """A folder's name as it was meant: in one form of Unicode, without spaces at
  its ends."""
  return " ".join(unicodedata.normalize("NFC", name).split())


def _classes(base, tops, walk) -> dict[str, dict[pathlib.Path, list]]:
  """Class -> top -> the folders that are this class there."""
  alike = {}  # Names that are one -> (name, top, folder).
  for top in tops:
    for place in walk.folders(top):
      name = plain(place.name)
      alike.setdefault(name.casefold(), []).append((name, top, place))
      if _NO_CLASS.fullmatch(name):
        raise errors.DataError(
          f"{place}: is named as a patient, where classes are expected:"
          f" {LAYOUT} (a patient's folder may lie beneath its class)"
        )
  if not alike:
    raise errors.DataError(
      f"{base}: no class folders found; expected {LAYOUT}, or CLASS/* for"
      " data.split=patient"
    )
  return {
    min(name for name, _, _ in those): {
      top: [place for _, of, place in those if of == top] for top in tops
    }
    for those in alike.values()
  }


def _entries(base, images, policy, table) -> list[Entry]:
  """The entries of (split, label, path beneath the class, path)."""
  # A name that is not UTF-8 cannot be stored as it is.
  text = lambda path: os.fsencode(path).decode(errors="replace")
  inner = [text(path) for _, _, path, _ in images]
  ids = [text(file.relative_to(base)) for _, _, _, file in images]
  in_table = patients.read_csv(table, ids) if table else {}
  groups = patients.groups(inner)
  entries = []
  for (split, label, _, file), path, id in zip(images, inner, ids, strict=True):
    patient, known = patients.named(path, groups)
    if table:
      patient, known = in_table[id], patients.CSV
    key = patient or patients.without(path)
    entries.append(
      Entry(
        split=split if policy == "official" else split_of(key),
        label=label,
        patient=patient or patients.UNKNOWN + id,
        id=id,
        path=str(file),
        known=known,
        key=key,
      )
    )
  return entries


def fingerprint(entries: list[Entry]) -> str:
  """Returns 16 hex digits of all names, labels, sizes and times of change.

  Times, not contents, because this is asked at every start and a large folder
  may lie on a slow disk; contents are hashed once, while they are prepared.
  DataError if a file has gone.
  """
  digest, status = hashlib.blake2b(digest_size=8), {}
  for e in entries:
    if e.path not in status:  # A shard holds many.
      try:
        status[e.path] = os.stat(e.path)
      except OSError as error:
        raise errors.DataError(f"{e.path}: {error.strerror}") from error
    size, time = status[e.path].st_size, status[e.path].st_mtime_ns
    # How a patient is known is part of what a prepared set says.
    whose = e.patient, e.known, e.key
    line = e.id, e.split, e.label, *whose, e.extra, e.record, size, time
    digest.update(repr(line).encode())
  return digest.hexdigest()


def root(folder: str, expected: str, field: str = "data.dir") -> pathlib.Path:
  """Returns a field as an absolute path to a folder, else says what is."""
  if not folder:
    raise errors.ConfigError(
      "data.dir is empty: name the folder, --config.data.dir=FOLDER (--dir"
      f" FOLDER of jaxfake.data); {expected}"
    )
  path = pathlib.Path(os.path.abspath(pathlib.Path(folder).expanduser()))
  if not path.is_dir():
    what = "not a folder" if path.exists() else "no such folder"
    raise errors.DataError(f"{path}: {what} ({field}); {expected}")
  return path


class Walk:
  """Lists folders without hidden files and system litter, which it counts."""

  def __init__(self):
    self.litter = 0
    self._seen = {}

  def held(self, path: pathlib.Path) -> Any:
    if path not in self._seen:
      try:
        held = sorted(path.iterdir())
      except OSError as error:
        raise errors.DataError(f"{path}: {error.strerror}") from error
      kept = [
        p
        for p in held
        if not p.name.startswith(".") and not litter.is_litter(p.name)
      ]
      self.litter += len(held) - len(kept)
      self._seen[path] = kept
    return self._seen[path]

  def folders(self, path: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in self.held(path) if p.is_dir()]

  def files(
    self, path: pathlib.Path, above: Sequence[pathlib.Path] = ()
  ) -> list:
    """All files beneath a folder; DataError where one holds masks."""
    files, above = [], [*above, path.resolve()]
    for p in self.held(path):
      if not p.is_dir():
        files.append(p)
      elif patients.is_masks(p.name):
        raise errors.DataError(
          f"{p}: holds masks or labels by its name, and would be read as"
          " radiographs: move it out of the class"
        )
      elif p.resolve() not in above:  # A link to a folder above has no end.
        files += self.files(p, above)
    return files

"""A user's folder of images -> one `Entry` per image: split, class, patient.

No file is opened here: this is names, sizes and times.
"""

import dataclasses
import hashlib
import os
import pathlib
import re

from jaxfake import errors

SPLITS = "train", "val", "test"
LAYOUT = "{train,val,test}/CLASS/*.png or *.jpeg, such as train/NORMAL/a.png"
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # What systems leave behind.
_PATIENT = (
  re.compile(r"(person\d+)_"),  # person12_bacteria_34
  re.compile(r"(?:NORMAL2-)?(IM-\d+)-"),  # IM-0115-0001, NORMAL2-IM-...
  # Mendeley's release: disease-patient-image; the patient is the number.
  re.compile(r"(?:NORMAL|PNEUMONIA|BACTERIA|VIRUS)-(\d+)-\d+"),
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One image to prepare. `path` is absolute; `id` is unique in the folder.

  `extra` holds what else the record keeps, by feature name; `record` is the
  place in an ArrayRecord shard, where `path` is one.
  """

  split: str
  label: int
  patient: str
  id: str
  path: str
  extra: dict = dataclasses.field(default_factory=dict)
  record: int | None = None


def patient_of(name: str) -> str:
  """Returns the patient a Kaggle or Mendeley file name tells; else its stem."""
  stem = pathlib.PurePath(name).stem
  for pattern in _PATIENT:
    if found := pattern.match(stem):
      return found[1]
  return stem


def split_of(patient: str) -> str:
  """Returns the split of a patient: about 70 % train, 10 % val, 20 % test.

  A hash of the name alone decides, so a patient stays where it is when others
  join or leave the folder.
  """
  digest = hashlib.blake2b(patient.encode(), digest_size=8).digest()
  part = int.from_bytes(digest) / 2**64
  return "train" if part < 0.7 else "val" if part < 0.8 else "test"


def kaggle(folder: str, policy: str) -> tuple[list[Entry], tuple[str, ...]]:
  """Returns the entries of a folder in Kaggle's layout, and its class names.

  `policy` "official" takes the folders train, val and test as the splits;
  "patient" pools them (or classes directly beneath) and splits by patient.
  Entries come by split, then by path. DataError says which folder lacks what.
  """
  base = root(folder, f"expected {LAYOUT}")
  parts = [name for name in SPLITS if (base / name).is_dir()]
  if policy == "official" and len(parts) < len(SPLITS):
    missing = [name for name in SPLITS if name not in parts]
    raise errors.DataError(
      f"{base}: no folder {' or '.join(missing)}; data.split=official expects"
      f" {LAYOUT}; use data.split=patient to pool what is there"
    )
  tops = [base / name for name in parts] or [base]
  classes = sorted({d.name for top in tops for d in _folders(top)})
  if not classes:
    raise errors.DataError(
      f"{base}: no class folders found; expected {LAYOUT}, or CLASS/* for"
      " data.split=patient"
    )
  entries = []
  for label, name in enumerate(classes):
    found = [(top, _files(top / name)) for top in tops]
    empty = [top / name for top, files in found if not files]
    # Pooled, a class need only be somewhere.
    if empty and (policy == "official" or len(empty) == len(tops)):
      raise errors.DataError(
        f"{empty[0]}: no images; each of {', '.join(map(str, tops))} must"
        f" hold images of every class ({', '.join(classes)}): remove the empty"
        " folder, or pool what is there with data.split=patient"
      )
    for top, files in found:
      for file in files:
        # A name that is not UTF-8 cannot be stored as it is.
        id = os.fsencode(file.relative_to(base)).decode(errors="replace")
        patient = patient_of(id)
        split = top.name if policy == "official" else split_of(patient)
        entries.append(Entry(split, label, patient, id, str(file)))
  entries.sort(key=lambda e: (SPLITS.index(e.split), e.id))
  return entries, tuple(classes)


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
    line = e.id, e.split, e.label, e.patient, e.extra, e.record, size, time
    digest.update(repr(line).encode())
  return digest.hexdigest()


def root(folder: str, expected: str) -> pathlib.Path:
  """Returns data.dir as an absolute path to a folder, else says what is."""
  if not folder:
    raise errors.ConfigError(
      "data.dir is empty: name the folder, --config.data.dir=FOLDER (--dir"
      f" FOLDER of jaxfake.data); {expected}"
    )
  path = pathlib.Path(os.path.abspath(pathlib.Path(folder).expanduser()))
  if not path.is_dir():
    what = "not a folder" if path.exists() else "no such folder"
    raise errors.DataError(f"{path}: {what} (data.dir); {expected}")
  return path


def _seen(path):
  """Returns what lies in a folder, without hidden files and system litter."""
  return sorted(
    p
    for p in path.iterdir()
    if not p.name.startswith(".") and p.name.lower() not in _LITTER
  )


def _folders(path):
  return [p for p in _seen(path) if p.is_dir()]


def _files(path):
  if not path.is_dir():
    return []
  files = _seen(path)
  for file in files:
    if file.is_dir():
      raise errors.DataError(
        f"{file}: a folder inside a class; images must lie directly in {path}"
      )
  return files

"""What is learnt of a folder's images together, before any is written: the
patients that DICOM headers tell, and the split that keeps patients and
near-duplicates in one piece."""

import collections
from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import io
import os
from typing import Any

import numpy as np

from jaxfake.data import (
  duplicates,
  folders,
  generated,
  image_error,
  image_file,
  patients,
)


@dataclasses.dataclass(frozen=True)
class Seen:
  """Of one image: its DICOM header's patient, and bits of its picture."""

  header: patients.Header | None
  bits: np.ndarray | None = None


def header(entry: folders.Entry) -> Seen:
  """Opens a file for its header alone."""
  if not os.path.isfile(entry.path):  # Opening a pipe would wait for ever.
    return Seen(None)
  try:
    with open(entry.path, "rb") as file:
      return Seen(_header(file))
  except OSError:  # Reading the image says so.
    return Seen(None)


def picture(entry: folders.Entry) -> Seen | image_error.ImageError:
  """Reads the whole image, for its near-duplicates."""
  try:
    data = generated.read_bytes(entry)
    bits = duplicates.dhash(image_file.read(data))
  except image_error.ImageError as error:
    return image_error.ImageError(entry.path, error.reason)
  return Seen(_header(io.BytesIO(data)), bits)


def _header(file):
  start = file.read(132)
  file.seek(0)
  if not image_file.looks_dicom(start):
    return None
  from jaxfake.data import dicom_patient  # pydicom: half a second to import.

  return dicom_patient.header(file)


def settle(
  policy: str, entries: Sequence[folders.Entry], seen: Sequence[Seen]
) -> tuple[dict[str, list[folders.Entry]], dict]:
  """The entries by split, and facts: how patients are known, and what kept
  images together."""
  entries = with_patients(entries, seen)
  facts: dict[str, Any] = {"kept_together": 0, "too_alike": 0}
  if policy == "patient":
    entries, facts = split(entries, seen)
  by = collections.Counter(entry.known for entry in entries)
  facts["patients_by"] = {how: by[how] for how in patients.WAYS}
  return {
    name: [e for e in entries if e.split == name] for name in folders.SPLITS
  }, facts


def with_patients(
  entries: Sequence[folders.Entry], seen: Sequence[Seen]
) -> list[folders.Entry]:
  """The entries with what DICOM tells; the user's own CSV file goes before."""
  headers = [s.header for s in seen if s.header]
  stand_ins = patients.stand_ins(headers)
  amended = []
  for entry, s in zip(entries, seen, strict=True):
    name = s.header.patient if s.header else ""
    if name and name not in stand_ins and entry.known != patients.CSV:
      entry = dataclasses.replace(
        entry, patient=name, key=name, known=patients.DICOM
      )
    amended.append(entry)
  return amended


def split(
  entries: Sequence[folders.Entry], seen: Sequence[Seen]
) -> tuple[list[folders.Entry], dict]:
  """The entries by split, patients and near-duplicates whole; and how many
  images that kept together, {"kept_together", "too_alike"}.

  A group's split is that of its largest patient, so that a patient stays where
  it is when a copy of an image joins.
  """
  those, near, alike = groups(entries, seen)
  assigned = []
  for members in those:
    name = folders.split_of(leader([entries[i].key for i in members]))
    assigned += [dataclasses.replace(entries[i], split=name) for i in members]
  facts = {"kept_together": kept_together(entries, near), "too_alike": alike}
  return sorted(assigned, key=folders.order), facts


def groups(
  entries: Sequence[folders.Entry],
  seen: Sequence[Seen],
  together: Iterable[Sequence[int]] = (),
) -> tuple[list[list[int]], list[list[int]], int]:
  """What must stand in one split: indices of all entries, by patient,
  near-duplicates and `together`; then what duplicates.clusters says."""
  sets = duplicates.Sets(len(entries))
  near, alike = duplicates.clusters(np.array([s.bits for s in seen]))
  keys = collections.defaultdict(list)
  for i, entry in enumerate(entries):
    keys[entry.key].append(i)
  joined = *keys.values(), *_without_issuer(entries, seen), *near, *together
  for those in joined:
    for i in those:
      sets.join(those[0], i)
  members = sets.members()
  several = {i for those in members for i in those}
  alone = [[i] for i in range(len(entries)) if i not in several]
  return members + alone, near, alike


def kept_together(
  entries: Sequence[folders.Entry], near: Iterable[Sequence[int]]
) -> int:
  """How many images stand in one split as near-duplicates alone."""
  return sum(
    len(those) for those in near if len({entries[i].patient for i in those}) > 1
  )


def _without_issuer(entries, seen):
  """Images of one PatientID, some of which do not name its issuer: they may be
  any issuer's of that patient."""
  same, open_ = collections.defaultdict(list), set()
  for i, (entry, s) in enumerate(zip(entries, seen, strict=True)):
    # A header, or that of the picture that it was made from.
    if entry.known == patients.DICOM and s.header:
      same[s.header.bare].append(i)
      if s.header.patient == s.header.bare:
        open_.add(s.header.bare)
  return [same[bare] for bare in sorted(open_)]


def leader(keys: list[str]) -> str:
  """The commonest key; of equally common ones, any, but always the same."""
  counts = collections.Counter(keys)
  return max(
    counts,
    key=lambda key: (counts[key], hashlib.sha256(key.encode()).digest()),
  )

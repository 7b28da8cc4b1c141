"""What is learnt of a folder's images together, before any is written: the
patients that DICOM headers tell, and the split that keeps patients and
near-duplicates in one piece."""

import collections
from collections.abc import Sequence
import dataclasses
import hashlib
import io
import os

import numpy as np

from jaxfake.data import duplicates, folders, generated, image_file, patients


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


def picture(entry: folders.Entry) -> Seen | image_file.ImageError:
  """Reads the whole image, for its near-duplicates."""
  try:
    data = generated.read_bytes(entry)
    bits = duplicates.dhash(image_file.read(data))
  except image_file.ImageError as error:
    return image_file.ImageError(entry.path, error.reason)
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
  facts = {"kept_together": 0, "too_alike": 0}
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
  found = []
  for entry, s in zip(entries, seen, strict=True):
    name = s.header.patient if s.header else ""
    if name and name not in stand_ins and entry.known != patients.CSV:
      entry = dataclasses.replace(
        entry, patient=name, key=name, known=patients.DICOM
      )
    found.append(entry)
  return found


def split(
  entries: Sequence[folders.Entry], seen: Sequence[Seen]
) -> tuple[list[folders.Entry], dict]:
  """The entries by split, patients and near-duplicates whole; and how many
  images that kept together, {"kept_together", "too_alike"}.

  A group's split is that of its largest patient, so that a patient stays where
  it is when a copy of an image joins.
  """
  sets = duplicates.Sets(len(entries))
  first = {}
  for i, entry in enumerate(entries):
    sets.join(first.setdefault(entry.key, i), i)
  for those in _without_issuer(entries, seen):
    for i in those:
      sets.join(those[0], i)
  near, alike = duplicates.clusters(np.array([s.bits for s in seen]))
  for those in near:
    for i in those:
      sets.join(those[0], i)
  own = [entry.split for entry in entries]
  for i, entry in enumerate(entries):
    own[i] = folders.split_of(entry.key)
  for those in sets.members():
    leader = _leader([entries[i].key for i in those])
    for i in those:
      own[i] = folders.split_of(leader)
  found = [
    dataclasses.replace(entry, split=name)
    for entry, name in zip(entries, own, strict=True)
  ]
  facts = {
    "kept_together": sum(
      len(those)
      for those in near
      if len({entries[i].patient for i in those}) > 1
    ),
    "too_alike": alike,
  }
  return sorted(found, key=folders.order), facts


def _without_issuer(entries, seen):
  """Images of one PatientID, some of which do not name its issuer: they may be
  any issuer's of that patient."""
  same, open_ = collections.defaultdict(list), set()
  for i, (entry, s) in enumerate(zip(entries, seen, strict=True)):
    if entry.known == patients.DICOM:
      same[s.header.bare].append(i)
      if s.header.patient == s.header.bare:
        open_.add(s.header.bare)
  return [same[bare] for bare in sorted(open_)]


def _leader(keys: list[str]) -> str:
  """The commonest key; of equally common ones, any, but always the same."""
  counts = collections.Counter(keys)
  return max(
    counts,
    key=lambda key: (counts[key], hashlib.sha256(key.encode()).digest()),
  )

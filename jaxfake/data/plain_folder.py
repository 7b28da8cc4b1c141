"""A folder of pictures by themselves: no classes and no splits."""

import os
import pathlib
from typing import Any, ClassVar

from jaxfake import errors
from jaxfake.data import folders, image_error, image_file

EXPECTED = "expected PNG, JPEG or DICOM files, at any depth"


class PlainFolder:
  """All files beneath a folder in order, uint8 (h, w, 1): contracts.Items. Ids
  are paths in the folder."""

  features: ClassVar = {
    "image": "image",
    "label": "integer",
    "patient": "text",
    "id": "text",
  }

  def __init__(self, folder: str, field: str):
    """Of a folder that a field or flag names. Raises DataError where there is
    none, or nothing in it."""
    base = folders.root(folder, EXPECTED, field)
    self._entries = [_entry(base, x) for x in folders.Walk().files(base)]
    if not self._entries:
      raise errors.DataError(f"{base}: no files; {EXPECTED}")

  def __len__(self) -> int:
    return len(self._entries)

  def __getitem__(self, i: int) -> dict[str, Any]:
    """Raises DataError where a file is no image."""
    entry = self._entries[i]
    try:
      image = image_file.read(entry.path)
    except image_error.ImageError as error:
      raise errors.DataError(str(error)) from error
    label, patient = entry.label, entry.patient
    image = image[..., None]
    return {"image": image, "label": label, "patient": patient, "id": entry.id}

  def column(self, name: str) -> list:
    return [getattr(entry, name) for entry in self._entries]

  def fingerprint(self) -> str:
    return folders.fingerprint(self._entries)


def _entry(base: pathlib.Path, file: pathlib.Path) -> folders.Entry:
  # A name that is not UTF-8 cannot be stored as it is.
  id = os.fsencode(file.relative_to(base)).decode(errors="replace")
  return folders.Entry("", -1, folders.patient_of(id), id, str(file))

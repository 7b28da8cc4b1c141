"""Where rows of verdicts go, one by one: CSV, JSON lines, JSON.

Each is opened, and so found writable, before a model is loaded; what a file
held is kept until `begin`. Rows of CSV and JSON lines are on disk as soon as
they are made; a last line that a kill left half written is dropped when a file
is gone on with.
"""

from collections.abc import Iterator
import csv
import itertools
import json
import os
import pathlib
import stat
from typing import TYPE_CHECKING

from jaxfake import errors

if TYPE_CHECKING:
  import numpy as np


class _Lines:
  """A file of rows, a line each; `resume` goes on where it ends."""

  def __init__(self, path: str, fields: tuple[str, ...], resume: bool):
    self._path, self._fields, self._resume = path, fields, resume
    self._unused = not os.path.lexists(path)
    self._file = _open(path, "a")

  def begin(self) -> None:
    """Empties the file, or drops what follows its last whole line."""
    self._unused = False
    if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
      self._file.truncate(_whole(self._path) if self._resume else 0)

  def close(self) -> None:
    self._file.close()
    if self._unused:
      os.unlink(self._path)


class Csv(_Lines):
  """Rows with a header."""

  def begin(self) -> None:
    super().begin()
    self._writer = csv.DictWriter(self._file, self._fields, lineterminator="\n")
    if not os.fstat(self._file.fileno()).st_size:
      self._writer.writeheader()
      self._file.flush()

  def write(self, row: dict) -> None:
    self._writer.writerow(row)
    self._file.flush()

  @staticmethod
  def rows(path: str, fields: tuple[str, ...]) -> Iterator[dict]:
    """The whole rows of a file, its values as text, "" for None."""
    with open(path, newline="", encoding="utf-8") as opened:
      file = itertools.takewhile(lambda line: line.endswith("\n"), opened)
      reader = csv.DictReader(file)
      if tuple(reader.fieldnames or ()) not in ((), fields):
        raise errors.ConfigError(
          f"{path}: expected the columns {','.join(fields)}"
        )
      yield from reader


class JsonLines(_Lines):
  """An object a line."""

  def write(self, row: dict) -> None:
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()

  @staticmethod
  def rows(path: str, fields: tuple[str, ...]) -> Iterator[dict]:
    """The whole rows of a file."""
    with open(path, encoding="utf-8") as opened:
      for line in itertools.takewhile(lambda x: x.endswith("\n"), opened):
        try:
          row = json.loads(line)
        except ValueError as error:
          raise errors.ConfigError(f"{path}: is not JSON lines") from error
        if not isinstance(row, dict) or row.keys() != set(fields):
          raise errors.ConfigError(f"{path}: expected objects of {fields}")
        yield row


class Json:
  """One object: the model's facts, rows, counts and whether all are there.

  Written to PATH.part row by row; named PATH by `finish`, which an
  interrupted run calls too. A kill leaves the part alone.
  """

  def __init__(self, path: str):
    self._path, self._part = pathlib.Path(path), pathlib.Path(f"{path}.part")
    if self._path.is_dir():
      raise errors.ConfigError(f"{path}: is a folder")
    self._file, self._unused = _open(str(self._part), "w"), True

  def begin(self, model: dict) -> None:
    self._unused = False
    self._file.write('{"model": ' + json.dumps(model) + ',\n"rows": [')
    self._comma = "\n"

  def write(self, row: dict) -> None:
    self._file.write(self._comma + json.dumps(row))
    self._comma = ",\n"

  def finish(self, counts: dict, complete: bool) -> None:
    end = json.dumps({"counts": counts, "complete": complete})
    self._file.write("\n],\n" + end[1:] + "\n")
    self._file.close()
    self._part.replace(self._path)

  def close(self) -> None:
    self._file.close()
    if self._unused:
      self._part.unlink()


def _whole(path):
  """The bytes up to the end of the last whole line."""
  with open(path, "rb") as file:
    return sum(len(line) for line in file if line.endswith(b"\n"))


def _open(path, mode):
  try:
    return open(path, mode, newline="", encoding="utf-8")
  except OSError as error:
    raise errors.ConfigError(
      f"{path}: cannot be written: {error.strerror}"
    ) from error


class Maps:
  """A folder of pictures, one for each file that has a map."""

  def __init__(self, path: str):
    self._path = pathlib.Path(path)
    try:
      self._path.mkdir(exist_ok=True)
    except OSError as error:
      raise errors.ConfigError(
        f"--maps {path}: {error.strerror}; expected a folder, or a new name in"
        " one"
      ) from error

  def write(self, row: dict, picture: "np.ndarray | None") -> None:
    """As NAME-HASH.png: files of one name may lie in several folders."""
    if picture is None:
      return
    from PIL import Image

    stem = pathlib.PurePath(row["file"]).stem[:80]
    name = f"{stem}-{row['sha256'][:12]}.png"
    partial = self._path / (name + ".part")
    Image.fromarray(picture).save(partial, "PNG")
    partial.replace(self._path / name)

"""Where rows of verdicts go, one by one: CSV, JSON lines, JSON.

Each is opened, and so found writable, before anything is scored. Rows of CSV
and JSON lines are on disk as soon as they are made; a last line that a kill
left half written is dropped when a file is gone on with.
"""

import csv
import json
import os
import pathlib

from jaxfake import errors


class Csv:
  """Rows with a header; `resume` goes on where a file ends."""

  def __init__(self, path: str, fields: tuple[str, ...], resume: bool):
    self._file, size = _opened(path, resume)
    self._writer = csv.DictWriter(self._file, fields, lineterminator="\n")
    if not size:
      self._writer.writeheader()
      self._file.flush()

  def write(self, row: dict) -> None:
    self._writer.writerow(row)
    self._file.flush()

  def close(self) -> None:
    self._file.close()

  @staticmethod
  def rows(path: str, fields: tuple[str, ...]) -> list[dict]:
    """The whole rows of a file, its values as text, "" for None."""
    with open(path, newline="") as file:
      reader = csv.DictReader(file)
      if tuple(reader.fieldnames or ()) not in ((), fields):
        raise errors.ConfigError(
          f"{path}: expected the columns {','.join(fields)}"
        )
      return list(reader)


class JsonLines:
  """An object a line; `resume` goes on where a file ends."""

  def __init__(self, path: str, fields: tuple[str, ...], resume: bool):
    del fields  # Each line has its own names.
    self._file, _ = _opened(path, resume)

  def write(self, row: dict) -> None:
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()

  def close(self) -> None:
    self._file.close()

  @staticmethod
  def rows(path: str, fields: tuple[str, ...]) -> list[dict]:
    """The whole rows of a file."""
    with open(path) as file:
      try:
        rows = [json.loads(line) for line in file]
      except ValueError as error:
        raise errors.ConfigError(f"{path}: is not JSON lines") from error
    if not all(isinstance(x, dict) and x.keys() == set(fields) for x in rows):
      raise errors.ConfigError(f"{path}: expected objects of {fields}")
    return rows


class Json:
  """One object: the model's facts, rows, counts and whether all are there.

  Written to PATH.part row by row; named PATH by `finish`, which an
  interrupted run calls too. A kill leaves the part alone.
  """

  def __init__(self, path: str, model: dict):
    self._path, self._part = pathlib.Path(path), pathlib.Path(f"{path}.part")
    if self._path.is_dir():
      raise errors.ConfigError(f"{path}: is a folder")
    self._file = _open(str(self._part), "w")
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


def mend(path: str) -> None:
  """Drops what follows the last whole line."""
  if not os.path.isfile(path):
    return
  with open(path, "r+b") as file:
    end = 0
    for line in file:
      end += len(line) if line.endswith(b"\n") else 0
    file.truncate(end)


def _opened(path, resume):
  file = _open(path, "a" if resume else "w")
  return file, os.fstat(file.fileno()).st_size


def _open(path, mode):
  try:
    return open(path, mode, newline="", encoding="utf-8")
  except OSError as error:
    raise errors.ConfigError(
      f"{path}: cannot be written: {error.strerror}"
    ) from error

"""Files that are written whole or not at all, and the lock of a folder."""

import contextlib
import csv
import datetime
import errno
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys
from typing import Any, TypeGuard

from jaxfake import errors
from jaxfake.runtime import litter, progress

LOG, EXIT_CODE = "log.txt", "exit_code.txt"  # Of a run that a sweep started.
LOCK = ".lock"
PROGRAM = "jaxfake"  # What a lock file says of who wrote it.
# Of file systems that have no locks.
NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP


def flatten(tree: dict, prefix: str = "") -> dict:
  """{"a": {"b": 1}} to {"a.b": 1}."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


class Lock:
  """A folder held by this process. Its file says who holds it, or who did: for
  people, and for hosts of file systems whose locks do not reach so far."""

  def __init__(self, path: pathlib.Path, flag: str, marker: str = ""):
    """Makes the folder and locks it.

    Raises ConfigError where another process holds it, it cannot be written, or
    it holds what neither such a process made nor one whose folders have a file
    `marker` ("": any may be in it).
    """
    try:
      if marker:
        _require_ours(path, flag, marker)
      path.mkdir(parents=True, exist_ok=True)
      self._file = open(
        os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666),
        "r+",
        errors="replace",
      )
      before = _holder(self._file.read())
      held = self._held(before)
    except OSError as error:
      raise errors.ConfigError(
        f"{flag} {path}: {error.strerror}; expected a folder that can be"
        " written"
      ) from error
    if held:
      self._file.close()
      by = f": {_who(before)}" if _begun(before) else ""
      raise errors.ConfigError(
        f"{flag} {path} is in use by another process{by}. Wait for it, or give"
        " another folder"
      )
    here = socket.gethostname()
    if _begun(before) and before["host"] != here:
      progress.say(
        f"{path} was left by {_who(before)}, which did not say that it had"
        " ended. Where that host's locks cannot be seen from here, end it first"
      )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    mine = {
      "pid": os.getpid(),
      "host": here,
      "since": now,
      "command": shlex.join(sys.argv)[:300],
    }
    self._write(mine)

  def _held(self, before: dict | None) -> bool:
    """Whether another process holds it; else this one does now."""
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
    except OSError as error:
      if error.errno not in NO_LOCKS:
        raise
      return _begun(before) and _lives(before)
    return False

  def _write(self, holder: dict) -> None:
    # Whoever is killed here leaves one whole line, with or without a rest.
    text = json.dumps({"program": PROGRAM} | holder) + "\n"
    os.pwrite(self._file.fileno(), text.encode(), 0)
    self._file.truncate(len(text))

  def close(self) -> None:
    """Gives the folder free; its file then says only that it was held."""
    with contextlib.suppress(OSError):  # A full disk must not hide its error.
      self._write({})
    self._file.close()


def _holder(text: str) -> dict | None:
  """Who wrote a lock file; None where it is not one of ours."""
  try:
    holder = json.loads(text.partition("\n")[0])
  except ValueError:
    return None
  ours = isinstance(holder, dict) and holder.get("program") == PROGRAM
  return holder if ours else None


def _begun(holder: dict | None) -> TypeGuard[dict]:
  """Whether it has not said that it ended."""
  return holder is not None and "pid" in holder


def _lives(holder: dict) -> bool:
  """Whether it still runs, as far as this host can tell."""
  if holder["host"] != socket.gethostname():
    return False
  about = pathlib.Path("/proc", str(holder["pid"]), "cmdline")
  others = holder["pid"] != os.getpid() and about.exists()
  return others and PROGRAM.encode() in about.read_bytes()


def _who(holder: dict) -> str:
  return (
    f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    f" ({holder['command']})"
  )


def _require_ours(path: pathlib.Path, flag: str, marker: str) -> None:
  """Raises ConfigError where a folder holds other things than such a process
  leaves, at whatever moment it is killed."""
  if not path.is_dir():
    return
  held = {x.name for x in path.iterdir() if not _nothing(x)}
  if marker in held:
    return
  if LOCK in held and _holder((path / LOCK).read_text(errors="replace")):
    return  # It was written before anything else.
  if others := held - {
    LOCK,
    LOG,
    EXIT_CODE,
    EXIT_CODE + ".part",
    marker + ".part",
  }:
    raise errors.ConfigError(
      f"{flag} {path} holds other files, such as {min(others)}: expected a new"
      " folder, or one that a run has made"
    )


def _nothing(path: pathlib.Path) -> bool:
  """Whether it is litter, or a folder of nothing else."""
  if litter.is_litter(path.name):
    return True
  is_folder = path.is_dir() and not path.is_symlink()
  return is_folder and all(map(_nothing, path.iterdir()))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes whole or not at all."""
  part = path.with_name(path.name + ".part")
  part.write_bytes(data)
  part.replace(path)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes whole or not at all."""
  text = json.dumps(value, indent=2, sort_keys=True) + "\n"
  write_bytes(path, text.encode())


def write_csv(path: pathlib.Path, rows: list[dict]) -> None:
  """Writes rows of equal keys, whole or not at all."""
  part = path.with_name(path.name + ".part")
  with open(part, "w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  part.replace(path)


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
  """The rows of a file that write_csv wrote, as text."""
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def read_json(path: pathlib.Path) -> Any:
  """Raises ConfigError where the file is not there or not JSON."""
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise errors.ConfigError(
      f"{path.parent} is not a run's folder: cannot read {path.name} ({error})"
    ) from error


def read_lines(path: pathlib.Path) -> list[dict]:
  """The objects of a JSON lines file; none where there is none. A last line
  in whose middle the process died is left out."""
  if not path.exists():
    return []
  lines = path.read_text().splitlines(keepends=True)
  return [json.loads(x) for x in lines if x.endswith("\n")]

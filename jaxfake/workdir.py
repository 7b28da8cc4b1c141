"""A run's folder: what was asked, what was measured, what it looks like.

config.json     the whole configuration; with dataset.json it rebuilds the
dataset.json    network, so no data set is needed to use a model
metrics.jsonl   one JSON object per line
environments.jsonl  commit, versions, hardware; a line for each start
pictures/       previews, spectra, neighbours
checkpoints/    Orbax
result.json     the last figures, with config, commit, versions, hardware

A classifier's has besides:

best/, best.json      the model of the smallest validation loss; or
model.skops, .npz     a program that is fitted at once
predictions.csv       of every validation and test image

And that of a run in a sweep log.txt and exit_code.txt.
"""

import contextlib
import csv
import datetime
import errno
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import shutil
import socket
import subprocess
import sys

import numpy as np

from jaxfake import errors, pictures, progress
from jaxfake.data import litter

# What may differ when a run goes on: it does not change what any step computes.
# A data set is compared by its content, not by where it lies.
FREE = (
  "total_steps",
  "every.",
  "tensorboard",
  "data.dir",
  "data.patients",
  "data.many_sources.",
  "fingerprint",
  "skipped_files",
  # What older runs did not record; whose an image is tells its split, and so
  # the content's hash.
  "patients_unknown",
  "patients_by",
  "kept_together",
  "too_alike",
)
LOCK = ".lock"
PROGRAM = "jaxfake"  # What a lock file says of who wrote it.
# Of file systems that have no locks.
NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP
LOG, EXIT_CODE = "log.txt", "exit_code.txt"  # Of a run that a sweep started.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def flatten(tree: dict, prefix: str = "") -> dict:
  """{"a": {"b": 1}} to {"a.b": 1}."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def require_same(path: pathlib.Path, name: str, old: dict, new: dict) -> None:
  """Raises ConfigError naming every field that differs and matters."""
  old, new = flatten(old), flatten(json.loads(json.dumps(new)))
  changed = [
    f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and not key.startswith(FREE)
  ]
  if changed:
    raise errors.ConfigError(
      f"{path} was made by another {name}: {'; '.join(changed)}."
      " Give another --workdir, or the old values"
    )


class Lock:
  """A folder held by this process. Its file says who holds it, or who did: for
  people, and for hosts of file systems whose locks do not reach so far."""

  def __init__(self, path: pathlib.Path, flag: str, made: str = ""):
    """Makes the folder and locks it.

    Raises ConfigError where another process holds it, it cannot be written, or
    it holds what neither such a process made nor one whose folders have a file
    `made` ("": any may be in it).
    """
    try:
      if made:
        _require_ours(path, flag, made)
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
      by = f": {_told(before)}" if _begun(before) else ""
      raise errors.ConfigError(
        f"{flag} {path} is in use by another process{by}. Wait for it, or give"
        " another folder"
      )
    here = socket.gethostname()
    if _begun(before) and before["host"] != here:
      progress.say(
        f"{path} was left by {_told(before)}, which did not say that it had"
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
    found = json.loads(text.partition("\n")[0])
  except ValueError:
    return None
  ours = isinstance(found, dict) and found.get("program") == PROGRAM
  return found if ours else None


def _begun(holder: dict | None) -> bool:
  """Whether it has not said that it ended."""
  return holder is not None and "pid" in holder


def _lives(holder: dict) -> bool:
  """Whether it still runs, as far as this host can tell."""
  if holder["host"] != socket.gethostname():
    return False
  about = pathlib.Path("/proc", str(holder["pid"]), "cmdline")
  others = holder["pid"] != os.getpid() and about.exists()
  return others and PROGRAM.encode() in about.read_bytes()


def _told(holder: dict) -> str:
  return (
    f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    f" ({holder['command']})"
  )


def _require_ours(path: pathlib.Path, flag: str, made: str) -> None:
  """Raises ConfigError where a folder holds other things than such a process
  leaves, at whatever moment it is killed."""
  if not path.is_dir():
    return
  held = {x.name for x in path.iterdir() if not _nothing(x)}
  if made in held:
    return
  if LOCK in held and _holder((path / LOCK).read_text(errors="replace")):
    return  # It was written before anything else.
  if others := held - {
    LOCK,
    LOG,
    EXIT_CODE,
    EXIT_CODE + ".part",
    made + ".part",
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


def write_json(path: pathlib.Path, value) -> None:
  """Writes whole or not at all."""
  part = path.with_name(path.name + ".part")
  part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
  part.replace(path)


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


def read_json(path: pathlib.Path):
  """Raises ConfigError where the file is not there or not JSON."""
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise errors.ConfigError(
      f"{path.parent} is not a run's folder: cannot read {path.name} ({error})"
    ) from error


def read_config(path: pathlib.Path):
  """The configuration of a run's folder, as an ml_collections.ConfigDict."""
  import ml_collections

  return ml_collections.ConfigDict(read_json(path / "config.json"))


def read_lines(path: pathlib.Path) -> list[dict]:
  """The objects of a JSON lines file; none where there is none. A last line
  in whose middle the process died is left out."""
  if not path.exists():
    return []
  lines = path.read_text().splitlines(keepends=True)
  return [json.loads(x) for x in lines if x.endswith("\n")]


class Workdir:
  """A run's folder. Only `writer` (process 0) writes text and pictures."""

  def __init__(self, path: pathlib.Path, writer: bool = True):
    self.path = path
    self.writer = writer
    self._new = {}  # Files to write once the run can begin.
    self._tensorboard = None
    self._lock = None

  def claim(self) -> None:
    """Makes the folder and locks it. Raises ConfigError where another process
    is using it, where it holds other things than a run, or on a bad path."""
    if not self.writer:
      return
    self._lock = Lock(self.path, "--workdir", "config.json")

  def open(self, config: dict, dataset: dict) -> None:
    """Starts or continues a run in the claimed folder.

    Raises ConfigError where another configuration or data set made it, naming
    every field that differs.
    """
    if not self.writer:
      return
    for name, value in (("config", config), ("dataset", dataset)):
      path = self.path / f"{name}.json"
      if path.exists():
        require_same(self.path, name, read_json(path), value)
      self._new[path] = value
    if config["tensorboard"]:
      self._tensorboard = _tensorboard_writer(self.path)

  def begin(self, step: int) -> None:
    """Writes what the run is, and drops metrics of steps after `step`, the one
    restored (0 at the start): they come again."""
    if not self.writer:
      return
    for path, value in self._new.items():
      write_json(path, value)
    self._append("environments", {"from_step": step} | environment())
    path = self.path / "metrics.jsonl"
    kept = [x for x in read_lines(path) if x["step"] <= step]
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(x) + "\n" for x in kept))
    part.replace(path)

  def _append(self, name: str, value: dict) -> None:
    with open(self.path / f"{name}.jsonl", "a") as f:
      f.write(json.dumps(value) + "\n")

  def metrics(self, step: int, values: dict[str, float]) -> None:
    """Appends one line of scalars."""
    if not self.writer:
      return
    values = {name: float(value) for name, value in values.items()}
    self._append("metrics", {"step": step} | values)
    if self._tensorboard:
      for name, value in values.items():
        self._tensorboard.add_scalar(name, value, step)

  def picture(self, name: str, step: int, picture: np.ndarray) -> None:
    if not self.writer:
      return
    text = {"Comment": "Contains synthetic images made by jaxfake"}
    path = self.path / "pictures" / f"{name}-{step:08d}.png"
    pictures.save(path, picture, text)
    if self._tensorboard:
      form = "HW" if picture.ndim == 2 else "HWC"
      self._tensorboard.add_image(name, picture, step, dataformats=form)

  def pictures(self, step: int, made: dict[str, np.ndarray]) -> None:
    for name, picture in made.items():
      self.picture(name, step, picture)

  def evaluation(self, step: int, values: dict) -> None:
    """Numbers to metrics.jsonl under eval/, pictures to pictures/."""
    scalars = {k: v for k, v in values.items() if np.ndim(v) == 0}
    self.pictures(step, {k: values[k] for k in values.keys() - scalars.keys()})
    self.metrics(step, {f"eval/{k}": v for k, v in scalars.items()})

  def finish(self, step: int, facts: dict, conclusion: dict) -> None:
    """Writes result.json: the last evaluation and where it came from.

    Of a conclusion {name: value}, pictures go to pictures/, "predictions", a
    list of rows, to predictions.csv, and the rest into result.json.
    """
    if not self.writer:
      return
    lines = read_lines(self.path / "metrics.jsonl")
    evaluations = [x for x in lines if any(k.startswith("eval/") for k in x)]
    conclusion = dict(conclusion)
    if rows := conclusion.pop("predictions", None):
      write_csv(self.path / "predictions.csv", rows)
    for name, value in list(conclusion.items()):
      if isinstance(value, np.ndarray):
        self.picture(name, step, conclusion.pop(name))
    write_json(
      self.path / "result.json",
      {
        "config": read_json(self.path / "config.json"),
        "dataset": read_json(self.path / "dataset.json"),
        # One for each time the run was started or continued.
        "environments": read_lines(self.path / "environments.jsonl"),
        "step": step,
        # Of the steps alone: without compiling, evaluating and saving.
        "train_seconds": sum(x.get("seconds", 0) for x in lines),
        "metrics": evaluations[-1] if evaluations else {},
      }
      | facts
      | conclusion,
    )

  def close(self) -> None:
    if self._tensorboard:
      self._tensorboard.close()
    if self._lock:
      self._lock.close()


def _tensorboard_writer(path: pathlib.Path):
  try:
    import tensorboardX  # Needs no TensorFlow, unlike clu's and Flax's.
  except ImportError as error:
    raise errors.ConfigError(
      "tensorboard is True: expected tensorboardX to be installed"
      " (pip install 'jaxfake[tensorboard]')"
    ) from error
  return tensorboardX.SummaryWriter(str(path / "tensorboard"))


def environment() -> dict:
  """Commit, versions and hardware: what a number was measured with."""
  import jax

  def git(*args):
    done = subprocess.run(
      ["git", "-C", root, *args], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None

  # Not the repository of a project that jaxfake is merely installed in.
  root = pathlib.Path(__file__).parent.parent.resolve()
  commit, changed = None, None
  if (root / ".git").exists() and shutil.which("git"):
    commit = git("rev-parse", "HEAD")
    changed = bool(git("status", "--porcelain"))
  return {
    "command": " ".join(sys.argv),
    "commit": commit,
    "commit_has_changes": changed,
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "devices": [str(d.device_kind) for d in jax.devices()],
    "processes": jax.process_count(),
    "cpu": cpu_name(),
    "cpu_count": os.cpu_count(),
    "python": platform.python_version(),
    "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
  }


def cpu_name() -> str:
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor()
  names = [x.split(":", 1)[1].strip() for x in lines if "model name" in x]
  return names[0] if names else platform.machine()

"""A run's folder: what was asked, what was measured, what it looks like.

config.json     the whole configuration; with dataset.json it rebuilds the
dataset.json    network, so no data set is needed to use a model
metrics.jsonl   one JSON object per line
pictures/       previews, spectra, neighbours
checkpoints/    Orbax
result.json     the last figures, with config, commit, versions, hardware
"""

import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

import numpy as np

from jaxfake import errors, pictures

# A run may be asked for more steps, or to report more often, and go on: these
# fields do not change what is computed at any step. (A data set is compared by
# its content: the fingerprint changes when a folder is copied.)
FREE = ("total_steps", "every.", "tensorboard", "fingerprint")
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


def write_json(path: pathlib.Path, value) -> None:
  """Writes whole or not at all."""
  part = path.with_name(path.name + ".part")
  part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
  part.replace(path)


def read_json(path: pathlib.Path):
  """Raises ConfigError where the file is not there or not JSON."""
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise errors.ConfigError(
      f"{path.parent} is not a run's folder: cannot read {path.name} ({error})"
    ) from error


class Workdir:
  """A run's folder. Only `writer` (process 0) writes text and pictures."""

  def __init__(self, path: pathlib.Path, writer: bool = True):
    self.path = path
    self.writer = writer
    self._tensorboard = None
    self._lock = None

  def open(self, config: dict, dataset: dict) -> None:
    """Starts or continues a run here.

    Raises ConfigError where another configuration or data set made the folder
    (naming every field that differs), and where another process is using it.
    """
    if not self.writer:
      return
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = open(self.path / ".lock", "w")
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise errors.ConfigError(
        f"{self.path} is in use by another process: wait for it, or give"
        " another --workdir"
      ) from error
    except OSError as error:
      raise errors.ConfigError(
        f"cannot write to --workdir {self.path}: {error.strerror}"
      ) from error
    for name, value in (("config", config), ("dataset", dataset)):
      path = self.path / f"{name}.json"
      value = json.loads(json.dumps(value))  # Tuples become lists.
      if path.exists():
        self._compare(name, read_json(path), value)
      write_json(path, value)
    if config["tensorboard"]:
      self._tensorboard = _tensorboard_writer(self.path)

  def _compare(self, name: str, old: dict, new: dict) -> None:
    old, new = flatten(old), flatten(new)
    changed = [
      f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
      for key in sorted(old.keys() | new.keys())
      if old.get(key) != new.get(key) and not key.startswith(FREE)
    ]
    if changed:
      raise errors.ConfigError(
        f"{self.path} was made by another {name}: {'; '.join(changed)}."
        " Give another --workdir, or the old values"
      )

  def rewind(self, step: int) -> None:
    """Drops metrics of steps after the one restored: they come again."""
    path = self.path / "metrics.jsonl"
    if not self.writer or not path.exists():
      return
    kept = []
    for line in path.read_text().splitlines():
      try:
        if json.loads(line)["step"] <= step:
          kept.append(line + "\n")
      except (ValueError, KeyError):
        continue  # The process died in the middle of writing this line.
    part = path.with_name(path.name + ".part")
    part.write_text("".join(kept))
    part.replace(path)

  def metrics(self, step: int, values: dict[str, float]) -> None:
    """Appends one line of scalars."""
    if not self.writer:
      return
    values = {name: float(value) for name, value in values.items()}
    with open(self.path / "metrics.jsonl", "a") as f:
      f.write(json.dumps({"step": step} | values) + "\n")
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

  def finish(self, step: int, state_sha256: str, facts: dict) -> None:
    """Writes result.json: the last evaluation and where it came from."""
    if not self.writer:
      return
    lines = (self.path / "metrics.jsonl").read_text().splitlines()
    evaluations = [json.loads(x) for x in lines if '"eval/' in x]
    write_json(
      self.path / "result.json",
      {
        "config": read_json(self.path / "config.json"),
        "dataset": read_json(self.path / "dataset.json"),
        "environment": environment(),
        "step": step,
        "state_sha256": state_sha256,
        "metrics": evaluations[-1],
        "compiled": facts,
      },
    )

  def summary(self) -> str:
    """What was reached, where everything is, and what to do next."""
    result = read_json(self.path / "result.json")
    last = sorted((self.path / "pictures").glob("preview-*.png"))[-1]
    figures = "\n".join(
      f"  {name.removeprefix('eval/'):36} {value:.4g}"
      for name, value in result["metrics"].items()
      if name != "step"
    )
    return (
      f"Finished {result['step']} steps.\n{figures}\n"
      f"  picture   {last}\n"
      f"  figures   {self.path}/result.json, {self.path}/metrics.jsonl\n"
      "Next: python -m jaxfake.sample"
      f" --workdir {self.path} --count 100 --out samples"
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
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
      ["git", "-C", here, *args], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None

  try:
    commit = git("rev-parse", "HEAD")
    changed = bool(git("status", "--porcelain"))
  except FileNotFoundError:  # A machine without git.
    commit, changed = None, None
  return {
    "command": " ".join(sys.argv),
    "commit": commit,
    "commit_has_changes": changed,
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "devices": [str(d.device_kind) for d in jax.devices()],
    "processes": jax.process_count(),
    "cpu": _cpu_name(),
    "cpu_count": os.cpu_count(),
    "python": platform.python_version(),
    "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
  }


def _cpu_name() -> str:
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor()
  names = [x.split(":", 1)[1].strip() for x in lines if "model name" in x]
  return names[0] if names else platform.machine()

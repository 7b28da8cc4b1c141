"""Checkpoints: all of Orbax stands here, because its API is moving to v1."""

import contextlib
import hashlib
import logging
import pathlib
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxfake import errors, workdir


class Checkpoints:
  """The checkpoints of one run, written in the background, whole or not at all.

  A step's folder gets its name only when every byte is on disk, so a process
  that dies while saving leaves the step before as the last one. A context
  manager.
  """

  def __init__(
    self, path: pathlib.Path, keep: int = 2, read_only: bool = False
  ):
    """With `read_only` nothing is touched: a run may be writing there."""
    _quieten()
    self._path = path
    self._manager = ocp.CheckpointManager(
      path.absolute(),
      options=ocp.CheckpointManagerOptions(read_only=True)
      if read_only
      else ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True
      ),
    )

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    return self._manager.latest_step()

  def restore(self, step: int, like):
    """The state saved at a step, placed and typed as `like` (arrays or
    ShapeDtypeStructs with shardings)."""
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def save(self, step: int, state) -> None:
    """Starts saving; waits first for the save before. Raises SaveError."""
    if step == self.latest():
      return
    self._guard(
      lambda: self._manager.save(
        step, args=ocp.args.StandardSave(state), force=True
      )
    )

  def wait(self) -> None:
    """Returns when all is on disk. Raises SaveError."""
    self._guard(self._manager.wait_until_finished)

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    """Waits for what is being written, also when the run has failed."""
    if not isinstance(error, errors.SaveError):
      self.wait()
    self._guard(self._manager.close)

  def _guard(self, write) -> None:
    try:
      write()
    except Exception as error:  # Orbax lets through whatever TensorStore says.
      raise errors.SaveError(
        f"could not save a checkpoint under {self._path}: {_reason(error)};"
        f" the last whole one is step {_last_whole(self._path)}. Free some"
        " space or mend the disk, then run the same command again"
      ) from error


class Best:
  """The model of the evaluation whose value was smallest: best/, best.json.

  A context manager; does nothing where no value is named.
  """

  def __init__(self, path: pathlib.Path, name: str, read_only: bool = False):
    self._path = path / "best.json"
    self._name = name
    self.found = None  # {"step", name: value} of the best so far.
    if self._path.exists():
      self.found = workdir.read_json(self._path)
    self._checkpoints = contextlib.nullcontext()
    if name:
      self._checkpoints = Checkpoints(path / "best", 1, read_only)

  def offer(self, step: int, value: float, model) -> None:
    """Keeps the model where its value is the best so far. Raises SaveError.

    A run that was killed comes by here twice, with the same value.
    """
    if self.found and not value < self.found[self._name]:
      return
    self._checkpoints.save(step, model)
    self._checkpoints.wait()
    self.found = {"step": step, self._name: value}
    if jax.process_index() == 0:
      workdir.write_json(self._path, self.found)

  def restore(self, like):
    """The best model, placed and typed as `like`."""
    return self._checkpoints.restore(self._checkpoints.latest(), like)

  def __enter__(self):
    self._checkpoints.__enter__()
    return self

  def __exit__(self, *error):
    return self._checkpoints.__exit__(*error)


def _quieten() -> None:
  """Where a write fails, `save` or `wait` raises it. Orbax logs it besides,
  and TensorStore and asyncio say it again for each array: pages of tracebacks
  in which the one line that helps is lost."""
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_not_of_a_save)
  sys.unraisablehook = _unraisable


def _not_of_a_save(record: logging.LogRecord) -> bool:
  return not any(x in record.pathname for x in ("orbax", "asyncio"))


def _unraisable(what) -> None:
  # The answer to a write that came after another write had failed.
  if "Event loop is closed" not in str(what.exc_value):
    sys.__unraisablehook__(what)


def _reason(error: Exception) -> str:
  """The innermost cause: TensorStore nests paths as long as a page."""
  text = " ".join(str(error).split())
  return text.rsplit('": ', 1)[-1][:200] or type(error).__name__


def _last_whole(path: pathlib.Path) -> int | None:
  steps = [int(p.name) for p in path.glob("*") if p.name.isdigit()]
  return max(steps, default=None)


def sha256(state) -> str:
  """Hash of all leaves: path, dtype, shape and bytes, in tree order."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    array = np.asarray(leaf)
    digest.update(
      f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode()
    )
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()

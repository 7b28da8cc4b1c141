"""Checkpoints: all of Orbax stands here, because its API is moving to v1."""

import contextlib
import hashlib
import json
import logging
import pathlib
import re
import shutil
import sys
import tempfile
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from jaxfake import contracts, errors
from jaxfake.runtime import disk, progress

# What says that a checkpoint could not be read now, not that it is damaged.
_NOT_NOW = re.compile(
  "permission|errno 13|resource_exhausted|out of memory|memoryerror", re.I
)


METADATA = "_CHECKPOINT_METADATA"
DAMAGED = ".damaged"  # What the name of a folder that is put aside ends with.


class DamagedError(Exception):
  """A checkpoint is not what was saved."""


class Checkpoints:
  """The checkpoints of one run, written in the background, whole or not at all.

  A step's folder gets its name only when every byte is on disk, so a process
  that dies while saving leaves the step before as the last one. Each holds the
  hash of its state: what a disk changes afterwards is found when it is read,
  and the step before is taken. A context manager.
  """

  def __init__(
    self, path: pathlib.Path, keep: int = 2, read_only: bool = False
  ):
    """With `read_only` nothing is touched: a run may be writing there."""
    _quieten()
    self._path, self._manager = path, None
    self._reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    if not read_only:
      self._open(keep)

  def _open(self, keep: int) -> None:
    """Opens Orbax's manager, which reads every step's metadata."""
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True
    )
    make = lambda: ocp.CheckpointManager(self._path.absolute(), options=options)
    try:
      self._manager = self._reading(make)
    except DamagedError:
      for step in self.steps():
        if why := _refused(self._path / str(step)):
          self._put_aside(step)
          progress.say(
            f"the checkpoint of step {step} in {self._path} is damaged ({why}):"
            f" put aside as {step}{DAMAGED}"
          )
      self._manager = self._writing(make)

  def steps(self) -> list[int]:
    return _steps(self._path)

  def latest(self) -> int | None:
    return max(self.steps(), default=None)

  def restore(self, step: int, like: contracts.Tree) -> Any:
    """The state saved at a step, placed and typed as `like` (arrays or
    ShapeDtypeStructs with shardings). Raises DataError where it is damaged."""
    try:
      return self._whole(step, like)
    except DamagedError as error:
      raise errors.DataError(
        f"the checkpoint of step {step} in {self._path} is damaged: {error}."
        f" Expected another of {self.steps()}, or a copy of it put back"
      ) from error

  def restore_last(
    self, like: contracts.Tree, remedy: str, note: str = ""
  ) -> tuple[int, Any]:
    """(step, state) of the last whole checkpoint, which `steps` then ends with;
    damaged ones are put aside, and `note` said with it.

    Raises DataError, saying `remedy`, where there is none.
    """
    damaged = {}
    for step in reversed(self.steps()):
      try:
        state = self._whole(step, like)
      except DamagedError as error:
        damaged[step] = str(error)
        continue
      for bad, why in damaged.items():
        if self._manager:
          self._put_aside(bad)
        progress.say(
          f"the checkpoint of step {bad} in {self._path} is damaged ({why}):"
          f" taking that of step {step} instead{note}"
        )
      if damaged and self._manager:
        self._manager.reload()
      return step, state
    reasons = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
    raise errors.DataError(
      f"no checkpoint in {self._path} can be read"
      f" ({reasons or 'there is none'}): {remedy}"
    )

  def _whole(self, step: int, like) -> Any:
    """Raises DamagedError where what is read is not what was saved."""
    state, problem = None, None
    try:
      state = self._reading(
        lambda: self._reader.restore(
          self._path.absolute() / str(step) / "default",
          args=ocp.args.StandardRestore(like),
        )
      )
      saved = self._reading(lambda: _saved_sha256(self._path / str(step)))
      if saved and saved != sha256(state):
        problem = DamagedError("its bytes are not those that were saved")
    except (DamagedError, errors.DataError) as error:
      problem = error
    if problem := _of_any(problem):
      raise problem
    return state

  def _put_aside(self, step: int) -> None:
    """Renames a damaged step's folder, so that the step can be saved again."""
    if jax.process_index() == 0:
      new = self._path / f"{step}{DAMAGED}"
      shutil.rmtree(new, ignore_errors=True)
      self._writing(lambda: (self._path / str(step)).rename(new))
    _of_any(None)  # Until it is done.

  def save(self, step: int, state: contracts.Tree) -> None:
    """Starts saving; waits first for the save before. Raises SaveError."""
    if step == self.latest():
      return
    manager = self._manager
    assert manager is not None  # What only reads saves nothing.
    self._writing(
      lambda: manager.save(
        step,
        args=ocp.args.StandardSave(state),
        custom_metadata={"sha256": sha256(state)},
        force=True,
      )
    )

  def wait(self) -> None:
    """Returns when all is on disk. Raises SaveError."""
    assert self._manager is not None  # What only reads saves nothing.
    self._writing(self._manager.wait_until_finished)

  def __enter__(self):
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: object,
  ):
    """Waits for what is being written, also when the run has failed."""
    self._reader.close()
    if not self._manager:
      return
    if not isinstance(error, errors.SaveError):
      self.wait()
    self._writing(self._manager.close)

  def _writing(self, write):
    try:
      return write()
    except Exception as error:  # Orbax lets through whatever TensorStore says.
      raise errors.SaveError(
        f"could not save a checkpoint under {self._path}: {_reason(error)};"
        f" the last whole one is step {self.latest()}. Free some"
        " space or mend the disk, then run the same command again"
      ) from error

  def _reading(self, read):
    """Raises DataError where the reader may not, or could not now: what is on
    disk may be whole. DamagedError for all else."""
    try:
      return read()
    except Exception as error:  # As above.
      if _NOT_NOW.search(f"{type(error).__name__} {error}"):
        raise errors.DataError(
          f"cannot read the checkpoints in {self._path}: {_reason(error)}"
        ) from error
      raise DamagedError(_reason(error)) from error


class Best:
  """The model of the evaluation whose value was smallest: best/, best.json.

  best/ keeps the best before it too, for where a disk damages the last. A
  context manager; does nothing where no value is named.
  """

  def __init__(self, path: pathlib.Path, name: str, read_only: bool = False):
    self._path = path / "best.json"
    self._name = name
    # Of the best alone are the temperature and thresholds in result.json.
    self._note = "; the run's thresholds are of the damaged one" * read_only
    self.entry = None  # {"step", name: value} of the best so far.
    if self._path.exists():
      self.entry = disk.read_json(self._path)
    self._checkpoints: Any = contextlib.nullcontext()
    if name:
      self._checkpoints = Checkpoints(path / "best", 2, read_only)

  def offer(self, step: int, value: float, model: contracts.Tree) -> None:
    """Keeps the model where its value is the best so far. Raises SaveError.

    A run that was killed comes by here twice, with the same value.
    """
    if self.entry and not value < self.entry[self._name]:
      return
    self._checkpoints.save(step, model)
    self._checkpoints.wait()
    self.entry = {"step": step, self._name: value}
    if jax.process_index() == 0:
      disk.write_json(self._path, self.entry)

  def restore(self, like: contracts.Tree) -> Any:
    """The best model, placed and typed as `like`; `entry` says its step."""
    step, model = self._checkpoints.restore_last(
      like,
      f"put back a copy of {self._path.parent}/best, or train in another"
      " --workdir",
      self._note,
    )
    if self.entry and self.entry["step"] != step:
      self.entry = {"step": step}
    return model

  def __enter__(self):
    self._checkpoints.__enter__()
    return self

  def __exit__(self, *error: Any):
    return self._checkpoints.__exit__(*error)


def _quieten() -> None:
  """Where a write or a read fails, that is raised. Orbax logs it besides, and
  TensorStore and asyncio say it again for each array: pages of tracebacks in
  which the one line that helps is lost."""
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_not_of_a_checkpoint)
  sys.unraisablehook = _unraisable


def _not_of_a_checkpoint(record: logging.LogRecord) -> bool:
  return not any(x in record.pathname for x in ("orbax", "asyncio"))


def _unraisable(what) -> None:
  # The answer to a write or a read that came after another had failed.
  coroutine = getattr(what.object, "cr_code", None)
  of_orbax = coroutine and "orbax" in coroutine.co_filename
  if not of_orbax and "Event loop is closed" not in str(what.exc_value):
    sys.__unraisablehook__(what)


def _reason(error: Exception) -> str:
  """The innermost cause: TensorStore nests paths as long as a page."""
  text = " ".join(str(error).split()).rsplit('": ', 1)[-1]
  text = re.split(r" \[tensorstore_spec|[.:] See full Tensor", text)[0][:200]
  if not text or isinstance(error, LookupError | AttributeError | TypeError):
    text = f"{type(error).__name__} {text}".strip()
  return text


def _of_any(problem: Exception | None) -> Exception | None:
  """The problem; where this process has none, another's. All must take the
  same checkpoint, or none."""
  if jax.process_count() > 1:
    kinds = type(None), DamagedError, errors.DataError
    kind = kinds.index(type(problem))
    worst = multihost_utils.process_allgather(np.int32(kind)).max()
    if worst > kind:
      return kinds[worst]("so another process says")
  return problem


def _steps(path: pathlib.Path) -> list[int]:
  """A folder's steps, in order."""
  return sorted(
    int(x.name) for x in path.glob("*") if x.name.isdigit() and x.is_dir()
  )


def _saved_sha256(folder: pathlib.Path) -> str | None:
  """The hash of the state that was saved; None of older runs."""
  about = json.loads((folder / METADATA).read_text())["custom_metadata"]
  return (about or {}).get("sha256")


def _refused(folder: pathlib.Path) -> str:
  """Why Orbax's manager would not open a step's metadata; "" where it does."""
  with tempfile.TemporaryDirectory() as alone:
    copy = pathlib.Path(alone, folder.name)
    copy.mkdir()
    if (folder / METADATA).exists():
      shutil.copy(folder / METADATA, copy)
    options = ocp.CheckpointManagerOptions(read_only=True)
    try:
      ocp.CheckpointManager(alone, options=options).close()
    except Exception as error:  # As of every file that is not as expected.
      return _reason(error)
  return ""


def sha256(state: contracts.Tree) -> str:
  """Hash of all leaves: path, dtype, shape and bytes, in tree order."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
      # Not of the leaf itself, which would keep what it is asked for, so that
      # its memory could not be given to the next step.
      leaf = leaf.addressable_data(0)
    array = np.asarray(leaf)
    digest.update(
      f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode()
    )
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()

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

A generator's has guards.json, whether it copies: generators/guards.py.

And that of a run in a sweep log.txt and exit_code.txt.
"""

from collections.abc import Iterator
import contextlib
import json
import pathlib

import numpy as np

from jaxfake import configuration, contracts, errors
from jaxfake.evaluation import pictures
from jaxfake.runtime import disk, progress, provenance

# What may differ when a run goes on: it does not change what any step computes.
# A data set is compared by its content, not by where it lies.
FREE = (
  "total_steps",
  "every.",
  "tensorboard",
  "data.dir",
  "data.patients",
  "fingerprint",
  "skipped_files",
  # What older runs did not record; whose an image is tells its split, and so
  # the content's hash.
  "patients_unknown",
  "patients_by",
  "kept_together",
  "too_alike",
)
# Groups and fields that runs before them did not record, and had no use for.
LATER = (
  "data.many_sources.",
  "data.tampered.",
  "data.tampered.draws",
  "data.tampered.four",
  "data.tampered.inject_model",
  "data.tampered.region",
  "data.tampered.remove_model",
)


def require_same(
  path: pathlib.Path,
  name: str,
  old: dict,
  new: dict,
  free: tuple[str, ...] = FREE,
) -> None:
  """Raises ConfigError naming every field that differs and is not free to."""
  old, new = disk.flatten(old), disk.flatten(json.loads(json.dumps(new)))
  unknown = tuple(
    group for group in LATER if not any(key.startswith(group) for key in old)
  )
  changed = [
    f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and not key.startswith(free + unknown)
  ]
  if changed:
    raise errors.ConfigError(
      f"{path} was made by another {name}: {'; '.join(changed)}."
      " Give another --workdir, or the old values"
    )


def finished(
  path: pathlib.Path, config: dict, free: tuple[str, ...] = FREE
) -> dict | None:
  """The result of the run of a configuration that ended in a folder; None where
  none did, or after another number of steps. Raises ConfigError where what
  ended there is another run."""
  if not (path / "result.json").exists():
    return None
  result = disk.read_json(path / "result.json")
  before = result.get("config")
  if before is None:  # Of an experiment, whose result is figures alone.
    before = disk.read_json(path / "config.json")
  require_same(path, "config", before, config, free)
  same = before.get("total_steps") == config.get("total_steps")
  return result if same else None


def read_config(path: pathlib.Path) -> contracts.Config:
  """The configuration of a run's folder."""
  return configuration.of(disk.read_json(path / "config.json"))


@contextlib.contextmanager
def begun(config: contracts.Config, path: pathlib.Path) -> Iterator[tuple]:
  """The folder and the data set of what is no task of the loop: claimed,
  prepared, said and begun; let go in the end. Raises ConfigError, DataError."""
  from jaxfake import data  # Seconds; a sweep's command needs none.

  folder = Workdir(path)
  folder.claim()
  try:
    dataset = data.prepare(config.data)
    progress.say(dataset.summary())
    folder.open(config.to_dict(), dataset.facts)
    folder.begin(0)
    yield folder, dataset
  finally:
    folder.close()


@contextlib.contextmanager
def held(
  config: contracts.Config, path: pathlib.Path, writer: bool = True
) -> Iterator[None]:
  """The folder of an experiment of several runs, claimed and let go in the end.
  Its config.json is not compared with what was there: every run compares its
  own. Raises ConfigError."""
  folder = Workdir(path, writer)
  folder.claim()
  try:
    if writer:
      disk.write_json(path / "config.json", config.to_dict())
    yield
  finally:
    folder.close()


class Workdir:
  """A run's folder. Only `writer` (process 0) writes text and pictures."""

  def __init__(self, path: pathlib.Path, writer: bool = True):
    self.path = path
    self.writer = writer
    self.dataset = {}  # Facts of the one that it was opened with.
    self._new = {}  # Files to write once the run can begin.
    self._kept = {}  # Those of a family's own, alike.
    self._tensorboard = None
    self._lock = None

  def claim(self) -> None:
    """Makes the folder and locks it. Raises ConfigError where another process
    is using it, where it holds other things than a run, or on a bad path."""
    if not self.writer:
      return
    self._lock = disk.Lock(self.path, "--workdir", "config.json")

  def open(self, config: dict, dataset: dict) -> None:
    """Starts or continues a run in the claimed folder.

    Raises ConfigError where another configuration or data set made it, naming
    every field that differs.
    """
    self.dataset = dataset
    if not self.writer:
      return
    for name, value in (("config", config), ("dataset", dataset)):
      path = self.path / f"{name}.json"
      if path.exists():
        require_same(self.path, name, disk.read_json(path), value)
      self._new[path] = value
    if config["tensorboard"]:
      self._tensorboard = _tensorboard_writer(self.path)

  def keep(self, name: str, data: bytes) -> None:
    """A file that the trained model needs beside its state: written when the
    run begins, so that before it the folder is nobody's."""
    self._kept[self.path / name] = data

  def within(self, name: str, config: dict) -> "Workdir":
    """A run inside this one, on the same data, claimed and opened; this one is
    open and not begun. Raises ConfigError as both do."""
    inner = Workdir(self.path / name, self.writer)
    inner.claim()
    inner.open(config, self.dataset)
    return inner

  def begin(self, step: int) -> None:
    """Writes what the run is, and drops metrics of steps after `step`, the one
    restored (0 at the start): they come again."""
    if not self.writer:
      return
    for path, value in self._new.items():
      disk.write_json(path, value)
    for path, data in self._kept.items():
      disk.write_bytes(path, data)
    self._append("environments", {"from_step": step} | provenance.environment())
    path = self.path / "metrics.jsonl"
    kept = [x for x in disk.read_lines(path) if x["step"] <= step]
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

  def pictures(self, step: int, by_name: dict[str, np.ndarray]) -> None:
    for name, picture in by_name.items():
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
    lines = disk.read_lines(self.path / "metrics.jsonl")
    evaluations = [x for x in lines if any(k.startswith("eval/") for k in x)]
    conclusion = dict(conclusion)
    if rows := conclusion.pop("predictions", None):
      disk.write_csv(self.path / "predictions.csv", rows)
    for name, value in list(conclusion.items()):
      if isinstance(value, np.ndarray):
        self.picture(name, step, conclusion.pop(name))
    disk.write_json(
      self.path / "result.json",
      {
        "config": disk.read_json(self.path / "config.json"),
        "dataset": disk.read_json(self.path / "dataset.json"),
        # One for each time the run was started or continued.
        "environments": disk.read_lines(self.path / "environments.jsonl"),
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

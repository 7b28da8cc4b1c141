"""Localizers that learn half of the patients of others' altered pictures
(centres.py) and are measured on the other half: each picture by the one of two
that never saw its patient.

Only the middle of what was altered is known, and no picture is there as it was
before. So a disc about each middle counts as altered, and the rest of the
picture as not. The twin of a disc is the same place of the picture mirrored
left to right: mostly in the other lung, of the same scanner and noise.
"""

from collections.abc import Callable
import functools
import hashlib
import pathlib

import numpy as np

from jaxfake import contracts, errors
from jaxfake.classifiers import localizer, picture_maps
from jaxfake.data.tampered import windows
from jaxfake.evaluation import localization
from jaxfake.experiments import jobs
from jaxfake.experiments.tampering import centres, maps
from jaxfake.runtime import progress, xla
from jaxfake.training import loop, workdir

HALVES = 0, 1
VALIDATION = 4  # One patient of so many of a half is chosen by, not learnt.
LEAST = 4  # Patients: of each half one to learn, and one to choose by.
DRAWS = 16  # Windows of each disc.
TIMES = 10  # That a run evaluates and saves.
NEITHER = 1  # A mask's value where there is no loss.


class Discs:
  """A square of a picture that holds a middle, anywhere in it, and before it
  the same square of the picture mirrored left to right: images, masks
  (2, side, side, 1), as windows.Pairs has them.

  Pictures have `gray` (h, w), at least a side large, and `middles`. What is
  altered in a mirrored picture is NEITHER there; a middle that lies there on
  what is altered has no twin, and no square. Pair i is a function of (seed, i).
  """

  features = windows.FEATURES

  def __init__(self, pictures: list[dict], side: int, radius: float, seed: int):
    self._side, self._radius, self._seed = side, radius, seed
    self._places = [
      (picture, middle)
      for picture in pictures
      for middle in picture["middles"]
      if has_twin(picture, middle, radius)
    ]

  def __len__(self) -> int:
    return len(self._places) * DRAWS

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Discs({len(self)}, {self._side} px)"

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((self._seed, i))
    picture, middle = self._places[i // DRAWS]
    gray = picture["gray"]
    altered = centres.disc(gray.shape, picture["middles"], self._radius)
    here = centres.disc(gray.shape, [middle], self._radius)
    twin = np.where(here, windows.UNALTERED, 0)
    twin[altered[:, ::-1]] = NEITHER
    masks = twin, np.where(altered, windows.ALTERED, 0)
    place = self._place(gray.shape, middle, rng)
    cut = lambda x: np.stack([a[place] for a in x]).astype(np.uint8)[..., None]
    return {"image": cut((gray[:, ::-1], gray)), "mask": cut(masks)}

  def _place(self, shape: tuple, middle: tuple, rng) -> tuple[slice, ...]:
    corner = [
      int(np.clip(int(at) - rng.integers(self._side), 0, n - self._side))
      for at, n in zip(middle[::-1], shape, strict=True)
    ]
    return tuple(slice(at, at + self._side) for at in corner)


def has_twin(picture: dict, middle: tuple, radius: float) -> bool:
  """Whether the mirror image of a middle is off what is altered."""
  x, y = picture["gray"].shape[1] - 1 - middle[0], middle[1]
  return all(np.hypot(x - a, y - b) > radius for a, b in picture["middles"])


def wanted(config: contracts.Config) -> bool:
  return bool(config.centres and config.centres_steps)


def check(config: contracts.Config) -> None:
  """Raises ConfigError where nothing could be learnt of a half."""
  if config.centres_steps < 0:
    raise errors.ConfigError(
      f"centres_steps is {config.centres_steps}: expected at least 0"
    )
  if not wanted(config):
    return
  patients = {x["patient"] for x in centres.read(pathlib.Path(config.centres))}
  if len(patients) < LEAST:
    raise errors.ConfigError(
      f"centres is {config.centres!r}: {centres.TABLE} names {len(patients)}"
      f" patients, expected at least {LEAST} to learn from halves; or set"
      " centres_steps=0"
    )
  localizer.check(maps.learning(config, maps.ALL))
  loop.check(learning(config, 0))


def learning(config: contracts.Config, half: int) -> contracts.Config:
  """The configuration of the localizer that learns one half."""
  c = config.localizer.copy_and_resolve_references().unlock()
  c.task, c.seed, c.half = config.task, config.seed, half
  c.total_steps = config.centres_steps
  often = -(-c.total_steps // TIMES)
  c.every = dict(
    log=often, preview=c.total_steps, evaluate=often, checkpoint=often
  )
  c.start = maps.ALL if maps.ALL in maps.names(config) else ""
  c.centres_px = config.centres_px
  c.data = dict(name="centres", dir=config.centres, feed="auto")
  return c.lock()


def split(pictures: list[dict], seed: int) -> list[set[str]]:
  """The patients of each half, drawn."""
  names = sorted({x["patient"] for x in pictures})
  drawn = np.random.default_rng(seed).permutation(names).tolist()
  return [set(drawn[half :: len(HALVES)]) for half in HALVES]


def folder(path: pathlib.Path, half: int) -> pathlib.Path:
  """Of a localizer's run."""
  return path / "runs" / f"half-{half}"


def train(config: contracts.Config, path: pathlib.Path) -> int:
  """Trains what is left of the two; returns an exit code. Raises ConfigError,
  DataError, ImageError."""
  if not wanted(config):
    return 0
  return jobs.chain(
    [
      jobs.Job(
        f"localizer {folder(path, half).name}",
        workdir.finished(folder(path, half), learning(config, half).to_dict())
        is not None,
        functools.partial(one, config, path, half),
      )
      for half in HALVES
    ]
  )


def one(config: contracts.Config, path: pathlib.Path, half: int) -> int:
  """Trains the localizer of a half; returns an exit code."""
  c = learning(config, half)
  pictures = opened(config, half)
  chosen_by = sorted({x["patient"] for x in pictures})[::VALIDATION]
  make = lambda some: Discs(some, c.window, c.centres_px, c.seed)
  train = make([x for x in pictures if x["patient"] not in chosen_by])
  val = make([x for x in pictures if x["patient"] in chosen_by])
  if not (len(train) and len(val)):
    raise errors.DataError(
      f"{config.centres}: half {half} has {len(train)} windows to learn and"
      f" {len(val)} to choose by: expected middles that lie farther than"
      f" centres_px, {c.centres_px:g}, from their mirror images"
    )
  run = workdir.Workdir(folder(path, half))
  run.claim()
  try:
    progress.say(f"{len(pictures)} pictures, {len(train)} pairs: {run.path}")
    run.open(c.to_dict(), facts(pictures))
    task = localizer.Learning(c, val, c.total_steps).task()
    if c.start:
      begun = localizer.restored(maps.folder(path, maps.ALL), c)
      task = task._replace(start=lambda state: state.replace(**begun))
    return loop.train(c, task, train, run)
  finally:
    run.close()


def opened(config: contracts.Config, half: int) -> list[dict]:
  """The pictures of a half, with `gray`."""
  at, side = pathlib.Path(config.centres), config.localizer.window
  pictures = centres.read(at)
  own = split(pictures, config.seed)[half]
  opened = [
    x | {"gray": centres.opened(at, x)} for x in pictures if x["patient"] in own
  ]
  for x in opened:
    height, width = x["gray"].shape
    if min(height, width) < side:
      raise errors.DataError(
        f"{at / x['file']} has {width} x {height} pixels: expected at least"
        f" localizer.window, {side}, a side"
      )
  return opened


def facts(pictures: list[dict]) -> dict:
  """What a run's result says of its data."""
  digest = hashlib.sha256()
  for x in pictures:
    digest.update(repr((x["file"], x["patient"], x["middles"])).encode())
    digest.update(x["gray"].tobytes())
  return {
    "name": "centres",
    "content_sha256": digest.hexdigest(),
    "pictures": len(pictures),
    "patients": len({x["patient"] for x in pictures}),
  }


def trained(
  config: contracts.Config, path: pathlib.Path
) -> Callable[[str], list[maps.Map]]:
  """The map that a patient's pictures are shown: of the localizer that learnt
  the other half. Of none, where none was trained."""
  if not wanted(config):
    return lambda patient: []
  first = split(centres.read(pathlib.Path(config.centres)), config.seed)[0]
  shown = []
  for half in HALVES:
    c = learning(config, half)
    model = localizer.restored(folder(path, half), c)
    score = functools.partial(xla.jit(localizer.scorer(c)), model)
    of = functools.partial(picture_maps.mapped, score)
    shown.append(maps.Map(maps.HALF, "", of, maps.AT_ONE, localization.top))
  return lambda patient: [shown[int(patient in first)]]

"""The maps that are compared: of missing noise, of a network that learnt from
originals alone, and those of localizers, of which some did not learn one of the
methods."""

from collections.abc import Callable
import pathlib
from typing import NamedTuple

import numpy as np

from jaxfake import contracts, errors
from jaxfake.classifiers import inconsistency, localizer, reconstruction
from jaxfake.data import pipeline, tampered
from jaxfake.evaluation import localization
from jaxfake.experiments import jobs
from jaxfake.experiments.tampering.ways import Way
from jaxfake.training import loop

NOISE, TRAINED, LEFT_OUT = "noise", "trained", "left out"
RECONSTRUCTION = "reconstruction"
HALF = "other half"  # Of others' pictures: see halves.py.
ALL = "none"  # What is left out of a localizer that learns every method.
THRESHOLDS = np.arange(0, 10, 0.25)  # Of maps that need no masks.
AT_ONE = np.array([1.0])  # A localizer's own map is at 1 at its threshold.


class Map(NamedTuple):
  """One of the maps; `left_out` is what a localizer did not learn, or ""."""

  name: str
  left_out: str
  of: Callable[[np.ndarray], np.ndarray]  # uint8 (h, w) -> float32 (h, w)
  thresholds: np.ndarray
  score: Callable[[np.ndarray], float]

  def sees(self, way: Way) -> bool:
    """Whether it is shown a way: a localizer without a method, that method and
    what is not altered alone."""
    same = f"{way.kind} {way.method}" == self.left_out
    return self.name != LEFT_OUT or same or not way.kind

  def measured(self, picture: np.ndarray, mask: np.ndarray) -> dict:
    """Figures of a picture (h, w) that was altered at a mask (h, w)."""
    evidence = self.of(picture)
    about = {"map": self.name, "left_out": self.left_out}
    score = {"score": self.score(evidence)}
    return (
      about | localization.measured(evidence, mask, self.thresholds) | score
    )


def noise(config: contracts.Config) -> Map:
  of = lambda picture: inconsistency.evidence(picture, config.block)
  return Map(NOISE, "", of, THRESHOLDS, localization.peak)


def names(config: contracts.Config) -> list[str]:
  """What is left out of each localizer, ALL for nothing."""
  return [x.strip() for x in config.left_out.split(",") if x.strip()]


def check(config: contracts.Config) -> None:
  """Raises ConfigError for what no localizer could learn, or be left out."""
  methods = [
    f"{kind} {method}"
    for kind in tampered.KINDS
    for method in tampered.names(config.data.tampered, kind)
  ]
  for name in names(config):
    errors.check_choice("left_out", name, (ALL, *methods))
    localizer.check(learning(config, name))
  if config.reconstruct:
    c = reconstructing(config)
    reconstruction.check(c)
    loop.check(c)


def reconstructing(config: contracts.Config) -> contracts.Config:
  """The configuration of the network that learns from originals alone."""
  c = config.reconstruction.copy_and_resolve_references().unlock()
  c.seed = config.seed
  c.data = config.data.copy_and_resolve_references().unlock()
  c.data.name, c.data.fit = config.data.tampered.real, pipeline.NATIVE
  return c.lock()


def learning(config: contracts.Config, left_out: str) -> contracts.Config:
  """The configuration of a localizer that does not learn one method."""
  c = config.localizer.copy_and_resolve_references().unlock()
  c.seed = config.seed
  c.data = config.data.copy_and_resolve_references().unlock()
  c.data.fit = pipeline.NATIVE
  if left_out != ALL:
    kind, _, method = left_out.partition(" ")
    others = [x for x in tampered.names(c.data.tampered, kind) if x != method]
    if not others:
      raise errors.ConfigError(
        f"left_out is {left_out!r}: expected another method to {kind} beside it"
      )
    c.data.tampered[kind] = ",".join(others)
  return c.lock()


def folder(path: pathlib.Path, left_out: str) -> pathlib.Path:
  """Of a localizer's run."""
  name = "all-methods" if left_out == ALL else f"without {left_out}"
  return path / "runs" / name.replace(" ", "-")


def originals(path: pathlib.Path) -> pathlib.Path:
  """Of the run that learns from originals alone."""
  return path / "runs" / RECONSTRUCTION


def train(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Trains what networks are left; returns an exit code."""
  runs = {
    f"localizer {folder(path, name).name}": (
      learning(config, name),
      folder(path, name),
    )
    for name in names(config)
  }
  if config.reconstruct:
    mine = reconstructing(config), originals(path)
    runs = {RECONSTRUCTION: mine} | runs
  return jobs.chain(
    [jobs.of_run(name, c, at, train) for name, (c, at) in runs.items()]
  )


def without_masks(config: contracts.Config, path: pathlib.Path) -> list[Map]:
  """The maps that learnt of no altered picture: of missing noise, and of a
  network. Validation chooses their thresholds."""
  found = [noise(config)]
  if config.reconstruct:
    of = reconstruction.load(originals(path)).evidence
    found.append(Map(RECONSTRUCTION, "", of, THRESHOLDS, localization.top))
  return found


def trained(config: contracts.Config, path: pathlib.Path) -> list[Map]:
  """The maps of the localizers."""
  maps = []
  for name in names(config):
    found = localizer.load(folder(path, name)).map
    kind = (TRAINED, "") if name == ALL else (LEFT_OUT, name)
    maps.append(Map(*kind, found, AT_ONE, localization.top))
  return maps

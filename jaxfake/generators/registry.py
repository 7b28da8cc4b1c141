"""Generators by their run's folder, and the images that they make.

Image i is a function of (seed, i) and its class alone.
"""

from collections.abc import Callable, Iterable, Iterator
import itertools
import pathlib

import numpy as np

from jaxfake import contracts, named
from jaxfake.runtime import disk


def load(path: pathlib.Path, step: int | None = None) -> contracts.Generator:
  """The generator (contracts.Generator) of a run's folder alone.

  Raises ConfigError where the folder holds no run of one, or not that
  checkpoint.
  """
  task = disk.read_json(path / "config.json")["task"]
  field = f"{path}/config.json: task"
  family = named.find(field, task, contracts.GeneratorFamily).load()
  return family.load(path, step)


def images(
  generator: contracts.Generator,
  seed: int,
  labels: np.ndarray,
  starts: Iterable[int],
  batch: int,
) -> Iterator:
  """Yields uint8 (batch, s, s, c) for each batch of indices from one of
  `starts`; those past the end of `labels` are of no use.

  Every batch has one shape, and one is computed while another is written. This
  process's devices do it: no other waits for it.
  """
  before = None
  for start in starts:
    index = np.arange(start, start + batch, dtype=np.int32)
    label = np.resize(labels[start : start + batch], batch)
    now = generator.sample(seed, index, label)
    if before is not None:
      yield np.asarray(before)
    before = now
  if before is not None:
    yield np.asarray(before)


def in_batches(indices: Iterable[int], batch: int, draw: Callable) -> Iterator:
  """Yields (i, image) for ascending indices; draw(starts) makes the batches.

  A batch begins at a multiple of its size whatever was done before and by whom,
  so that each image sits in the same row of the same computation.
  """
  runs = [
    (start, list(wanted))
    for start, wanted in itertools.groupby(indices, lambda i: i - i % batch)
  ]
  drawn = draw(start for start, _ in runs)
  for (start, wanted), rows in zip(runs, drawn, strict=True):
    yield from ((i, rows[i - start]) for i in wanted)

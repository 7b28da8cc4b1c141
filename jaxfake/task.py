"""What a learning method is to the loop: three functions and a preview."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Task(NamedTuple):
  """`init(key) -> state`, a pytree of arrays with a scalar `step`.

  `step(state, batch) -> (state, metrics)`, pure and traceable; batch is
  {"image": uint8 (b, s, s, 1), "label": int32 (b,)}, metrics are scalars.

  `evaluate(state, gather) -> {name: float or picture}` and
  `preview(state, gather) -> {name: picture}`, where a picture is uint8
  (h, w) or (h, w, 3), and `gather(fn, source)`, given by the loop, applies a
  jitted per-batch function to every example of a source exactly once, on all
  hosts and devices, and returns NumPy arrays in the source's order.
  """

  init: Callable
  step: Callable
  evaluate: Callable
  preview: Callable


class Rows:
  """A source over equally long arrays: [i] -> {name: array[i]}."""

  def __init__(self, **arrays: np.ndarray):
    self._arrays = arrays

  def __len__(self) -> int:
    return len(next(iter(self._arrays.values())))

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    return {name: array[i] for name, array in self._arrays.items()}


class Subset:
  """The items of a source at the given indices."""

  def __init__(self, source, indices):
    self._source, self._indices = source, indices

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, i: int):
    return self._source[int(self._indices[i])]

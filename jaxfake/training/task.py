"""What a learning method is to the loop, and sources made of others."""

from collections.abc import Callable
from typing import NamedTuple

from jaxfake import contracts


class Task(NamedTuple):
  """`init(key) -> state`, a pytree of arrays with a scalar `step`.

  `step(state, batch) -> (state, metrics)`, pure and traceable; batch is
  {"image": uint8 (b, s, s, 1), "label": int32 (b,)}, metrics are scalars.

  `evaluate(state, gather) -> {name: float or picture}` and
  `preview(state, gather) -> {name: picture}`, where a picture is uint8
  (h, w) or (h, w, 3), and `gather(fn, source)`, given by the loop, applies a
  jitted per-batch function to every example of a source exactly once, on all
  hosts and devices, and returns NumPy arrays in the source's order.

  A task may keep its best model and be judged by it at the end. The loop keeps
  `model(state)`, a pytree of arrays, of the evaluation whose value named
  `best` was smallest, and calls `conclude(model, gather)` once, which returns
  {name: JSON value, picture or list of predictions}: see workdir.finish.
  `start(state) -> state`, not traced, puts pretrained weights into the first
  state.

  A step that changes as a run goes on is several: of each pair (n, step) of
  `later`, n rising, the step takes the place of the one before after n steps.
  Each is a program of its own, of the same state and batches.
  """

  init: Callable
  step: Callable
  evaluate: Callable
  preview: Callable
  start: Callable | None = None
  model: Callable | None = None
  best: str = ""
  conclude: Callable | None = None
  later: tuple[tuple[int, Callable], ...] = ()


def stage(task: Task, i: int, total: int) -> tuple[Callable, int]:
  """The step that a task takes after i of them, and the number of steps after
  which another takes its place or the run ends."""
  stages = [(0, task.step), *task.later]
  step = [step for n, step in stages if n <= i][-1]
  return step, min([total, *(n for n, _ in stages if n > i)])


class Schedule(NamedTuple):
  """When a run ends, and what it does every so many steps."""

  total: int
  log: int
  preview: int
  evaluate: int
  checkpoint: int


def schedule(config: contracts.Config, images: int) -> Schedule:
  """A config's `total_steps` and `every`, both in steps; or its `epochs` of so
  many images, and then `every` is in epochs too."""
  if "total_steps" in config:
    return Schedule(config.total_steps, **config.every)
  steps = lambda epochs: max(1, round(epochs * images / config.batch_size))
  every = {name: steps(epochs) for name, epochs in config.every.items()}
  return Schedule(steps(config.epochs), **every)

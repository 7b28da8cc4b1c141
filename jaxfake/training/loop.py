"""The loop: devices, batches, restore, compile, steps, log, save, evaluate."""

import collections
from collections.abc import Callable
import functools
import math
import os
import signal
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from jaxfake import contracts, errors
from jaxfake.data.feed import Feed
from jaxfake.runtime import devices, processes, progress, xla
from jaxfake.training import checkpoint, workdir
from jaxfake.training.task import Task, schedule, stage

PREEMPTED, INTERRUPTED = errors.PREEMPTED, errors.INTERRUPTED


class Stop:
  """Remembers SIGTERM or Ctrl-C until the loop can save; a second Ctrl-C
  ends the process at once. Orbax sees such a signal only under
  jax.distributed, so the loop has its own handlers."""

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self):
    for number in (signal.SIGTERM, signal.SIGINT):
      self._before[number] = signal.signal(number, self._remember)
    return self

  def _remember(self, number, _):
    if self.signal == signal.SIGINT == number:
      raise KeyboardInterrupt
    self.signal = number
    # Not print, which may be what was interrupted.
    os.write(2, b"\nstopping: saving after this step (again: at once)\n")

  def __exit__(self, *_: object):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def agreed(self) -> int | None:
    """The signal any host has had, the same answer on all of them."""
    if jax.process_count() == 1:
      return self.signal
    seen = multihost_utils.process_allgather(np.int32(self.signal or 0))
    return int(seen.max()) or None


def check(config: contracts.Config) -> None:
  """Raises ConfigError for what no task could train with."""
  devices = jax.device_count()
  least = {"batch_size": 1}
  if "total_steps" in config:
    least |= {"total_steps": 1} | {f"every.{name}": 1 for name in config.every}
  for name, value in least.items():
    group, _, field = name.rpartition(".")
    number = config[group][field] if group else config[field]
    if number < value:
      raise errors.ConfigError(f"{name} is {number}: expected at least {value}")
  if "epochs" in config:
    above = {"epochs": config.epochs}
    above |= {f"every.{name}": n for name, n in config.every.items()}
    for name, value in above.items():
      if not value > 0:
        raise errors.ConfigError(f"{name} is {value}: expected above 0")
  if config.seed not in range(2**32):
    raise errors.ConfigError(f"seed is {config.seed}: expected 0 to 2**32 - 1")
  if config.batch_size % devices:
    raise errors.ConfigError(
      f"batch_size is {config.batch_size}: expected a multiple of the"
      f" {devices} devices"
    )


def abstract_state(init: Callable) -> Any:
  """Shapes, types and places of what a task's `init` gives: what a restore
  fills."""
  _, _, everywhere = devices.mesh_and_shardings()
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
    jax.eval_shape(init, jax.random.key(0)),
  )


def parameters(state: contracts.Tree) -> dict[str, int]:
  """How many parameters each network of a state has: its `params` fields'."""
  counts = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    names = [getattr(key, "name", None) for key in path]
    if "params" in names:
      at = names.index("params")
      network = names[at - 1] if at else "network"
      counts[network] = counts.get(network, 0) + leaf.size
  return counts


def several(task: Task, lookup: Callable, most: int) -> Callable:
  """`steps(state, chunk, n) -> (state, metrics)`, n steps of a task, at most
  `most`; the first n rows of each metric are theirs.

  One program whatever n is, so that a run which stops in the middle of a chunk
  goes on with the same bits.
  """

  def one(state, chunk, i):
    return task.step(state, lookup(chunk, i))

  def steps(state, chunk, n):
    if most == 1:
      state, metrics = one(state, chunk, 0)
      return state, jax.tree.map(lambda x: x[None], metrics)
    shapes = jax.eval_shape(one, state, chunk, 0)[1]
    metrics = jax.tree.map(lambda x: jnp.zeros(most, x.dtype), shapes)

    def body(carry):
      i, state, metrics = carry
      state, now = one(state, chunk, i)
      put = lambda all_, x: all_.at[i].set(x)
      return i + 1, state, jax.tree.map(put, metrics, now)

    carry = (0, state, metrics)
    return jax.lax.while_loop(lambda carry: carry[0] < n, body, carry)[1:]

  return steps


def compile_steps(
  task: Task,
  config: contracts.Config,
  feed: Feed,
  everywhere: jax.NamedSharding,
) -> tuple[Any, Any, dict]:
  """`several` compiled for a feed's chunks, the abstract state, and what
  compiling told."""
  state = abstract_state(task.init)
  start = time.monotonic()
  steps = jax.jit(
    several(task, feed.lookup, feed.most),
    donate_argnums=0,
    out_shardings=(everywhere, everywhere),
  )
  compiled = steps.lower(state, feed.like, np.int32(1)).compile(
    compiler_options=xla.compiler_options()
  )
  # Both of one device.
  cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
  images = config.batch_size / jax.device_count()
  facts = {
    "compile_seconds": time.monotonic() - start,
    "parameters": parameters(state),
    "gflop_per_image": cost.get("flops", math.nan) / images / 1e9,
    "memory_mb": memory
    and (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e6,
  }
  return compiled, state, facts


def dispatcher(steps: Callable, feed: Feed) -> Callable:
  """`run(state, n) -> (state, metrics)`: the feed's next n batches, given to
  compiled `steps` when the device has no more to do than keeps it busy."""
  running = collections.deque()

  def run(state, n: int):
    chunk = feed.chunk(n)
    while len(running) >= xla.dispatches_at_once():
      xla.wait(running.popleft())
    state, metrics = steps(state, chunk, np.int32(n))
    running.append(metrics)
    return state, metrics

  return run


def begin(
  task: Task, config: contracts.Config, everywhere: jax.NamedSharding
) -> Any:
  """The state before the first step."""
  init = jax.jit(
    task.init,
    out_shardings=everywhere,
    compiler_options=xla.run_once_options(),
  )
  state = init(jax.random.key(config.seed))
  if task.start:
    state = jax.device_put(task.start(state), everywhere)
  return state


class Window:
  """Metrics of the steps since the last report, fetched late: reading them at
  every step would make the device wait for the host."""

  def __init__(self):
    self._pending, self._settled = [], []

  def add(self, steps: range, metrics: contracts.Tree) -> None:
    """The metrics of some steps: arrays at least as long."""
    self._pending.append((steps, metrics))

  def settle(self) -> None:
    """Fetches what is pending. Raises DivergedError at the first NaN."""
    for steps, metrics in self._pending:
      fetched = jax.device_get(metrics)
      for i, step in enumerate(steps):
        values = {k: float(v[i]) for k, v in fetched.items()}
        require_finite(step, values)
        self._settled.append(values)
    self._pending.clear()

  def means(self) -> dict[str, float]:
    """Settles, and returns the mean of each metric."""
    self.settle()
    values = self._settled
    return {k: sum(v[k] for v in values) / len(values) for k in values[0]}


def require_finite(step: int, values: dict[str, float]) -> None:
  """Raises DivergedError naming the step and the terms."""
  bad = [f"{k} = {v}" for k, v in values.items() if not math.isfinite(v)]
  if bad:
    raise errors.DivergedError(
      f"diverged at step {step}: {', '.join(bad)}. What was saved before it is"
      " kept, but the same command would meet it again: lower opt.lr, and"
      " give another --workdir"
    )


def train(
  config: contracts.Config,
  task: Task,
  source: contracts.Examples,
  run: workdir.Workdir,
) -> int:
  """Trains to config.total_steps, from the last checkpoint where there is one.

  Returns an exit code: 0 finished, 75 saved after SIGTERM, 130 after Ctrl-C.
  Raises ConfigError, DivergedError, SaveError.
  """
  hosts = jax.process_count()
  mesh, by_batch, everywhere = devices.mesh_and_shardings()
  gather = devices.gather_over(by_batch, config.batch_size)
  every = schedule(config, len(source))
  total = every.total
  with (
    Stop() as stop,
    checkpoint.Checkpoints(run.path / "checkpoints") as checkpoints,
    checkpoint.Best(run.path, task.best) as best,
  ):
    # The state's own, but known before it is restored.
    first = checkpoints.latest() or 0
    if first > total:
      raise errors.ConfigError(
        f"{run.path} has trained {first} steps already, more than the {total}"
        " asked for"
      )
    feed = Feed(source, config, first, mesh)
    progress.say(
      f"{hosts} process(es), {mesh.size} device(s)"
      f" ({jax.devices()[0].device_kind}), mesh {dict(mesh.shape)},"
      f" {feed.about}; compiling{processes.census(config.batch_size)}"
    )

    @functools.cache
    def compiled(step):
      return compile_steps(task._replace(step=step), config, feed, everywhere)

    step, end = stage(task, first, total)
    steps, like, facts = compiled(step)
    if first:
      newest = first
      first, state = checkpoints.restore_last(
        like,
        f"put a copy back, or delete {run.path}/checkpoints to begin at the"
        " first step",
      )
      if first != newest:  # Of the same shapes, so the programs are the same.
        feed = Feed(source, config, first, mesh)
        step, end = stage(task, first, total)
        steps, _, facts = compiled(step)
    else:
      state = begin(task, config, everywhere)
    run.begin(first)
    counts = ", ".join(f"{k} {v:,}" for k, v in facts["parameters"].items())
    progress.say(
      f"compiled in {facts['compile_seconds']:.0f} s:"
      f" {facts['gflop_per_image']:.2f} GFLOP an image and step,"
      f" {facts['memory_mb']:.0f} MB; parameters: {counts};"
      + (f" continuing after step {first}" if first else " starting")
    )
    with progress.Bar(first, total, config.batch_size) as bar:

      def log(step, window):
        means = window.means()
        bar.update(step, means)
        train_metrics = {f"train/{k}": v for k, v in means.items()}
        speed = {"images_per_s": bar.rate, "seconds": bar.seconds}
        run.metrics(step, train_metrics | speed)

      i, window, stopped = first, Window(), None
      unread = []  # Windows that are full: at most one.
      run_steps = dispatcher(steps, feed)
      while i < total and not stopped:
        if i == end:
          with bar.aside("compiling the next stage"):
            step, end = stage(task, i, total)
            steps, _, facts = compiled(step)
          run_steps = dispatcher(steps, feed)
        n = min(feed.most, end - i, *(e - i % e for e in every[1:]))
        state, metrics = run_steps(state, n)
        window.add(range(i + 1, i + n + 1), metrics)
        i += n
        while unread:  # While the device works on these steps.
          log(*unread.pop())
        if i % every.log == 0 or i == total:
          unread.append((i, window))
          window = Window()
        # Hosts must stop at one step, and agreeing costs a message.
        if hosts == 1 or i % every.log == 0:
          stopped = stop.agreed()
        preview, evaluate, save = (
          i % often == 0 or i == total
          for often in (every.preview, every.evaluate, every.checkpoint)
        )
        if preview or evaluate or save or stopped:
          while unread:
            log(*unread.pop())
        if preview:
          with bar.aside("drawing a preview"):
            run.pictures(i, task.preview(state, gather))
        if evaluate:
          with bar.aside("evaluating"):
            values = task.evaluate(state, gather)
            run.evaluation(i, values)
            if task.best:
              assert task.model is not None  # The best one is kept of.
              best.offer(i, float(values[task.best]), task.model(state))
        # Last, so that what a checkpoint's step reported is never lost.
        if save or stopped:
          window.settle()
          with bar.aside("saving"):
            checkpoints.save(i, state)
  if stopped and i == total:
    stopped = None
  if stopped:
    progress.say(f"saved after step {i}; the same command continues")
    return PREEMPTED if stopped == signal.SIGTERM else INTERRUPTED
  facts = {"state_sha256": checkpoint.sha256(state), "compiled": facts}
  conclusion = {}
  if task.conclude:
    assert task.model is not None  # What is concluded of.
    progress.say("scoring with the best model")
    with checkpoint.Best(run.path, task.best) as best:
      model = best.restore(task.model(like))
      facts["best"] = best.entry
    conclusion = task.conclude(model, gather)
  run.finish(total, facts, conclusion)
  return 0

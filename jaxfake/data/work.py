"""Work spread over cores, in order, with its progress shown."""

import collections
from collections.abc import Callable, Iterable, Iterator
import concurrent.futures as futures
import contextlib
import multiprocessing
import os
import sys
import threading
import time
import types


def cores() -> int:
  """Returns the number of cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def in_order(pool: futures.Executor, fn: Callable, items: Iterable) -> Iterator:
  """Yields fn(item) in the order of items, a few items ahead, not all at once.

  What is done but not yet taken is held in memory, hence the bound.
  """
  waiting = collections.deque()
  try:
    for item in items:
      waiting.append(pool.submit(fn, item))
      if len(waiting) > 8 * cores():
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    for future in waiting:
      future.cancel()


def threads() -> futures.ThreadPoolExecutor:
  """Returns a pool of threads: Pillow decodes and encodes outside the GIL."""
  return futures.ThreadPoolExecutor(cores())


def processes() -> futures.ProcessPoolExecutor:
  """Returns a pool of processes that is safe beside JAX and in any script.

  Spawned, since forking a process that has JAX's threads may deadlock. Spawn
  would import the caller's __main__ once more in each worker: seconds of JAX
  for jaxfake.main, an endless chain for a script without a main guard. Workers
  need this package alone, so an empty __main__ stands in while they start.
  """
  n = cores()
  pool = futures.ProcessPoolExecutor(
    n, multiprocessing.get_context("spawn"), initializer=end_with_parent
  )
  with without_main():
    for _ in range(n):  # Each submission starts one worker.
      pool.submit(os.getpid)
  return pool


_swapped = threading.Lock()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
  """Processes spawned within do not import the caller's __main__."""
  with _swapped:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
      yield
    finally:
      sys.modules["__main__"] = main


def end_with_parent() -> None:
  """Ends this worker when its parent is gone, even by kill -9.

  A pool's worker would wait for ever: it holds both ends of its queue.
  """

  def wait():
    parent = multiprocessing.parent_process()
    assert parent is not None  # This is a worker.
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def shown(what: str, total: int) -> Iterator[Callable[[], None]]:
  """Yields a function to call after each item; shows rate and time left.

  A bar on a terminal, else a line on stderr every ten seconds.
  """
  if sys.stderr.isatty():
    from rich import console, progress  # Workers, which show nothing, skip it.

    columns = (
      progress.TextColumn("{task.description}"),
      progress.BarColumn(),
      progress.MofNCompleteColumn(),
      progress.TextColumn("{task.fields[rate]}"),
      progress.TimeRemainingColumn(),
    )
    screen = console.Console(stderr=True)
    with progress.Progress(*columns, console=screen) as bar:
      task, start = bar.add_task(what, total=total, rate=""), time.monotonic()

      def advance():
        bar.advance(task)
        done = bar.tasks[0].completed
        rate = done / max(time.monotonic() - start, 1e-3)
        bar.update(task, rate=f"{rate:,.0f}/s")

      yield advance
    return
  done, start, last = 0, time.monotonic(), time.monotonic()

  def advance():
    nonlocal done, last
    done += 1
    now = time.monotonic()
    if now - last > 10 or done == total:
      rate, last = done / max(now - start, 1e-3), now
      left = (total - done) / rate
      print(
        f"{what}: {done:,} of {total:,}, {rate:,.0f}/s, {left:,.0f} s left",
        file=sys.stderr,
        flush=True,
      )

  yield advance

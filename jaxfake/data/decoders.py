"""Files of strangers are decoded in other processes, with limits.

A decoder in C++ that aborts, hangs or eats memory takes its process with it.
Here that is a worker, which holds one file at a time: that file gets an
ImageError, and the next file a new worker. Workers import what reads a file and
no JAX. They are forked from one process that has done so already, so that
each, and each that stands in for a dead one, starts in milliseconds.
"""

from collections.abc import Callable
import concurrent.futures as futures
import ctypes
import multiprocessing
from multiprocessing import forkserver
import os
import pickle
import queue
import resource
import signal
import threading
import time
from typing import Any

import numpy as np

from jaxfake.data import image_error, work

SECONDS = 60  # For one file; the largest allowed take a few.
MEGABYTES = 2048  # Of a worker; 64 megapixels of RGBA or 16 bits take 1.1 GB.
_GLANCE = 0.05  # Seconds between looks at a busy worker's memory.
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CONTEXT = multiprocessing.get_context("forkserver")
_IMPORTED = (
  "jaxfake.data.reading",
  "jaxfake.data.marks",
  "jaxfake.data.radiograph",
)


def start(*modules: str) -> None:
  """Starts the process that workers are forked from, where none runs; it
  imports what reads files, and `modules`. Does not wait for it."""
  _CONTEXT.set_forkserver_preload([*_IMPORTED, *modules])
  forkserver.ensure_running()


class Pool(futures.ThreadPoolExecutor):
  """An executor of fn(item) in worker processes; for work.in_order.

  Each thread waits for one worker. fn is a module's function, of a module
  that is quick to import. A result is fn's, or an ImageError that says why
  there is none, under the name that `name` gives the item.
  """

  def __init__(
    self,
    name: Callable = str,
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
    workers: int | None = None,
  ):
    super().__init__(workers or work.cores())
    self._name, self._seconds, self._megabytes = name, seconds, megabytes
    self._idle = queue.LifoQueue()
    self._all, self._lock, self._closed = set(), threading.Lock(), False

  def submit(self, fn: Callable, item: Any) -> futures.Future:
    return super().submit(self.call, fn, item)

  def call(self, fn: Callable, item: Any) -> Any:
    """fn(item) of a worker, or an ImageError; waits for it."""
    try:
      worker = self._idle.get_nowait()
    except queue.Empty:
      worker = self._start()
    try:
      result = worker.call(fn, item)
    except _Lost as lost:
      self._end(worker)
      return image_error.ImageError(self._name(item), str(lost))
    except BaseException:
      self._end(worker)
      raise
    self._idle.put(worker)
    if isinstance(result, _Raised):
      return image_error.ImageError(self._name(item), result.reason)
    return result

  def _start(self):
    worker = _Worker(self._seconds, self._megabytes)
    with self._lock:
      self._all.add(worker)
      if self._closed:
        worker.kill()  # So that the call ends.
    return worker

  def _end(self, worker):
    worker.end()
    with self._lock:
      self._all.discard(worker)

  def __exit__(self, kind: type[BaseException] | None, *error: object):
    if kind is not None:  # Nobody waits for what was asked for.
      with self._lock:
        self._closed = True
        for worker in self._all:
          worker.kill()
    self.shutdown(wait=True, cancel_futures=True)

  def shutdown(
    self, wait: bool = True, *, cancel_futures: bool = False
  ) -> None:
    super().shutdown(wait, cancel_futures=cancel_futures)
    while not self._idle.empty():
      self._end(self._idle.get())


class _Lost(Exception):
  """A worker that is gone, or has to go, and why."""


class _Raised:
  """What a function raised in a worker, in words."""

  def __init__(self, error: Exception):
    words = (str(error).splitlines() or [""])[0][:200]
    self.reason = f"cannot be decoded: {type(error).__name__} {words}".strip()
    if isinstance(error, image_error.ImageError):
      self.reason = error.reason


class _Worker:
  def __init__(self, seconds, megabytes):
    self._seconds, self._megabytes = seconds, megabytes
    start()
    self._pipe, theirs = _CONTEXT.Pipe()
    self._process = _CONTEXT.Process(
      target=_serve, args=(theirs, seconds, megabytes), daemon=True
    )
    with work.without_main():
      self._process.start()
    theirs.close()  # So that the worker's end is seen.
    if not self._pipe.poll(max(seconds, 120)) or not self._receive():
      self.end()
      raise RuntimeError("a decoding worker did not start")

  def call(self, fn, item):
    end = time.monotonic() + self._seconds
    try:
      self._pipe.send((fn, item))
      while not self._pipe.poll(_GLANCE):
        if time.monotonic() > end:
          raise _Lost(f"took more than {self._seconds:g} s to decode")
        if self._resident() > self._megabytes * 2**20:
          raise _Lost(f"needed more than {self._megabytes:g} MB to decode")
      return self._receive()
    except (EOFError, ConnectionError) as error:
      self._process.join()
      assert self._process.exitcode is not None  # It has ended.
      raise _Lost(_epitaph(self._process.exitcode)) from error

  def _receive(self):
    sizes, start = self._pipe.recv()
    buffers = [np.empty(size, np.uint8) for size in sizes]
    for buffer in buffers:  # By hand, as Connection copies what it reads.
      view = buffer.data
      while view:
        if not (count := os.readv(self._pipe.fileno(), [view])):
          raise EOFError
        view = view[count:]
    return pickle.loads(start, buffers=buffers)

  def _resident(self) -> int:
    """Bytes of memory it holds; 0 on systems that do not say."""
    try:
      with open(f"/proc/{self._process.pid}/statm") as file:
        return int(file.read().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError, IndexError):
      return 0

  def kill(self):
    self._process.kill()

  def end(self):
    self.kill()
    self._process.join()
    self._pipe.close()


def _epitaph(code: int) -> str:
  if code >= 0:
    return f"ended its decoder (exit code {code})"
  return f"crashed its decoder ({signal.Signals(-code).name})"


def _serve(pipe, seconds, megabytes):
  """A worker's life: until its parent is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Its parent's to answer.
  nothing = os.open(os.devnull, os.O_RDWR)
  for descriptor in 1, 2:  # Last words of C++.
    os.dup2(nothing, descriptor)
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  # Between two looks of the parent a worker can take much; this is the wall.
  most = int(megabytes * 2**20) * 2
  resource.setrlimit(resource.RLIMIT_DATA, (most, most))
  work.end_with_parent()
  _keep_memory()
  _send(pipe, True)
  while True:
    try:
      fn, item = pipe.recv()
    except EOFError:
      return
    # Where the parent was killed and a decoder hangs with the GIL held.
    signal.setitimer(signal.ITIMER_REAL, seconds + 10)
    try:
      result = fn(item)
    except MemoryError as error:
      result = _Raised(error)
      result.reason = f"needed more than {megabytes:g} MB to decode"
    except Exception as error:  # Of any kind: the file is a stranger's.
      result = _Raised(error)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _send(pipe, result)


def _keep_memory():
  """Pictures lie where those before them lay: glibc would give each back to the
  system, and getting it anew takes a quarter of a worker's time."""
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Of glibc.
  if mallopt:
    mallopt(-1, 1 << 28)  # M_TRIM_THRESHOLD
    mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD


def _send(pipe, result):
  """An array goes as it lies in memory, without a copy."""
  buffers = []
  start = pickle.dumps(result, 5, buffer_callback=buffers.append)
  views = [buffer.raw() for buffer in buffers]
  pipe.send(([view.nbytes for view in views], start))
  for view in views:
    while view:
      view = view[os.write(pipe.fileno(), view) :]

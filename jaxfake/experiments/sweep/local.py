"""Runs of a sweep as processes of their own, so many at once, watched.

Where they run, Here or in Slurm's queue, is a place: `active` holds its runs
that have not ended, running or waiting; `tick()` starts what can be started and
sees what has ended; `stop(signal)` ends it early and returns what to say.
"""

import collections
import signal
import subprocess
import time

from jaxfake import errors
from jaxfake.experiments.sweep.plan import Run
from jaxfake.runtime import disk, progress

POLL = 0.3  # Seconds.
INTERRUPTED, PREEMPTED = errors.INTERRUPTED, errors.PREEMPTED


def start(run: Run) -> subprocess.Popen:
  """Its process, in a session of its own: the terminal's Ctrl-C reaches it
  once, by Here.stop."""
  run.path.mkdir(parents=True, exist_ok=True)
  (run.path / disk.EXIT_CODE).unlink(missing_ok=True)
  with open(run.path / disk.LOG, "a") as log:
    return subprocess.Popen(
      run.command(),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def ended(run: Run, code: int) -> None:
  """Remembers how a run ended, for the next time the sweep is asked for."""
  part = run.path / (disk.EXIT_CODE + ".part")
  part.write_text(f"{code}\n")
  part.replace(run.path / disk.EXIT_CODE)


class Here:
  """Processes of this machine, at most `jobs` at once."""

  def __init__(self, runs: list[Run], jobs: int):
    self.active = dict.fromkeys(runs, "waiting")
    self._processes = {}
    self._jobs = jobs

  def tick(self) -> None:
    for run, process in list(self._processes.items()):
      if (code := process.poll()) is not None:
        ended(run, code)
        del self._processes[run], self.active[run]
    for run in self.active:
      if len(self._processes) < self._jobs and run not in self._processes:
        self._processes[run] = start(run)
        self.active[run] = "running"

  def stop(self, number: int) -> str:
    self.active = dict.fromkeys(self._processes, "running")
    for process in self._processes.values():
      process.send_signal(number)
    return "stopping: runs save and leave (again: at once)"


class Signals:
  """SIGTERM and Ctrl-C, each to be dealt with once."""

  def __init__(self):
    self.fresh, self.last = [], None
    self._before = {}

  def __enter__(self):
    for number in (signal.SIGTERM, signal.SIGINT):
      self._before[number] = signal.signal(
        number, lambda number, _: self.fresh.append(number)
      )
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def each(self):
    while self.fresh:
      self.last = self.fresh.pop(0)
      yield self.last


def watch(place, runs: list[Run]) -> int:
  """Sees a place's runs to their end, showing how all `runs` stand; returns an
  exit code: 0 where all have finished, 1, or 130 and 75 after Ctrl-C and
  SIGTERM."""
  begun = time.monotonic()
  ended_as = {run: run.state() for run in runs if run not in place.active}
  with Signals() as signals, progress.Board(("run", "state", "")) as board:
    while True:
      place.tick()
      for run in runs:
        if run not in place.active and run not in ended_as:
          ended_as[run] = run.state()
      states = ended_as | place.active
      took = progress.duration(time.monotonic() - begun)
      board.show(f"{summary(states)}; {took}", rows(states))
      if not place.active:
        break
      time.sleep(POLL)
      for number in signals.each():
        progress.say(place.stop(number))
  if signals.last:
    return INTERRUPTED if signals.last == signal.SIGINT else PREEMPTED
  return 0 if set(states.values()) == {"finished"} else 1


def rows(states: dict[Run, str]) -> list[tuple[str, str, str]]:
  """Name, state and, where it tells something, the last line of each run, those
  to be looked at first."""
  order = ("running", "failed", "stopped", "waiting", "finished")
  table = []
  for run, state in sorted(states.items(), key=lambda x: order.index(x[1])):
    last = run.last_lines(1) if state in ("running", "failed") else []
    table.append((run.name, state, "".join(last)))
  return table


def summary(states: dict[Run, str]) -> str:
  """4 runs: 1 finished, 2 running, 1 waiting."""
  counts = collections.Counter(states.values())
  text = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
  return f"{len(states)} runs: {text}"


def failures(runs: list[Run], lines: int = 5) -> list[str]:
  """What to say of every run that has failed: its log's last lines."""
  texts = []
  for run in runs:
    if run.state() == "failed":
      code = (run.path / disk.EXIT_CODE).read_text().strip()
      ends = "".join(f"\n    {x}" for x in run.last_lines(lines))
      texts.append(
        f"{run.name} failed with exit code {code}; the end of"
        f" {run.path / disk.LOG}:{ends}"
      )
  return texts

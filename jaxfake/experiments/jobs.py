"""How the runs of an experiment are worked through.

In this process, one after another: `chain` does jobs that need those before
them (a study), `each` jobs that are alike (a comparison). In processes of their
own, so many at once or by a cluster: `watch` sees the runs of a place to their
end (a sweep). A place is Here, or Slurm's queue: `active` holds its runs that
have not ended, running or waiting; `tick()` starts what can be started and sees
what has ended; `stop(signal)` ends it early and returns what to say.

What is finished is not done again: the same command goes on where it was.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from jaxfake import contracts, errors
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

if TYPE_CHECKING:
  from jaxfake.experiments.sweep import slurm

POLL = 0.3  # Seconds.
INTERRUPTED, PREEMPTED = errors.INTERRUPTED, errors.PREEMPTED
# Exit codes of a run that can go on: it has saved, or was told to end before.
STOPPED = (
  errors.PREEMPTED,
  errors.INTERRUPTED,
  -signal.SIGTERM,
  -signal.SIGINT,
)


class Job(NamedTuple):
  """`work() -> exit code`, unless it was `done` before."""

  name: str
  done: bool
  work: Callable[[], int]


def of_run(
  name: str, config: contracts.Config, path: pathlib.Path, train: Callable
) -> Job:
  """An ordinary run, which `train(config, path) -> exit code` does. Raises
  ConfigError where another finished one is in its place."""

  import jax  # Takes a second; a sweep's command does without.

  def work() -> int:
    code = train(config, path)
    jax.clear_caches()  # The next is another network.
    return code

  return Job(name, workdir.finished(path, config.to_dict()) is not None, work)


def chain(jobs: Sequence[Job], before: int = 0, total: int = 0) -> int:
  """Does what is left of jobs that need those before them; returns the first
  exit code that is not 0. They are `before + 1` and so on of `total`."""
  for i, job in enumerate(jobs, before + 1):
    place = f"[{i} of {total or len(jobs)}] {job.name}"
    if job.done:
      progress.say(f"{place}: done before")
      continue
    progress.say(f"\n{place}")
    begin = time.monotonic()
    if code := job.work():
      return code
    progress.say(f"{place}: {progress.duration(time.monotonic() - begin)}")
  return 0


def each(
  jobs: Sequence[Job], after: Callable[[dict[str, str]], None]
) -> tuple[int, dict[str, str]]:
  """Does what is left of jobs that are alike and need nothing of each other.

  One that raises a UserError or RunError has failed, and the others go on;
  another exit code than 0 ends them all. `after(failed)` is called after each
  that ended well. Returns the exit code, and why those that failed did.
  """
  left = [job for job in jobs if not job.done]
  failed, seconds = {}, []
  for i, job in enumerate(left):
    ahead = ""
    if seconds:
      rest = progress.duration(statistics.mean(seconds) * (len(left) - i))
      ahead = f", about {rest} left at this rate"
    place = len(jobs) - len(left) + i + 1
    progress.say(f"\n[{place} of {len(jobs)}] {job.name}{ahead}")
    begin = time.monotonic()
    try:
      code = job.work()
    except (errors.UserError, errors.RunError) as error:
      failed[job.name] = str(error)
      progress.say(f"{job.name} failed: {error}")
      continue
    if code:
      return code, failed
    seconds.append(time.monotonic() - begin)
    after(failed)
  return int(bool(failed)), failed


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A run in a process of its own: its command's arguments, whole configuration
  and folder."""

  name: str
  seed: int
  arguments: tuple[str, ...]
  config: dict
  path: pathlib.Path

  def command(self, python: str = sys.executable) -> list[str]:
    return [python, "-m", "jaxfake.main", *self.arguments]

  def result(self) -> dict | None:
    """Its result, where it is finished. Raises ConfigError where what was run
    in its folder is something else."""
    return workdir.finished(self.path, self.config)

  def state(self) -> str:
    """finished, failed, stopped (it can go on), or waiting."""
    if self.result():
      return "finished"
    if not (self.path / disk.EXIT_CODE).exists():
      return "waiting"
    code = int((self.path / disk.EXIT_CODE).read_text())
    return "stopped" if code in STOPPED else "failed"

  def last_lines(self, count: int) -> list[str]:
    """The end of its log; nothing where there is none."""
    if not (self.path / disk.LOG).exists():
      return []
    text = (self.path / disk.LOG).read_text(errors="replace")
    return [x for x in text.splitlines() if x.strip()][-count:]


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

  def __exit__(self, *_: object):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def each(self) -> Iterator:
    while self.fresh:
      self.last = self.fresh.pop(0)
      yield self.last


def watch(place: "Here | slurm.Slurm", runs: list[Run]) -> int:
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
      board.show(f"{summary(states)}; {took}", state_rows(states))
      if not place.active:
        break
      time.sleep(POLL)
      for number in signals.each():
        progress.say(place.stop(number))
  if signals.last:
    return INTERRUPTED if signals.last == signal.SIGINT else PREEMPTED
  return 0 if set(states.values()) == {"finished"} else 1


def state_rows(states: dict[Run, str]) -> list[tuple[str, str, str]]:
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

"""What an experiment is made of: jobs, worked through one after another.

Each is done once. An experiment that is stopped goes on where it was when the
same command is given again.
"""

from collections.abc import Callable, Sequence
import pathlib
import statistics
import time
from typing import NamedTuple

import jax

from jaxfake import errors
from jaxfake.runtime import progress
from jaxfake.training import workdir


class Job(NamedTuple):
  """`work() -> exit code`, unless it was `done` before."""

  name: str
  done: bool
  work: Callable[[], int]


def of_run(name: str, config, path: pathlib.Path, train: Callable) -> Job:
  """An ordinary run, which `train(config, path) -> exit code` does. Raises
  ConfigError where another finished one is in its place."""

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

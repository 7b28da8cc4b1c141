"""Runs of a sweep as a job array of Slurm, submitted and watched.

submitit (MIT) writes the batch script and sends a job that nears its time
limit, or is preempted, back into the queue. It would ask sacct how jobs stand,
which needs an accounting database; here the queue and each run's own files
tell.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

from jaxfake import errors
from jaxfake.experiments import jobs
from jaxfake.experiments.jobs import Run
from jaxfake.runtime import disk

POLL = 5.0  # Seconds between questions to Slurm.
LAG = 30.0  # Seconds that a shared file system may hide an exit code.
TIMES_REQUEUED = 20


class Job:
  """What one job of the array does: one run. submitit calls `checkpoint` before
  the time limit and sends what it returns back into the queue."""

  _process: subprocess.Popen  # Once it is called.

  def __init__(self, run: Run):
    self._run = run

  def __call__(self) -> int:
    # Slurm's warning goes to all processes; the run is not to die of it.
    mine = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    self._process = jobs.start(self._run)
    signal.signal(signal.SIGUSR2, mine)
    code = self._process.wait()
    jobs.ended(self._run, code)
    return code

  def checkpoint(self) -> Any:
    import submitit

    self._process.send_signal(signal.SIGTERM)
    # Not Popen.wait: this interrupts __call__, which holds its lock.
    with contextlib.suppress(ChildProcessError):
      os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
    jobs.ended(self._run, jobs.PREEMPTED)
    return submitit.helpers.DelayedSubmission(Job(self._run))


class Slurm:
  """Jobs of a cluster. Those of an earlier call that are still in the queue are
  not submitted again."""

  def __init__(self, runs: list[Run], root: pathlib.Path, parameters: dict):
    file = root / "slurm.json"  # {name: job}
    known = disk.read_json(file) if file.exists() else {}
    inside = queue() if known else {}
    self._jobs = {x: known[x.name] for x in runs if known.get(x.name) in inside}
    new = [run for run in runs if run not in self._jobs]
    if new:
      self._jobs |= submit(new, root / "slurm", parameters)
      named = {run.name: job for run, job in self._jobs.items()}
      disk.write_json(file, known | named)
    self.active = dict.fromkeys(runs, "waiting")
    self._missed = {}  # Since when a job has been out of the queue.
    self._asked = 0.0

  def tick(self) -> None:
    if not self.active or time.monotonic() - self._asked < POLL:
      return
    self._asked = time.monotonic()
    inside = queue()
    for run in list(self.active):
      job, state = self._jobs[run], run.state()
      if state in ("finished", "failed"):
        del self.active[run]
      elif job in inside:
        self.active[run] = "running" if inside[job] == "R" else "waiting"
      elif state == "stopped":
        del self.active[run]
      elif self._asked - self._missed.setdefault(run, self._asked) > LAG:
        self._lost(run, job)

  def _lost(self, run: Run, job: str) -> None:
    """Its process was killed, or its node is gone."""
    run.path.mkdir(parents=True, exist_ok=True)
    with open(run.path / disk.LOG, "a") as log:
      log.write(f"job {job} left Slurm's queue without an exit code\n")
    jobs.ended(run, 1)
    del self.active[run]

  def stop(self, number: int) -> str:
    arrays = {self._jobs[run].partition("_")[0] for run in self.active}
    self.active = {}
    return (
      "the jobs stay in Slurm's queue: the same command watches them;"
      f" scancel {' '.join(sorted(arrays))} lets them save and ends them"
    )


def submit(
  runs: list[Run], folder: pathlib.Path, parameters: dict
) -> dict[Run, str]:
  """Submits runs as one array; returns their jobs. Raises ConfigError where
  Slurm refuses, or is not there."""
  try:
    import submitit
    from submitit.core import utils
  except ImportError as error:
    raise errors.ConfigError(
      "--slurm: expected submitit to be installed (pip install"
      " 'jaxfake[slurm]')"
    ) from error
  for run in runs:  # What an earlier job left says nothing of this one.
    (run.path / disk.EXIT_CODE).unlink(missing_ok=True)
  try:
    executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMES_REQUEUED)
    executor.update_parameters(job_name="jaxfake", **parameters)
    submitted = executor.submit_array([Job(run) for run in runs])
  except (RuntimeError, utils.FailedJobError) as error:
    said = " ".join(str(error).split())
    raise errors.ConfigError(f"--slurm: {said}") from error
  return {run: job.job_id for run, job in zip(runs, submitted, strict=True)}


def queue() -> dict[str, str]:
  """{job: state} of one's own jobs in the queue; an array's are "12_0", ...

  Raises RunError where Slurm does not answer.
  """
  done = subprocess.run(
    ["squeue", "--me", "-h", "-r", "-o", "%F_%K %t"],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise errors.RunError(f"squeue failed: {done.stderr.strip()}")
  lines = (line.split() for line in done.stdout.splitlines())
  return {job.removesuffix("_N/A"): state for job, state in lines}

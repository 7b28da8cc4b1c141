"""launch/slurm.sbatch on a real Slurm: tests/slurm.sh up makes one."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from places import ROOT
import pytest

PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
# Saved at every step, it takes seconds, in which the signal can come.
FLAGS = [
  f"--config={ROOT}/configs/dcgan.py:tiny",
  "--config.total_steps=30",
  "--config.every.log=1",
  "--config.every.checkpoint=1",
  "--config.every.evaluate=30",
  "--config.every.preview=30",
]


def call(*argv):
  return subprocess.run(
    list(map(str, argv)),
    check=True,
    capture_output=True,
    text=True,
    timeout=600,
    cwd=ROOT,
    env=os.environ | {"PATH": PATH},
  ).stdout


def no_cluster():
  if shutil.which("sinfo") is None:
    return "no Slurm here: tests/slurm.sh up installs one"
  try:
    call("timeout", "10", "sinfo", "--noheader")
  except subprocess.CalledProcessError:
    return "no Slurm cluster answers: tests/slurm.sh up starts one"
  return ""


pytestmark = [
  pytest.mark.slurm,
  pytest.mark.skipif(bool(no_cluster()), reason=no_cluster()),
]


def wait(log, text, seconds=600):
  """Until a job's output has the text."""
  end = time.monotonic() + seconds
  while not log.exists() or text not in log.read_text():
    assert time.monotonic() < end, log.read_text() if log.exists() else "no log"
    time.sleep(0.1)


def submit(log, *argv):
  script = ROOT / "launch/slurm.sbatch"
  return call(
    "sbatch", "--parsable", "--ntasks=2", f"--output={log}", script, *argv
  ).strip()


def test_a_preempted_job_queues_again_and_ends_with_the_same_bits(tmp_path):
  straight, path, log = (tmp_path / x for x in ("straight", "path", "log"))
  job = submit(log, *FLAGS, f"--workdir={path}")
  try:
    wait(log, "step 1/30")
    call("scancel", "--signal=TERM", job)
    wait(log, "exit code 75; queueing again")
    assert not (path / "result.json").exists()
    call(ROOT / "launch/multiprocess.sh", 2, *FLAGS, f"--workdir={straight}")
    wait(log, "Finished 30 steps")
  finally:
    call("scancel", "--quiet", job)
  said = log.read_text()
  assert said.count("2 process(es), 2 device(s)") == 2  # A start each.
  assert "start 1, on" in said
  assert "start 2, on" in said
  assert "continuing after step" in said
  one, other = (
    json.loads((p / "result.json").read_text())["state_sha256"]
    for p in (straight, path)
  )
  assert one == other


def test_a_step_of_two_tasks_is_two_processes_a_shell_is_alone():
  code = (
    "import os; from jaxfake.runtime import processes;"
    "print(processes.launcher(dict(os.environ)))"
  )
  python = [sys.executable, "-c", code]
  in_shell = call("salloc", "--quiet", "--ntasks=2", *python)
  assert in_shell == "None\n"
  tasks = call("salloc", "--quiet", "--ntasks=2", "srun", *python)
  for i in range(2):
    assert f"'num_processes': 2, 'process_id': {i}" in tasks
  inside = call("salloc", "--quiet", "--ntasks=2", "srun", "-n1", *python)
  assert inside == "None\n"

"""A sweep as a job array of a real Slurm, where there is one."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

from places import ROOT
import pytest


def answers() -> bool:
  if shutil.which("sinfo") is None:
    return False
  found = subprocess.run(["sinfo", "-h"], capture_output=True, timeout=20)
  return found.returncode == 0 and bool(found.stdout.strip())


pytestmark = [
  pytest.mark.slurm,
  pytest.mark.skipif(not answers(), reason="sinfo finds no cluster"),
]

CONFIG = f"""\
import runpy

def get_config(arg=""):
  c = runpy.run_path("{ROOT}/configs/classifier.py")["get_config"]("tiny")
  c.model.name = "decision_tree"
  c.classical.features = "hog"
  return c

def sweep():
  for depth in (1, 2, 3, 4):
    yield {{"classical.decision_tree.depth": depth}}
"""
NAME = "classical.decision_tree.depth"


def start(config, path, *flags):
  return subprocess.Popen(
    [
      sys.executable,
      ROOT / "launch/sweep.py",
      str(config),
      f"--workdir={path}",
      "--slurm",
      "--minutes=5",
      "--seeds=1",
      *flags,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )


def launch(config, path, *flags):
  process = start(config, path, *flags)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


def jobs(path) -> set[str]:
  """The arrays that were submitted for a sweep."""
  return {x.name.split("_")[0] for x in path.glob("slurm/*_submission.sh")}


def test_an_array_of_four_of_which_one_fails_and_is_retried(tmp_path):
  config, path = tmp_path / "c.py", tmp_path / "w"
  config.write_text(CONFIG)
  stray = path / f"runs/{NAME}=3-seed0/notes.txt"
  stray.parent.mkdir(parents=True)
  stray.write_text("mine")
  code, out, err = launch(config, path, "--jobs=2")
  assert code == 1, out + err
  assert f"{NAME}=3-seed0 failed with exit code 2" in out
  assert "    jaxfake: --workdir" in out and "notes.txt" in out
  (script,) = path.glob("slurm/*_submission.sh")  # One array.
  assert "--array=0-3%2" in script.read_text()
  done = {x.parent.name for x in path.glob("runs/*/result.json")}
  assert done == {f"{NAME}={i}-seed0" for i in (1, 2, 4)}
  # Left alone, until it is asked for.
  stray.unlink()
  assert launch(config, path)[0] == 1 and len(jobs(path)) == 1
  code, out, err = launch(config, path, "--retry")
  assert code == 0, out + err
  assert len(jobs(path)) == 2
  table = list(csv.DictReader((path / "table.csv").open()))
  assert [(x["setting"], x["seeds"]) for x in table] == [
    (str(i), "1") for i in (1, 2, 3, 4)
  ]


def test_the_same_command_finds_its_jobs_which_save_when_cancelled(tmp_path):
  config, path = tmp_path / "c.py", tmp_path / "w"
  config.write_text(f"""\
import runpy

def get_config(arg=""):
  return runpy.run_path("{ROOT}/configs/dcgan.py")["get_config"]("tiny")

def sweep():
  yield {{"total_steps": 10**6, "every.log": 10, "every.checkpoint": 10**6,
         "every.preview": 10**6, "every.evaluate": 10**6}}
""")
  first = start(config, path)
  until(lambda: "step 10/1000000" in log(path))
  first.send_signal(signal.SIGINT)
  out, _ = first.communicate(timeout=60)
  assert first.returncode == 130 and "stay in Slurm's queue" in out
  second = start(config, path)
  assert second.stdout.readline() == f"sweep: {path}\n"
  (job,) = jobs(path)  # It submitted none of its own.
  subprocess.run(["scancel", job], check=True)
  out, _ = second.communicate(timeout=300)
  assert second.returncode == 1
  assert "seed0  stopped" in out and "the same command goes on" in out
  assert "saved after step" in log(path)


def log(path) -> str:
  return "".join(x.read_text() for x in path.glob("runs/*/log.txt"))


def until(true, seconds=300):
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.2)

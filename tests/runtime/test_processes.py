"""One run in several processes or on several devices: the same answer, and an
end for all where one ends."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

from in_processes import codes, start
import jax
import numpy as np
from places import ROOT
import pytest

from jaxfake import data, errors, main
from jaxfake.generators import gan
from jaxfake.runtime import processes

TINY = f"--config={ROOT}/configs/dcgan.py:tiny"
# Runs main, but as the processes first agree on whether to stop, after a step,
# the second one signals itself.
SIGNALLED = """
import os, signal, sys
import jax
from jaxfake import main
from jaxfake.runtime import processes
from jaxfake.training import loop
processes.HEARTBEAT = 5
agreed = loop.Stop.agreed
def patched(self):
  if jax.process_index() == 1:
    os.kill(os.getpid(), signal.{})
  return agreed(self)
loop.Stop.agreed = patched
sys.exit(main.main(sys.argv))
"""
MAIN = "import sys; from jaxfake import main; sys.exit(main.main(sys.argv))"


FEW_STEPS = [
  TINY,
  "--config.total_steps=2",
  "--config.batch_size=8",
  "--config.model.conditional=True",
  "--config.every.log=1",
  "--config.every.checkpoint=1",
  "--config.every.evaluate=2",
]


def steps_of(path, count, devices, *flags):
  """Runs FEW_STEPS in so many processes, and looks at what the first says of
  them; returns it."""
  each, rows = devices // count, 8 // count
  flags = [*FEW_STEPS, *flags, f"--workdir={path}"]
  started = start(count, MAIN, *flags, JAX_NUM_CPU_DEVICES=str(each))
  assert codes(started) == [0] * count, started[0].err
  said = started[0].out
  assert said.count(f"{count} process(es), {devices} device(s) (cpu)") == 1
  assert f"mesh {{'data': {devices}}}" in said
  for i in range(count if count > 1 else 0):
    held = f"{each} device(s), rows {i * rows} to {(i + 1) * rows - 1}\n"
    assert f"process {i} on {socket.gethostname()}: {held}" in said
  return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """A run of two steps in one process, on one device."""
  path = tmp_path_factory.mktemp("alone") / "run"
  assert main.main(["", *FEW_STEPS, f"--workdir={path}"]) == 0
  return path


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
  """The same in two processes."""
  path = tmp_path_factory.mktemp("two") / "run"
  steps_of(path, 2, 2)
  return path


def result(path):
  return json.loads((path / "result.json").read_text())


SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_NTASKS": "4",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_PROCID": "3",
  "SLURM_LOCALID": "1",
  "SLURM_STEP_NUM_NODES": "2",
}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
FOURTH = {"num_processes": 4, "process_id": 3}
BY_HAND = {
  "JAX_NUM_PROCESSES": "4",
  "JAX_PROCESS_ID": "3",
  "JAX_COORDINATOR_ADDRESS": "a:1",
}
K8S = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
  ("env", "told"),
  [
    ({}, None),
    (BY_HAND, FOURTH),
    (BY_HAND | SLURM, FOURTH),
    ({"JAX_NUM_PROCESSES": "1"} | SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, None),
    # One GPU a task, of those that the node's tasks all see: JAX's own rule.
    (
      SLURM | {"SLURM_STEP_NUM_TASKS": "4"},
      FOURTH | {"cluster_detection_method": "slurm"},
    ),
    (
      SLURM | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_GPUS_PER_TASK": "1"},
      FOURTH | {"cluster_detection_method": "slurm", "local_device_ids": []},
    ),
    (
      SLURM | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4"},
      FOURTH | {"cluster_detection_method": "slurm", "local_device_ids": []},
    ),
    # A shell in an allocation of four tasks: salloc's, and sbatch's script.
    (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
    (SLURM | {"SLURM_PROCID": "0"}, None),
    (MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3"}, FOURTH),
    (MPI | {"JAX_COORDINATOR_ADDRESS": "a:1"}, FOURTH),
    (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ({"TPU_ML_PLATFORM": "JAX"}, {}),
    ({"TPU_ML_PLATFORM": "JAX", "JAX_PLATFORMS": "cpu"}, None),
    (K8S, None),
    (K8S | {"JOB_COMPLETION_INDEX": "2", "JAX_NUM_PROCESSES": "1"}, None),
  ],
)
def test_a_launcher_is_found_and_a_process_alone_left_alone(env, told):
  assert processes.launcher(env) == told


@pytest.mark.parametrize(
  ("env", "named"),
  [
    ({"JAX_PROCESS_ID": "0"}, "no JAX_NUM_PROCESSES and no JAX_COORDINATOR"),
    ({"JAX_NUM_PROCESSES": "2"}, "there is no JAX_PROCESS_ID"),
    (BY_HAND | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID is 4: expected 0 to"),
    (BY_HAND | {"JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID=x"),
    (MPI, "mpi4py"),
    (K8S | {"JOB_COMPLETION_INDEX": "2"}, "jax[k8s]"),
  ],
)
def test_half_a_launcher_is_named(env, named, monkeypatch):
  monkeypatch.setattr(processes.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(errors.ConfigError, match=re.escape(named)):
    processes.launcher(env)


def test_sigterm_before_the_steps_asks_for_another_try(tmp_path, monkeypatch):
  before = signal.getsignal(signal.SIGTERM)
  terminate = lambda _: os.kill(os.getpid(), signal.SIGTERM)
  monkeypatch.setattr(data, "prepare", terminate)
  with pytest.raises(SystemExit) as end:
    main.main(["", TINY, f"--workdir={tmp_path}"])
  assert end.value.code == errors.PREEMPTED
  assert signal.getsignal(signal.SIGTERM) is before
  assert not (tmp_path / "config.json").exists()


def launch(*argv, path=()):
  path = [*path, pathlib.Path(sys.executable).parent, os.environ["PATH"]]
  return subprocess.run(
    [ROOT / "launch/multiprocess.sh", *map(str, argv)],
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | {"PATH": ":".join(map(str, path))},
  )


def test_the_launcher_runs_a_command_and_says_who_died(tmp_path):
  fake = tmp_path / "python"
  fake.write_text(
    "#!/usr/bin/env bash\n"
    "case $1 in -c) echo 12345; exit ;; esac\n"
    'echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at'
    ' $JAX_COORDINATOR_ADDRESS: $*"\n'
    "if ((JAX_PROCESS_ID == 1)); then kill -9 $$; fi\n"
    "if ((JAX_PROCESS_ID == 2)); then exit 3; fi\n"
  )
  fake.chmod(0o755)
  done = launch(3, "sample", "--out", "a b", path=[tmp_path])
  assert sorted(done.stdout.splitlines()) == [
    f"{i} of 3 at localhost:12345: -m jaxfake.sample --out a b"
    for i in range(3)
  ]
  assert done.returncode == 128 + signal.SIGKILL  # Of the first that failed.
  assert "process 1 of 3 died of signal 9" in done.stderr
  assert "process 2" not in done.stderr
  done = launch(1, "--config", "x", path=[tmp_path])
  assert "0 of 1 at localhost:12345: -m jaxfake.main --config x" in done.stdout
  assert done.returncode == 0


def test_a_mistake_seen_by_one_process_stops_all(alone):
  flags = [*FEW_STEPS, "--config.opt.lr=0.1", f"--workdir={alone}"]
  done = launch(2, *flags)
  assert done.returncode == 2
  assert "opt.lr was 0.0002, now 0.1" in done.stderr
  assert "another process cannot start" in done.stderr
  assert "Traceback" not in done.stderr


def test_a_signal_to_one_and_the_death_of_one_end_all(tmp_path, by_two):
  """And the same command continues, to the bits of an undisturbed run."""
  path = tmp_path / "run"
  flags = [*FEW_STEPS, f"--workdir={path}"]

  first, second = start(2, SIGNALLED.format("SIGTERM"), *flags)
  assert codes([first, second]) == [errors.PREEMPTED] * 2, first.err
  assert "saved after step 1; the same command continues" in first.out
  assert not (path / "result.json").exists()

  first, second = start(2, SIGNALLED.format("SIGKILL"), *flags)
  assert second.returncode == -signal.SIGKILL
  assert first.returncode != 0
  assert "continuing after step 1" in first.out
  assert "lost touch with another process" in first.err
  assert "Traceback" not in first.err
  # JAX's, of its number; its host stands in the list that the run began with.
  assert "stopped sending heartbeats):\n1\n" in first.err
  assert re.search(rf"process 1 on {socket.gethostname()}: 1 dev", first.out)

  first, second = start(2, MAIN, *flags)
  assert codes([first, second]) == [0, 0], first.err
  assert "continuing after step 1" in first.out
  assert second.out.count("\n") <= 1  # Gloo's, no word of ours.
  same = "state_sha256"
  assert result(path)[same] == result(by_two)[same]
  lines = (path / "metrics.jsonl").read_text().splitlines()
  steps = [x["step"] for x in map(json.loads, lines) if "seconds" in x]
  assert steps == [1, 2]


def close(path, other, steps):
  """Whether two runs agree to rounding: their states and all their metrics."""
  for step in steps:
    one, two = (gan.restored(p, step)[2] for p in (path, other))
    for part in ("generator", "discriminator"):
      pairs = zip(
        jax.tree.leaves(getattr(one, part).params),
        jax.tree.leaves(getattr(two, part).params),
        strict=True,
      )
      for a, b in pairs:
        if step == 1:
          np.testing.assert_allclose(a, b, atol=1e-5)
        # Adam divides by the size of a gradient, so where that is all rounding
        # a parameter may go either way, by 2e-4 a step; few do.
        assert np.abs(a - b).mean() < 2e-5
  first, last = (
    [json.loads(x) for x in (p / "metrics.jsonl").read_text().splitlines()]
    for p in (path, other)
  )
  for a, b in zip(first, last, strict=True):
    assert a.keys() == b.keys()
    for name in a.keys() - {"images_per_s", "seconds"}:
      # A gradient jumps where rounding takes a unit over leaky ReLU's kink.
      near = 0.1 if name.endswith("gradient") else 1e-2
      assert a[name] == pytest.approx(b[name], rel=near, abs=1e-3), name


@pytest.mark.parametrize(("count", "devices"), [(1, 2), (1, 4), (1, 8), (4, 8)])
def test_processes_and_devices_agree(count, devices, tmp_path, alone):
  steps_of(tmp_path, count, devices)
  close(alone, tmp_path, steps=(1, 2))


def test_two_processes_agree_and_go_on_as_one_and_as_four(
  tmp_path, alone, by_two
):
  close(alone, by_two, steps=(1, 2))
  whole, one, four = (tmp_path / x for x in ("whole", "one", "four"))
  for path, before in ((whole, alone), (one, by_two), (four, by_two)):
    shutil.copytree(before, path)
  more = "--config.total_steps=3"
  for path in (whole, one):
    assert main.main(["", *FEW_STEPS, more, f"--workdir={path}"]) == 0
  assert "continuing after step 2" in steps_of(four, 4, 8, more)
  close(whole, one, steps=(3,))
  close(whole, four, steps=(3,))


def test_four_processes_count_each_example_once():
  code = """
import jax, numpy as np
from jaxfake.data import sources
from jaxfake.runtime import devices, processes
processes.join()
_, by_batch, _ = devices.mesh_and_shardings()
gather = devices.gather_over(by_batch, 8)
for n in (1, 7, 8, 19):
  rows = sources.Rows(x=np.arange(n), y=np.arange(n) * 2)
  double, y = gather(jax.jit(lambda b: (b["x"] * 2, b["y"])), rows)
  np.testing.assert_array_equal(double, np.arange(n) * 2)
  np.testing.assert_array_equal(double, y)
print("counted")
"""
  started = start(4, code, JAX_NUM_CPU_DEVICES="2")
  assert codes(started) == [0] * 4, started[0].err
  assert all("counted" in process.out for process in started)

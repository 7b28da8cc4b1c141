"""A run that is killed, stopped, starved or spread ends as the straight one."""

import json
import os
import re
import signal
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
from places import ROOT, TESTS
import pytest
from toys import average

from jaxfake import main
from jaxfake.data import sources
from jaxfake.generators import gan, losses
from jaxfake.nn import winograd
from jaxfake.runtime import devices
from jaxfake.training import loop, task

TINY = f"--config={ROOT}/configs/dcgan.py:tiny"
# Runs main, but at step STEP does something first.
AT_STEP = """
import os, resource, signal, sys
from jaxfake import main
from jaxfake.training import loop
add = loop.Window.add
def patched(self, steps, metrics):
  if {step} in steps:
    {action}
  add(self, steps, metrics)
loop.Window.add = patched
sys.exit(main.main(sys.argv))
"""


def train(path, *flags):
  return main.main(["", TINY, f"--workdir={path}", *flags])


def train_apart(path, *flags, step=0, action="pass", **env):
  """In a process of its own, where something happens at a step."""
  code = AT_STEP.format(step=step, action=action)
  return subprocess.run(
    [sys.executable, "-c", code, TINY, f"--workdir={path}", *flags],
    capture_output=True,
    text=True,
    env=os.environ | env,
    timeout=300,
  )


def result(path):
  return json.loads((path / "result.json").read_text())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """The result of a run that nothing happened to."""
  path = tmp_path_factory.mktemp("straight")
  assert train(path) == 0
  return result(path)


def test_kill_9_twice_ends_bit_equal(tmp_path, straight):
  kill = "os.kill(os.getpid(), signal.SIGKILL)"
  for step in (3, 5):  # The second is while a checkpoint may be being written.
    done = train_apart(tmp_path, step=step, action=kill)
    assert done.returncode == -signal.SIGKILL, done.stderr
  done = train_apart(tmp_path)
  assert done.returncode == 0, done.stderr
  assert re.search(r"continuing after step [24]", done.stdout)
  assert result(tmp_path)["state_sha256"] == straight["state_sha256"]
  # No step's metrics are missing or there twice.
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  seen = [(json.loads(x)["step"], "train/g_loss" in x) for x in lines]
  assert seen == [(2, True), (3, False), (4, True), (6, True), (6, False)]


@pytest.mark.parametrize(
  ("number", "code"),
  [(signal.SIGTERM, loop.PREEMPTED), (signal.SIGINT, loop.INTERRUPTED)],
)
def test_a_signal_saves_and_leaves(
  number, code, tmp_path, straight, monkeypatch, capsys
):
  add = loop.Window.add

  def signalled(self, steps, metrics):
    add(self, steps, metrics)
    if 3 in steps:
      os.kill(os.getpid(), number)

  before = signal.getsignal(number)
  with monkeypatch.context() as patch:
    patch.setattr(loop.Window, "add", signalled)
    assert train(tmp_path) == code
  assert "saved after step 3" in capsys.readouterr().out
  assert not (tmp_path / "result.json").exists()
  assert signal.getsignal(number) is before
  assert train(tmp_path) == 0
  assert "continuing after step 3" in capsys.readouterr().out
  assert result(tmp_path)["state_sha256"] == straight["state_sha256"]


def test_a_set_gives_the_same_on_the_device_and_streamed(tmp_path, straight):
  assert train(tmp_path, "--config.data.feed=stream") == 0
  assert result(tmp_path)["state_sha256"] == straight["state_sha256"]


def test_fewer_multiplications_go_on_bit_equal(tmp_path, straight, monkeypatch):
  """As at full width on a CPU, where they pay."""
  monkeypatch.setattr(winograd, "MOVED", -np.inf)
  monkeypatch.setattr(winograd, "LEAST", -np.inf)
  assert train(tmp_path / "whole") == 0
  whole = result(tmp_path / "whole")
  assert whole["state_sha256"] != straight["state_sha256"]
  assert train(tmp_path / "parts", "--config.total_steps=3") == 0
  assert train(tmp_path / "parts") == 0
  assert result(tmp_path / "parts")["state_sha256"] == whole["state_sha256"]
  for name, value in straight["metrics"].items():
    if name.startswith("train/"):
      assert whole["metrics"][name] == pytest.approx(value, rel=1e-2), name


def test_several_steps_a_dispatch_go_on_bit_equal(
  tmp_path, straight, monkeypatch
):
  """As on GPU and TPU; chunks end at reports, and where a signal came."""
  monkeypatch.setattr(loop.xla, "steps_per_dispatch", lambda: 4)
  flags = ["--config.every.log=3", "--config.every.checkpoint=5"]
  flags += ["--config.every.preview=100", "--config.every.evaluate=100"]
  assert train(tmp_path / "whole", *flags) == 0
  whole = result(tmp_path / "whole")
  assert train(tmp_path / "parts", *flags, "--config.total_steps=2") == 0
  assert train(tmp_path / "parts", *flags) == 0
  assert result(tmp_path / "parts")["state_sha256"] == whole["state_sha256"]
  for name, value in straight["metrics"].items():
    if name.startswith("train/"):
      assert whole["metrics"][name] == pytest.approx(value, rel=0.5), name


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("stop", [0, 2, 3])
def test_a_later_step_takes_its_place(most, stop, tmp_path, monkeypatch):
  """After 3 of 4 steps one that doubles what was counted; also in a run that
  stopped before, and where the device is given several steps at once."""

  def doubling(state, batch):
    state, seen = average.step(state, batch)
    return state.replace(count=2 * state.count), seen

  def changing(*arguments, **more):
    return task.Task(*arguments, **more)._replace(later=((3, doubling),))

  monkeypatch.setattr(average, "Task", changing)
  monkeypatch.setattr(loop.xla, "steps_per_dispatch", lambda: most)
  config = f"--config={TESTS}/toys/average_config.py"
  flags = ["--config.every.log=4", f"--workdir={tmp_path}"]
  for total in filter(None, (stop, 4)):
    argv = ["", config, *flags, f"--config.total_steps={total}"]
    assert main.main(argv) == 0
  assert result(tmp_path)["metrics"]["eval/images"] == (3 * 8 + 8) * 2


def test_a_nan_stops_the_run_and_names_the_term(tmp_path, capsys):
  assert train(tmp_path, "--config.opt.lr=1e38") == 1
  error = capsys.readouterr().err
  assert re.search(r"diverged at step \d: .*\w+ = (nan|inf)", error)
  assert "Traceback" not in error
  assert not (tmp_path / "result.json").exists()


def test_a_nan_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, capsys):
  add = loop.Window.add

  def poisoned(self, steps, metrics):
    bad = {"g_loss": np.full(len(steps), np.nan)} if 5 in steps else {}
    add(self, steps, metrics | bad)

  monkeypatch.setattr(loop.Window, "add", poisoned)
  # Not at a report, so that saving must look for itself.
  late = ["--config.every.log=100", "--config.every.checkpoint=1"]
  assert train(tmp_path, *late) == 1
  assert "diverged at step 5: g_loss = nan" in capsys.readouterr().err
  _, _, state = gan.restored(tmp_path)
  assert int(state.step) == 4


def test_a_nan_of_the_update_alone_is_not_saved(tmp_path, monkeypatch, capsys):
  # Finite for the discriminator, NaN in the gradient of what it is given.
  nan = lambda judge, fake, key: jnp.sqrt(fake * 0).sum()
  bad = losses.bce._replace(generator=nan)
  monkeypatch.setitem(losses.LOSSES, "bce", bad)
  assert train(tmp_path, "--config.total_steps=1") == 1
  assert "diverged at step 1: g_gradient = nan" in capsys.readouterr().err
  assert not list((tmp_path / "checkpoints").glob("1*"))


def test_sampling_leaves_a_running_save_alone(tmp_path):
  assert train(tmp_path, "--config.total_steps=2") == 0
  half = tmp_path / "checkpoints/4.orbax-checkpoint-tmp"
  half.mkdir()
  _, _, state = gan.restored(tmp_path)
  assert int(state.step) == 2
  assert half.exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, straight):
  # No file may grow past 16 kB: to the writer that is a full disk.
  full = (
    f"while not os.path.isdir({str(tmp_path / 'checkpoints/2')!r}): pass\n"
    "    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))"
  )
  done = train_apart(tmp_path, step=4, action=full)
  assert done.returncode == 1, done.stderr
  error = done.stderr.strip().splitlines()[-1]
  assert error.startswith("jaxfake: could not save a checkpoint"), done.stderr
  assert "the last whole one is step 2" in error
  assert "Traceback" not in done.stderr
  done = train_apart(tmp_path)
  assert done.returncode == 0, done.stderr
  assert "continuing after step 2" in done.stdout
  assert result(tmp_path)["state_sha256"] == straight["state_sha256"]


def test_a_damaged_checkpoint_is_trained_again_bit_equal(
  tmp_path, straight, capsys
):
  assert train(tmp_path, "--config.total_steps=4") == 0
  for name in tmp_path.glob("checkpoints/4/default/d/*"):
    os.truncate(name, 10)
  capsys.readouterr()
  assert train(tmp_path) == 0
  said = capsys.readouterr().out
  assert len(re.findall("step 4 in .* is damaged .*step 2 instead", said)) == 1
  assert "continuing after step 2" in said
  assert result(tmp_path)["state_sha256"] == straight["state_sha256"]


def test_without_a_whole_checkpoint_a_line_says_what_to_do(tmp_path):
  assert train(tmp_path, "--config.total_steps=2") == 0
  for name in tmp_path.glob("checkpoints/2/default/d/*"):
    name.unlink()
  done = train_apart(tmp_path)
  assert done.returncode == 2
  assert "Traceback" not in done.stderr
  assert f"delete {tmp_path}/checkpoints" in done.stderr.splitlines()[-1]


def test_a_finished_run_changes_nothing(tmp_path, straight):
  for _ in range(2):
    assert train(tmp_path) == 0
    assert result(tmp_path)["state_sha256"] == straight["state_sha256"]
    assert result(tmp_path)["metrics"] == straight["metrics"]


def test_two_processes_may_not_train_in_one_folder(tmp_path, capsys):
  code = f"""
import fcntl, sys
lock = open({str(tmp_path / ".lock")!r}, "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
  other = subprocess.Popen(
    [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  other.stdout.readline()
  try:
    assert train(tmp_path) == 2
  finally:
    other.communicate()
  assert "in use by another process" in capsys.readouterr().err


def test_batch_must_divide_over_devices(tmp_path):
  done = train_apart(tmp_path, "--config.batch_size=6", JAX_NUM_CPU_DEVICES="4")
  assert done.returncode == 2
  assert "batch_size is 6: expected a multiple of the 4 devices" in done.stderr


@pytest.mark.parametrize("n", [1, 4, 7, 8])
def test_gather_counts_each_example_once(n):
  _, by_batch, _ = devices.mesh_and_shardings()
  gather = devices.gather_over(by_batch, 4)
  rows = sources.Rows(x=np.arange(n), y=np.arange(n) * 2)
  double, y = gather(jax.jit(lambda b: (b["x"] * 2, b["y"])), rows)
  np.testing.assert_array_equal(double, np.arange(n) * 2)
  np.testing.assert_array_equal(double, y)


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_steps_wait_in_the_device_than_keep_it_busy(monkeypatch, most):
  """On a CPU each that waits has its memory already."""
  monkeypatch.setattr(loop.xla, "dispatches_at_once", lambda: most)
  unfinished, counts = [], []

  class Metrics:
    def block_until_ready(self):
      unfinished.remove(self)
      return self

  def steps(state, chunk, n):
    unfinished.append(Metrics())
    counts.append(len(unfinished))
    return state + n, unfinished[-1]

  run = loop.dispatcher(steps, types.SimpleNamespace(chunk=lambda n: n))
  state = 0
  for _ in range(5):
    state, _ = run(state, 3)
  assert state == 15
  assert max(counts) == most and counts[-1] == most


def test_window_names_the_first_bad_step():
  window = loop.Window()
  window.add(range(1, 2), {"loss": np.array([1.0, np.nan])})  # One is real.
  window.add(range(2, 4), {"loss": np.array([np.inf, np.nan])})
  with pytest.raises(loop.errors.DivergedError, match="step 2: loss = inf"):
    window.settle()

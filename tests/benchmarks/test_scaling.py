"""Scaling on paper: the program, and what is made of it."""

import concurrent.futures
import multiprocessing
import os
import re
import subprocess
import sys
import types

from places import ROOT
import pytest

from jaxfake.benchmarks import scaling
from jaxfake.benchmarks.collectives import Collective

DCGAN = f"{ROOT}/configs/dcgan.py:tiny"
CHIPS = (2, 4, 8)


def compiled(chips):
  """The step, in a process whose JAX sees so many devices."""
  flags = ["--config.augment=brightness,cutout"]
  return scaling.compiled(DCGAN, flags, 4, chips)


@pytest.fixture(scope="module")
def steps():
  with concurrent.futures.ProcessPoolExecutor(
    2, multiprocessing.get_context("spawn"), max_tasks_per_child=1
  ) as pool:
    return list(pool.map(compiled, CHIPS))


def test_what_a_step_sends_is_the_same_on_any_number(steps):
  assert [s.chips for s in steps] == list(CHIPS)
  first = sorted(steps[0].sends)
  assert {x.kind for x in first} == {"all-reduce"}
  for step in steps[1:]:
    assert sorted(step.sends) == first


def test_a_step_sends_its_gradients_and_little_else(steps):
  step = steps[0]
  # The discriminator's gradient on originals and that on fakes go apart.
  networks = step.parameters
  gradients = 4 * (networks["generator"] + 2 * networks["discriminator"])
  sent = sum(x.bytes for x in step.sends)
  assert gradients <= sent < 1.1 * gradients


def test_each_device_does_its_own_part_of_the_work(steps):
  """Were the fakes of the whole batch made everywhere, this would grow."""
  flops = [s.flops for s in steps]
  assert max(flops) < 1.01 * min(flops)


# 10 or 20 GB/s between the 8 chips of a host, 1 or 4 beyond; 1 us a hop.
SYSTEM = scaling.System(
  *("test", 1e12, 8),
  inside=scaling.Speed(1e10, 2e10),
  beyond=scaling.Speed(1e9, 4e9),
  hop=1e-6,
)


@pytest.mark.parametrize(
  ("chips", "hops", "sent", "worst", "best"),
  [
    (1, 0, 0, 1e10, 2e10),
    (2, 2, 1e6, 1e10, 2e10),  # There and back; half of it twice.
    (8, 6, 1.75e6, 1e10, 2e10),
    (16, 8, 1.875e6, 1e9, 4e9),
  ],
)
def test_time_of_a_sum(chips, hops, sent, worst, best):
  send = Collective("all-reduce", 10**6)
  for count in (1, 3):
    found = SYSTEM.seconds([send] * count, chips)
    one = (hops * 1e-6 + sent / worst, hops * 1e-6 + sent / best)
    assert found == pytest.approx([count * x for x in one])


def test_gradients_may_hide_behind_arithmetic_but_batch_norm_may_not():
  large, small = Collective("all-reduce", 10**8), Collective("all-reduce", 64)
  step = scaling.Step(2, 0, {}, [large, small, small])
  slow = 2e-6 + 1e-2 + 2 * (2e-6 + 6.4e-9)
  fast, wait = 2e-6 + 5e-3, 2 * (2e-6 + 3.2e-9)
  for seconds in (1.0, 1e-3):
    worst, best = scaling.efficiency(step, SYSTEM, seconds)
    assert worst == pytest.approx(seconds / (seconds + slow))
    assert best == pytest.approx(seconds / (max(seconds, fast) + wait))


def test_a_step_here_is_the_median_of_five_after_two(monkeypatch):
  lasts = [90, 80, 5, 1, 3, 2, 4]  # Each step, by this clock.
  clock = iter([x for last in lasts for x in (0, last)])
  stopped = types.SimpleNamespace(perf_counter=lambda: next(clock))
  monkeypatch.setattr(scaling, "time", stopped)
  assert scaling.measured(DCGAN, [], 4) == 3
  assert not list(clock)


def test_the_page_is_what_the_program_prints():
  """But for the figures, which take minutes to make."""
  flags = "--images 4 --chips 2 --step-ms 2"
  done = subprocess.run(
    [sys.executable, "launch/scaling.py", "--config", DCGAN, *flags.split()],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert re.search(r"^\| .*:tiny \| 4 \| 2 \|", done.stdout, re.M)
  assert "| H100 | 2.00 |" in done.stdout
  assert "| this machine | 2.00 |" in done.stdout
  assert "a step here" not in done.stderr  # It was given.
  page = (ROOT / "launch/scaling.md").read_text()
  words = lambda text: [
    x
    for x in text.splitlines()
    if not x.startswith(("|", "python", "- One", "- This"))
  ]
  assert words(done.stdout) == words(page)

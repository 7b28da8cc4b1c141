"""One case: its processes take turns on the machine, and a row comes of it."""

from collections.abc import Callable
import contextlib
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from jaxfake import errors
from jaxfake.benchmarks import machine
from jaxfake.benchmarks.cases import CYCLE, Case

ROOT = pathlib.Path(__file__).parent.parent.parent
# Batches taken before the clock starts, by the kind of case that makes them
# ahead: more than either side keeps ready.
AHEAD = {"input": 32, "gan_sample": 2}
PRODUCTS = 3  # Turns of each side at multiplying matrices.


class Effort(NamedTuple):
  """How long to measure: rounds, seconds of a turn, PyTorch's modes."""

  rounds: int
  seconds: float
  modes: tuple[str, ...]
  matrix: dict[str, int]  # Side of the matrices by platform.


class Worker:
  """A worker's process, that answers one line at a time."""

  def __init__(self, case: Case, folder: pathlib.Path, env: dict, *side: str):
    self._log = tempfile.TemporaryFile("w+")
    self.rates, self.cpu = [], []  # Images a second; seconds an image.
    self.peak_mb, self.first_seconds = None, None
    name, *mode = side
    self.mode = " ".join(mode)
    command = [sys.executable, "-m", "jaxfake.benchmarks.worker"]
    self._process = subprocess.Popen(
      [*command, name, json.dumps(case), str(folder), *mode],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
      env=os.environ | env,
    )

  def answer(self) -> dict:
    """Raises RunError, with the end of what it said, where it has died."""
    assert self._process.stdout is not None  # A pipe.
    line = self._process.stdout.readline()
    if not line:
      self._log.seek(0)
      said = self._log.read().strip().splitlines()[-15:]
      raise errors.RunError("\n  ".join(["a benchmark's process died:", *said]))
    return json.loads(line)

  def ask(self, *question: Any) -> dict:
    with contextlib.suppress(BrokenPipeError):  # It has died: answer() tells.
      print(json.dumps(question), file=self._process.stdin, flush=True)
    return self.answer()

  def turn(self, batches: int, before: int) -> float:
    """Adds the images a second of a turn; returns its seconds."""
    self._settle()
    timing = self.ask("run", batches, before)
    self.rates.append(timing["images"] / timing["seconds"])
    if timing["cpu_seconds"] is not None:
      self.cpu.append(timing["cpu_seconds"] / timing["images"])
    self.peak_mb = timing["peak_mb"]
    return timing["seconds"]

  def _settle(self) -> None:
    """Waits until nobody of the benchmark computes: threads that spin, or fill
    what is read ahead, would slow the next."""

    def used() -> float:
      now = machine.busy(os.getpid())
      return now.ours - time.process_time() if now else 0.0

    for _ in range(100):
      before = used()
      time.sleep(0.05)
      if used() - before < 0.02:
        return

  def close(self) -> None:
    assert self._process.stdin is not None  # A pipe.
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    try:
      self._process.wait(30)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._log.close()


def environment(scratch: pathlib.Path) -> dict[str, str]:
  """Of the workers: one device, no compiled program from before."""
  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
  return {
    "PYTHONPATH": os.pathsep.join(paths),
    "CUDA_VISIBLE_DEVICES": devices[0],
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
    "TFDS_DATA_DIR": str(scratch / "tfds"),
    # Two processes share a GPU's memory.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
  }


def measure(
  name: str, case: Case, folder: pathlib.Path, effort: Effort, say: Callable
) -> dict:
  """The row of a case. Raises RunError, and ConfigError where PyTorch does not
  see the device that JAX sees."""
  env, notes = environment(folder), []
  with contextlib.ExitStack() as stack:

    def start(*side: str) -> tuple[Worker, dict]:
      worker = Worker(case, folder, env, *side)
      stack.callback(worker.close)
      about, first = worker.answer(), worker.answer()
      worker.first_seconds = first.get("first_seconds")
      return worker, about | first

    say(f"{name}: compiling ours")
    ours, about = start("ours")
    if "error" in about:
      raise errors.RunError(f"{name}: ours failed: {about['error']}")
    platform = about["platform"]
    if platform == "cpu":
      env["CUDA_VISIBLE_DEVICES"] = ""
    peers = []
    for mode in effort.modes[:1] if case.kind == "input" else effort.modes:
      say(f"{name}: starting PyTorch ({mode})")
      peer, theirs = start("peers", mode)
      if theirs["platform"] != platform:
        raise errors.ConfigError(
          f"JAX runs on {platform}, PyTorch on {theirs['platform']}: expected"
          " a PyTorch for the same device, or JAX_PLATFORMS=cpu"
        )
      if "error" in theirs:
        reason = theirs["error"].splitlines()[0]
        notes.append(f"PyTorch ({mode}) failed: {reason}")
        say(f"{name}: {notes[-1]}")
        continue
      peers.append(peer)
    if not peers:
      raise errors.RunError(f"{name}: {'; '.join(notes)}")

    workers, seconds = [ours, *peers], effort.seconds
    ahead = AHEAD.get(case.kind, 0)
    cycle = CYCLE.get(case.kind, 1)
    # At least as many as were ready, lest these be a turn.
    batches, least = {}, max(cycle, ahead)
    for worker in workers:  # A turn that does not count.
      each = worker.turn(least, ahead) / least
      wanted = max(least, math.ceil(seconds / each))
      batches[worker] = cycle * math.ceil(wanted / cycle)
      worker.rates.clear()
      worker.cpu.clear()
    say(f"{name}: measuring, {effort.rounds} rounds")
    before, then = machine.busy(os.getpid()), time.monotonic()
    for _ in range(effort.rounds):
      for worker in workers:
        worker.turn(batches[worker], ahead)
    foreign = machine.foreign_load(
      before, machine.busy(os.getpid()), time.monotonic() - then
    )
    precision, ceiling = case.precision(platform), None
    if theirs["flops_per_image"]:
      ceiling = max(
        worker.ask("multiply", precision, effort.matrix[platform])["flops"]
        for _ in range(PRODUCTS)
        for worker in (ours, peers[0])
      )
  setup = about["environment"] | {"command": " ".join(sys.argv)}
  return {
    "case": name,
    "batch": case.batch(platform),
    "size": case.size,
    "precision": precision,
    "device": setup["cpu"] if platform == "cpu" else about["device"],
    "torch": theirs["version"],
    "environment": setup,
    "foreign_load": foreign,
    "rounds": effort.rounds,
    "notes": notes,
  } | figures(ours, peers, theirs["flops_per_image"], ceiling)


def figures(
  ours: Worker,
  peers: list[Worker],
  flops: float | None,
  ceiling: float | None,
) -> dict:
  """Of rates by round: medians, their ranges, and what they are of the ceiling;
  processor time, too, which says more where others compute.

  The better of PyTorch's modes is the peer. The ratio's range is that of the
  rounds, in each of which the sides ran one after the other.
  """
  medians = {peer.mode: statistics.median(peer.rates) for peer in peers}
  peer = max(peers, key=lambda x: medians[x.mode])
  rate, peer_rate = statistics.median(ours.rates), medians[peer.mode]
  ratios = [a / b for a, b in zip(ours.rates, peer.rates, strict=True)]
  used, peer_used = (
    # None without /proc, and for turns too short for its clock.
    statistics.median(x.cpu or [0]) * 1e3 or None
    for x in (ours, peer)
  )
  of_ceiling = lambda rate: rate * flops / ceiling if ceiling else None
  return {
    "images_per_s": rate,
    "images_per_s_range": [min(ours.rates), max(ours.rates)],
    "peer_images_per_s": peer_rate,
    "peer_images_per_s_range": [min(peer.rates), max(peer.rates)],
    "ratio": rate / peer_rate,
    "ratio_range": [min(ratios), max(ratios)],
    "cpu_ms_per_image": used,
    "peer_cpu_ms_per_image": peer_used,
    "cpu_ratio": used and peer_used and peer_used / used,
    "torch_mode": peer.mode,
    "torch_modes": medians,
    "flops_per_image": flops,
    "ceiling_flops": ceiling,
    "ceiling_fraction": of_ceiling(rate),
    "peer_ceiling_fraction": of_ceiling(peer_rate),
    "compile_seconds": ours.first_seconds,
    "peer_compile_seconds": peer.first_seconds,
    "peak_mb": ours.peak_mb,
    "peer_peak_mb": peer.peak_mb,
  }

"""What Linux tells of processors and memory; None where there is no /proc."""

import contextlib
import os
import pathlib
from typing import NamedTuple

PROC = pathlib.Path("/proc")


class Busy(NamedTuple):
  """Processor seconds so far: of all processors, and of one process with all
  that it started."""

  everyone: float
  ours: float


def busy(pid: int) -> Busy | None:
  """What process `pid` and its descendants, and everyone, have used.

  What a hypervisor gave to others counts as used.
  """
  try:
    first = (PROC / "stat").read_text().split("\n", 1)[0]
    parents, used = _processes()
  except OSError:
    return None
  # user nice system idle iowait irq softirq steal; guests are in user.
  fields = [int(x) for x in first.split()[1:9]]
  everyone = sum(fields) - fields[3] - fields[4]
  family = descendants(pid, parents)
  hertz = os.sysconf("SC_CLK_TCK")
  return Busy(everyone / hertz, sum(used.get(p, 0) for p in family) / hertz)


def foreign_load(
  before: Busy | None, after: Busy | None, seconds: float
) -> float | None:
  """Processors that others kept busy meanwhile, on average; None if unknown."""
  if before is None or after is None or seconds <= 0:
    return None
  everyone = after.everyone - before.everyone
  return max(0.0, everyone - (after.ours - before.ours)) / seconds


def _processes() -> tuple[dict[int, int], dict[int, int]]:
  """The parent of each process, and its clock ticks with those of its ended
  children."""
  parents, used = {}, {}
  for place in PROC.iterdir():
    if place.name.isdigit():
      try:
        # The name, in parentheses, may hold spaces.
        rest = (place / "stat").read_text().rpartition(")")[2].split()
      except OSError:  # It has ended.
        continue
      parents[int(place.name)] = int(rest[1])
      used[int(place.name)] = sum(map(int, rest[11:15]))
  return parents, used


def descendants(pid: int, parents: dict[int, int]) -> set[int]:
  """A process and all that came of it."""
  family, latest = {pid}, {pid}
  while latest:
    latest = {p for p, parent in parents.items() if parent in latest} - family
    family |= latest
  return family


def peak_mb() -> float | None:
  """The most memory that this process has held, and beside it what the
  processes that it started hold now and share with nobody.

  Not ru_maxrss: to that a forked process has used what its parent had.
  """
  try:
    held = _kb(PROC / "self/status", "VmHWM:")
    parents = _processes()[0]
  except OSError:
    return None
  for pid in descendants(os.getpid(), parents) - {os.getpid()}:
    with contextlib.suppress(OSError):  # It has ended.
      held += _kb(PROC / str(pid) / "smaps_rollup", "Private_")
  return held / 1e3


def _kb(path: pathlib.Path, field: str) -> int:
  lines = path.read_text().splitlines()
  return sum(int(x.split()[1]) for x in lines if x.startswith(field))

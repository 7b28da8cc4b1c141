"""One side of a case in a process of its own, told what to do line by line.

    python -m jaxfake.benchmarks.worker {ours,peers} CASE FOLDER [MODE]

CASE is JSON. In come lines ["run", n, before], where `before` batches come
before the clock starts, or ["multiply", precision, n]. Out go JSON objects: the
first says what there is to run on, the second how long the first batch took, or
why there is none.
"""

from collections.abc import Sequence
import importlib.abc
import json
import os
import pathlib
import sys
import time
import types

from jaxfake.benchmarks import machine
from jaxfake.benchmarks.cases import Case
from jaxfake.runtime import xla

WARM_UP = 2  # Batches after the first.


class WithoutTorch(importlib.abc.MetaPathFinder):
  """Ours is measured as where PyTorch is not installed: scikit-learn imports it
  wherever it can."""

  def find_spec(
    self,
    name: str,
    path: Sequence[str] | None,
    target: types.ModuleType | None = None,
  ) -> None:
    if name == "torch":
      raise ModuleNotFoundError("No module named 'torch'", name=name)


def main(name: str, case: str, folder: str, *mode: str) -> None:
  # Only answers may go to the parent.
  out = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)

  def say(**answer) -> None:
    print(json.dumps(answer), file=out, flush=True)

  if name == "ours":
    sys.meta_path.insert(0, WithoutTorch())
    xla.release_after_compiling()
    from jaxfake.benchmarks import ours as side
  else:
    from jaxfake.benchmarks import peers as side
  asked = Case(*json.loads(case))
  say(**side.about(asked))
  start = time.perf_counter()
  try:
    run = side.make(asked, pathlib.Path(folder), *mode)
    run(1)
  except Exception as error:
    import traceback

    traceback.print_exc()
    say(error=f"{type(error).__name__}: {str(error).strip() or '-'}")
    return
  say(first_seconds=time.perf_counter() - start)
  run(WARM_UP)
  for line in sys.stdin:
    task, *values = json.loads(line)
    if task == "multiply":
      say(flops=side.multiply(*values))
      continue
    batches, before = values
    if before:
      run(before)
    used, start = machine.busy(os.getpid()), time.perf_counter()
    images = run(batches)
    seconds, now = time.perf_counter() - start, machine.busy(os.getpid())
    say(
      images=images,
      seconds=seconds,
      cpu_seconds=used and now and now.ours - used.ours,
      peak_mb=side.peak_mb() or machine.peak_mb(),
    )


if __name__ == "__main__":
  # For either library, where jaxfake.main does the work; jaxfake.sample and
  # jaxfake.detect leave the allocator alone.
  if Case(*json.loads(sys.argv[2])).kind not in ("gan_sample", "detect"):
    xla.tune_allocator()
  main(*sys.argv[1:])

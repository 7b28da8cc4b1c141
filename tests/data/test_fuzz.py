"""Damaged files end as a picture or an ImageError, and end no process.

1,000 changed headers and 1,000 changed bytes; ten times as many by
JAXFAKE_TESTS=whole.
"""

import os
import subprocess
import sys

from places import TESTS
import pytest

COUNT = 10_000 if os.environ.get("JAXFAKE_TESTS") == "whole" else 1000
READER = TESTS / "fuzz_reader.py"


def run(how, *folder):
  """Holds that each of COUNT files has its line, within seconds."""
  done = subprocess.run(
    [sys.executable, "-W", "ignore", READER, how, "0", str(COUNT), *folder],
    capture_output=True,
    text=True,
  )
  lines = [line.split() for line in done.stdout.splitlines()]
  last = lines[-1] if lines else "none"
  assert done.returncode == 0, f"ended after {last}: {done.stderr[-2000:]}"
  assert [int(number) for number, *_ in lines] == list(range(COUNT))
  assert {end for _, end, _ in lines} == {"picture", "error"}
  slow = [line for line in lines if float(line[2]) > 10]
  assert not slow


@pytest.mark.parametrize("how", ["headers", "bytes"])
def test_changed_samples_end_no_process(how):
  run(how)


@pytest.mark.parametrize("how", ["headers", "bytes"])
def test_changed_real_files_end_no_process(how, real_data):
  run(how, str(real_data / "field"))

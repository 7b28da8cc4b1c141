"""Whatever a decoder does to its process, its file alone has an error."""

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
from PIL import Image
from places import TESTS
import pytest

from jaxfake import data
from jaxfake.data import __main__ as command
from jaxfake.data import decoders, image_error, reading, work


def act(what):
  """What a stranger's file may do to its decoder."""
  if what == "abort":
    print("terminate called", flush=True)
    os.write(2, b"terminate called\n")
    ctypes.CDLL(None).abort()
  if what == "segv":
    ctypes.string_at(0)
  if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
  if what == "exit":
    os._exit(3)
  if what == "hang":
    time.sleep(600)
  if what == "hang in C":
    ctypes.PyDLL(None).sleep(600)  # With the GIL.
  if what == "eat":
    held = []
    while True:
      held.append(np.ones(1 << 21, np.uint8))
      time.sleep(0.001)
  if what == "gulp":
    np.ones(1 << 40, np.uint8)
  if what == "raise":
    raise ZeroDivisionError("by nought")
  if what == "refuse":
    raise image_error.ImageError("<bytes>", "is odd")
  return {"said": what, "array": np.full((500, 700), what, np.uint8)}


SAID = {
  "abort": "crashed its decoder (SIGABRT)",
  "segv": "crashed its decoder (SIGSEGV)",
  "kill": "crashed its decoder (SIGKILL)",
  "exit": "ended its decoder (exit code 3)",
  "hang": "took more than 2 s to decode",
  "hang in C": "took more than 2 s to decode",
  "eat": "needed more than 300 MB to decode",
  "gulp": "needed more than 300 MB to decode",
  "raise": "cannot be decoded: ZeroDivisionError by nought",
  "refuse": "is odd",
}


def test_a_bad_file_costs_its_own_result_alone(capfd):
  items = [x for pair in zip(SAID, range(len(SAID)), strict=True) for x in pair]
  with decoders.Pool(seconds=2, megabytes=300, workers=2) as pool:
    results = list(work.in_order(pool, act, items))
  for item, result in zip(items, results, strict=True):
    if item in SAID:
      assert isinstance(result, image_error.ImageError)
      assert (result.path, result.reason) == (item, SAID[item])
    else:
      assert result["said"] == item
      assert (result["array"] == item).all()
      result["array"][0, 0] = 1  # Its own memory, to be changed.
  assert capfd.readouterr() == ("", "")


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
  code = f"""
import os, sys
sys.path[:0] = {[str(TESTS), str(TESTS / "data")]!r}
from jaxfake.data import decoders
import test_decoders
pool = decoders.Pool(workers=1)
pool.submit(test_decoders.act, 1).result()
pool.submit(test_decoders.act, "hang")
import multiprocessing
print(*[p.pid for p in multiprocessing.active_children()], flush=True)
os.kill(os.getpid(), 9)
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
  )
  pids = done.stdout.split()
  assert done.returncode == -9 and len(pids) == 1
  end = time.monotonic() + 20
  while any(_runs(pid) for pid in pids):
    assert time.monotonic() < end
    time.sleep(0.05)


def _runs(pid):
  try:
    status = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except FileNotFoundError:
    return False
  return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_workers_do_without_jax():
  with decoders.Pool(workers=1) as pool:
    names = pool.call(_imported, "jax tensorflow_datasets")
  assert names == []


def _imported(names):
  from jaxfake.data import marks, reading  # noqa: F401

  return [x for x in names.split() if x in sys.modules]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_in_order(workers):
  with decoders.Pool(workers=workers) as pool:
    said = [x["said"] for x in work.in_order(pool, act, range(60))]
  assert said == list(range(60))


def read_or_abort(entry):
  if entry.path.endswith("bad.png"):
    ctypes.CDLL(None).abort()
  return reading.read_entry(entry)


def test_check_and_prepare_lose_one_file(tmp_path, monkeypatch, capsys):
  for split in ("train", "val", "test"):
    for label in ("NORMAL", "PNEUMONIA"):
      folder = tmp_path / "x" / split / label
      folder.mkdir(parents=True)
      Image.new("L", (30, 30), 9).save(folder / f"{split}{label}.png")
  bad = tmp_path / "x" / "train" / "NORMAL" / "bad.png"
  Image.new("L", (30, 30), 8).save(bad)
  module = types.SimpleNamespace(read_entry=read_or_abort, place=reading.place)
  monkeypatch.setattr(data, "reading", module)
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
  argv = ["chest_xray", f"--dir={tmp_path / 'x'}", "--unreadable=skip"]
  assert command.main(["check", *argv]) == 1
  said = capsys.readouterr().out
  assert f"{bad}: crashed its decoder (SIGABRT)" in said
  assert "7 images, 1 unreadable" in said
  assert command.main(["prepare", *argv]) == 0
  assert "left out as unreadable: 1" in capsys.readouterr().out

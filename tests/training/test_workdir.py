"""A run's folder: who may write there, and what a kill may leave in it."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
from places import ROOT
import pytest

from jaxfake import errors, main
from jaxfake.generators import gan
from jaxfake.runtime import disk
from jaxfake.training import loop

TINY = f"--config={ROOT}/configs/dcgan.py:tiny"
LITTER = ".DS_Store", "Thumbs.db", "desktop.ini", "._run", "Desktop.ini"
WRITING = os.O_WRONLY | os.O_RDWR


def test_litter_and_empty_folders_do_not_block(tmp_path):
  for name in LITTER:
    (tmp_path / name).write_text("x")
  (tmp_path / "checkpoints").mkdir()
  (tmp_path / "best").mkdir()
  (tmp_path / "best" / ".DS_Store").write_text("x")
  disk.Lock(tmp_path, "--workdir", "config.json").close()
  other = tmp_path / "other"
  (other / "checkpoints" / "2").mkdir(parents=True)
  (other / "checkpoints" / "2" / "weights").write_text("somebody else's")
  with pytest.raises(errors.ConfigError, match="other files, such as checkp"):
    disk.Lock(other, "--workdir", "config.json")
  assert not (other / ".lock").exists()


HOLD = """
import pathlib, sys
from jaxfake.runtime import disk
lock = disk.Lock(pathlib.Path(sys.argv[1]), "--workdir")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_start_says_who_holds_it(tmp_path, capsys):
  command = [sys.executable, "-c", HOLD, str(tmp_path), "the command's end"]
  holder = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  holder.stdout.readline()
  try:
    assert main.main(["", TINY, f"--workdir={tmp_path}"]) == 2
  finally:
    holder.communicate()
  (line,) = capsys.readouterr().err.splitlines()
  host = os.uname().nodename
  assert f"process {holder.pid} on {host} since 20" in line
  assert "the command's end" in line.replace("'\"'\"'", "'")
  assert "is in use by another process" in line


def left(path, **changes):
  """A lock file as a process that was killed leaves it."""
  holder = {
    "program": "jaxfake",
    "pid": 2**22 + 1,
    "host": os.uname().nodename,
    "since": "2026-01-02T03:04:05+00:00",
    "command": "main.py --config x",
  }
  path.mkdir(exist_ok=True)
  (path / ".lock").write_text(json.dumps(holder | changes) + "\n")


def test_what_another_host_left_is_said(tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(disk.progress, "say", said.append)
  left(tmp_path)
  disk.Lock(tmp_path, "--workdir").close()
  assert not said  # Killed here: the lock went with it.
  left(tmp_path, host="node7")
  disk.Lock(tmp_path, "--workdir").close()
  assert len(said) == 1
  assert "on node7 since 2026-01-02T03:04:05+00:00 (main.py" in said[0]
  disk.Lock(tmp_path, "--workdir").close()
  assert len(said) == 1  # That one has said so; and no more than that.
  assert (tmp_path / ".lock").read_text() == '{"program": "jaxfake"}\n'


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_what_the_file_says_counts(tmp_path, number, monkeypatch):
  def flock(*_):
    raise OSError(number, "No locks available")

  monkeypatch.setattr(disk.fcntl, "flock", flock)
  disk.Lock(tmp_path, "--workdir").close()
  waits = "print(flush=True); input()", "jaxfake"
  holder = subprocess.Popen(
    [sys.executable, "-c", *waits],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  holder.stdout.readline()
  left(tmp_path, pid=holder.pid)
  try:
    with pytest.raises(errors.ConfigError, match=f"process {holder.pid} on"):
      disk.Lock(tmp_path, "--workdir")
  finally:
    holder.communicate(b"\n")
  disk.Lock(tmp_path, "--workdir").close()


class Kills:
  """What a folder is like whenever this process changes the file system: all
  that a `kill -9` may leave. `copies` has each state once."""

  def __init__(self, folder: pathlib.Path, copies: pathlib.Path):
    self._folder, self._copies = folder, copies
    self._seen, self._on = set(), True
    sys.addaudithook(self._hook)  # For good: hooks cannot be taken away.

  def stop(self):
    self._on = False
    return sorted(self._copies.iterdir())

  def _hook(self, event, arguments):
    if not self._on or not event.startswith(("open", "os.", "shutil.")):
      return
    if threading.current_thread() is not threading.main_thread():
      return  # Orbax's, which writes what has no name yet.
    if event in ("os.listdir", "os.scandir", "os.fwalk", "os.walk"):
      return
    if str(self._folder) not in str(arguments):
      return
    self._on = False
    try:
      self._keep()
      if event == "open" and arguments[2] & WRITING:
        self._keep(pathlib.Path(os.fsdecode(arguments[0])))
    finally:
      self._on = True

  def _keep(self, torn=None):
    """Copies the folder; with `torn`, as if that file had been opened, and
    nothing been written yet."""
    copy = self._copies / f"{len(self._seen):03}"
    if self._folder.exists():
      with contextlib.suppress(shutil.Error):  # Orbax renames meanwhile.
        shutil.copytree(self._folder, copy)
    else:
      copy.mkdir(parents=True)
    if torn and torn.name != ".lock" and torn.is_relative_to(self._folder):
      (copy / torn.relative_to(self._folder)).write_bytes(b"")
    elif torn and torn.name == ".lock" and not torn.exists():
      (copy / ".lock").write_bytes(b"")
    state = tuple(
      (str(x.relative_to(copy)), x.is_file() and x.read_bytes())
      for x in sorted(copy.rglob("*"))
    )
    if state in self._seen:
      shutil.rmtree(copy)
    self._seen.add(state)


def killed_everywhere(tmp_path, command) -> list[pathlib.Path]:
  """Folders as a kill anywhere in `command(folder)` leaves them."""
  (tmp_path / "kills").mkdir()
  kills = Kills(tmp_path / "run", tmp_path / "kills")
  try:
    assert command(tmp_path / "run") == 0
  finally:
    found = kills.stop()
  return found


@pytest.fixture
def quick_runs(monkeypatch):
  """Runs in which nothing is computed twice, or only to be looked at."""
  make, compiled = gan.make, {}
  compiling, beginning = loop.compile_steps, loop.begin

  def one(fn, *arguments):
    if fn not in compiled:
      compiled[fn] = fn(*arguments)
    return compiled[fn]

  def task(*arguments):
    return make(*arguments)._replace(
      evaluate=lambda *_: {"images": 8},
      preview=lambda *_: {"preview": np.zeros((8, 8), np.uint8)},
    )

  monkeypatch.setattr(gan, "make", task)
  monkeypatch.setattr(
    loop, "compile_steps", lambda *arguments: one(compiling, *arguments)
  )
  monkeypatch.setattr(
    loop,
    "begin",  # A copy: the first step takes its memory.
    lambda *arguments: jax.tree.map(jnp.copy, one(beginning, *arguments)),
  )


def test_a_run_killed_at_any_instant_goes_on(tmp_path, capsys, quick_runs):
  def train(path):
    return main.main(["", TINY, f"--workdir={path}", "--config.total_steps=1"])

  found = killed_everywhere(tmp_path, train)
  want = json.loads((tmp_path / "run/result.json").read_text())["state_sha256"]
  early = [x for x in found if not (x / "config.json").exists()]
  assert early == found[: len(early)]
  assert any((x / "checkpoints").exists() for x in early)
  assert len(found) > len(early) > 3
  # Later ones by sample: they have what the early ones lack.
  for path in [*early, *found[len(early) :: 3], found[-1]]:
    code = train(path)
    assert code == 0, (list(path.rglob("*")), capsys.readouterr().err)
    got = json.loads((path / "result.json").read_text())["state_sha256"]
    assert got == want

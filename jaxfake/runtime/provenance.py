"""What a number was measured with: commit, versions, hardware."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def environment() -> dict:
  """Commit, versions and hardware: what a number was measured with."""
  import jax

  def git(*args):
    done = subprocess.run(
      ["git", "-C", root, *args], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None

  # Not the repository of a project that jaxfake is merely installed in.
  root = pathlib.Path(__file__).parents[2].resolve()
  commit, changed = None, None
  if (root / ".git").exists() and shutil.which("git"):
    commit = git("rev-parse", "HEAD")
    changed = bool(git("status", "--porcelain"))
  return {
    "command": " ".join(sys.argv),
    "commit": commit,
    "commit_has_changes": changed,
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "devices": [str(d.device_kind) for d in jax.devices()],
    "processes": jax.process_count(),
    "cpu": cpu_name(),
    "cpu_count": os.cpu_count(),
    "python": platform.python_version(),
    "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
  }


def cpu_name() -> str:
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor()
  names = [x.split(":", 1)[1].strip() for x in lines if "model name" in x]
  return names[0] if names else platform.machine()

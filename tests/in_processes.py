"""Starts Python code in several processes, as launch/multiprocess.sh would."""

import os
import socket
import subprocess
import sys


def start(count, code, *argv, **env):
  """Runs Python code in so many processes; returns them when all have ended."""
  with socket.socket() as s:
    s.bind(("", 0))
    address = f"localhost:{s.getsockname()[1]}"
  env |= {"JAX_NUM_PROCESSES": str(count), "JAX_COORDINATOR_ADDRESS": address}
  started = [
    subprocess.Popen(
      [sys.executable, "-c", code, *map(str, argv)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | env | {"JAX_PROCESS_ID": str(i)},
    )
    for i in range(count)
  ]
  for process in started:
    process.out, process.err = process.communicate(timeout=600)
  return started


def codes(started):
  return [process.returncode for process in started]

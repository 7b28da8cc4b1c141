"""Commands and code in processes of their own, forked from one that has
imported what they need: importing takes 3 of a tiny command's 10 seconds."""

import atexit
import functools
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile

from jaxfake.runtime import xla

# Imports, but asks JAX for no device, which would start threads. A child leaves
# the loop and goes on as if it had just been started.
SERVER = """
import json, os, runpy, sys
import jaxfake.generators.guards, jaxfake.training.loop
import matplotlib.backends.backend_agg, matplotlib.figure

for line in sys.stdin:
  if (pid := os.fork()) == 0:
    break
  code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  print(code, flush=True)
else:
  sys.exit()
job = json.loads(line)
os.chdir(job["cwd"])
for number, name in enumerate((os.devnull, job["out"], job["err"])):
  file = os.open(name, os.O_RDWR | os.O_CREAT)
  os.dup2(file, number)
  os.close(file)
sys.argv[1:] = job["argv"]
sys.path[0] = job["cwd"]
if "module" in job:
  runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
else:
  exec(job["code"])
"""


@functools.cache
def _server() -> subprocess.Popen:
  process = subprocess.Popen(
    [sys.executable, "-c", SERVER],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    # Or `main` would start itself again, to be told of these.
    env=os.environ | {"GLIBC_TUNABLES": xla.TUNABLES},
  )
  atexit.register(process.kill)
  return process


def _run(argv: tuple, cwd: pathlib.Path | None, timeout: float, **what: str):
  server = _server()
  with tempfile.TemporaryDirectory() as folder:
    out, err = (f"{folder}/{name}" for name in ("out", "err"))
    job = what | {"argv": [*map(str, argv)], "cwd": str(cwd or os.getcwd())}
    print(json.dumps(job | {"out": out, "err": err}), file=server.stdin)
    server.stdin.flush()
    if not select.select([server.stdout], [], [], timeout)[0]:
      server.kill()
      _server.cache_clear()
      raise subprocess.TimeoutExpired(argv, timeout)
    code = int(server.stdout.readline())
    said = [pathlib.Path(x).read_text() for x in (out, err)]
  return subprocess.CompletedProcess(argv, code, *said)


def command(module: str, *argv: str, cwd=None, timeout: float = 900):
  """`python -m module argv`, as subprocess.run gives it."""
  return _run(argv, cwd, timeout, module=module)


def code(text: str, *argv: str, cwd=None, timeout: float = 900):
  """`python -c text argv`, as subprocess.run gives it."""
  return _run(argv, cwd, timeout, code=text)

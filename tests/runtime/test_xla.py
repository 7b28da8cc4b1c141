"""What the process and the compiler are told, and where compiled programs are
kept."""

import functools
import json
import os
import pathlib
import platform as stdlib_platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.runtime import xla


def processor(monkeypatch, text):
  def read(path, *args):
    assert str(path) == "/proc/cpuinfo"
    if text is None:
      raise FileNotFoundError(path)
    return text

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, "read_text", read)
    return xla._processor()


def test_processors_of_other_instructions_share_no_compiled_programs(
  monkeypatch,
):
  """A program compiled for AVX-512 ends another processor's run by SIGILL."""
  one = "processor: 0\nmodel name: A\nflags\t\t: fpu avx2\n" * 2
  same_instructions = one.replace("model name: A", "model name: B")
  other = one.replace("avx2", "avx2 avx512f")
  arm = "Features\t: fp asimd\n"
  found = [
    processor(monkeypatch, x)
    for x in (one, same_instructions, other, arm, None)
  ]
  assert found[0] == found[1]
  assert len(set(found)) == 4


def test_options_are_refused_quietly(monkeypatch):
  def jit(*args, compiler_options):
    raise jax.errors.JaxRuntimeError(f"No such option: {compiler_options}")

  probe = functools.partial(
    xla._accepted.__wrapped__, "xla_backend_optimization_level", 0
  )
  assert probe() == xla.run_once_options() != {}
  assert jax.jit(jnp.sin, compiler_options=probe())(0.0) == 0
  with monkeypatch.context() as patch:
    patch.setattr(jax, "jit", jit)
    assert probe() == {}
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert probe() == {}


def test_a_program_starts_again_with_its_allocator_set():
  program = (
    "import os, sys, jaxfake.runtime.xla;"
    "jaxfake.runtime.xla.tune_allocator();"
    "assert 'jax' not in sys.modules;"
    "print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:], os.getpid())"
  )
  command = [sys.executable, "-c", program, "a b", "--c"]
  others = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}

  def said(**env):
    process = subprocess.Popen(
      command, env=others | env, stdout=subprocess.PIPE, text=True
    )
    return process.communicate()[0].strip(), process.pid

  glibc = stdlib_platform.libc_ver()[0] == "glibc"
  set_to = xla.TUNABLES if glibc else None
  out, pid = said()  # One process to whoever started it.
  assert out == f"{set_to} ['a b', '--c'] {pid}"
  theirs = "glibc.malloc.perturb=0"
  out, pid = said(GLIBC_TUNABLES=theirs)
  assert out == f"{theirs} ['a b', '--c'] {pid}"


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is one")
@pytest.mark.parametrize(
  ("platforms", "command"),
  [
    ("cuda", "main --config configs/dcgan.py:tiny --workdir FOLDER/run"),
    ("no", "main --config configs/dcgan.py:tiny --workdir FOLDER/run"),
    ("cuda", "sample --workdir FOLDER --count 1 --out FOLDER/out"),
    ("cuda", "detect FOLDER/x.png --model FOLDER"),
  ],
)
def test_a_device_that_is_not_there_is_a_line(platforms, command, tmp_path):
  (tmp_path / "x.png").write_bytes(b"")
  told = {"config": {"task": "classifier"}}
  (tmp_path / "result.json").write_text(json.dumps(told))
  words = f"jaxfake.{command}".replace("FOLDER", str(tmp_path)).split()
  done = subprocess.run(
    [sys.executable, "-m", *words],
    env=os.environ | {"JAX_PLATFORMS": platforms},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert f"JAX_PLATFORMS is {platforms!r}" in line
  assert {x.name for x in tmp_path.iterdir()} == {"x.png", "result.json"}


def test_an_option_that_cannot_be_is_a_line(tmp_path):
  argv = ["--config=configs/dcgan.py:tiny", f"--workdir={tmp_path}/run"]
  done = subprocess.run(
    [sys.executable, "-m", "jaxfake.main", *argv],
    env=os.environ | {"JAX_NUM_CPU_DEVICES": "many"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert "many" in line and "jax_num_cpu_devices" in line


def test_memory_is_released_after_compiling_what_is_large(monkeypatch):
  released = []
  monkeypatch.setattr(xla, "release_memory", lambda: released.append(1))
  xla.release_after_compiling()
  monkeypatch.setattr(xla, "LARGE_PROGRAM", np.inf)
  jax.jit(lambda x: jnp.cos(x) + 1)(1.0)
  assert not released
  monkeypatch.setattr(xla, "LARGE_PROGRAM", 0)
  jax.jit(lambda x: jnp.cos(x) + 2)(1.0)
  assert released


def test_waiting_lasts_until_memory_is_free(monkeypatch):
  """On CPU a moment longer than until the result is there."""
  happened = []
  monkeypatch.setattr(xla.time, "sleep", happened.append)

  class Result:
    def block_until_ready(self):
      happened.append("ready")
      return self

  xla.wait({"loss": Result()})
  assert happened[0] == "ready" and 0 < happened[1] < 0.01
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  xla.wait({"loss": Result()})
  assert happened[2:] == ["ready"]

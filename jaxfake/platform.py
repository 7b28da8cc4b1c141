"""Settings of the compiler and of the process for the machine we run on.

Importing this imports no JAX, so that `main` can set the allocator before.
"""

import ctypes
import functools
import hashlib
import logging
import os
import pathlib

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def compiler_options() -> dict[str, str]:
  """Options for `jax.jit` or `.compile()`; for an outermost program only.

  On CPU they return convolutions to Eigen from YNNPACK, where jaxlib 0.10
  sends them, but leave it the sums. On two Zen 3 cores, GFLOP/s of a 3x3
  convolution of 64 channels: 84 becomes 150, and its gradients' 40 become 140.
  On other backends, and where jaxlib does not know them, there are none.
  """
  return _accepted(
    "xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE"
  )


def jit(fn):
  """`jax.jit` with `compiler_options`."""
  import jax

  return jax.jit(fn, compiler_options=compiler_options())


def run_once_options() -> dict[str, int]:
  """Options for a program that runs once, so that optimising it is a waste.

  On two CPU cores the initialisation of a DCGAN, random bits above all, takes
  20 seconds to compile with XLA's usual passes and 1.3 without.
  """
  return _accepted("xla_backend_optimization_level", 0)


def steps_per_dispatch() -> int:
  """How many steps the device may be given at once.

  On GPU and TPU enough that the host's work vanishes beside theirs. On CPU one:
  there XLA sends convolutions inside a loop to code that is 20 times slower
  (jaxlib 0.10.2, DCGAN at 64 px: 5.5 s a step and not 0.26), and a step is
  long enough.
  """
  import jax

  return 1 if jax.default_backend() == "cpu" else 32


def resident_bytes() -> int:
  """How many bytes of images may stay on the device: on CPU 1 GB, elsewhere a
  quarter of its memory."""
  import jax

  memory = jax.local_devices()[0].memory_stats() or {}
  return memory.get("bytes_limit", 2**32) // 4


@functools.cache
def _accepted(option: str, value: str | int) -> dict:
  """{option: value} on CPU, unless this jaxlib does not know them."""
  import jax

  if jax.default_backend() != "cpu":
    return {}
  options = {option: value}
  try:
    jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
  except jax.errors.JaxRuntimeError as e:  # No such option, or no such value.
    logging.getLogger(__name__).info(
      "Slower than need be: jaxlib refused %s: %s", options, e
    )
    return {}
  return options


def cache_compiled() -> None:
  """Keeps compiled programs on disk, for other runs of the same network.

  In JAX_COMPILATION_CACHE_DIR, else below XDG_CACHE_HOME/jaxfake or
  ~/.cache/jaxfake, in a folder for each kind of processor: hosts may share a
  home, and code for the one may hold instructions that the other lacks. Call it
  before anything is compiled.
  """
  import jax

  if jax.config.jax_compilation_cache_dir is None:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = pathlib.Path(caches).expanduser() / "jaxfake" / _processor()
    jax.config.update("jax_compilation_cache_dir", str(path))


def _processor() -> str:
  """A name for the instructions that this machine's processor has."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  sets = [x for x in lines if x.startswith(("flags", "Features"))]
  text = os.uname().machine + "".join(sets[:1])
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def tune_allocator() -> bool:
  """Has malloc keep the memory it was given back; returns whether it will.

  XLA on CPU takes what a step needs from malloc and frees it after: for DCGAN
  at 64 px and batch 64, 250 MB in 65,000 pages for the kernel to clear anew.
  Keeping them saves 7 % of the step's processor time. Call it before JAX is
  imported. The process then holds on to the most it has used. Without glibc,
  as on macOS or Alpine, this does nothing and returns False.
  """
  libc = ctypes.CDLL(None)
  if not hasattr(libc, "gnu_get_libc_version"):
    return False
  # One heap for all threads, no mapping beside it, none of it given back.
  settings = (M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)
  return all([libc.mallopt(*setting) for setting in settings])

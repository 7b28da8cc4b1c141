"""Settings of the compiler and of the process for the machine we run on.

Importing this imports no JAX, so that `main` can set the allocator before.
"""

from collections.abc import Callable
import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

from jaxfake import errors

if TYPE_CHECKING:
  import jax

TUNABLES = ":".join(
  f"glibc.malloc.{name}={value}"
  for name, value in {
    "arena_max": 1,  # One heap for all threads,
    "mmap_max": 0,  # no mapping beside it,
    "trim_threshold": 2**62,  # none of it given back,
    "hugetlb": 1,  # in transparent huge pages,
    "tcache_count": 0,  # whose pieces join again when they are free.
  }.items()
)

LARGE_PROGRAM = 0.5  # Seconds of compiling that are worth the release.


def require_devices() -> None:
  """Raises ConfigError where JAX has none of the devices that the environment
  asks for. After jax.distributed.initialize, which must come first."""
  import jax

  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    asked = os.environ.get("JAX_PLATFORMS", "")
    text = (
      " ".join(str(error).split()).split(" (set JAX_PLATFORMS")[0].rstrip(".")
    )
    raise errors.ConfigError(
      f"JAX_PLATFORMS is {asked!r}: JAX finds no such device"
      f" ({text or 'none of that platform'}). Unset it to take what there is,"
      " or install JAX for it: pip install 'jaxfake[cuda]' or 'jaxfake[tpu]'"
    ) from error


def compiler_options() -> dict[str, str | bool]:
  """Options for `jax.jit` or `.compile()`; for an outermost program only.

  On CPU they return convolutions to Eigen from YNNPACK, where jaxlib 0.10
  sends them, but leave it the sums. On two Zen 3 cores, GFLOP/s of a 3x3
  convolution of 64 channels: 84 becomes 150, and its gradients' 40 become 140.
  On other backends, and where jaxlib does not know them, there are none.
  """
  return _accepted(
    "xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE"
  )


def jit(fn: Callable) -> Callable:
  """`jax.jit` with `compiler_options`."""
  import jax

  return jax.jit(fn, compiler_options=compiler_options())


def run_once_options() -> dict[str, str | bool]:
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


def cond(predicate: "jax.Array", this: Callable, that: Callable) -> Any:
  """`lax.cond` of two functions of nothing; on CPU both are computed.

  There XLA has slow convolutions in a branch as in a loop: the penalised
  gradient of two 3x3 convolutions, 48 channels of 32 x 32 pixels, 16 images,
  takes 3.7 s of processor time and not 0.085 (jaxlib 0.10.2, two EPYC cores
  shared with others). Left out at 15 of 16 steps it would still cost more.
  """
  import jax

  if jax.default_backend() != "cpu":
    return jax.lax.cond(predicate, this, that)
  choose = lambda a, b: jax.numpy.where(predicate, a, b)
  return jax.tree.map(choose, this(), that())


def dispatches_at_once() -> int:
  """How many programs the device may hold, the one that it works on included.

  On GPU and TPU two, so that it need not wait for the host. On CPU one: there
  every program that waits has its memory already (115 MB for `cnn` at 96 px and
  batch 32), and starting the next takes well under a millisecond.
  """
  import jax

  return 1 if jax.default_backend() == "cpu" else 2


def wait(result: Any) -> None:
  """Returns when a program has ended and its memory may be used again.

  On CPU its result is there some microseconds before a thread frees the rest,
  of which no event tells. The next step's memory would not wait for it: nine
  of eleven runs of the 64 px DCGAN then held it twice, 1.25 GB and not 0.98.
  """
  import jax

  jax.block_until_ready(result)
  if jax.default_backend() == "cpu":
    time.sleep(1e-3)


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
  before anything is compiled. Raises ConfigError where the environment sets one
  of JAX's options to what it cannot be.
  """
  try:
    import jax
  except ValueError as error:
    raise errors.ConfigError(f"JAX cannot be imported: {error}") from error

  if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
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


def tune_allocator() -> None:
  """Starts this program again where glibc's malloc is not told to keep what it
  is given back, in huge pages; does nothing without glibc.

  XLA on CPU takes the memory of a step from malloc in one piece and frees it
  after: 2.1 GB for ResNet-50 at 224 px and batch 16, half a million pages for
  the kernel to clear at every step. Kept and in huge pages that step took 3.5 s
  and not 4.2. Without glibc's small caches for threads the process mostly stays
  at 3.2 GB; with them a crumb at the end of the piece is put away, the next
  piece does not fit into what is left, and it grows to 5 or 7.

  Only the environment of a new process can say all that, so call it first. What
  GLIBC_TUNABLES says already is left as it is. Programs that this one starts
  are told the same.
  """
  glibc = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
  if glibc and "GLIBC_TUNABLES" not in os.environ:
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@functools.cache
def release_after_compiling() -> None:
  """Has malloc give back what it keeps whenever something large was compiled:
  that takes hundreds of MB, in pieces that a step's arrays do not fit into."""
  import jax

  def release(event: str, duration_secs: float, **_) -> None:
    compiled = event.endswith("/backend_compile_duration")
    if compiled and duration_secs > LARGE_PROGRAM:
      release_memory()

  jax.monitoring.register_event_duration_secs_listener(release)


def release_memory() -> None:
  """Has malloc, where it is glibc's, give back what it keeps."""
  libc = ctypes.CDLL(None)
  if hasattr(libc, "malloc_trim"):
    libc.malloc_trim(0)

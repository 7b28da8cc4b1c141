"""What the tests share: where data is, and a place for what is prepared."""

import gc
import os
import pathlib
import tempfile

import pytest

from jaxfake.runtime import processes

# A worker holds millions of objects that stay.
gc.set_threshold(*processes.GARBAGE)

# Before any test imports JAX, and for the processes that tests start, pytest's
# workers among them: data sets are prepared once, and the same tiny programs
# compiled once.
if "PYTEST_XDIST_WORKER" not in os.environ:
  _cache = tempfile.TemporaryDirectory(prefix="jaxfake-tests-")
  os.environ["TFDS_DATA_DIR"] = f"{_cache.name}/tfds"
  os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_cache.name}/xla"
os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Programs here run a few steps, and most of the time goes into compiling them.
# Without optimising, without MLIR's kernels for fused loops and in one piece, a
# step of the tiny WGAN-GP takes 3 s of processor time to compile; 10 with MLIR
# and in pieces (jaxlib 0.10.2).
os.environ["XLA_FLAGS"] = " ".join(
  (
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
  )
)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
  """The folder of real radiographs, where there is one.

  Beside them it has hostile_files/, broken and odd files of public collections,
  and field/, small cases built after public bug reports, with right answers.
  """
  if "JAXFAKE_DATA" not in os.environ:
    pytest.skip("JAXFAKE_DATA is not set: no real radiographs to test with")
  return pathlib.Path(os.environ["JAXFAKE_DATA"])


# The files that take longest, the longest first: begun last, one would keep a
# single core busy at the end.
LONGEST = (
  "test_generators.py",
  "test_readme.py",
  "test_forensic.py",
  "test_processes.py",
  "test_slurm.py",
  "test_bench.py",
  "test_study.py",
  "test_docs.py",
  "test_contracts.py",
  "test_sweep_slurm.py",
  "test_latent_diffusion.py",
  "test_gan.py",
  "test_cyclegan.py",
  "test_loop.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  place = {name: i for i, name in enumerate(LONGEST)}
  items.sort(key=lambda item: place.get(item.path.name, len(place)))

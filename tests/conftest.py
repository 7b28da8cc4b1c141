"""What the tests share: where data is, and a place for what is prepared."""

import os
import pathlib
import tempfile

import pytest

# Before any test imports JAX, and for the processes that tests start, pytest's
# workers among them: data sets are prepared once, and the same tiny programs
# compiled once.
if "PYTEST_XDIST_WORKER" not in os.environ:
  _cache = tempfile.TemporaryDirectory(prefix="jaxfake-tests-")
  os.environ["TFDS_DATA_DIR"] = f"{_cache.name}/tfds"
  os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_cache.name}/xla"
os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
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

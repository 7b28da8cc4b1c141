"""Settings of the process and the compiler for this machine.

Nothing here imports JAX when it is itself imported, so that `main` can set the
allocator first.
"""

import ctypes
import functools
import logging
import os


def compiler_options() -> dict[str, str]:
  """Options for `jax.jit` or `.compile()`, of a program that is run directly.

  On CPU they take convolutions back from YNNPACK, where jaxlib 0.10 sends
  them, to Eigen, but leave it the sums. On two Zen 3 cores a 3x3 convolution
  of 64 channels goes from 84 to 150 GFLOP/s, its gradients from 40 to 140.
  Elsewhere, and for a jaxlib that does not know them, there are none.
  """
  return dict(_compiler_options())


@functools.cache
def _compiler_options() -> dict[str, str]:
  import jax

  if jax.default_backend() != "cpu":
    return {}
  options = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"
  }
  try:
    jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
  except jax.errors.JaxRuntimeError as e:
    logging.getLogger(__name__).info(
      "This jaxlib refuses %s, so convolutions may be slow: %s", options, e
    )
    return {}
  return options

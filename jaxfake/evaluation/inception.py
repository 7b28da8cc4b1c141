"""The feature space of the literature's FID and KID.

Heusel et al., 2017, arXiv:1706.08500; Binkowski et al., 2018, arXiv:1801.01401.
Pictures are enlarged and scaled as in the former's program, and so in
torch-fidelity. pytorch-fid enlarges them in another way.
"""

from collections.abc import Callable
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake.models import fid_inception
from jaxfake.models.weights import fid_weights
from jaxfake.runtime import xla


def extractor(path: str | os.PathLike) -> Callable:
  """uint8 images (b, s, s, 1) to float32 features (b, 2048), by the published
  weights in a file. Raises DataError where the file is another."""
  network, variables = fid_inception.FIDInception(), fid_weights.load(path)

  @xla.jit
  def forward(variables, images):
    x = enlarged(images.astype(jnp.float32), fid_inception.SIZE)
    x = (x - 128) / 128
    with jax.default_matmul_precision("highest"):  # Not TF32 or bfloat16.
      return network.apply(variables, x.repeat(3, -1))

  return functools.partial(forward, jax.device_put(variables))


def enlarged(x: jax.Array, size: int) -> jax.Array:
  """Images (b, h, w, c) by bilinear interpolation to (b, size, size, c).

  As TensorFlow 1 did: pixel i of the result is at i * h / size of the image,
  without a shift of half a pixel, and nothing is smoothed before.
  """
  for axis in (2, 1):
    n = x.shape[axis]
    at = np.arange(size, dtype=np.float32) * np.float32(n / size)
    low = at.astype(np.int32)
    high = np.minimum(low + 1, n - 1)
    share = jnp.expand_dims(at - low, (0, 3 - axis, 3))
    a, b = x.take(low, axis), x.take(high, axis)
    x = a + (b - a) * share
  return x

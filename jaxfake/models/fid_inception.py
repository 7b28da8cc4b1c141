"""The Inception-v3 of the literature's FID: Heusel et al., 2017.

arXiv:1706.08500 takes TensorFlow's network of December 2015, which has 1,008
outputs. What differs from inception_v3 beside the weights: the last block takes
the maximum of 3 x 3 pixels where the other blocks take the mean, and batch norm
has a scale. The head is left out, for FID and KID are of what it reads.
"""

import functools

from flax import linen as nn
import jax

from jaxfake.models import inception_v3
from jaxfake.nn import pool

SIZE = 299  # Pixels a side.


def largest(x: jax.Array) -> jax.Array:
  return pool.max_pool(x, (3, 3), (1, 1), "SAME")


class FIDInception(nn.Module):
  """Images (b, 299, 299, 3) from -1 to 1 to float32 features (b, 2048)."""

  @nn.compact
  def __call__(self, x: jax.Array):
    chain = functools.partial(
      inception_v3.convolve, train=False, dtype=None, scale=True
    )
    return inception_v3.body(x, chain, largest)

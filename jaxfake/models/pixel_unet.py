"""The body of networks that say something of each pixel: a small U-Net
(Ronneberger et al., 2015, arXiv:1505.04597).

Squares of 2 x 2 pixels are channels of one, for it works at half the size: a
fifth of the time, and no pixel is left out.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers, windows

LEVELS = 3  # Sizes that it works at, each half of the one before.
PATCH = 2, 2
MULTIPLE = 2**LEVELS  # Of the sides that it takes, in pixels.
# Pixels around one that its values depend on, at most: of the convolutions at
# each size, which are on 2 x 2, 4 x 4 and 8 x 8 pixels.
REACH = 38


def values(
  network: nn.Module, x: jax.Array, count: int, *, train: bool
) -> jax.Array:
  """So many values of each pixel, float32 (b, h, w, count), of x (b, h, w, c),
  sides in MULTIPLE; by the `width`, channels at the first size and doubled at
  each after it, and the `dtype` of a network, whose layers these become."""

  def unit(x, level, name, stride=1):
    """Convolution, batch norm and ReLU."""
    x = conv.Conv(
      network.width << level,
      (3, 3),
      (stride, stride),
      use_bias=False,
      dtype=network.dtype,
      name=f"{name}_conv",
    )(x)
    norm = layers.batch_norm(train, dtype=network.dtype, name=f"{name}_bn")
    return nn.relu(norm(x))

  x = windows.blocks(x, PATCH, 1)  # (b, h/2, w/2, 4 c)
  x = unit(unit(x, 0, "down0_1"), 0, "down0_2")
  skips = []
  for level in range(1, LEVELS):
    skips.append(x)
    x = unit(x, level, f"down{level}_1", stride=2)
    x = unit(x, level, f"down{level}_2")
  for level in reversed(range(LEVELS - 1)):
    x = x.repeat(2, 1).repeat(2, 2)
    x = jnp.concatenate([x, skips.pop()], -1)
    x = unit(x, level, f"up{level}")
  dense = functools.partial(conv.Conv, kernel_size=(1, 1), dtype=network.dtype)
  x = windows.wide(dense(PATCH[0] * PATCH[1] * count, name="head")(x))
  return windows.unblocked(x, PATCH, 1)  # (b, h, w, count)

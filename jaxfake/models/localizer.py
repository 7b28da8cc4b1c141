"""A network that says of each pixel whether it was altered: a U-Net
(Ronneberger et al., 2015, arXiv:1505.04597) that reads the residuals of
high-pass filters beside the gray values, as Zhou et al. (2018,
arXiv:1805.04953) do.

Squares of 2 x 2 pixels are channels of one, for the network works at half the
size: a fifth of the time, and no pixel is left out.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.models import residual
from jaxfake.nn import conv, layers, windows

LEVELS = 3  # Sizes that the network works at, each half of the one before.
PATCH = 2, 2
MULTIPLE = 2**LEVELS  # Of the sides that it takes, in pixels.
# Pixels around one that its logit depends on, at most: 2 of the filters, and of
# the convolutions at each size, which are on 2 x 2, 4 x 4 and 8 x 8 pixels.
REACH = 40


class Localizer(nn.Module):
  """Gray levels float32 (b, h, w, 1), sides in MULTIPLE, to the float32 logits
  (b, h, w) of an altered pixel."""

  width: int  # Channels at the first size; doubled at each after it.
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    def unit(x, level, name, stride=1):
      """Convolution, batch norm and ReLU."""
      x = conv.Conv(
        self.width << level,
        (3, 3),
        (stride, stride),
        use_bias=False,
        dtype=self.dtype,
        name=f"{name}_conv",
      )(x)
      norm = layers.batch_norm(train, dtype=self.dtype, name=f"{name}_bn")
      return nn.relu(norm(x))

    residuals = residual.noise(x) / residual.TRUNCATED
    x = jnp.concatenate([x / 127.5 - 1, residuals], -1)  # (b, h, w, 4)
    x = windows.blocks(x, PATCH, 1)  # (b, h/2, w/2, 16)
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
    dense = functools.partial(conv.Conv, kernel_size=(1, 1), dtype=self.dtype)
    x = windows.wide(dense(PATCH[0] * PATCH[1], name="head")(x))
    return windows.unblocked(x, PATCH, 1)[..., 0]  # (b, h, w)

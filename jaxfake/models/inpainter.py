"""The networks that learn to fill a region: a U-Net and a PatchGAN, after Isola
et al., 2017, arXiv:1611.07004.

The U-Net has no norms and ELUs, and enlarges by repeating pixels, as Yu et al.
(2018, arXiv:1801.07892, section 3) do: a norm takes away how bright the
surroundings are, which the fill has to meet.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.models import cyclegan
from jaxfake.nn import conv, windows

SIZES, PATCHES = cyclegan.SIZES, cyclegan.PATCHES
SMALLEST = 4  # Pixels a side where the U-Net sees the whole window at once.
MOST = 8  # Times the width: channels at the most, as the paper's.


class Generator(nn.Module):
  """A picture (b, s, s, 1) in [-1, 1], what to fill of it (b, s, s, 1), 1 there
  and 0 elsewhere, and noise alike, to float32 (b, s, s, 1) in [-1, 1].

  What is to be filled is not seen. s is a power of two.
  """

  width: int  # At the largest map.
  dtype: jax.typing.DTypeLike | None = None  # Of the arithmetic.

  @nn.compact
  def __call__(self, image: jax.Array, mask: jax.Array, noise: jax.Array):
    def unit(x, times, side=3, stride=1):
      width = min(times, MOST) * self.width
      return nn.elu(
        conv.Conv(width, (side, side), (stride, stride), dtype=self.dtype)(x)
      )

    x = jnp.concatenate([seen(image, mask), noise * mask], -1)  # (b, s, s, 3)
    x = unit(x, 1)
    skips, times = [], 1
    while x.shape[1] > SMALLEST:
      skips.append(x)
      times *= 2
      x = unit(x, times, side=4, stride=2)
    x = unit(x, times)  # (b, 4, 4, w)
    while skips:
      times //= 2
      x = x.repeat(2, 1).repeat(2, 2)
      x = unit(jnp.concatenate([x, skips.pop()], -1), times)
    return jnp.tanh(windows.wide(conv.Conv(1, (3, 3), dtype=self.dtype)(x)))


class Discriminator(nn.Module):
  """A picture, what was filled of it, and the picture filled, or never altered,
  (b, s, s, 1) each, to scores (b, h, w), higher for real, each of a patch."""

  width: int
  halvings: int
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, image: jax.Array, mask: jax.Array, filled: jax.Array):
    x = jnp.concatenate([seen(image, mask), filled], -1)
    return cyclegan.Discriminator(self.width, self.halvings, self.dtype)(x)


def seen(image: jax.Array, mask: jax.Array) -> jax.Array:
  """What both networks see of a picture: (b, s, s, 2), itself where it is not
  to be filled, and where it is."""
  return jnp.concatenate([image * (1 - mask), mask], -1)


def check(model: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `model`."""
  errors.check_choice("model.patch", model.patch, PATCHES)
  if model.width < 1:
    raise errors.ConfigError(
      f"model.width is {model.width}: expected at least 1"
    )


def networks(
  model: contracts.Config, dtype: jax.typing.DTypeLike | None = None
) -> tuple[Generator, Discriminator]:
  """Of a config's `model` part. Parameters and what they return are float32
  whatever the `dtype`."""
  return (
    Generator(model.width, dtype),
    Discriminator(model.width, PATCHES[model.patch], dtype),
  )

"""The networks of a CycleGAN: Zhu et al., 2017, arXiv:1703.10593, section 7.2.

Every norm is an instance norm without gain and bias (Ulyanov et al., 2016,
arXiv:1607.08022), as in the authors' code, so that an image goes through a
network by itself whatever else is in its batch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.models import dcgan
from jaxfake.nn import conv, windows

SIZES = dcgan.SIZES
# Pixels a side that one of a discriminator's answers depends on, by how many
# times it halves the picture.
PATCHES = {16: 1, 34: 2, 70: 3}
ONE = ((1, 1), (1, 1))  # Pixels around.


class Generator(nn.Module):
  """Images (b, s, s, c) in [-1, 1] to others alike."""

  width: int  # At the largest map.
  blocks: int
  channels: int = 1
  dtype: jax.typing.DTypeLike | None = None  # Of the arithmetic.

  @nn.compact
  def __call__(self, x: jax.Array):
    x = self.convolve(reflected(x, 3), self.width, 7)
    x = self.normed(x)
    for times in (2, 4):
      x = self.normed(self.convolve(x, times * self.width, 3, 2, ONE))
    for _ in range(self.blocks):  # (b, s/4, s/4, 4 * width)
      y = self.normed(self.convolve(reflected(x, 1), x.shape[-1], 3))
      y = self.convolve(reflected(y, 1), x.shape[-1], 3)
      x = x + instance_norm(y, self.dtype)
    for times in (2, 1):
      up = conv.ConvTranspose(
        times * self.width,
        (3, 3),
        strides=(2, 2),
        use_bias=False,
        dtype=self.dtype,
        kernel_init=dcgan.normal,
      )
      x = self.normed(up(x))
    x = self.convolve(reflected(x, 3), self.channels, 7, use_bias=True)
    return jnp.tanh(windows.wide(x))

  def convolve(
    self,
    x: jax.Array,
    width: int,
    side: int,
    stride: int = 1,
    padding: windows.Padding = "VALID",
    use_bias: bool = False,
  ) -> jax.Array:
    return conv.Conv(
      width,
      (side, side),
      strides=(stride, stride),
      padding=padding,
      use_bias=use_bias,  # Of no effect before a norm.
      dtype=self.dtype,
      kernel_init=dcgan.normal,
    )(x)

  def normed(self, x: jax.Array) -> jax.Array:
    return nn.relu(instance_norm(x, self.dtype))


class Discriminator(nn.Module):
  """Images (b, s, s, c) to scores (b, h, w), higher for real, each of a patch:
  a PatchGAN (Isola et al., 2017, arXiv:1611.07004, section 3.2.2)."""

  width: int  # After the first convolution.
  halvings: int
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array):
    for i in range(self.halvings + 1):
      stride = 2 if i < self.halvings else 1
      x = self.convolve(x, min(2**i, 8) * self.width, stride, use_bias=i == 0)
      if i:
        x = instance_norm(x, self.dtype)
      x = nn.leaky_relu(x, 0.2)
    return windows.wide(self.convolve(x, 1, 1, use_bias=True)[..., 0])

  def convolve(
    self, x: jax.Array, width: int, stride: int, use_bias: bool
  ) -> jax.Array:
    return conv.Conv(
      width,
      (4, 4),
      strides=(stride, stride),
      padding=ONE,
      use_bias=use_bias,
      dtype=self.dtype,
      kernel_init=dcgan.normal,
    )(x)


def reflected(x: jax.Array, n: int) -> jax.Array:
  """(b, h, w, c) with n pixels more on each side, mirrored at the border."""
  return jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)), "reflect")


def instance_norm(
  x: jax.Array, dtype: jax.typing.DTypeLike | None
) -> jax.Array:
  """Each channel of each image with mean 0 and variance 1."""
  return nn.InstanceNorm(use_bias=False, use_scale=False, dtype=dtype)(x)


def check(model: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `model`."""
  errors.check_choice("model.patch", model.patch, PATCHES)
  for name in ("width", "blocks"):
    if model[name] < 1:
      raise errors.ConfigError(
        f"model.{name} is {model[name]}: expected at least 1"
      )


def networks(
  model: contracts.Config, dtype: jax.typing.DTypeLike | None = None
) -> tuple[Generator, Discriminator]:
  """Of a config's `model` part. Parameters and what they return are float32
  whatever the `dtype`."""
  return (
    Generator(model.width, model.blocks, model.channels, dtype),
    Discriminator(model.width, PATCHES[model.patch], dtype),
  )

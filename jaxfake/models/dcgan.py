"""DCGAN: Radford, Metz and Chintala, 2015, arXiv:1511.06434.

Class-conditional in the common way where `num_classes` is not 0: the generator
sees the class beside the latent vector (Mirza and Osindero, 2014,
arXiv:1411.1784), the discriminator through a projection (Miyato and Koyama,
2018, arXiv:1802.05637, equation 3).

With `upsample="resize"` the generator repeats pixels and convolves where the
paper convolves transposed, which leaves no checkerboard and so other traces
(Odena, Dumoulin and Olah, 2016, doi:10.23915/distill.00003).
"""

from collections.abc import Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.nn import conv

SIZES = (32, 64, 128, 256)
UPSAMPLES = ("transpose", "resize")
# Of the one-hot class beside latents of unit variance. At 1 the classes looked
# alike after 650 steps; a class vector as long as the latents made all images
# of a class the same.
CLASS_SCALE = 3
normal = nn.initializers.normal(0.02)  # The paper's, section 4.


def batch_norm(train: bool, dtype: jax.typing.DTypeLike | None) -> nn.BatchNorm:
  """Batch norm whose gain starts near one, as in the authors' code; its
  statistics are float32 whatever the `dtype`."""
  return nn.BatchNorm(
    use_running_average=not train,
    dtype=dtype,
    momentum=0.9,
    scale_init=lambda *args: 1 + normal(*args),
  )


def widths(size: int, width: int, max_width: int) -> list[int]:
  """Channels at 4x4, 8x8, ... size/2; at 64 px 512, 256, 128, 64."""
  stages = size.bit_length() - 3  # 64 -> 4
  return [min(width << i, max_width) for i in reversed(range(stages))]


class Generator(nn.Module):
  """Latents (b, z) and labels (b,) to images (b, size, size, c) in [-1, 1]."""

  widths: Sequence[int]  # From 4x4 upwards.
  channels: int = 1
  num_classes: int = 0
  upsample: str = "transpose"
  dtype: jax.typing.DTypeLike | None = None  # Of the arithmetic.

  @nn.compact
  def __call__(
    self, z: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    if self.num_classes:
      label = jax.nn.one_hot(label, self.num_classes)
      z = jnp.concatenate([z, CLASS_SCALE * label], -1)
    x = z[:, None, None, :]  # (b, 1, 1, z)
    for i, width in enumerate(self.widths):
      if i == 0:  # (b, 4, 4, c)
        x = conv.ConvTranspose(
          width,
          (4, 4),
          strides=(1, 1),
          padding="VALID",
          use_bias=False,
          dtype=self.dtype,
          kernel_init=normal,
        )(x)
      else:  # (b, 2h, 2w, c)
        x = self.doubled(x, width, use_bias=False)
      x = nn.relu(batch_norm(train, self.dtype)(x))
    x = self.doubled(x, self.channels)
    return jnp.tanh(x.astype(jnp.float32))

  def doubled(
    self, x: jax.Array, width: int, use_bias: bool = True
  ) -> jax.Array:
    """(b, h, w, c) to (b, 2h, 2w, width)."""
    options: dict[str, Any] = dict(
      padding="SAME", use_bias=use_bias, dtype=self.dtype, kernel_init=normal
    )
    if self.upsample == "transpose":
      return conv.ConvTranspose(width, (4, 4), strides=(2, 2), **options)(x)
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return conv.Conv(width, (3, 3), **options)(x)


class Discriminator(nn.Module):
  """Images (b, size, size, c) and labels (b,) to logits (b,) of being real."""

  widths: Sequence[int]  # From 4x4 upwards, as the generator's.
  num_classes: int = 0
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    down = functools.partial(
      conv.Conv, kernel_size=(4, 4), dtype=self.dtype, kernel_init=normal
    )
    for i, width in enumerate(reversed(self.widths)):
      first = i == 0  # No batch norm on pixels: section 3 of the paper.
      x = down(width, strides=(2, 2), padding="SAME", use_bias=first)(x)
      x = x if first else batch_norm(train, self.dtype)(x)
      x = nn.leaky_relu(x, 0.2)  # (b, h/2, w/2, c)
    logit = down(1, strides=(1, 1), padding="VALID")(x)[:, 0, 0, 0]  # (b,)
    logit, x = logit.astype(jnp.float32), x.astype(jnp.float32)
    if self.num_classes:
      embed = nn.Embed(self.num_classes, x.shape[-1], embedding_init=normal)
      logit += (embed(label) * x.mean((1, 2))).sum(-1)
    return logit


def check(model: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `model`."""
  errors.check_choice("model.upsample", model.upsample, UPSAMPLES)
  for name in ("width", "max_width"):
    if model[name] < 1:
      raise errors.ConfigError(
        f"model.{name} is {model[name]}: expected at least 1"
      )


def latents(model: contracts.Config, size: int) -> int:
  """How many normal deviates an image is made of."""
  del size
  return model.latents


def make(
  model: contracts.Config,
  num_classes: int,
  size: int,
  dtype: jax.typing.DTypeLike | None = None,
) -> tuple[Generator, Discriminator]:
  """Generator and discriminator for a config's `model` part. Parameters,
  statistics and what they return are float32 whatever the `dtype`."""
  layers = widths(size, model.width, model.max_width)
  num_classes = num_classes if model.conditional else 0
  return (
    Generator(layers, model.channels, num_classes, model.upsample, dtype),
    Discriminator(layers, num_classes, dtype),
  )

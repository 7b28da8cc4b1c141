"""The network of a variational autoencoder: Kingma and Welling, 2014,
arXiv:1312.6114, section 3.

The encoder halves images several times, down to a map of few channels, as in
Rombach et al., 2022, arXiv:2112.10752, section 3.1; the decoder doubles the map
again. Both are convolutions alone, in residual blocks; no attention.
"""

from collections.abc import Sequence
import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.models import unet
from jaxfake.nn import conv, windows

SIZES = unet.SIZES
SMALLEST = 4  # Pixels a side of a map of latents.
# Of the latents' logarithmic variance, so that none overflows.
LOG_VARIANCES = -30, 20


class Block(nn.Module):
  """Two convolutions beside the identity, (b, h, w, c)."""

  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array):
    convolve = functools.partial(
      conv.Conv, x.shape[-1], (3, 3), dtype=self.dtype
    )
    h = convolve()(nn.silu(unet.norm(x, self.dtype)))
    # Zero, so that a new block is the identity.
    h = convolve(kernel_init=unet.zeros)(nn.silu(unet.norm(h, self.dtype)))
    return x + h


def told(
  x: jax.Array,
  label: jax.Array | None,
  num_classes: int,
  dtype: jax.typing.DTypeLike | None,
) -> jax.Array:
  """x (b, h, w, c) with a learnt vector of its label (b,) added everywhere."""
  if not num_classes:
    return x
  dense = nn.Dense(x.shape[-1], use_bias=False, dtype=dtype)
  return x + dense(jax.nn.one_hot(label, num_classes))[:, None, None]


class Encoder(nn.Module):
  """Images (b, s, s, c) and labels (b,) to mean and logarithmic variance of
  their latents, each (b, s', s', latents), s' = s / 2**len(widths)."""

  widths: Sequence[int]  # From the largest map down.
  latents: int
  num_classes: int = 0
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array, label: jax.Array | None):
    for i, width in enumerate(self.widths):
      x = conv.Conv(width, (4, 4), (2, 2), dtype=self.dtype)(x)
      if i == 0:
        x = told(x, label, self.num_classes, self.dtype)
      x = Block(self.dtype)(x)  # (b, h/2, w/2, width)
    x = nn.silu(unet.norm(x, self.dtype))
    x = windows.wide(conv.Conv(2 * self.latents, (3, 3), dtype=self.dtype)(x))
    mean, log_variance = jnp.split(x, 2, -1)
    return mean, jnp.clip(log_variance, *LOG_VARIANCES)


class Decoder(nn.Module):
  """Latents (b, s', s', latents) and labels (b,) to images (b, s, s, c)."""

  widths: Sequence[int]  # As the encoder's.
  channels: int
  num_classes: int = 0
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, z: jax.Array, label: jax.Array | None):
    convolve = functools.partial(
      conv.Conv, kernel_size=(3, 3), dtype=self.dtype
    )
    x = convolve(self.widths[-1])(z)
    x = told(x, label, self.num_classes, self.dtype)
    for width in (*self.widths[-2::-1], self.widths[0]):
      x = Block(self.dtype)(x)
      x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)  # (b, 2h, 2w, c)
      x = convolve(width)(x)
    x = nn.silu(unet.norm(x, self.dtype))
    return windows.wide(convolve(self.channels)(x))


class Autoencoder(nn.Module):
  """Both, as the methods `encode` and `decode`."""

  widths: Sequence[int]
  latents: int
  channels: int
  num_classes: int = 0
  dtype: jax.typing.DTypeLike | None = None

  def setup(self) -> None:
    told = self.num_classes, self.dtype
    self.encoder = Encoder(self.widths, self.latents, *told)
    self.decoder = Decoder(self.widths, self.channels, *told)

  def encode(
    self, x: jax.Array, label: jax.Array | None
  ) -> tuple[jax.Array, jax.Array]:
    return self.encoder(x, label)

  def decode(self, z: jax.Array, label: jax.Array | None) -> jax.Array:
    return self.decoder(z, label)

  def __call__(self, x: jax.Array, label: jax.Array | None):
    """Images (b, s, s, c) repeated from the means of their latents."""
    return self.decode(self.encode(x, label)[0], label)


def check(model: contracts.Config, size: int) -> None:
  """Raises ConfigError for values of a config's `model`, for images of so many
  pixels a side."""
  errors.check_choice("data.size", size, SIZES)
  for name in ("width", "max_width", "latents"):
    if model[name] < 1:
      raise errors.ConfigError(
        f"model.{name} is {model[name]}: expected at least 1"
      )
  most = int(math.log2(size // SMALLEST))
  if not 1 <= model.halvings <= most:
    raise errors.ConfigError(
      f"model.halvings is {model.halvings}: expected 1 to {most} at {size} px,"
      f" since a map of latents has at least {SMALLEST} pixels a side"
    )


def autoencoder(
  model: contracts.Config,
  num_classes: int,
  dtype: jax.typing.DTypeLike | None = None,
) -> Autoencoder:
  """The network of a config's `model` part. Parameters and what it returns are
  float32 whatever the `dtype`."""
  widths = [
    min(model.width << i, model.max_width) for i in range(model.halvings)
  ]
  return Autoencoder(
    tuple(widths),
    model.latents,
    model.channels,
    num_classes if model.conditional else 0,
    dtype,
  )


def latent_shape(model: contracts.Config, size: int) -> tuple[int, int, int]:
  """Of the latents of one image of so many pixels a side."""
  side = size >> model.halvings
  return side, side, model.latents

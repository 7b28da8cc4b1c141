"""The networks of a small StyleGAN2: Karras et al., 2020, "Analyzing and
Improving the Image Quality of StyleGAN", arXiv:1912.04958.

A mapping network turns latents into a style; a synthesis network starts from a
learnt constant, and the style scales the channels of each of its convolutions.
Images of all sides are summed up (figure 7b, skip connections); the
discriminator is residual (figure 7c). Sections and equations are the paper's.

All weights begin with unit variance and are scaled where they are used, so that
Adam moves each layer alike: the equalised learning rate (Karras et al., 2018,
arXiv:1710.10196, section 4.1). Class-conditional where `num_classes` is not 0:
the mapping network sees the class beside the latents, the discriminator through
a projection (Miyato and Koyama, 2018, arXiv:1802.05637, equation 3).
"""

from collections.abc import Callable, Iterable, Sequence
import functools
import math
from typing import Any

import flax.linen as nn
from flax.linen import dtypes
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jaxfake import contracts, errors
from jaxfake.nn import conv, windows

SIZES = (32, 64, 128, 256)
MAPPING_RATE = 0.01  # Of the mapping network's learning, beside the others'.
TINY = 1e-8  # Below roots.
TAPS = np.array([1, 3, 3, 1]) / 8  # The filter of every change of size.

_normal = nn.initializers.normal(1.0)


def widths(size: int, width: int, max_width: int) -> list[int]:
  """Channels at 4x4, 8x8, ... size; the last are `width`."""
  stages = size.bit_length() - 2  # 64 -> 5
  return [min(width << i, max_width) for i in reversed(range(stages))]


def noise_sides(size: int) -> list[int]:
  """Pixels a side of each map of noise: one at 4x4, then two at each side."""
  sides = [1 << i for i in range(3, size.bit_length())]
  return [4, *(side for side in sides for _ in range(2))]


def activated(x: jax.Array) -> jax.Array:
  """Leaky ReLU that keeps the variance."""
  return nn.leaky_relu(x, 0.2) * math.sqrt(2)


def normalised(x: jax.Array) -> jax.Array:
  """Vectors (b, n) to a mean square of 1 each."""
  return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + TINY)


def filtered(
  x: jax.Array, pads: windows.Pair, up: int = 1, down: int = 1, gain: float = 1
) -> jax.Array:
  """Images (b, h, h, c) to (b, h', h', c): with `up` - 1 zeros between their
  pixels and zeros around them, filtered by TAPS, every `down`-th pixel kept.

  As a product with a matrix along each side: its gradients, of which the R1
  penalty needs second ones, are products too and quick to compile.
  """
  n = x.shape[1]
  spread = np.zeros((n, (n - 1) * up + 1))
  spread[range(n), range(0, n * up, up)] = gain
  spread = np.pad(spread, ((0, 0), pads))
  rows = [np.convolve(row, TAPS, "valid")[::down] for row in spread]
  matrix = jnp.asarray(np.array(rows), x.dtype)  # (h, h')
  x = jnp.einsum("bhwc,hi->biwc", x, matrix)
  return jnp.einsum("biwc,wj->bijc", x, matrix)


def doubled(x: jax.Array) -> jax.Array:
  """(b, h, h, c) to (b, 2h, 2h, c)."""
  return filtered(x, (2, 2), up=2, gain=2)


def modulated(
  convolve: Callable, x: jax.Array, kernel: jax.Array, style: jax.Array
) -> jax.Array:
  """Convolution of each image by a kernel of its own, without one of its own.

  x (b, h, w, c), kernel (kh, kw, c, o), style (b, c). Equations 1 and 3 scale
  the kernel's input channels by the image's style and its output channels to
  unit norm. A convolution is linear in both, so it is the same to scale what
  goes in and what comes out of one that all images share.
  """
  squares = (windows.wide(kernel) ** 2).sum((0, 1))  # (c, o)
  scale = lax.rsqrt(style**2 @ squares + TINY)  # (b, o)
  return scaled(convolve(scaled(x, style), kernel), scale)


def scaled(x: jax.Array, by: jax.Array) -> jax.Array:
  """The channels of (b, h, w, c), by (b, c)."""
  return x * by[:, None, None].astype(x.dtype)


def with_deviation(x: jax.Array, group: int) -> jax.Array:
  """(b, h, w, c) and a channel that tells how much images differ: the mean
  deviation over `group` neighbouring images (Karras et al., 2018, section 3).

  Neighbours, so that a group lies on one device where a device's rows are a
  multiple of it.
  """
  n = min(group, len(x))
  groups = windows.wide(x).reshape(-1, n, *x.shape[1:])
  deviation = jnp.sqrt(groups.var(1) + TINY).mean((1, 2, 3))  # (b / n,)
  shape = (*x.shape[:3], 1)
  told = jnp.repeat(deviation, n)[:, None, None, None].astype(x.dtype)
  return jnp.concatenate([x, jnp.broadcast_to(told, shape)], -1)


def equalised(layer: nn.Module, *shape: int) -> jax.Array:
  """A layer's kernel, (..., in, out), scaled by its fan-in."""
  kernel = layer.param("kernel", _normal, shape)
  return kernel / math.sqrt(math.prod(shape[:-1]))


def biased(layer: nn.Module, x: jax.Array) -> jax.Array:
  bias = layer.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
  return x + bias.astype(x.dtype)


class Dense(nn.Module):
  """(b, c) to (b, features), in float32 at least."""

  features: int
  bias: float = 0.0  # At first.
  rate: float = 1.0  # Of learning.

  @nn.compact
  def __call__(self, x: jax.Array):
    first = nn.initializers.normal(1 / self.rate)
    kernel = self.param("kernel", first, (x.shape[-1], self.features))
    constant = nn.initializers.constant(self.bias / self.rate)
    bias = self.param("bias", constant, (self.features,))
    y = windows.wide(x) @ (kernel * (self.rate / math.sqrt(x.shape[-1])))
    return y + self.rate * bias


class Conv(nn.Module):
  """(b, h, w, c) to (b, h', w', features)."""

  features: int
  side: int = 3  # Of the kernel.
  stride: int = 1
  use_bias: bool = True
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array):
    kernel = equalised(self, self.side, self.side, x.shape[-1], self.features)
    x, kernel = dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    padding = "SAME" if self.stride == 1 else "VALID"
    y = conv.conv(x, kernel, (self.stride, self.stride), padding)
    return biased(self, y) if self.use_bias else y


class StyledConv(nn.Module):
  """(b, h, w, c), a style (b, z) and noise (b, h', w', 1) to (b, h', w',
  features), twice as large where `double`."""

  features: int
  double: bool = False
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array, style: jax.Array, noise: jax.Array):
    style = Dense(x.shape[-1], bias=1.0)(style)
    kernel = equalised(self, 3, 3, x.shape[-1], self.features)
    x, kernel = dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    x = modulated(self.resized if self.double else conv.conv, x, kernel, style)
    strength = self.param("strength", nn.initializers.zeros_init(), ())
    return activated(biased(self, x + (strength * noise).astype(x.dtype)))

  @staticmethod
  def resized(x: jax.Array, kernel: jax.Array):
    x = conv.conv_transpose(x, kernel, (2, 2), "VALID")  # (b, 2h + 1, ...)
    return filtered(x, (1, 1), gain=2)


class ToImage(nn.Module):
  """(b, h, w, c) and a style (b, z) to (b, h, w, channels) in float32."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array, style: jax.Array):
    style = Dense(x.shape[-1], bias=1.0)(style)
    kernel = equalised(self, 1, 1, x.shape[-1], self.channels)
    # Not demodulated: an image shall have the contrast that its style asks for.
    return biased(self, conv.conv(scaled(windows.wide(x), style), kernel))


class Mapping(nn.Module):
  """Latents (b, z) and labels (b,) to styles (b, z)."""

  layers: int
  num_classes: int = 0

  @nn.compact
  def __call__(self, z: jax.Array, label: jax.Array | None):
    width, z = z.shape[-1], normalised(z)
    if self.num_classes:
      told = Dense(width)(jax.nn.one_hot(label, self.num_classes))
      z = jnp.concatenate([z, normalised(told)], -1)
    for _ in range(self.layers):
      z = activated(Dense(width, rate=MAPPING_RATE)(z))
    return z


class Synthesis(nn.Module):
  """Styles (b, z) and maps of noise (b, s, s, 1) to images (b, size, size,
  channels)."""

  widths: Sequence[int]  # From 4x4 upwards.
  channels: int = 1
  dtype: jax.typing.DTypeLike | None = None  # Of the convolutions.

  @nn.compact
  def __call__(self, style: jax.Array, noise: Iterable[jax.Array]):
    layer = functools.partial(StyledConv, dtype=self.dtype)
    noise = iter(noise)
    constant = self.param("constant", _normal, (1, 4, 4, self.widths[0]))
    x = jnp.broadcast_to(constant, (len(style), *constant.shape[1:]))
    image = jnp.zeros((*x.shape[:3], self.channels))
    for i, width in enumerate(self.widths):
      if i:  # (b, 2h, 2w, c)
        x = layer(width, double=True)(x, style, next(noise))
        image = doubled(image)
      x = layer(width)(x, style, next(noise))
      image += ToImage(self.channels)(x, style)
    return image


class Generator(nn.Module):
  """Normal deviates (b, n) and labels (b,) to images (b, size, size, c), most
  of them in [-1, 1].

  The first `latents` deviates are z, the others noise, for what no style tells
  (Karras et al., 2019, arXiv:1812.04948, section 3.2). An image has no other
  source of chance.
  """

  widths: Sequence[int]  # From 4x4 upwards.
  latents: int
  channels: int = 1
  num_classes: int = 0
  mapping_layers: int = 8
  dtype: jax.typing.DTypeLike | None = None

  def setup(self) -> None:
    self.mapping = Mapping(self.mapping_layers, self.num_classes)
    self.synthesis = Synthesis(self.widths, self.channels, self.dtype)

  def __call__(
    self, deviates: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    del train  # It does the same then.
    return self.draw(self.style(deviates, label), deviates)

  def style(self, deviates: jax.Array, label: jax.Array | None) -> jax.Array:
    """(b, latents)."""
    return self.mapping(deviates[:, : self.latents], label)

  def draw(self, style: jax.Array, deviates: jax.Array) -> Any:
    """Images of styles (b, latents), with the noise of some deviates."""
    sides = noise_sides(4 << (len(self.widths) - 1))
    ends = self.latents + np.cumsum(np.square(sides))
    _, *maps = jnp.split(deviates, [self.latents, *ends[:-1]], 1)
    noise = [x.reshape(-1, s, s, 1) for x, s in zip(maps, sides, strict=True)]
    return self.synthesis(style, noise)


class Block(nn.Module):
  """(b, h, w, c) to (b, h/2, w/2, features), beside a skip connection."""

  features: int
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array):
    y = activated(Conv(x.shape[-1], dtype=self.dtype)(x))
    y = filtered(y, (2, 2))  # (b, h + 1, h + 1, c)
    y = activated(Conv(self.features, stride=2, dtype=self.dtype)(y))
    x = filtered(x, (1, 1), down=2)
    x = Conv(self.features, side=1, use_bias=False, dtype=self.dtype)(x)
    return (x + y) / math.sqrt(2)


class Discriminator(nn.Module):
  """Images (b, size, size, c) and labels (b,) to logits (b,) of being real."""

  widths: Sequence[int]  # From 4x4 upwards, as the generator's.
  num_classes: int = 0
  group: int = 4  # Images whose deviation it sees.
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    del train  # It does the same then.
    *rest, first = self.widths
    x = activated(Conv(first, side=1, dtype=self.dtype)(x))
    for width in reversed(rest):
      x = Block(width, dtype=self.dtype)(x)
    x = with_deviation(x, self.group)  # (b, 4, 4, c + 1)
    x = activated(Conv(self.widths[0], dtype=self.dtype)(x))
    x = activated(Dense(self.widths[0])(x.reshape(len(x), -1)))  # (b, c)
    logit = Dense(1)(x)[:, 0]
    if self.num_classes:
      shape = (self.num_classes, x.shape[-1])
      classes = self.param("classes", _normal, shape)
      logit += (classes[label] * x).sum(-1) / math.sqrt(x.shape[-1])
    return logit


def check(model: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `model`."""
  for name in ("width", "max_width", "mapping_layers", "group"):
    if model[name] < 1:
      raise errors.ConfigError(
        f"model.{name} is {model[name]}: expected at least 1"
      )


def latents(model: contracts.Config, size: int) -> int:
  """How many normal deviates an image is made of: z, then the noise."""
  return model.latents + sum(side**2 for side in noise_sides(size))


def make(
  model: contracts.Config,
  num_classes: int,
  size: int,
  dtype: jax.typing.DTypeLike | None = None,
) -> tuple[Generator, Discriminator]:
  """Generator and discriminator for a config's `model` part. Parameters, styles
  and what they return are float32 whatever the `dtype`."""
  channels = widths(size, model.width, model.max_width)
  num_classes = num_classes if model.conditional else 0
  generator = Generator(
    channels,
    model.latents,
    model.channels,
    num_classes,
    model.mapping_layers,
    dtype,
  )
  return generator, Discriminator(channels, num_classes, model.group, dtype)

"""The networks of a GAN that grows: Karras et al., 2018, "Progressive Growing
of GANs for Improved Quality, Stability, and Variation", arXiv:1710.10196.

Both have layers for 4 x 4, 8 x 8, ... pixels. A new resolution fades in: the
generator mixes its image with that of the resolution before, doubled; the
discriminator mixes what it makes of the image with what it makes of the image
halved (figure 2). How far they have grown is a variable of the networks,
`growth/level`.

A whole network computes all resolutions, whatever the level. One of `sides`
resolutions computes no others, and only its last may be fading in: that is
cheaper to compile and to train.

The generator normalises each pixel's channels (section 4.2), the discriminator
sees how much images differ (section 3), and weights have the equalised learning
rate (section 4.1). Class-conditional where `num_classes` is not 0, as in
models/stylegan2.py.
"""

from collections.abc import Sequence
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.models import stylegan2
from jaxfake.models.stylegan2 import Conv, Dense, activated
from jaxfake.nn import pool, windows

SIZES = stylegan2.SIZES


def doubled(x: jax.Array) -> jax.Array:
  """(b, h, w, c) to (b, 2h, 2w, c), pixels repeated."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def halved(x: jax.Array) -> jax.Array:
  """(b, h, w, c) to (b, h/2, w/2, c), means of 2 x 2 pixels."""
  return pool.avg_pool(x, (2, 2), (2, 2))


def mixed(share: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
  """What a resolution gives, of which a share has faded in."""
  share = share.astype(new.dtype)
  return (1 - share) * old + share * new


def normalised(x: jax.Array) -> jax.Array:
  """Channels of (b, h, w, c) to a mean square of 1 at each pixel: section
  4.2."""
  return stylegan2.normalised(windows.wide(x)).astype(x.dtype)


def shares(net: nn.Module, resolutions: int) -> jax.Array:
  """How far each resolution of a network has faded in, 0 to 1.

  `growth/level` counts those that have, the last in part: of four, 2.25 is 1,
  1, 0.25, 0. Unless told otherwise, a network is whole.
  """
  level = net.variable("growth", "level", jnp.float32, resolutions)
  return jnp.clip(level.value - jnp.arange(resolutions), 0, 1)


class Generator(nn.Module):
  """Latents (b, z) and labels (b,) to images (b, s, s, c), most of them in
  [-1, 1]; s is the side of the last resolution that is computed."""

  widths: Sequence[int]  # From 4x4 upwards.
  channels: int = 1
  num_classes: int = 0
  sides: int = 0  # Resolutions that are computed; 0: the whole network.
  dtype: jax.typing.DTypeLike | None = None  # Of the convolutions.

  @nn.compact
  def __call__(
    self, z: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    del train  # It does the same then.
    share = shares(self, len(self.widths))
    widths = self.widths[: self.sides or None]

    def layer(i: int, name: str, x) -> jax.Array:
      conv = Conv(widths[i], dtype=self.dtype, name=f"{name}_{4 << i}")
      return normalised(activated(conv(x)))

    z = stylegan2.normalised(z)
    if self.num_classes:
      told = Dense(z.shape[-1])(jax.nn.one_hot(label, self.num_classes))
      z = jnp.concatenate([z, stylegan2.normalised(told)], -1)
    x = Dense(16 * widths[0])(z).reshape(-1, 4, 4, widths[0])
    x, image = normalised(activated(x)), None
    for i in range(len(widths)):
      if i:  # (b, 2h, 2w, c)
        x = layer(i, "first", doubled(x))
      x = layer(i, "second", x)
      if self.sides and i < self.sides - 2:
        continue  # Its image has been faded out.
      to_image = Conv(self.channels, side=1, name=f"image_{4 << i}")
      new = to_image(windows.wide(x))
      image = new if image is None else mixed(share[i], doubled(image), new)
    return image


class Discriminator(nn.Module):
  """Images (b, s, s, c) and labels (b,) to scores (b,), higher for real; s as
  of the generator."""

  widths: Sequence[int]  # From 4x4 upwards, as the generator's.
  num_classes: int = 0
  group: int = 4  # Images whose deviation it sees.
  sides: int = 0  # Resolutions that are computed; 0: the whole network.
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    del train  # It does the same then.
    share = shares(self, len(self.widths))
    widths = self.widths[: self.sides or None]

    def layer(i: int, name: str, width: int, x, side: int = 3) -> jax.Array:
      name = f"{name}_{4 << i}"
      return activated(Conv(width, side=side, dtype=self.dtype, name=name)(x))

    seen = lambda i, image: layer(i, "image", widths[i], image, side=1)
    image, last = x, len(widths) - 1
    x = seen(last, image)
    for i in range(last, 0, -1):
      x = layer(i, "first", widths[i], x)
      x = halved(layer(i, "second", widths[i - 1], x))  # (b, h/2, w/2, c)
      if not self.sides or i == last:
        image = halved(image)
        x = mixed(share[i], seen(i - 1, image), x)
    x = stylegan2.with_deviation(x, self.group)  # (b, 4, 4, c + 1)
    x = layer(0, "first", widths[0], x)
    x = activated(Dense(widths[0])(x.reshape(len(x), -1)))  # (b, c)
    score = Dense(1)(x)[:, 0]
    if self.num_classes:
      shape = (self.num_classes, x.shape[-1])
      classes = self.param("classes", nn.initializers.normal(1.0), shape)
      score += (classes[label] * x).sum(-1) / math.sqrt(x.shape[-1])
    return score


def check(model: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `model`."""
  for name in ("width", "max_width", "group"):
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
  """Generator and discriminator for a config's `model` part, whole. Parameters
  and what they return are float32 whatever the `dtype`."""
  widths = stylegan2.widths(size, model.width, model.max_width)
  num_classes = num_classes if model.conditional else 0
  generator = Generator(widths, model.channels, num_classes, dtype=dtype)
  critic = Discriminator(widths, num_classes, model.group, dtype=dtype)
  return generator, critic

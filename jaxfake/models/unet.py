"""A U-Net that denoises: Ho et al., 2020, arXiv:2006.11239, appendix B, with
the noise's level entering as a gain and a shift of each block's group norm
(Dhariwal and Nichol, 2021, arXiv:2105.05233, section 3).

With `patch` pixels of a square are channels of one, and the network works at a
side that much smaller (Luhman and Luhman, 2022, arXiv:2207.04316): a quarter of
the time at 2.
"""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.nn import conv, windows

SIZES = (32, 64, 128, 256)
PATCHES = (1, 2, 4)
HEAD = 32  # Channels of an attention head.
LONGEST = 10_000  # Period of the slowest wave, as in Ho et al.'s code.
zeros = nn.initializers.zeros_init()


def waves(level: jax.Array, width: int) -> jax.Array:
  """Cosines and sines of numbers (b,), (b, width) for an even width: Vaswani et
  al., 2017, arXiv:1706.03762, section 3.5."""
  rates = LONGEST ** -(jnp.arange(width // 2) / (width // 2))
  angles = level[:, None] * rates
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class Block(nn.Module):
  """Two convolutions beside the identity, (b, h, w, c) to (b, h, w, width),
  told of a condition (b, d)."""

  width: int
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array, condition: jax.Array, train: bool):
    convolve = functools.partial(conv.Conv, self.width, dtype=self.dtype)
    h = convolve((3, 3))(nn.silu(norm(x, self.dtype)))
    affine = nn.Dense(2 * self.width, dtype=self.dtype)(condition)
    gain, shift = jnp.split(affine[:, None, None], 2, -1)
    h = nn.silu(norm(h, self.dtype) * (1 + gain) + shift)
    h = nn.Dropout(self.dropout, deterministic=not train)(h)
    # Zero, so that a new network is the identity.
    h = convolve((3, 3), kernel_init=zeros)(h)
    if x.shape[-1] != self.width:
      x = convolve((1, 1))(x)
    return (x + h) / math.sqrt(2)  # Of unit variance where both are.


class Attention(nn.Module):
  """Of each pixel to all others, beside the identity: (b, h, w, c)."""

  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array):
    b, h, w, c = x.shape
    heads = max(1, c // HEAD)
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    qkv = dense(3 * c)(norm(x, self.dtype).reshape(b, h * w, c))
    q, k, v = jnp.moveaxis(qkv.reshape(b, h * w, 3, heads, -1), 2, 0)
    scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) / math.sqrt(q.shape[-1])
    share = jax.nn.softmax(windows.wide(scores)).astype(v.dtype)
    mixed = jnp.einsum("bhqk,bkhc->bqhc", share, v).reshape(b, h, w, c)
    return (x + dense(c, kernel_init=zeros)(mixed)) / math.sqrt(2)


def norm(x: jax.Array, dtype: jax.typing.DTypeLike | None) -> jax.Array:
  """Group norm, of 4 channels at least to a group."""
  groups = math.gcd(x.shape[-1], min(32, max(1, x.shape[-1] // 4)))
  return nn.GroupNorm(groups, dtype=dtype)(x)


class UNet(nn.Module):
  """Images (b, s, s, c), levels of noise (b,) and labels (b,) to (b, s, s, c).

  The label `num_classes` is no class. `beside`, (b, s, s, k), is what is known
  of the images without noise.
  """

  width: int
  max_width: int
  blocks: int  # At each side, on the way down.
  smallest: int  # Pixels a side, at the bottom.
  attention: int  # At sides of at most so many pixels.
  patch: int = 1
  num_classes: int = 0
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    level: jax.Array,
    label: jax.Array | None = None,
    beside: jax.Array | None = None,
    *,
    train: bool,
  ):
    channels = x.shape[-1]
    if beside is not None:
      x = jnp.concatenate([x, beside], -1)
    dense = functools.partial(nn.Dense, 4 * self.width, dtype=self.dtype)
    condition = nn.silu(dense()(waves(level, self.width)))
    if self.num_classes:
      known = jax.nn.one_hot(label, self.num_classes)
      condition += dense(use_bias=False)(known)
    condition = nn.silu(dense()(condition))
    convolve = functools.partial(
      conv.Conv, kernel_size=(3, 3), dtype=self.dtype
    )

    def block(x, width):
      x = Block(width, self.dropout, self.dtype)(x, condition, train)
      if x.shape[1] <= self.attention:
        x = Attention(self.dtype)(x)
      return x

    x = windows.blocks(x, (self.patch, self.patch), 1)
    h = convolve(self.width)(x)
    skips, width = [h], self.width
    while True:
      for _ in range(self.blocks):
        h = block(h, width)
        skips.append(h)
      if h.shape[1] <= self.smallest:
        break
      h = convolve(width, strides=(2, 2))(h)  # (b, h/2, w/2, c)
      skips.append(h)
      width = min(2 * width, self.max_width)
    h = block(h, width)
    while skips:
      skip = skips.pop()
      if skip.shape[1] > h.shape[1]:
        h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)  # (b, 2h, 2w, c)
        h = convolve(h.shape[-1])(h)
      h = block(jnp.concatenate([h, skip], -1), skip.shape[-1])
    h = nn.silu(norm(h, self.dtype))
    h = convolve(channels * self.patch**2, kernel_init=zeros)(h)
    h = windows.unblocked(h, (self.patch, self.patch), 1)
    return windows.wide(h)


def check(model: contracts.Config, size: int) -> None:
  """Raises ConfigError for values of a config's `model`, for images of so many
  pixels a side."""
  errors.check_choice("data.size", size, SIZES)
  check_side(model, size)


def check_side(model: contracts.Config, side: int) -> None:
  """The same, for maps of so many pixels a side that need be no images."""
  errors.check_choice("model.patch", model.patch, PATCHES)
  for name in ("width", "max_width"):
    if model[name] < 8 or model[name] % 4:
      raise errors.ConfigError(
        f"model.{name} is {model[name]}: expected a multiple of 4, at least 8"
      )
  for name, least in (("blocks", 1), ("attention", 0)):
    if model[name] < least:
      raise errors.ConfigError(
        f"model.{name} is {model[name]}: expected at least {least}"
      )
  sides = [2**i for i in range(2, 9) if 2**i <= side // model.patch]
  errors.check_choice("model.smallest", model.smallest, sides)
  if not 0 <= model.dropout < 1:
    raise errors.ConfigError(
      f"model.dropout is {model.dropout}: expected 0 to below 1"
    )


def unet(
  model: contracts.Config,
  num_classes: int,
  dtype: jax.typing.DTypeLike | None = None,
) -> UNet:
  """The network of a config's `model` part, told of so many classes. Parameters
  and what it returns are float32 whatever the `dtype`."""
  return UNet(
    model.width,
    model.max_width,
    model.blocks,
    model.smallest,
    model.attention,
    model.patch,
    num_classes,
    model.dropout,
    dtype,
  )

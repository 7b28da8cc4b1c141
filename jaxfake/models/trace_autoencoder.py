"""Small autoencoders that leave in a picture what generators leave.

What a convolutional generator leaves in its pictures comes mostly from how it
enlarges its maps and from what it was trained to keep. These repeat a real
radiograph with one way of enlarging each, so that a detector of fakes can learn
from pairs that show the same patient and differ in nothing else.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv

UPSAMPLINGS = (
  "transpose2",
  "transpose3",
  "transpose4",
  "transpose5",
  "nearest",
  "bilinear",
  "shuffle",
  "noise",
  "style",
)
BOTTLENECKS = "plain", "kl", "quantised"


class TraceAutoencoder(nn.Module):
  """Images (b, h, w, 1) in [-1, 1] to their repetition; sides are multiples of
  2**depth.

  `direct` leaves out the convolution after the last enlargement, as a DCGAN
  does. `averaged`: what is enlarged is the mean over each square of 2**depth
  pixels, as in super-resolution, and no latent that is learnt.
  """

  upsampling: str
  depth: int = 2
  width: int = 16
  latent: int = 8
  bottleneck: str = "plain"
  direct: bool = False
  averaged: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
    keys = jax.random.split(key, self.depth + 1)
    if self.averaged:
      side = 1 << self.depth
      x = nn.avg_pool(x, (side, side), (side, side))
    else:
      for i in range(self.depth):
        width = self.width << min(i, 2)
        x = self.convolve(x, width, 4, 2, name=f"down{i}")
        x = nn.leaky_relu(x, 0.2)
      x = self.squeezed(x, keys[-1])
    width = self.width << min(self.depth, 2)
    x = nn.leaky_relu(self.convolve(x, width, name="from_latent"), 0.2)
    for i in reversed(range(self.depth)):
      width = self.width << min(i, 2)
      last = self.direct and not i
      x = self.enlarged(x, 1 if last else width, keys[i], f"up{i}")
      if last:
        return jnp.tanh(x)
      x = nn.leaky_relu(x, 0.2)
      if i:
        x = nn.leaky_relu(self.convolve(x, width, name=f"after{i}"), 0.2)
    return jnp.tanh(self.convolve(x, 1, name="out"))

  def convolve(
    self,
    x: jax.Array,
    features: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    name: str,
  ) -> jax.Array:
    return conv.Conv(features, (kernel, kernel), (stride, stride), name=name)(x)

  def squeezed(self, x: jax.Array, key: jax.Array) -> jax.Array:
    """Through the latent: as it is, with noise of its own strength (Kingma and
    Welling, 2013, arXiv:1312.6114), or rounded to 7 levels (Mentzer et al.,
    2023, arXiv:2309.15505)."""
    x = self.convolve(x, self.latent, 1, name="to_latent")
    if self.bottleneck == "kl":
      scale = self.convolve(x, self.latent, 1, name="to_scale")
      x = x + jnp.exp(jnp.clip(scale - 2, -8, 2)) * jax.random.normal(
        key, x.shape
      )
    elif self.bottleneck == "quantised":
      bounded = 3 * jnp.tanh(x)
      x = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
    return x

  def enlarged(
    self, x: jax.Array, features: int, key: jax.Array, name: str
  ) -> jax.Array:
    """(b, h, w, c) to (b, 2 h, 2 w, features)."""
    b, h, w, c = x.shape
    kind = self.upsampling
    if kind.startswith("transpose"):
      side = int(kind[-1])
      return conv.ConvTranspose(
        features, (side, side), (2, 2), padding="SAME", name=name
      )(x)
    if kind == "shuffle":
      x = self.convolve(x, 4 * features, name=name)
      x = x.reshape(b, h, w, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
      return x.reshape(b, 2 * h, 2 * w, features)
    method = "nearest" if kind in ("nearest", "noise") else "linear"
    x = jax.image.resize(x, (b, 2 * h, 2 * w, c), method)
    x = self.convolve(x, features, name=name)
    if kind in ("noise", "style"):
      strength = self.param(
        f"{name}_noise", nn.initializers.constant(0.05), (features,)
      )
      x = x + strength * jax.random.normal(key, (b, 2 * h, 2 * w, 1))
    if kind == "style":  # Of the picture itself: its mean in each channel.
      style = nn.Dense(2 * features, name=f"{name}_style")(x.mean((1, 2)))
      scale, shift = jnp.split(style[:, None, None], 2, -1)
      norm = x - x.mean((1, 2), keepdims=True)
      norm = norm * jax.lax.rsqrt(
        jnp.square(norm).mean((1, 2), keepdims=True) + 1e-4
      )
      x = norm * (1 + scale) + shift + x.mean((1, 2), keepdims=True)
    return x


class PatchCritic(nn.Module):
  """Real or repeated, patch by patch: (b, h, w, 1) to (b, h', w', 1)."""

  width: int = 24

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i in range(3):
      x = conv.Conv(
        self.width << i, (4, 4), (2, 2) if i < 2 else (1, 1), name=f"conv{i}"
      )(x)
      x = nn.leaky_relu(x, 0.2)
    return conv.Conv(1, (3, 3), name="out")(x)

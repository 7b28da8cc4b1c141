"""A small denoiser that leaves in a picture what diffusion models leave.

Noise is added to a real radiograph and taken away again in a few steps, as the
last steps of sampling do (Meng et al., 2021, SDEdit, arXiv:2108.01073).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv

SIGMA_DATA = 0.5  # Of images in [-1, 1].


class TraceDenoiser(nn.Module):
  """Noisy images (b, h, w, 1) and their noise's deviation (b,) to clean ones.

  A U-Net under the preconditioning of Karras et al. (2022, arXiv:2206.00364,
  table 1); sides are multiples of 2**depth.
  """

  upsampling: str = "nearest"  # Or "linear", as jax.image.resize has them.
  depth: int = 2
  width: int = 16

  @nn.compact
  def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
    s = sigma[:, None, None, None]
    total = jnp.sqrt(s**2 + SIGMA_DATA**2)
    level = jnp.broadcast_to(jnp.log(s) / 4, x.shape)
    h = self.convolve(jnp.concatenate([x / total, level], -1), self.width, "in")
    skips = []
    for i in range(self.depth):
      h = nn.silu(self.convolve(h, self.width << min(i, 2), f"down{i}"))
      skips.append(h)
      h = self.convolve(h, self.width << min(i + 1, 2), f"shrink{i}", stride=2)
    h = nn.silu(self.convolve(nn.silu(h), h.shape[-1], "middle"))
    for i in reversed(range(self.depth)):
      b, rows, columns, c = h.shape
      h = jax.image.resize(h, (b, 2 * rows, 2 * columns, c), self.upsampling)
      h = self.convolve(h, skips[i].shape[-1], f"enlarge{i}") + skips[i]
      h = nn.silu(self.convolve(nn.silu(h), h.shape[-1], f"up{i}"))
    predicted = self.convolve(h, 1, "out")
    return x * (SIGMA_DATA / total) ** 2 + predicted * s * SIGMA_DATA / total

  def convolve(
    self, x: jax.Array, features: int, name: str, stride: int = 1
  ) -> jax.Array:
    return conv.Conv(features, (3, 3), (stride, stride), name=name)(x)

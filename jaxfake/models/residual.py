"""Small networks that see a picture's residual, not the picture."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxfake.nn import conv

# High-pass filters of steganalysis, and what each is divided by (Fridrich and
# Kodovsky, 2012, doi:10.1109/TIFS.2012.2190402), those three that Zhou et al.
# (2018, arXiv:1805.04953) took.
SECOND = np.pad([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], 1)
THIRD = np.array(
  [
    [-1, 2, -2, 2, -1],
    [2, -6, 8, -6, 2],
    [-2, 8, -12, 8, -2],
    [2, -6, 8, -6, 2],
    [-1, 2, -2, 2, -1],
  ]
)
LINE = np.pad([[1, -2, 1]], ((2, 2), (1, 1)))
FILTERS = (SECOND, 4), (THIRD, 12), (LINE, 2)
TRUNCATED = 2.0  # Of a divided residual, on either side.


def neighbouring_pixels(x: jax.Array) -> jax.Array:
  """Gray levels (b, h, w, 1), even sides, less the first pixel of each square
  of 2 x 2 (Tan et al., 2024, arXiv:2312.10461, equation 3)."""
  first = x[:, ::2, ::2]
  return (x - first.repeat(2, 1).repeat(2, 2)) / 32


def noise(x: jax.Array) -> jax.Array:
  """Gray levels (b, h, w, 1) to the truncated residuals (b, h, w, 3) of
  FILTERS."""
  kernel = np.stack([f / divisor for f, divisor in FILTERS], -1)[:, :, None]
  residuals = jax.lax.conv_general_dilated(
    x,
    jnp.asarray(kernel, x.dtype),
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return jnp.clip(residuals, -TRUNCATED, TRUNCATED)


RESIDUALS = {"npr": neighbouring_pixels, "srm": noise}


class ResidualNetwork(nn.Module):
  """Gray levels (b, h, w, 1) to the logit of a fake (b,), by one of
  RESIDUALS."""

  residual: str
  widths: tuple[int, ...] = (24, 32, 48)

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = RESIDUALS[self.residual](x)
    for i, width in enumerate(self.widths):
      x = self.convolve(x, width, f"down{i}", 2)
      y = nn.relu(self.convolve(nn.relu(x), width, f"first{i}"))
      x = x + self.convolve(y, width, f"second{i}")
    return nn.Dense(1, name="head")(nn.relu(x).mean((1, 2)))[:, 0]

  def convolve(
    self, x: jax.Array, features: int, name: str, stride: int = 1
  ) -> jax.Array:
    x = conv.Conv(features, (3, 3), (stride, stride), name=name)(x)
    return nn.GroupNorm(4, name=f"{name}_norm")(x)

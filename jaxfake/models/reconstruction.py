"""A network that says what lies under hidden squares of a picture, and by how
much it may err: a masked autoencoder (He et al., 2022, arXiv:2111.06377), here
a U-Net (pixel_unet.py), with the deviation as an output of its own (Nix and
Weigend, 1994, doi:10.1109/ICNN.1994.374138)."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxfake.models import pixel_unet

UNIT = 16.0  # Gray levels, in which detail is read and errors are told.
LEAST = 0.3  # Gray levels that a deviation has at least: those of rounding.


def reach(square: int) -> int:
  """Pixels around one that its values depend on, at most; twice that is in
  pixel_unet.MULTIPLE."""
  half = pixel_unet.MULTIPLE // 2
  return -(-(pixel_unet.REACH + _radius(square)) // half) * half


def _radius(square: int) -> int:
  # Two squares lie side by side where a picture is mirrored.
  return 3 * square // 2


def surroundings(x: jax.Array, visible: jax.Array, square: int) -> jax.Array:
  """Means about each pixel of those of x (b, h, w, 1) that are visible, 1 or 0
  alike, the nearer the more: what a hidden square of so many pixels a side is
  filled with before the network says better."""
  radius = _radius(square)
  offsets = np.arange(-radius, radius + 1)
  weights = np.exp(-((offsets / (square / 2)) ** 2) / 2)

  def blurred(x):
    # Sums, which XLA fuses: on a CPU 30 times as fast as its convolution.
    for axis in (1, 2):
      n, pads = x.shape[axis], [(0, 0)] * 4
      pads[axis] = radius, radius
      padded = jnp.pad(x, pads)
      views = (
        jax.lax.slice_in_dim(padded, i, i + n, axis=axis)
        for i in range(len(weights))
      )
      parts = (float(w) * v for w, v in zip(weights, views, strict=True))
      x = jnp.asarray(sum(parts))
    return x

  return blurred(x * visible) / (blurred(visible) + 1e-6)


class Reconstruction(nn.Module):
  """Gray levels float32 (b, h, w, 1), sides in pixel_unet.MULTIPLE, and which
  of them are hidden, 1 or 0 alike, to float32 (b, h, w) each: the level and the
  deviation that a hidden pixel has; nothing of the hidden ones is read."""

  width: int  # Channels at the first size; doubled at each after it.
  square: int  # Pixels a side of what is hidden.
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(
    self, gray: jax.Array, hidden: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    visible = 1 - hidden
    near = surroundings(gray, visible, self.square)
    detail = visible * (gray - near) / UNIT
    x = jnp.concatenate([detail, near / 127.5 - 1, visible], -1)
    error, log = jnp.moveaxis(pixel_unet.values(self, x, 2, train=train), -1, 0)
    mean = near[..., 0] + UNIT * error
    return mean, UNIT * jnp.exp(jnp.minimum(log, 3.0)) + LEAST

"""A network that says of each pixel whether it was altered: a U-Net
(pixel_unet.py) that reads the residuals of high-pass filters beside the gray
values, as Zhou et al. (2018, arXiv:1805.04953) do."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.models import pixel_unet, residual

# Pixels around one that its logit depends on, at most: 2 are of the filters.
REACH = pixel_unet.REACH + 2


class Localizer(nn.Module):
  """Gray levels float32 (b, h, w, 1), sides in pixel_unet.MULTIPLE, to the
  float32 logits (b, h, w) of an altered pixel."""

  width: int  # Channels at the first size; doubled at each after it.
  dtype: jax.typing.DTypeLike | None = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    residuals = residual.noise(x) / residual.TRUNCATED
    x = jnp.concatenate([x / 127.5 - 1, residuals], -1)  # (b, h, w, 4)
    return pixel_unet.values(self, x, 1, train=train)[..., 0]

"""The networks of a WGAN-GP: Gulrajani et al., 2017, arXiv:1704.00028.

The generator is the DCGAN's. The critic is its discriminator without batch
norm: the penalty on the gradient is one of each image by itself, and batch norm
makes a critic's answer depend on the other images of the batch (section 4, "No
critic batch normalization"). Layer norm, which the paper recommends, looks at
one image alone.
"""

from collections.abc import Sequence
import functools

import flax.linen as nn
import jax

from jaxfake import contracts, errors
from jaxfake.models import dcgan
from jaxfake.nn import conv, windows

SIZES = dcgan.SIZES
latents = dcgan.latents
NORMS = ("layer", "none")


class Critic(nn.Module):
  """Images (b, size, size, c) and labels (b,) to scores (b,), higher for real;
  of a class by projection, as dcgan.Discriminator."""

  widths: Sequence[int]  # From 4x4 upwards, as the generator's.
  num_classes: int = 0
  norm: str = "layer"
  dtype: jax.typing.DTypeLike | None = None  # Of the arithmetic.

  @nn.compact
  def __call__(
    self, x: jax.Array, label: jax.Array | None = None, *, train: bool
  ):
    del train  # It does the same then.
    down = functools.partial(
      conv.Conv, kernel_size=(4, 4), dtype=self.dtype, kernel_init=dcgan.normal
    )
    for i, width in enumerate(reversed(self.widths)):
      x = down(width, strides=(2, 2), padding="SAME")(x)
      if i and self.norm == "layer":  # Not on pixels, as in the DCGAN.
        # Over the whole image, with a gain and a bias for each channel.
        x = nn.LayerNorm(reduction_axes=(1, 2, 3), dtype=self.dtype)(x)
      x = nn.leaky_relu(x, 0.2)  # (b, h/2, w/2, c)
    score = down(1, strides=(1, 1), padding="VALID")(x)[:, 0, 0, 0]  # (b,)
    score, x = windows.wide(score), windows.wide(x)
    if self.num_classes:
      embed = nn.Embed(
        self.num_classes, x.shape[-1], embedding_init=dcgan.normal
      )
      score += (embed(label) * x.mean((1, 2))).sum(-1)
    return score


def check(model: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `model`."""
  dcgan.check(model)
  errors.check_choice("model.norm", model.norm, NORMS)


def make(
  model: contracts.Config,
  num_classes: int,
  size: int,
  dtype: jax.typing.DTypeLike | None = None,
) -> tuple[dcgan.Generator, Critic]:
  """Generator and critic for a config's `model` part. Parameters, statistics
  and what they return are float32 whatever the `dtype`."""
  generator, _ = dcgan.make(model, num_classes, size, dtype)
  num_classes = num_classes if model.conditional else 0
  critic = Critic(generator.widths, num_classes, model.norm, dtype)
  return generator, critic

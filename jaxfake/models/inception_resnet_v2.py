"""Inception-ResNet-v2: Szegedy, Ioffe, Vanhoucke and Alemi, 2016.

arXiv:1602.07261, figures 15 to 19, in the layout of the authors' released
network (TF-slim's, which keras.applications follows): the stem is that of
Inception-v3 and one Inception block, not figure 3, and a block's residual is
scaled by 0.17, 0.1 or 0.2. Batch norm has no scale.

keras.applications names the last convolution and those that end a residual,
and only numbers the others, whose names are ours. Layers are created in
Keras's order.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.models.inception_v3 import (
  DOWN,
  FIVE,
  ONE,
  THREE,
  convolve,
  halve,
  smooth,
  stem,
)
from jaxfake.nn import conv, layers

# Branches of the residuals, as the steps of chains.
BLOCK35 = (
  [(32, ONE)],
  [(32, ONE), (32, THREE)],
  [(32, ONE), (48, THREE), (64, THREE)],
)
BLOCK17 = ([(192, ONE)], [(128, ONE), (160, (1, 7)), (192, (7, 1))])
BLOCK8 = ([(192, ONE)], [(192, ONE), (224, (1, 3)), (256, (3, 1))])

# And of the blocks between them, which also pool.
MIXED_5B = (
  [(96, ONE)],
  [(48, ONE), (64, FIVE)],
  [(64, ONE), (96, THREE), (96, THREE)],
)
MIXED_6A = (
  [(384, THREE, *DOWN)],
  [(256, ONE), (256, THREE), (384, THREE, *DOWN)],
)
MIXED_7A = (
  [(256, ONE), (384, THREE, *DOWN)],
  [(256, ONE), (288, THREE, *DOWN)],
  [(256, ONE), (288, THREE), (320, THREE, *DOWN)],
)


class InceptionResNetV2(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 1536).
  """

  num_classes: int
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 75

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    chain = functools.partial(convolve, train=train, dtype=self.dtype)

    def branches(x, name, all_steps):
      return [
        chain(x, f"{name}_branch{i}", *steps)
        for i, steps in enumerate(all_steps)
      ]

    def residual(x, name, all_steps, scale):
      y = jnp.concatenate(branches(x, name, all_steps), -1)
      y = conv.Conv(x.shape[-1], ONE, dtype=self.dtype, name=f"{name}_conv")(y)
      return x + scale * y

    x = stem(x, chain)
    mixed = branches(x, "mixed_5b", MIXED_5B)
    pool = chain(smooth(x), "mixed_5b_pool", (64, ONE))
    x = jnp.concatenate([*mixed, pool], -1)  # (b, h, w, 320)
    for i in range(1, 11):
      x = nn.relu(residual(x, f"block35_{i}", BLOCK35, 0.17))

    mixed = branches(x, "mixed_6a", MIXED_6A)
    x = jnp.concatenate([*mixed, halve(x)], -1)  # (b, h / 2, w / 2, 1088)
    for i in range(1, 21):
      x = nn.relu(residual(x, f"block17_{i}", BLOCK17, 0.1))

    mixed = branches(x, "mixed_7a", MIXED_7A)
    x = jnp.concatenate([*mixed, halve(x)], -1)  # (b, h / 4, w / 4, 2080)
    for i in range(1, 10):
      x = nn.relu(residual(x, f"block8_{i}", BLOCK8, 0.2))
    x = residual(x, "block8_10", BLOCK8, 1.0)

    x = conv.Conv(1536, ONE, use_bias=False, dtype=self.dtype, name="conv_7b")(
      x
    )
    x = layers.batch_norm(
      train, epsilon=1e-3, scale=False, dtype=self.dtype, name="conv_7b_bn"
    )(x)
    x = nn.relu(x).mean((1, 2), dtype=jnp.float32)  # (b, 1536)
    return layers.head(self, x, train, features)

"""Xception: residual blocks of depthwise separable convolutions.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2017,
arXiv:1610.02357, Figure 5. Layers, names and epsilons are those of
`keras.applications.Xception`. Its separable convolutions NAME are two layers
here, NAME_depthwise and NAME_pointwise, and its unnamed projections of the
residuals are block2_residual and block2_residual_bn, then 3, 4 and 13.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers, pool


class Xception(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 2048). Images below 75 px raise
  ValueError.
  """

  num_classes: int
  dropout: float = 0.0  # The paper has 0.5.
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 75  # Keras refuses below 71.

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    convolve = functools.partial(conv.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train, epsilon=1e-3, dtype=self.dtype
    )

    def separable(x, width, name):
      c = x.shape[-1]
      x = convolve(c, (3, 3), groups=c, name=f"{name}_depthwise")(x)
      x = convolve(width, (1, 1), name=f"{name}_pointwise")(x)
      return norm(name=f"{name}_bn")(x)

    def halve(x, widths, name):
      """Two separable convolutions and a pool, beside a projection."""
      project = convolve(widths[1], (1, 1), (2, 2), name=f"{name}_residual")
      residual = norm(name=f"{name}_residual_bn")(project(x))
      # No change in block 2, which follows a ReLU.
      x = separable(nn.relu(x), widths[0], f"{name}_sepconv1")
      x = separable(nn.relu(x), widths[1], f"{name}_sepconv2")
      return residual + pool.max_pool(x, (3, 3), (2, 2), "SAME")

    # Entry flow.
    x = convolve(32, (3, 3), (2, 2), padding="VALID", name="block1_conv1")(x)
    x = nn.relu(norm(name="block1_conv1_bn")(x))
    x = convolve(64, (3, 3), padding="VALID", name="block1_conv2")(x)
    x = nn.relu(norm(name="block1_conv2_bn")(x))
    x = halve(x, (128, 128), "block2")
    x = halve(x, (256, 256), "block3")
    x = halve(x, (728, 728), "block4")
    # Middle flow.
    for i in range(5, 13):
      residual = x
      for j in (1, 2, 3):
        x = separable(nn.relu(x), 728, f"block{i}_sepconv{j}")
      x = x + residual
    # Exit flow.
    x = halve(x, (728, 1024), "block13")
    x = nn.relu(separable(x, 1536, "block14_sepconv1"))
    x = nn.relu(separable(x, 2048, "block14_sepconv2"))
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, 2048)
    return layers.head(self, x, train, features)

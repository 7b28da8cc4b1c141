"""MobileNetV2: residual blocks that are wide inside and narrow between.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018,
arXiv:1801.04381, Tables 1 and 2 at width 1. Layers, names and epsilons are
those of `keras.applications.MobileNetV2`.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers

# Table 2: expansion, output channels, repeats, stride of the first.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 1280). Images below 32 px raise
  ValueError.
  """

  num_classes: int
  dropout: float = 0.0  # The paper's code has 0.2, Keras none.
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    convolve = functools.partial(conv.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train, epsilon=1e-3, dtype=self.dtype
    )

    def block(x, expansion, width, stride, name):
      c = x.shape[-1]
      y = x
      if expansion > 1:
        y = convolve(expansion * c, (1, 1), name=f"{name}_expand")(y)
        y = nn.relu6(norm(name=f"{name}_expand_BN")(y))
      y = convolve(
        expansion * c,
        (3, 3),
        (stride, stride),
        groups=expansion * c,
        name=f"{name}_depthwise",
      )(y)
      y = nn.relu6(norm(name=f"{name}_depthwise_BN")(y))
      y = convolve(width, (1, 1), name=f"{name}_project")(y)
      y = norm(name=f"{name}_project_BN")(y)  # Linear.
      return x + y if stride == 1 and width == c else y

    x = convolve(32, (3, 3), (2, 2), name="Conv1")(x)
    x = nn.relu6(norm(name="bn_Conv1")(x))
    i = 0
    for expansion, width, repeats, first_stride in STAGES:
      for j in range(repeats):
        stride = first_stride if j == 0 else 1
        name = f"block_{i}" if i else "expanded_conv"
        x = block(x, expansion, width, stride, name)
        i += 1
    x = convolve(1280, (1, 1), name="Conv_1")(x)
    x = nn.relu6(norm(name="Conv_1_bn")(x))
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, 1280)
    return layers.head(self, x, train, features)

"""MobileNetV1: depthwise, then pointwise convolutions, and nothing else.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications", 2017, arXiv:1704.04861, Table 1 at width 1. Layers,
names, padding and ReLU6 (the paper says ReLU) are those of
`keras.applications.MobileNet`, whose last 1x1 convolution, "conv_preds", is
the head here: the same parameters, of shape (1024, n).
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers

# Stride and output channels of each block.
BLOCKS = (
  (1, 64),
  (2, 128),
  (1, 128),
  (2, 256),
  (1, 256),
  (2, 512),
  *[(1, 512)] * 5,
  (2, 1024),
  (1, 1024),
)


class MobileNetV1(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 1024). Images below 32 px raise
  ValueError.
  """

  num_classes: int
  dropout: float = 0.0  # The paper's code has 0.001.
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    convolve = functools.partial(conv.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train, epsilon=1e-3, dtype=self.dtype
    )
    x = convolve(32, (3, 3), (2, 2), name="conv1")(x)
    x = nn.relu6(norm(name="conv1_bn")(x))
    for i, (stride, width) in enumerate(BLOCKS, 1):
      c = x.shape[-1]
      depthwise = convolve(
        c,
        (3, 3),
        (stride, stride),
        # Strided, one row and column of zeros at the end. This is "SAME" at
        # even sizes; an odd size n becomes (n - 1) / 2, not (n + 1) / 2.
        padding="SAME" if stride == 1 else ((0, 1), (0, 1)),
        groups=c,
        name=f"conv_dw_{i}",
      )
      x = nn.relu6(norm(name=f"conv_dw_{i}_bn")(depthwise(x)))
      x = convolve(width, (1, 1), name=f"conv_pw_{i}")(x)
      x = nn.relu6(norm(name=f"conv_pw_{i}_bn")(x))
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, 1024)
    return layers.head(self, x, train, features)

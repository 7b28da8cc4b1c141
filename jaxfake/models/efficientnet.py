"""EfficientNet-B0: inverted residuals with squeeze and excitation.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", 2019, arXiv:1905.11946, Table 1. Layers, names and epsilons are
those of `keras.applications.EfficientNetB0`, without the rescaling and
normalisation at its entrance, which are preprocessing.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers

# Kernel, expansion, output channels, repeats, stride of the first.
STAGES = (
  (3, 1, 16, 1, 1),
  (3, 6, 24, 2, 2),
  (5, 6, 40, 2, 2),
  (3, 6, 80, 3, 2),
  (5, 6, 112, 3, 1),
  (5, 6, 192, 4, 2),
  (3, 6, 320, 1, 1),
)
BLOCKS = sum(repeats for _, _, _, repeats, _ in STAGES)


class EfficientNetB0(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 1280). Training needs the
  "dropout" key unless `drop_connect` and `dropout` are 0. Images below 32 px
  raise ValueError.
  """

  num_classes: int
  dropout: float = 0.0  # The paper has 0.2.
  # Share of images that skip a block in training: 0 at the first block,
  # approaching this at the last (Huang et al., 2016, arXiv:1603.09382).
  drop_connect: float = 0.2
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    convolve = functools.partial(conv.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train, epsilon=1e-3, dtype=self.dtype
    )

    def excite(x, squeezed, name):
      c = x.shape[-1]
      s = x.mean((1, 2), keepdims=True, dtype=jnp.float32)  # (b, 1, 1, c)
      s = conv.Conv(
        squeezed, (1, 1), dtype=self.dtype, name=f"{name}_se_reduce"
      )(s)
      s = nn.swish(s)
      s = conv.Conv(c, (1, 1), dtype=self.dtype, name=f"{name}_se_expand")(s)
      return x * nn.sigmoid(s)

    def block(x, kernel, expansion, width, stride, drop, name):
      c = x.shape[-1]
      y = x
      if expansion > 1:
        y = convolve(expansion * c, (1, 1), name=f"{name}_expand_conv")(y)
        y = nn.swish(norm(name=f"{name}_expand_bn")(y))
      y = convolve(
        expansion * c,
        (kernel, kernel),
        (stride, stride),
        groups=expansion * c,
        name=f"{name}_dwconv",
      )(y)
      y = nn.swish(norm(name=f"{name}_bn")(y))
      y = excite(y, c // 4, name)  # A quarter of the block's input.
      y = convolve(width, (1, 1), name=f"{name}_project_conv")(y)
      y = norm(name=f"{name}_project_bn")(y)
      if stride > 1 or width != c:
        return y
      skip = nn.Dropout(
        drop,
        broadcast_dims=(1, 2, 3),  # Whole images.
        deterministic=not train,
        name=f"{name}_drop",
      )
      return x + skip(y)

    x = convolve(32, (3, 3), (2, 2), name="stem_conv")(x)
    x = nn.swish(norm(name="stem_bn")(x))
    i = 0
    for stage, (kernel, expansion, width, repeats, first) in enumerate(STAGES):
      for j in range(repeats):
        stride = first if j == 0 else 1
        drop = self.drop_connect * i / BLOCKS
        name = f"block{stage + 1}{'abcd'[j]}"
        x = block(x, kernel, expansion, width, stride, drop, name)
        i += 1
    x = convolve(1280, (1, 1), name="top_conv")(x)
    x = nn.swish(norm(name="top_bn")(x))
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, 1280)
    return layers.head(self, x, train, features)

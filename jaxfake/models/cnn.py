"""The custom CNN: ours, small, for gray radiographs.

A residual network (He et al., 2015, arXiv:1512.03385, basic blocks) one
seventh as wide as ResNet-18 is, whose head reads the largest value of each
channel beside its mean, since a small opacity hardly moves a mean.
"""

import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers


class CNN(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, d).
  """

  num_classes: int
  width: int = 24  # Channels after the stem; doubled three times.
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)

    def unit(x, name, width, kernel, stride):
      """Convolution and batch norm."""
      x = conv.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        use_bias=False,
        dtype=self.dtype,
        name=f"{name}_conv",
      )(x)
      return layers.batch_norm(train, dtype=self.dtype, name=f"{name}_bn")(x)

    x = nn.relu(unit(x, "stem", self.width, 5, 2))
    for i in range(4):
      width, stride = self.width << i, 2 if i else 1
      y = nn.relu(unit(x, f"stage{i + 1}_1", width, 3, stride))
      y = unit(y, f"stage{i + 1}_2", width, 3, 1)
      if stride > 1:
        x = unit(x, f"stage{i + 1}_short", width, 1, stride)
      x = nn.relu(x + y)
    x = x.astype(jnp.float32).reshape(len(x), -1, x.shape[-1])  # (b, h * w, c)
    # Not max(), whose gradient divides by how many pixels equal the largest:
    # none does where XLA computes x again and rounds otherwise.
    largest = jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1)[:, 0]
    x = jnp.concatenate([x.mean(1), largest], -1)  # (b, d)
    return layers.head(self, x, train, features)

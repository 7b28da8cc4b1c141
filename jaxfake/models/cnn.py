"""The custom CNN: small, for gray radiographs."""

import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.models import conv, layers


class CNN(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, d).
  """

  num_classes: int
  width: int = 32
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    for i in range(4):
      for j in (1, 2):
        x = conv.Conv(
          self.width << i,
          (3, 3),
          use_bias=False,
          dtype=self.dtype,
          name=f"block{i + 1}_conv{j}",
        )(x)
        norm = f"block{i + 1}_bn{j}"
        x = layers.batch_norm(train, dtype=self.dtype, name=norm)(x)
        x = nn.relu(x)
      x = conv.max_pool(x, (2, 2), (2, 2))
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, d)
    if features:
      return x
    return layers.head(x, self.num_classes, self.dropout, train, self.dtype)

"""VGG: Simonyan and Zisserman, 2014, arXiv:1409.1556, table 1, D and E.

Without batch norm, as in the paper. Its fully connected layers are made for
224 px, where 7x7 pixels arrive; other sizes are averaged to 7x7, or repeated,
as by torchvision. Layers have Keras's names, and like Keras the pixels are
flattened row by row with the channels last.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxfake.nn import conv, layers, pool

KERNEL_INIT = nn.initializers.he_normal()


def average(size: int, to: int) -> np.ndarray:
  """Weights (to, size) of adaptive average pooling along one axis.

  Bin i is the mean of the pixels that it touches, from floor(i * size / to)
  to ceil((i + 1) * size / to): PyTorch's rule, in which neighbours may share
  a pixel and a small image is repeated.
  """
  bins = np.zeros((to, size), np.float32)
  for i in range(to):
    first, end = i * size // to, -(-(i + 1) * size // to)
    bins[i, first:end] = 1 / (end - first)
  return bins


class VGG(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 4096). `dropout` is that of both
  hidden layers, 0.5 in the paper.
  """

  num_classes: int
  convs: tuple[int, ...]  # In each of the five blocks.
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    for i, convs in enumerate(self.convs):
      for j in range(convs):
        x = conv.Conv(
          min(64 << i, 512),
          (3, 3),
          dtype=self.dtype,
          kernel_init=KERNEL_INIT,
          name=f"block{i + 1}_conv{j + 1}",
        )(x)
        x = nn.relu(x)
      x = pool.max_pool(x, (2, 2), (2, 2))
    if x.shape[1:3] != (7, 7):
      rows, columns = (average(n, 7) for n in x.shape[1:3])
      x = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x).astype(x.dtype)
    x = x.reshape(len(x), -1)  # (b, 7 * 7 * 512)
    hidden = functools.partial(
      nn.Dense, 4096, dtype=self.dtype, kernel_init=KERNEL_INIT
    )
    x = nn.relu(hidden(name="fc1")(x))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    x = nn.relu(hidden(name="fc2")(x))
    return layers.head(self, x, train, features)


VGG16 = functools.partial(VGG, convs=(2, 2, 3, 3, 3))
VGG19 = functools.partial(VGG, convs=(2, 2, 4, 4, 4))

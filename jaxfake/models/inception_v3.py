"""Inception-v3: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, 2015.

arXiv:1512.00567, table 1, in the layout of the authors' released network
(TF-slim's, which keras.applications follows): after the first pooling come a
1x1 and a 3x3 convolution and a second pooling, where table 1 has three 3x3
convolutions. Without the auxiliary head; batch norm has no scale.

keras.applications only numbers its layers, so the names are ours. Layers are
created in Keras's order.
"""

from collections.abc import Callable
import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers, pool

ONE, THREE, FIVE = (1, 1), (3, 3), (5, 5)
DOWN = ((2, 2), "VALID")  # Strides and padding of a step that halves.


def convolve(
  x: jax.Array,
  name: str,
  *steps: tuple,
  train: bool,
  dtype: jax.typing.DTypeLike | None,
  scale: bool = False,
) -> jax.Array:
  """A chain of convolutions, (b, h, w, c) -> (b, h', w', features).

  A step is (features, kernel), then strides and padding where they are not 1
  and "SAME". After each come batch norm, which may have a scale, and ReLU.
  Layers of step i, from 1, are {name}_{i}_conv and {name}_{i}_bn. Below,
  `chain` is this function.
  """
  for i, (features, kernel, *moves) in enumerate(steps, 1):
    x = conv.Conv(
      features,
      kernel,
      *moves,
      use_bias=False,
      dtype=dtype,
      name=f"{name}_{i}_conv",
    )(x)
    x = layers.batch_norm(
      train, epsilon=1e-3, scale=scale, dtype=dtype, name=f"{name}_{i}_bn"
    )(x)
    x = nn.relu(x)
  return x


def stem(x: jax.Array, chain: Callable) -> jax.Array:
  """Images (b, h, w, c) to (b, about h / 8, w / 8, 192)."""
  unpadded = ((1, 1), "VALID")
  x = chain(
    x, "stem_a", (32, THREE, *DOWN), (32, THREE, *unpadded), (64, THREE)
  )
  x = halve(x)
  x = chain(x, "stem_b", (80, ONE), (192, THREE, *unpadded))
  return halve(x)


def halve(x: jax.Array) -> jax.Array:
  return pool.max_pool(x, (3, 3), (2, 2))


def smooth(x: jax.Array) -> jax.Array:
  """Mean over 3 x 3 pixels, fewer at the edges."""
  return pool.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def mixed_a(x: jax.Array, name: str, pooled: int, chain: Callable) -> jax.Array:
  """Figure 5: (b, h, w, c) -> (b, h, w, 224 + pooled)."""
  branches = (
    chain(x, f"{name}_1x1", (64, ONE)),
    chain(x, f"{name}_5x5", (48, ONE), (64, FIVE)),
    chain(x, f"{name}_3x3dbl", (64, ONE), (96, THREE), (96, THREE)),
    chain(smooth(x), f"{name}_pool", (pooled, ONE)),
  )
  return jnp.concatenate(branches, -1)


def reduction_a(x: jax.Array, name: str, chain: Callable) -> jax.Array:
  """Figure 10: (b, h, w, c) -> (b, h / 2, w / 2, 480 + c)."""
  branches = (
    chain(x, f"{name}_3x3", (384, THREE, *DOWN)),
    chain(x, f"{name}_3x3dbl", (64, ONE), (96, THREE), (96, THREE, *DOWN)),
    halve(x),
  )
  return jnp.concatenate(branches, -1)


def mixed_b(x: jax.Array, name: str, width: int, chain: Callable) -> jax.Array:
  """Figure 6: (b, h, w, c) -> (b, h, w, 768)."""
  row, column = (1, 7), (7, 1)
  branches = (
    chain(x, f"{name}_1x1", (192, ONE)),
    chain(x, f"{name}_7x7", (width, ONE), (width, row), (192, column)),
    chain(
      x,
      f"{name}_7x7dbl",
      (width, ONE),
      (width, column),
      (width, row),
      (width, column),
      (192, row),
    ),
    chain(smooth(x), f"{name}_pool", (192, ONE)),
  )
  return jnp.concatenate(branches, -1)


def reduction_b(x: jax.Array, name: str, chain: Callable) -> jax.Array:
  """(b, h, w, c) -> (b, h / 2, w / 2, 512 + c)."""
  branches = (
    chain(x, f"{name}_3x3", (192, ONE), (320, THREE, *DOWN)),
    chain(
      x,
      f"{name}_7x7x3",
      (192, ONE),
      (192, (1, 7)),
      (192, (7, 1)),
      (192, THREE, *DOWN),
    ),
    halve(x),
  )
  return jnp.concatenate(branches, -1)


def mixed_c(
  x: jax.Array, name: str, chain: Callable, pooled: Callable = smooth
) -> jax.Array:
  """Figure 7: (b, h, w, c) -> (b, h, w, 2048)."""
  one = chain(x, f"{name}_1x1", (320, ONE))
  three = chain(x, f"{name}_3x3", (384, ONE))
  three_row = chain(three, f"{name}_3x3_row", (384, (1, 3)))
  three_column = chain(three, f"{name}_3x3_column", (384, (3, 1)))
  double = chain(x, f"{name}_3x3dbl", (448, ONE), (384, THREE))
  double_row = chain(double, f"{name}_3x3dbl_row", (384, (1, 3)))
  double_column = chain(double, f"{name}_3x3dbl_column", (384, (3, 1)))
  pool = chain(pooled(x), f"{name}_pool", (192, ONE))
  return jnp.concatenate(
    (one, three_row, three_column, double_row, double_column, pool), -1
  )


def body(x: jax.Array, chain: Callable, last: Callable = smooth) -> jax.Array:
  """All but the head: images (b, h, w, c) to float32 (b, 2048). `last` is the
  pooling of the last block."""
  x = stem(x, chain)
  for i, pooled in enumerate((32, 64, 64)):
    x = mixed_a(x, f"mixed{i}", pooled, chain)
  x = reduction_a(x, "mixed3", chain)
  for i, width in enumerate((128, 160, 160, 192), 4):
    x = mixed_b(x, f"mixed{i}", width, chain)
  x = reduction_b(x, "mixed8", chain)
  x = mixed_c(x, "mixed9", chain)
  x = mixed_c(x, "mixed10", chain, last)
  return x.mean((1, 2), dtype=jnp.float32)


class InceptionV3(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 2048).
  """

  num_classes: int
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 75

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    chain = functools.partial(convolve, train=train, dtype=self.dtype)
    x = body(x, chain)
    return layers.head(self, x, train, features)

"""NASNet-A: Zoph, Vasudevan, Shlens and Le, 2017, arXiv:1707.07012, figure 4.

The mobile network, 4 @ 1056 of table 2, as keras.applications has it. Unlike
the authors' released network that one has no auxiliary head, drops no paths in
training, and pads with zeros, which count, where a reduction cell pools.
Layers have Keras's names; its separable convolution NAME is NAME_depthwise and
NAME_pointwise here.
"""

import typing
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers, pool


class Cells(typing.NamedTuple):
  """The cells and their parts, all from (b, h, w, c).

  A cell takes the outputs x of the previous one and p of the one before, which
  may be larger, and gives its own.
  """

  train: bool
  dtype: jax.typing.DTypeLike | None

  def norm(self, x: jax.Array, name: str) -> jax.Array:
    return layers.batch_norm(
      self.train, epsilon=1e-3, dtype=self.dtype, name=name
    )(x)

  def conv(
    self,
    x: jax.Array,
    width: int,
    kernel: tuple[int, int],
    name: str,
    **options: Any,
  ) -> jax.Array:
    """Without a bias, to (b, h', w', width)."""
    return conv.Conv(
      width, kernel, use_bias=False, dtype=self.dtype, name=name, **options
    )(x)

  def separable(
    self, x: jax.Array, width: int, size: int, name: str, stride: int = 1
  ) -> jax.Array:
    """Twice ReLU, separable convolution and batch norm.

    Kernels are size x size; the first convolution is strided.
    """
    for i, s in ((1, stride), (2, 1)):
      layer = f"separable_conv_{i}"
      channels = x.shape[-1]
      x = self.conv(
        nn.relu(x),
        channels,
        (size, size),
        f"{layer}_{name}_depthwise",
        strides=(s, s),
        groups=channels,
      )
      x = self.conv(x, width, (1, 1), f"{layer}_{name}_pointwise")
      x = self.norm(x, f"{layer}_bn_{name}")
    return x

  def squeeze(
    self, x: jax.Array, width: int, kind: str, name: str
  ) -> jax.Array:
    """Of a cell's input x, to (b, h, w, width)."""
    x = self.conv(nn.relu(x), width, (1, 1), f"{kind}_conv_1_{name}")
    return self.norm(x, f"{kind}_bn_1_{name}")

  def adjust(
    self, p: jax.Array, x: jax.Array, width: int, name: str
  ) -> jax.Array:
    """p, halved to the size of x where it is larger: (b, h, w, width)."""
    if p.shape[1:3] == x.shape[1:3]:
      p = self.conv(nn.relu(p), width, (1, 1), f"adjust_conv_projection_{name}")
      return self.norm(p, f"adjust_bn_{name}")
    p = nn.relu(p)
    # Every second pixel, and its neighbour below on the right, or a zero.
    shifted = jnp.pad(p[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
    halves = [
      self.conv(y[:, ::2, ::2], width // 2, (1, 1), f"adjust_conv_{i}_{name}")
      for i, y in enumerate((p, shifted), 1)
    ]
    return self.norm(jnp.concatenate(halves, -1), f"adjust_bn_{name}")

  def normal(
    self, x: jax.Array, p: jax.Array, width: int, name: str
  ) -> jax.Array:
    """Figure 4, left: (b, h, w, 6 * width)."""
    p = self.adjust(p, x, width, name)
    h = self.squeeze(x, width, "normal", name)
    y1 = self.separable(h, width, 5, f"normal_left1_{name}")
    y1 += self.separable(p, width, 3, f"normal_right1_{name}")
    y2 = self.separable(p, width, 5, f"normal_left2_{name}")
    y2 += self.separable(p, width, 3, f"normal_right2_{name}")
    y3 = smooth(h) + p
    y4 = 2 * smooth(p)
    y5 = self.separable(h, width, 3, f"normal_left5_{name}") + h
    return jnp.concatenate([p, y1, y2, y3, y4, y5], -1)

  def reduction(
    self, x: jax.Array, p: jax.Array, width: int, name: str
  ) -> jax.Array:
    """Figure 4, right: (b, h / 2, w / 2, 4 * width), sizes rounded up."""
    if p is not x:  # As it is after the stem, which has one output.
      p = self.adjust(p, x, width, name)
    h = self.squeeze(x, width, "reduction", name)
    odd = [n % 2 for n in h.shape[1:3]]
    padded = jnp.pad(h, ((0, 0), (odd[0], 1), (odd[1], 1), (0, 0)))

    y1 = self.separable(h, width, 5, f"reduction_left1_{name}", stride=2)
    y1 += self.separable(p, width, 7, f"reduction_right1_{name}", stride=2)
    y2 = pool.max_pool(padded, (3, 3), (2, 2))
    y2 += self.separable(p, width, 7, f"reduction_right2_{name}", stride=2)
    y3 = pool.avg_pool(padded, (3, 3), (2, 2))
    y3 += self.separable(p, width, 5, f"reduction_right3_{name}", stride=2)
    y4 = smooth(y1) + y2
    y5 = self.separable(y1, width, 3, f"reduction_left4_{name}")
    y5 += pool.max_pool(padded, (3, 3), (2, 2))
    return jnp.concatenate([y2, y3, y4, y5], -1)


def smooth(x: jax.Array) -> jax.Array:
  """Mean over 3 x 3 pixels, fewer at the edges."""
  return pool.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


class NASNetMobile(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, 1056).
  """

  num_classes: int
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)
    cells = Cells(train, self.dtype)
    x = cells.conv(x, 32, (3, 3), "stem_conv1", strides=(2, 2), padding="VALID")
    x = cells.norm(x, "stem_bn1")
    x, p = cells.reduction(x, x, 11, "stem_1"), x
    x, p = cells.reduction(x, p, 22, "stem_2"), x
    for i in range(4):
      x, p = cells.normal(x, p, 44, f"{i}"), x
    x, p = cells.reduction(x, p, 88, "reduce_4"), x
    for i in range(5, 9):
      x, p = cells.normal(x, p, 88, f"{i}"), x
    x, p = cells.reduction(x, p, 176, "reduce_8"), x
    for i in range(9, 13):
      x, p = cells.normal(x, p, 176, f"{i}"), x
    x = nn.relu(x).mean((1, 2), dtype=jnp.float32)  # (b, 1056)
    return layers.head(self, x, train, features)

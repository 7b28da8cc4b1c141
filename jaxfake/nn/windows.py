"""What convolutions and pooling share: windows that slide over an image."""

from collections.abc import Callable, Iterable, Sequence
import typing
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # (before, after), for height and for width.
Padding = str | Sequence[Pair]


class Geometry(typing.NamedTuple):
  """What the maps of one convolution or pooling share; all static."""

  size: Pair  # Of x.
  kernel: Pair
  strides: Pair
  pads: Pads  # A negative pad crops.


def geometry(
  x: jax.Array, kernel: Sequence[int], strides: Sequence[int], padding: Padding
) -> Geometry:
  """Of windows over x (b, h, w, c), with what lax means by a padding."""
  size, kernel, strides = pair(x.shape[1:3]), pair(kernel), pair(strides)
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(size, kernel, strides, padding)
  return Geometry(size, kernel, strides, static(padding))


def pair(numbers: Iterable[int]) -> Pair:
  first, second = numbers
  return first, second


def static(padding: Iterable[Pair]) -> Pads:
  height, width = ((int(before), int(after)) for before, after in padding)
  return height, width


def ours(*arrays: jax.Array | jax.ShapeDtypeStruct) -> bool:
  """Whether forms made for CPU serve operands and result like these."""
  shaped = all(a.ndim == 4 and 0 not in a.shape for a in arrays)
  real = jnp.issubdtype(arrays[0].dtype, jnp.floating)
  return jax.default_backend() == "cpu" and shaped and real


def pad(x: jax.Array, pads: Sequence[Pair], value: float = 0) -> jax.Array:
  """x (b, h, w, c) with `value` around it, or cropped where `pads` < 0.

  Cropped by a slice, for XLA may merge a crop by `lax.pad` into the padding of
  the next convolution, whose zeros it then undoes: openxla/xla#48715.
  """
  added = [(max(a, 0), max(b, 0), 0) for a, b in pads]
  x = lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *added, (0, 0, 0)])
  (top, bottom), (left, right) = [(min(a, 0), min(b, 0)) for a, b in pads]
  h, w = x.shape[1:3]
  return x[:, -top : h + bottom, -left : w + right]


def views(geo: Geometry, x: jax.Array) -> list[jax.Array]:
  """For each element of the window, what of the padded x it meets."""
  h, w = (n - k + 1 for n, k in zip(x.shape[1:3], geo.kernel, strict=True))
  return [
    x[:, i : i + h : geo.strides[0], j : j + w : geo.strides[1]]
    for i, j in np.ndindex(*geo.kernel)
  ]


def spread(geo: Geometry, give: Callable, *arrays: jax.Array) -> jax.Array:
  """x (b, h, w, c): for each pixel the sum of what its windows give it.

  This is how `views` and a sum run backwards. The padded x is cut into blocks
  of one stride, and so is the window. Then the pixels of block i meet block u
  of window i - u, for all u of `blocks`. `give(u, v, *shifted)` says what the
  elements of the window's block (u, v), as (s0, 1, s1, c), give to theirs:
  `shifted` are `arrays` (b, h', w', c), which have an entry for each window,
  as (b, rows, 1, columns, 1, c). One fused pass writes x once.
  """
  (s0, s1), (n0, n1) = geo.strides, _blocks(geo)
  more = ((n0 - 1, n0 - 1), (n1 - 1, n1 - 1))
  padded = [pad(a, more) for a in arrays]
  rows, columns = padded[0].shape[1] - n0 + 1, padded[0].shape[2] - n1 + 1
  x = typing.cast(jax.Array, 0)
  for u, v in np.ndindex(n0, n1):
    i, j = n0 - 1 - u, n1 - 1 - v
    shifted = [a[:, i : i + rows, None, j : j + columns, None] for a in padded]
    x += give(u, v, *shifted)
  x = x.reshape(-1, rows * s0, columns * s1, x.shape[-1])
  (height, width), (top, _), (left, _) = geo.size, *geo.pads
  bottom, right = top + height - rows * s0, left + width - columns * s1
  return pad(x, ((-top, bottom), (-left, right)))


def in_blocks(geo: Geometry, w: jax.Array | np.ndarray, fill: float = 0) -> Any:
  """w (kh, kw, c), filled up, as blocks for `spread`: [u, v] is (s0, 1, s1, c).

  An array of NumPy stays one.
  """
  (s0, s1), (n0, n1) = geo.strides, _blocks(geo)
  xp = np if isinstance(w, np.ndarray) else jnp
  more = ((0, n0 * s0 - w.shape[0]), (0, n1 * s1 - w.shape[1]), (0, 0))
  w = xp.pad(w, more, constant_values=fill)
  return w.reshape(n0, s0, n1, 1, s1, -1).swapaxes(1, 2)


def _blocks(geo: Geometry) -> Pair:
  """Of how many strides the window is, rounded up."""
  return pair(-(-k // s) for k, s in zip(geo.kernel, geo.strides, strict=True))


def blocks(a: jax.Array, strides: Pair, axis: int) -> jax.Array:
  """Space to depth: (.., h, w, c, ..) -> (.., h / s0, w / s1, s0 * s1 * c, ..).

  Height is `axis`.
  """
  (s0, s1), (h, w, c) = strides, a.shape[axis : axis + 3]
  first, last = a.shape[:axis], a.shape[axis + 3 :]
  a = a.reshape(*first, h // s0, s0, w // s1, s1, c, *last)
  a = a.swapaxes(axis + 1, axis + 2)
  return a.reshape(*first, h // s0, w // s1, s0 * s1 * c, *last)


def unblocked(a: jax.Array, strides: Pair, axis: int) -> jax.Array:
  """The inverse of `blocks`, depth to space."""
  (s0, s1), (h, w, c) = strides, a.shape[axis : axis + 3]
  first, last = a.shape[:axis], a.shape[axis + 3 :]
  a = a.reshape(*first, h, w, s0, s1, c // (s0 * s1), *last)
  a = a.swapaxes(axis + 1, axis + 2)
  return a.reshape(*first, h * s0, w * s1, c // (s0 * s1), *last)


def wide(x: jax.Array) -> jax.Array:
  """x in float32 at least, for sums as precise as inside a product."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))

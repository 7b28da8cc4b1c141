"""Convolution with fewer multiplications: Winograd's minimal filtering.

Winograd, Arithmetic Complexity of Computations, 1980; for networks Lavin and
Gray, 2016, arXiv:1509.09308. Two neighbouring outputs of a filter w of r taps
need r + 1 multiplications and not 2 r. With x the tile of r + 1 inputs that
they see

    y = A^T [(G w) * (B x)]                                        (1)

and in two dimensions the same along either axis: 16 multiplications and not 36
for 2x2 outputs of 3x3 taps. Over channels these are products of matrices, whose
rows are the tiles of all images. It is an identity and no approximation, with
coefficients 0, 1, -1 and 1/2; in float32 it rounds to about 1e-6 of the largest
value.

Written as the form that `conv` differentiates,

    <g, y> = sum over tiles of <A g, (G w) * (B x)>,

(1) gives the gradients, too: G^T of the sum of (A g) * (B x) is that of w, and
tiles B^T [(A g) * (G w)], added up where they overlap, are that of x.

Convolutions here are unstrided, over x that is padded already. The barriers
keep XLA from making a transform again within each reader of its result, and a
forward one from being kept for the kernel's gradient: 9 or 16 quarters of x.
"""

from collections.abc import Iterator, Sequence
import contextlib
import contextvars
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jaxfake.nn import windows

# B, G and A of equation (1) by the number of taps.
FILTERS = {
  2: (
    np.array([[1, -1, 0], [0, 1, 0], [0, -1, 1]]),
    np.array([[1, 0], [1, 1], [0, 1]]),
    np.array([[1, 0], [1, 1], [0, 1]]),
  ),
  3: (
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    np.array([[1, 0], [1, 1], [1, -1], [0, 1]]),
  ),
}

# To bring a number into this form or out of it takes as long as so many
# products that are added up. Milliseconds of a training step on two Zen 4
# cores, at 35, 60, 100 and without these forms: DCGAN 64 px 830, 750, 870, 920;
# VGG-16 4090, 3520, 3800, 4690; ResNet-50 2900, 2770, 2640, 2850.
MOVED = 60

# Fewer multiplications saved, some milliseconds, are not worth that XLA takes
# about 0.2 s longer to compile each map, and more memory.
LEAST = 500e6

_spares = contextvars.ContextVar("spares multiplications", default=True)

Grid = Sequence[Sequence[jax.Array]]


@contextlib.contextmanager
def spared_none() -> Iterator[None]:
  """What is traced meanwhile multiplies as a convolution is defined: so a
  network's operations are counted, whatever machine counts them."""
  token = _spares.set(False)
  try:
    yield
  finally:
    _spares.reset(token)


def pays(
  dtype: jax.typing.DTypeLike,
  batch: int,
  size: Sequence[int],
  kernel: Sequence[int],
  c: int,
  o: int,
) -> bool:
  """Whether these forms are faster by what matters, `size` being that of y.

  In bfloat16 never: B x and A g would be rounded.
  """
  if not _spares.get() or dtype not in (jnp.float32, jnp.float64):
    return False
  if any(taps not in FILTERS for taps in kernel):
    return False
  tiles = batch * math.prod(-(-n // 2) for n in size)
  elements = math.prod(taps + 1 for taps in kernel)
  saved = batch * math.prod(size) * math.prod(kernel) - tiles * elements
  moved = elements * (tiles * c + tiles * o + c * o)
  return saved * c * o > max(LEAST, MOVED * moved)


def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
  """y (b, h', w', o) of x (b, h, w, c) and w (kh, kw, c, o)."""
  kernel = w.shape[:2]
  height, width = (n - k + 1 for n, k in zip(x.shape[1:3], kernel, strict=True))
  y = _each(lambda v, u: _like(v, _rows(v) @ u), _tiles(x, kernel), _taps(w))
  y = _apply(kernel, 2, y, transposed=True)
  return lax.optimization_barrier(_joined(y)[:, :height, :width])


def input_gradient(g: jax.Array, w: jax.Array) -> jax.Array:
  """x (b, h, w, c) of g (b, h', w', o) and w (kh, kw, c, o)."""
  kernel = w.shape[:2]
  tiles = _each(
    lambda v, u: _like(v, _rows(v) @ u.T), _cotangents(g, kernel), _taps(w)
  )
  tiles = _apply(kernel, 0, tiles, transposed=True)
  # A tile's third and fourth row are the next one's first and second.
  x: list[list[Any]] = [[0, 0], [0, 0]]
  for i, row in enumerate(tiles):
    for j, tile in enumerate(row):
      pads = [(k // 2, 1 - k // 2) for k in (i, j)]
      x[i % 2][j % 2] += windows.pad(tile, pads)
  height, width = (n + k - 1 for n, k in zip(g.shape[1:3], kernel, strict=True))
  return lax.optimization_barrier(_joined(x)[:, :height, :width])


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
  """w (kh, kw, c, o) of x (b, h, w, c) and g (b, h', w', o)."""
  kernel = tuple(
    n - m + 1 for n, m in zip(x.shape[1:3], g.shape[1:3], strict=True)
  )
  w = _each(
    lambda v, u: _rows(v).T @ _rows(u),
    _tiles(x, kernel),
    _cotangents(g, kernel),
  )
  w = _apply(kernel, 1, w, transposed=True)
  return lax.optimization_barrier(jnp.stack([jnp.stack(row) for row in w]))


def _tiles(x, kernel) -> Grid:
  """B x: for each element of a tile (b, t0, t1, c)."""
  counts = [
    -(-(n - k + 1) // 2) for n, k in zip(x.shape[1:3], kernel, strict=True)
  ]
  ends = [2 * n + k - 1 for n, k in zip(counts, kernel, strict=True)]
  x = windows.pad(
    lax.optimization_barrier(x),
    [(0, end - n) for end, n in zip(ends, x.shape[1:3], strict=True)],
  )
  rows, columns = (
    [slice(i, i + 2 * n, 2) for i in range(k + 1)]
    for n, k in zip(counts, kernel, strict=True)
  )
  return _apply(kernel, 0, [[x[:, i, j] for j in columns] for i in rows])


def _cotangents(g, kernel) -> Grid:
  """A g: for each element of a tile (b, t0, t1, o)."""
  g = lax.optimization_barrier(g)
  g = windows.pad(g, [(0, n % 2) for n in g.shape[1:3]])
  return _apply(
    kernel, 2, [[g[:, i::2, j::2] for j in range(2)] for i in range(2)]
  )


def _taps(w) -> Grid:
  """G w: for each element of a tile (c, o)."""
  return _apply(w.shape[:2], 1, [list(row) for row in w])


def _apply(kernel, which, grid: Grid, transposed=False) -> Grid:
  """left @ grid @ right^T, whose elements are arrays, by FILTERS."""
  left, right = (FILTERS[taps][which] for taps in kernel)
  if transposed:
    left, right = left.T, right.T
  columns = (
    [_sum(m, column) for m in left] for column in zip(*grid, strict=True)
  )
  return [[_sum(m, row) for m in right] for row in zip(*columns, strict=True)]


def _sum(coefficients, arrays) -> Any:
  """Their inner product, without multiplications by 0, 1 and -1."""
  total = None
  for k, a in zip(coefficients, arrays, strict=True):
    if k:
      a = a if abs(k) == 1 else abs(float(k)) * a
      if total is None:
        total = a if k > 0 else -a
      else:
        total = total + a if k > 0 else total - a
  return total


def _each(f, *grids: Grid) -> Grid:
  return [
    [f(*elements) for elements in zip(*rows, strict=True)]
    for rows in zip(*grids, strict=True)
  ]


def _joined(grid: Grid):
  """(b, 2 t0, 2 t1, c) of its 2x2 parts (b, t0, t1, c)."""
  x = jnp.stack([jnp.stack(row, 3) for row in grid], 2)
  b, t0, _, t1, _, c = x.shape
  return x.reshape(b, 2 * t0, 2 * t1, c)


def _rows(x):
  return x.reshape(-1, x.shape[-1])


def _like(x, rows):
  return rows.reshape(*x.shape[:-1], -1)

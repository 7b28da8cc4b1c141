"""What generators leave in a picture, as numbers: spectra of small blocks.

A generator enlarges its maps, which shows in how a picture's power is spread
over frequencies: copies of the spectrum, bands that are empty or too even
(Zhang et al., 2019, arXiv:1907.06515; Durall et al., 2020, arXiv:2003.01826),
and in fine structure that is stronger at some places of a grid than at others.
A picture is cut into overlapping blocks of 32 x 32 pixels at its own
resolution. Of each comes

- the logarithm of its power at every frequency, less its mean over them: so
  contrast and exposure, in which hospitals differ, drop out;
- the power of its fine structure, relative to that nearby, at each place of a
  grid of 8 x 8 pixels.

The numbers of a picture, or of a part of it, are means over blocks of the
first, and of the second the strength of every period. Nothing is shrunk, and a
picture of any size from 32 px is read.
"""

from collections.abc import Iterator
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxfake.runtime import xla

BLOCK, STRIDE, GRID = 32, 16, 8  # Pixels.
FREQUENCIES = BLOCK * (BLOCK // 2 + 1)
PERIODS = GRID * (GRID // 2 + 1) - 1
NUMBERS = FREQUENCIES + PERIODS
# Power that is added, in gray levels squared: about what rounding to 8 bits
# leaves, below which nothing is known.
ROUNDING = 1.0
LEAST_VARIANCE = 0.5  # Of a block's gray levels; a black border has none.
MOST_PLACES = 10_000  # Of a map.
CHUNKS = 64, 1024  # Blocks at once: two shapes, each compiled once.


class Sums(NamedTuple):
  """Over blocks, of which there are `count`: (..., d) each."""

  count: jax.Array
  spectra: jax.Array  # (..., FREQUENCIES)
  grids: jax.Array  # (..., GRID * GRID)


def log_spectra(x: jax.Array) -> jax.Array:
  """Blocks (..., 32, 32) of gray levels to (..., FREQUENCIES): the logarithm of
  their power by frequency, under a Hann window, less its mean."""
  window = np.hanning(BLOCK + 2)[1:-1]
  window = np.outer(window, window)
  window = (window / math.sqrt(np.square(window).sum())).astype(np.float32)
  x = x - x.mean((-2, -1), keepdims=True)
  power = jnp.square(jnp.abs(jnp.fft.rfft2(x * window)))
  spectra = jnp.log(power + ROUNDING).reshape(*x.shape[:-2], FREQUENCIES)
  return spectra - spectra.mean(-1, keepdims=True)


def grids(x: jax.Array) -> jax.Array:
  """Blocks (..., 32, 32) of gray levels to (..., GRID * GRID): the power of
  what differs from the mean of 3 x 3, relative to its mean nearby, by place in
  a grid of 8 x 8. The outer 4 pixels, whose surroundings are cut off, are left
  out."""
  fine = x - _mean(x, 3)
  nearby = _mean(jnp.square(fine), 11)
  relative = jnp.clip(jnp.square(fine) / (nearby + 0.25), 0, 16)
  inner = relative[..., GRID // 2 : -GRID // 2, GRID // 2 : -GRID // 2]
  n = inner.shape[-1] // GRID
  cells = inner.reshape(*x.shape[:-2], n, GRID, n, GRID)
  return cells.mean((-4, -2)).reshape(*x.shape[:-2], GRID * GRID)


def _mean(x, side: int):
  """Over side x side pixels, the border mirrored."""
  pad = [(0, 0)] * (x.ndim - 2) + [(side // 2, side // 2)] * 2
  x = jnp.pad(x, pad, mode="reflect")
  for axis in (-2, -1):
    total = jnp.cumsum(x, axis)
    zero = jnp.zeros_like(jax.lax.slice_in_dim(total, 0, 1, axis=axis))
    total = jnp.concatenate([zero, total], axis)
    n = total.shape[axis]
    ahead = jax.lax.slice_in_dim(total, side, n, axis=axis)
    x = (ahead - jax.lax.slice_in_dim(total, 0, n - side, axis=axis)) / side
  return x


def sums(blocks: jax.Array) -> Sums:
  """Over the last of the leading axes of blocks (..., k, 32, 32), flat ones
  left out."""
  x = blocks.astype(jnp.float32)
  telling = (x.var((-2, -1)) >= LEAST_VARIANCE)[..., None]
  spectra = log_spectra(x) * telling
  return Sums(
    telling.sum((-2, -1)),
    spectra.sum(-2),
    (grids(x) * telling).sum(-2),
  )


def numbers(total: Sums) -> jax.Array:
  """(..., NUMBERS) of sums over blocks; of no block at all, zeros."""
  n = jnp.maximum(total.count, 1)[..., None]
  grid = total.grids / n
  grid = grid / jnp.maximum(grid.mean(-1, keepdims=True), 1e-6)
  grid = grid.reshape(*grid.shape[:-1], GRID, GRID)
  strength = jnp.abs(jnp.fft.rfft2(grid)) / GRID
  strength = strength.reshape(*grid.shape[:-2], PERIODS + 1)[..., 1:]
  parts = total.spectra / n, jnp.log(strength + 0.02)
  return jnp.concatenate(parts, -1) * (total.count > 0)[..., None]


def radial() -> np.ndarray:
  """Weights (r, NUMBERS) of the sums that are a radial spectrum: means of the
  log spectra over all frequencies of one length (after Durall et al., 2020,
  arXiv:2003.01826)."""
  rows = np.fft.fftfreq(BLOCK, 1 / BLOCK)[:, None]
  columns = np.arange(BLOCK // 2 + 1)
  length = np.hypot(rows, columns).round().astype(int)
  # Of rfft2 the middle columns stand for two frequencies each.
  twice = np.where((columns > 0) & (columns < BLOCK // 2), 2.0, 1.0)
  weights = np.zeros((length.max() + 1, NUMBERS))
  of_each = np.broadcast_to(twice, length.shape).ravel()
  np.add.at(weights, (length.ravel(), np.arange(FREQUENCIES)), of_each)
  return weights / weights.sum(1, keepdims=True)


def coarse() -> np.ndarray:
  """Weights (k, NUMBERS) of the radial spectrum and, as they are, the strengths
  of the grid's periods."""
  return np.concatenate([radial(), np.eye(NUMBERS)[FREQUENCIES:]])


def places(side: int) -> np.ndarray:
  """Where blocks begin along a side of at least BLOCK pixels."""
  return np.arange(0, side - BLOCK + 1, STRIDE)


def cut(image: np.ndarray) -> np.ndarray:
  """A view of uint8 (h, w) as its blocks (rows, columns, 32, 32)."""
  windows = np.lib.stride_tricks.sliding_window_view(image, (BLOCK, BLOCK))
  return windows[::STRIDE, ::STRIDE]


@functools.cache
def _jitted(fn):
  """Not where it is defined: several processes meet before JAX begins."""
  return xla.jit(fn)


def _of_crops(crops):
  side = crops.shape[-1]
  blocks = [
    crops[:, top : top + BLOCK, left : left + BLOCK]
    for top in places(side)
    for left in places(side)
  ]
  return numbers(sums(jnp.stack(blocks, 1)))


def of_crops(crops: np.ndarray) -> np.ndarray:
  """float32 (n, NUMBERS) of uint8 (n, s, s)."""
  return np.asarray(_jitted(_of_crops)(crops))


def _of_each(blocks):
  return sums(blocks[:, None])


def _chunks(blocks: np.ndarray):
  """Blocks (n, 32, 32), some at a time, the last filled up with flat ones."""
  first = 0
  while first < len(blocks):
    left = len(blocks) - first
    size = next((c for c in CHUNKS if left <= 4 * c), CHUNKS[-1])
    part = blocks[first : first + size]
    padded = np.zeros((size, BLOCK, BLOCK), np.uint8)
    padded[: len(part)] = part
    yield padded, len(part)
    first += size


def of_picture(image: np.ndarray) -> np.ndarray:
  """float32 (NUMBERS,) of uint8 (h, w). Of a large picture, with more
  than CHUNKS[-1] blocks, those are taken that do not overlap."""
  blocks = cut(image)
  if blocks.shape[0] * blocks.shape[1] > CHUNKS[-1]:
    blocks = blocks[::2, ::2]
  flat = blocks.reshape(-1, BLOCK, BLOCK)
  parts = [
    jax.tree.map(np.asarray, _jitted(sums)(part)) for part, _ in _chunks(flat)
  ]
  return np.asarray(_jitted(numbers)(jax.tree.map(lambda *x: sum(x), *parts)))


class Surroundings(NamedTuple):
  """Parts of a picture, side by side: where the middle of the first lies, how
  many pixels further the next, and row by row float32 (columns, NUMBERS)."""

  first: tuple[float, ...]
  stride: int
  rows: Iterator[np.ndarray]


def of_surroundings(image: np.ndarray, side: int = 5) -> Surroundings:
  """Of uint8 (h, w): of all parts of side x side blocks, or as many as there
  are. Of a large picture every second block is taken, or every fourth, so that
  they are at most MOST_PLACES."""
  blocks, stride = cut(image), STRIDE
  while blocks.shape[0] * blocks.shape[1] > MOST_PLACES:
    blocks, stride = blocks[::2, ::2], 2 * stride
  shape = blocks.shape[:2]
  parts = []
  for part, n in _chunks(blocks.reshape(-1, BLOCK, BLOCK)):
    parts.append(
      jax.tree.map(lambda x, n=n: np.asarray(x)[:n], _jitted(_of_each)(part))
    )
  each = jax.tree.map(lambda *x: np.concatenate(x), *parts)
  size = tuple(min(side, n) for n in shape)

  def around(x):
    x = x.reshape(*shape, -1)
    for axis, n in enumerate(size):
      x = n * ndimage.uniform_filter1d(x, n, axis, mode="constant")
      x = x.take(range(n // 2, n // 2 + shape[axis] - n + 1), axis)
    return x

  total = jax.tree.map(around, each)
  total = total._replace(count=np.round(total.count[..., 0]))
  return Surroundings(
    tuple((BLOCK - 1 + stride * (n - 1)) / 2 for n in size),
    stride,
    (
      np.asarray(_jitted(numbers)(jax.tree.map(lambda x, i=i: x[i], total)))
      for i in range(len(total.count))
    ),
  )

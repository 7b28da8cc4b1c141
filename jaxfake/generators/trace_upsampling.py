"""Simulated enlargement: what any one layer that enlarges would leave.

A picture is shrunk by two and enlarged again by a kernel that is drawn: between
its pixels stand zeros, and each of the four places of the finer grid may weigh
them otherwise, as transposed convolutions do (Odena et al., 2016,
doi:10.23915/distill.00003; Zhang et al., 2019, AutoGAN, arXiv:1907.06515). What
was lost is put back in part, as noise of its strength.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxfake import contracts
from jaxfake.generators import trace_pieces

BASES = (
  np.array([1.0, 1.0]),  # Nearest.
  np.array([0.25, 0.75, 0.75, 0.25]),  # Linear, between pixels.
  np.array([0.5, 1.0, 0.5]),  # Linear, on pixels.
  np.array([-0.03, -0.09, 0.29, 0.83, 0.83, 0.29, -0.09, -0.03]),  # Cubic.
)


class Spec(NamedTuple):
  """Kernels are drawn for each picture from this seed."""

  kind: str
  seed: int


def spec(kind: str, rng: np.random.Generator) -> Spec:
  return Spec(kind, int(rng.integers(2**31)))


def train(
  config: contracts.Config,
  i: int,
  spec: Spec,
  pieces: Sequence[trace_pieces.Piece],
) -> tuple[list, list[float]]:
  """Nothing is learnt: two stages of other kernels, no error."""
  del config, i, spec, pieces
  return [0, 1], [0.0, 0.0]


def repeat(
  spec: Spec, params: int, pieces: Sequence[trace_pieces.Piece]
) -> list[np.ndarray]:
  """uint8 (s, s) of each piece."""
  return [
    enlarged_again(p.image, np.random.default_rng((spec.seed, params, k)))
    for k, p in enumerate(pieces)
  ]


def enlarged_again(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """uint8 (h, w) of even sides, shrunk and enlarged again by drawn kernels."""
  x = image.astype(np.float64)
  h, w = x.shape
  small = x.reshape(h // 2, 2, w // 2, 2).mean((1, 3))
  enlarged = _enlarged(small, rng)
  detail = rng.normal(0, rng.uniform(0, 0.06), (3, 3))
  detail[1, 1] += 1 - detail.sum()
  enlarged = ndimage.convolve(enlarged, detail, mode="reflect")
  # What was lost, rarely all of it: else strength alone would tell.
  strength = np.sqrt(
    np.maximum(ndimage.uniform_filter((x - enlarged) ** 2, 9), 0)
  )
  noise = rng.standard_normal(x.shape)
  if rng.random() < 0.5:  # Noise of the coarse grid, enlarged with it.
    noise = _enlarged(rng.standard_normal(small.shape), rng)
  enlarged += rng.uniform(0, 0.8) * strength * noise
  return np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)


def _enlarged(small: np.ndarray, rng) -> np.ndarray:
  """(h, w) to (2 h, 2 w), mirrored beyond its border: between the zeros, what
  is enlarged could not be."""
  kernel = _kernel(rng)
  pad = len(kernel)
  small = np.pad(small, pad, mode="symmetric")
  wide = np.zeros((2 * small.shape[0], 2 * small.shape[1]))
  wide[::2, ::2] = small
  # An even kernel's middle lies between pixels, as a mean over two does.
  origin = -1 if len(kernel) % 2 == 0 else 0
  convolved = ndimage.convolve(wide, kernel, origin=origin)
  return convolved[2 * pad : -2 * pad, 2 * pad : -2 * pad]


def _kernel(rng) -> np.ndarray:
  """One of BASES, perturbed. Each of the four places of the finer grid weighs
  pixels by a part of it, which sums to one or nearly so."""
  base = BASES[rng.integers(len(BASES))]
  kernel = np.outer(base, base)
  kernel = kernel + rng.normal(0, rng.uniform(0, 0.05), kernel.shape)
  uneven = rng.uniform(0, 0.015)
  for place in np.ndindex(2, 2):
    part = kernel[place[0] :: 2, place[1] :: 2]
    part *= (1 + rng.normal(0, uneven)) / part.sum()
  return kernel

"""Fills without a seam: Laplace's and the biharmonic equation in a region.

Where a region reaches the picture's border nothing flows across it.
"""

from typing import Any

import numpy as np


def harmonic(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Values (h, w) with those under a mask replaced by the smoothest membrane
  over the others: Laplace's equation, 4 neighbours. float64 (h, w)."""
  from scipy.sparse import linalg

  values = values.astype(np.float64)
  graph = _laplacian(mask.shape)
  inside = mask.ravel()
  rows = graph[inside]
  known = np.where(inside, 0, values.ravel())
  values[mask] = linalg.spsolve(
    rows[:, inside].tocsc(), -(rows @ known), permc_spec="MMD_AT_PLUS_A"
  )
  return values


def biharmonic(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The same by the biharmonic equation, which goes on with the slopes too: the
  least squares of all Laplacians that a value under the mask takes part in."""
  from scipy.sparse import linalg

  values = values.astype(np.float64)
  graph = _laplacian(mask.shape)
  inside = mask.ravel()
  touched = abs(graph) @ inside > 0
  rows = graph[touched]
  known = np.where(inside, 0, values.ravel())
  free = rows[:, inside]
  values[mask] = linalg.spsolve(
    (free.T @ free).tocsc(),
    -(free.T @ (rows @ known)),
    permc_spec="MMD_AT_PLUS_A",
  )
  return values


def blend(
  target: np.ndarray, source: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """A target (h, w) with a source's gradients under a mask and its own values
  around it: Poisson blending (Perez, Gangnet and Blake, 2003,
  doi:10.1145/882262.882269, equation 10). float64 (h, w).

  The difference to the source obeys Laplace's equation.
  """
  source = source.astype(np.float64)
  blended = source + harmonic(target - source, mask)
  return np.where(mask, blended, target)


def _laplacian(shape):
  """Neighbours' number on the diagonal, -1 for each: sparse (h w, h w)."""
  from scipy import sparse

  h, w = shape
  lines = []
  for n in (h, w):
    ends = np.full(n, 2.0)
    ends[[0, -1]] = 1
    step = np.full(n - 1, -1.0)
    diagonals = [step, ends, step]
    offsets: Any = (-1, 0, 1)  # SciPy's stubs know one alone.
    lines.append(sparse.diags_array(diagonals, offsets=offsets))
  along = sparse.kron(lines[0], sparse.eye_array(w))
  return (along + sparse.kron(sparse.eye_array(h), lines[1])).tocsr()

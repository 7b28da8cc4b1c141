"""Pieces of real pictures that small networks learn from and repeat."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfake import contracts

SIDES = 112, 128, 160, 192  # Of pieces: multiples of 2**depth.
BATCH = 8  # Pieces that are repeated at once.


class Piece(NamedTuple):
  """A real piece that is repeated, and whose it is."""

  image: np.ndarray  # uint8 (s, s), s one of SIDES.
  source: str
  patient: str
  licence: str
  file: str  # In the run's folder.


def batch(
  config: contracts.Config, pieces: Sequence[Piece], rng: np.random.Generator
) -> np.ndarray:
  """uint8 (b, crop, crop) of drawn pieces."""
  images = (
    pieces[int(rng.integers(len(pieces)))].image
    for _ in range(config.batch_size)
  )
  return np.stack([cut(image, config.crop, rng) for image in images])


def learnt(
  config: contracts.Config,
  i: int,
  pieces: Sequence[Piece],
  advance: Callable,
  state: contracts.Tree,
  kept: Callable,
) -> tuple[list, list[float]]:
  """What network i is trained to: `kept(state)` after each of two stages, and
  the mean error there, gray levels.

  `advance(state, batch, key) -> (state, error)` is one step, its error that of
  images in [-1, 1].
  """
  rng = np.random.default_rng((config.seed, i, 1))
  params, errors = [], []
  for k in range(1, config.steps + 1):
    drawn = batch(config, pieces, rng)
    state, error = advance(state, drawn, jax.random.key(k))
    if k in stages(config):
      params.append(jax.tree.map(np.asarray, kept(state)))
      errors.append(float(error) * 127.5)
  return params, errors


def cut(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
  top, left = rng.integers(image.shape[0] - side + 1, size=2)
  return image[top : top + side, left : left + side]


def stages(config: contracts.Config) -> tuple[int, int]:
  """The steps after which a network repeats pictures: early and late."""
  return max(1, config.steps * 2 // 5), config.steps


def repeated(
  pieces: Sequence[Piece], forward: Callable[[np.ndarray, int], np.ndarray]
) -> list[np.ndarray]:
  """uint8 (s, s) of each piece; `forward` takes images (BATCH, s, s, 1) in
  [-1, 1], the last of them blank where pieces end, and a number of the call."""
  repetitions: list[Any] = [None] * len(pieces)
  for side in sorted({p.image.shape[0] for p in pieces}):
    those = [k for k, p in enumerate(pieces) if p.image.shape[0] == side]
    for first in range(0, len(those), BATCH):
      part = those[first : first + BATCH]
      x = np.zeros((BATCH, side, side, 1), np.float32)
      x[: len(part), ..., 0] = [pieces[k].image / 127.5 - 1 for k in part]
      y = np.asarray(forward(x, first))[..., 0]
      y = np.clip(np.rint((y + 1) * 127.5), 0, 255).astype(np.uint8)
      for k, image in zip(part, y, strict=False):
        repetitions[k] = image
  return repetitions

"""What the classical programs see of an image: uint8 (n, s, s, 1) to (n, d)."""

from collections.abc import Callable, Iterator
import functools
from typing import NamedTuple

import jax
import numpy as np

from jaxfake import errors, models
from jaxfake.evaluation import distances
from jaxfake.nn import layers
from jaxfake.runtime import xla

SIDE = 32  # Most pixels a side of the feature "pixels".
CELLS, BINS = 8, 9  # Of a histogram of oriented gradients.
BATCH = 32  # Images a network sees at once: one shape, compiled once.
PASSES = 8  # Batches at most that set a random network's batch norm.


class Network(NamedTuple):
  """A frozen network of `models.MODELS`, to be read before its head."""

  name: str
  variables: dict  # params and, where there is batch norm, batch_stats.


def area_shares(size: int, side: int) -> np.ndarray:
  """float32 (side, size): `side` area means of `size` pixels in a line."""
  edges = np.linspace(0, size, side + 1)
  left, right = edges[:-1, None], edges[1:, None]
  j = np.arange(size)  # Pixel j spans [j, j + 1].
  shares = np.clip(np.minimum(right, j + 1) - np.maximum(left, j), 0, 1)
  return (shares * side / size).astype(np.float32)


def batches(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
  """Pieces of `size` images, so that one shape is compiled, the last padded
  with zeros; each with the number of its images."""
  for i in range(0, len(images), size):
    part = images[i : i + size]
    padded = np.zeros((size, *images.shape[1:]), images.dtype)
    padded[: len(part)] = part
    yield padded, len(part)


def in_batches(fn: Callable, images: np.ndarray, size: int) -> np.ndarray:
  """fn of images (n, ...), `size` at a time: (n, ...)."""
  parts = [np.asarray(fn(part))[:n] for part, n in batches(images, size)]
  return np.concatenate(parts)


def pixels(images: np.ndarray) -> np.ndarray:
  """Area means in [0, 1], at most 32 a side: (n, d <= 1024)."""
  size = images.shape[1]
  shares = area_shares(size, min(size, SIDE))
  return (shares @ images[..., 0] @ shares.T / 255).reshape(len(images), -1)


def hog(images: np.ndarray) -> np.ndarray:
  """Histograms of oriented gradients: (n, 7 * 7 * 2 * 2 * 9).

  Dalal and Triggs, 2005, doi:10.1109/CVPR.2005.177: [-1, 0, 1] gradients, 9
  bins over 180 degrees, overlapping blocks of 2x2 cells, L2-Hys. Here 8x8 cells
  cover the picture at any size (8 px each at 64, what is left over at the right
  and below unseen), and a pixel votes for one bin of one cell, where the paper
  shares votes among neighbours.
  """
  return np.concatenate(
    [_hog(images[i : i + 256, ..., 0]) for i in range(0, len(images), 256)]
  )


def _hog(images):
  x = images.astype(np.float32)
  dx, dy = np.zeros_like(x), np.zeros_like(x)
  dx[:, :, 1:-1] = x[:, :, 2:] - x[:, :, :-2]
  dy[:, 1:-1] = x[:, 2:] - x[:, :-2]
  n, cell = len(x), x.shape[1] // CELLS
  used = slice(CELLS * cell)
  angle = np.degrees(np.arctan2(dy, dx))[:, used, used] % 180
  strength = np.hypot(dx, dy)[:, used, used]
  place = np.arange(CELLS * cell) // cell
  box = np.arange(n)[:, None, None]  # Of (image, row, column, bin), flattened.
  for count, i in (
    (CELLS, place[:, None]),
    (CELLS, place),
    (BINS, (angle * BINS // 180).astype(int) % BINS),
  ):
    box = box * count + i
  cells = np.bincount(box.ravel(), strength.ravel(), n * CELLS**2 * BINS)
  cells = cells.reshape(n, CELLS, CELLS, BINS) / cell**2
  blocks = np.stack(
    [
      cells[:, i : i + CELLS - 1, j : j + CELLS - 1]
      for i in (0, 1)
      for j in (0, 1)
    ],
    -2,
  )  # (n, 7, 7, 4, 9)
  unit = lambda v: v / np.sqrt((v**2).sum((-2, -1), keepdims=True) + 1e-10)
  blocks = unit(np.minimum(unit(blocks), 0.2)).reshape(n, -1)
  return blocks.astype(np.float32)


def spectrum(images: np.ndarray) -> np.ndarray:
  """Log10 power at whole radial frequencies: (n, s // 2)."""
  return distances.radial_spectra(images[..., 0]).astype(np.float32)


def pooled(images: np.ndarray, network: Network) -> np.ndarray:
  """What a frozen network's head would read: (n, d)."""
  forward = functools.partial(_forward(network.name), network.variables)
  return in_batches(forward, images, BATCH)


@functools.cache
def _forward(name: str):
  """The jitted map (variables, uint8 images) -> features of a network."""
  model = models.MODELS[name](num_classes=2)  # The head goes unused.

  @xla.jit
  def forward(variables, images):
    x = images / 127.5 - 1
    return model.apply(variables, x, train=False, features=True)

  return forward


def random_network(name: str, seed: int, images: np.ndarray) -> dict:
  """Variables of a random network with batch norm set to training images.

  Means and variances are averages over up to 8 batches of what each batch norm
  met; left at 0 and 1, they let a deep network's features grow without bounds.
  """
  model = models.MODELS[name](num_classes=2)
  rng = np.random.default_rng(seed)
  size = min(len(images), BATCH)
  batches = rng.permutation(len(images))[: PASSES * size]
  batches = batches[: len(batches) // size * size].reshape(-1, size)
  scale = lambda i: images[i] / np.float32(127.5) - 1
  key = jax.random.key(seed)
  init = functools.partial(model.init, train=False, features=True)
  variables = jax.jit(init, compiler_options=xla.run_once_options())(
    key, scale(batches[0][:1])
  )
  if "batch_stats" not in variables:
    return variables
  # A running mean moves by 1 - MOMENTUM of the way to what its batch had, so
  # one that starts from 0 tells it exactly.
  zeros = jax.tree.map(np.zeros_like, variables["batch_stats"])

  @xla.jit
  def met(params, x):
    _, moved = model.apply(
      {"params": params, "batch_stats": zeros},
      x,
      train=True,
      features=True,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    return jax.tree.map(
      lambda s: s / (1 - layers.MOMENTUM), moved["batch_stats"]
    )

  met_by = [met(variables["params"], scale(i)) for i in batches]
  mean = jax.tree.map(lambda *s: sum(s) / len(s), *met_by)
  return {**variables, "batch_stats": mean}


FEATURES = {
  "pixels": pixels,
  "hog": hog,
  "spectrum": spectrum,
  "network": pooled,
}


def features(
  names: str, images: np.ndarray, network: Network | None = None
) -> np.ndarray:
  """float32 (n, d) of uint8 images (n, s, s, 1); "pixels,hog" joins two.

  Raises ConfigError for an unknown name, "network" without one, or images too
  small for the cells of "hog".
  """
  parts = []
  for name in names.split(","):
    errors.check_choice("classical.features", name, FEATURES)
    if name == "hog" and images.shape[1] < 2 * CELLS:
      raise errors.ConfigError(
        f"classical.features has hog, which takes images from {2 * CELLS} px,"
        f" not {images.shape[1]}"
      )
    if name != "network":
      parts.append(FEATURES[name](images))
    elif network is None:
      raise errors.ConfigError(
        "classical.features has network, but no network is named"
      )
    else:
      parts.append(pooled(images, network))
  return np.concatenate(parts, 1)

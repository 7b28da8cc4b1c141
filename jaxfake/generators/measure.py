"""How good a generator's images are, in numbers and in pictures.

Every distance stands beside its floor: the same distance between the train
images and held-out real ones, of the same number and the same class mix.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import contracts
from jaxfake.data import matching, pipeline
from jaxfake.data.sources import Rows, Subset
from jaxfake.evaluation import distances, pictures
from jaxfake.runtime import xla

PREVIEW = 32  # Pictures a block.
NEIGHBOURS = 8
THUMBNAIL = 32  # Pixels a side: what nearest neighbours are sought in.


@jax.jit
def _read(batch):
  return batch["image"]


@jax.jit
def _shrink(batch):
  """Thumbnails float32 (b, t, t), and labels."""
  x = batch["image"].astype(jnp.float32)
  side = x.shape[1] // THUMBNAIL
  small = x.reshape(len(x), THUMBNAIL, side, THUMBNAIL, side).mean((2, 4))
  return small, batch["label"]


class Reference(NamedTuple):
  """What fakes are measured against: it does not change during a run."""

  bank: np.ndarray  # Thumbnails of all train images.
  label: np.ndarray  # Of the train images below.
  features: np.ndarray
  spectra: dict[str, np.ndarray]
  floor: dict[str, float]  # Distances of as many held-out real images.


def numbered(label: np.ndarray) -> Rows:
  """What an image is made of that is a function of its index and label."""
  return Rows(index=np.arange(len(label), dtype=np.int32), label=label)


class Measures:
  """A task's `evaluate` and `preview`.

  `dataset` are pipeline.Splits; `drawer(state)` is a jitted function of a batch
  of `rows(label)`, by default {"index", "label"} (b,), to uint8 images
  (b, s, s, 1); previews have a row for each of `by_class`.
  """

  def __init__(
    self,
    dataset: pipeline.Splits,
    limit: int,
    by_class: tuple[str, ...],
    drawer: Callable,
    rows: Callable = numbered,
  ):
    self._dataset, self._limit = dataset, limit
    self._by_class, self._drawer, self._rows = by_class, drawer, rows
    self._describe = xla.jit(
      lambda batch: distances.random_filter_features(batch["image"])
    )
    # Read once a run, when first asked for.
    self._train_set = functools.cache(self._train_set)
    self._blocks = functools.cache(self._blocks)
    self._reference = functools.cache(self._reference)

  def preview(
    self, state: contracts.Tree, gather: Callable
  ) -> dict[str, np.ndarray]:
    """Real and fake images side by side."""
    cells = []
    for name, real, label in self._blocks(gather):
      fake = self._fakes(state, gather, label)
      cells.append((f"real {name}", pictures.sheet(real[..., 0], 8)))
      cells.append((f"fake {name}", pictures.sheet(fake[..., 0], 8)))
    return {"preview": pictures.captioned(cells, 2)}

  def evaluate(self, state: contracts.Tree, gather: Callable) -> dict:
    """Distances beside their floors, spectra and nearest train images."""
    to = self._reference(gather)
    fake = self._fakes(state, gather, to.label)
    features = self._features(gather, fake)
    a, b = distances.standardise(to.features, features)
    small, _ = gather(_shrink, Rows(image=fake, label=to.label))
    index, distance = distances.nearest(small, to.bank)
    spectra = to.spectra | {"fake": distances.radial_spectrum(fake[..., 0])}
    return to.floor | {
      # Named for what they are: not the Inception-v3 FID and KID.
      "frechet_random_filters": distances.frechet_distance(a, b),
      "kernel_random_filters": distances.kernel_distance(a, b),
      "spectrum_gap_db": distances.spectrum_gap(
        spectra["real"], spectra["fake"]
      ),
      "nearest_train_rms": np.median(distance[:, 0]),
      "images": len(fake),
      "spectrum": spectrum_plot(spectra),
      "neighbours": self._neighbours(gather, fake, index, distance),
    }

  def _fakes(self, state, gather, label) -> np.ndarray:
    return gather(self._drawer(state), self._rows(label))

  def _features(self, gather, images) -> np.ndarray:
    return gather(self._describe, Rows(image=images))

  def _neighbours(self, gather, fake, index, distance) -> np.ndarray:
    shown = index[:NEIGHBOURS]
    nearest = gather(_read, Subset(self._dataset.train, shown.ravel()))
    nearest = nearest[..., 0].reshape(*shown.shape, *nearest.shape[1:3])
    n = len(shown)
    return pictures.neighbours(fake[:n, ..., 0], nearest, distance[:n])

  def _train_set(self, gather):
    """Thumbnails and labels of all train images."""
    return gather(_shrink, self._dataset.train)

  def _blocks(self, gather) -> list[tuple]:
    """Caption, real images and labels of each block of a preview."""
    _, labels = self._train_set(gather)
    blocks = []
    for c, name in enumerate(self._by_class or ("",)):
      indices = range(len(labels))
      if self._by_class:
        indices = np.flatnonzero(labels == c)
      indices = indices[:PREVIEW]
      if len(indices):
        images = gather(_read, Subset(self._dataset.train, indices))
        blocks.append((name, images, labels[indices]))
    return blocks

  def _reference(self, gather) -> Reference:
    bank, labels = self._train_set(gather)
    split = self._dataset.held_out_split
    held_bank, held_labels = gather(_shrink, self._dataset.held_out)
    # Equally many, since the Fréchet distance's bias depends on the number.
    i, j = matching.matched(labels, held_labels, self._limit)
    real = gather(_read, Subset(self._dataset.train, i))
    held = gather(_read, Subset(self._dataset.held_out, j))
    features = self._features(gather, real)
    a, b = distances.standardise(features, self._features(gather, held))
    _, to_train = distances.nearest(held_bank[j], bank, 1)
    spectra = {
      name: distances.radial_spectrum(x[..., 0])
      for name, x in (("real", real), (f"real, {split}", held))
    }
    floor = {
      "frechet_random_filters": distances.frechet_distance(a, b),
      "kernel_random_filters": distances.kernel_distance(a, b),
      "spectrum_gap_db": distances.spectrum_gap(*spectra.values()),
      "nearest_train_rms": np.median(to_train),
    }
    floor = {f"{name}_{split}": value for name, value in floor.items()}
    return Reference(bank, labels[i], features, spectra, floor)


def spectrum_plot(spectra: dict[str, np.ndarray]) -> np.ndarray:
  """Radial spectra in decibels as a picture."""
  return pictures.curves(
    np.arange(len(spectra["fake"]))[1:],
    {name: 10 * power[1:] for name, power in spectra.items()},
    "radial frequency (cycles a picture)",
    "mean power (dB)",
  )

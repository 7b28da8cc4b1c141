"""How good a generator's images are, in numbers and in pictures.

Every distance stands beside its floor: the same distance between the train
images and held-out real ones, of the same number and the same class mix.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import distances, pictures, platform
from jaxfake.task import Rows, Subset

PREVIEW = 32  # Pictures a block.
NEIGHBOURS = 8
THUMBNAIL = 32  # Pixels a side: what nearest neighbours are sought in.


def matched(
  train: np.ndarray, held: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
  """Indices into two arrays of labels: equally many of each class from both,
  in train's class mix, at most `limit` in all, spread evenly over each.

  Equally many, because the Fréchet distance's bias depends on the number. A
  class of which nothing is held out cannot be compared and is left out.
  """
  places = [
    (np.flatnonzero(train == c), np.flatnonzero(held == c))
    for c in np.intersect1d(train, held)
  ]
  # The largest share of train of which enough is held out, in every class.
  share = min([limit / len(train), 1, *(len(b) / len(a) for a, b in places)])
  chosen = ([], [])
  for pair in places:
    k = max(1, int(share * len(pair[0]) + 1e-9))
    for indices, where in zip(chosen, pair, strict=True):
      indices.append(where[np.arange(k) * len(where) // k])
  return np.concatenate(chosen[0]), np.concatenate(chosen[1])


def make(
  dataset,
  limit: int,
  by_class: tuple[str, ...],
  drawer: Callable,
) -> tuple[Callable, Callable]:
  """A task's `evaluate` and `preview`.

  `dataset` has `train` and `held_out`; `drawer(state)` is a jitted function of
  {"index", "label"} (b,) to uint8 images (b, s, s, 1); previews have a row for
  each of `by_class`.
  """
  read = jax.jit(lambda batch: batch["image"])

  @jax.jit
  def shrink(batch):
    x = batch["image"].astype(jnp.float32)
    side = x.shape[1] // THUMBNAIL
    small = x.reshape(len(x), THUMBNAIL, side, THUMBNAIL, side).mean((2, 4))
    return small, batch["label"]

  @platform.jit
  def describe(batch):
    return distances.random_filter_features(batch["image"])

  def fakes(state, gather, label):
    rows = Rows(index=np.arange(len(label), dtype=np.int32), label=label)
    return gather(drawer(state), rows)

  @functools.cache
  def train_set(gather):
    """Thumbnails and labels of all train images."""
    return gather(shrink, dataset.train)

  @functools.cache
  def blocks(gather):
    """Caption, real images and labels of each block of a preview."""
    _, labels = train_set(gather)
    made = []
    for c, name in enumerate(by_class or ("",)):
      indices = np.flatnonzero(labels == c) if by_class else range(len(labels))
      indices = indices[:PREVIEW]
      if len(indices):
        images = gather(read, Subset(dataset.train, indices))
        made.append((name, images, labels[indices]))
    return made

  def preview(state, gather):
    cells = []
    for name, real, label in blocks(gather):
      fake = fakes(state, gather, label)
      cells.append((f"real {name}", pictures.sheet(real[..., 0], 8)))
      cells.append((f"fake {name}", pictures.sheet(fake[..., 0], 8)))
    return {"preview": pictures.captioned(cells, 2)}

  @functools.cache
  def reference(gather):
    """What is measured against: it does not change during a run."""
    bank, labels = train_set(gather)
    held_bank, held_labels = gather(shrink, dataset.held_out)
    i, j = matched(labels, held_labels, limit)
    real = gather(read, Subset(dataset.train, i))
    held = gather(read, Subset(dataset.held_out, j))
    features = gather(describe, Rows(image=real))
    held_features = gather(describe, Rows(image=held))
    a, b = distances.standardise(features, held_features)
    _, to_train = distances.nearest(held_bank[j], bank, 1)
    spectra = {
      name: distances.radial_spectrum(x[..., 0])
      for name, x in (("real", real), ("held-out real", held))
    }
    floor = {
      "frechet_random_filters": distances.frechet_distance(a, b),
      "kernel_random_filters": distances.kernel_distance(a, b),
      "spectrum_gap_db": distances.spectrum_gap(*spectra.values()),
      "nearest_train_rms": np.median(to_train),
    }
    floor = {f"{name}_held_out": value for name, value in floor.items()}
    return bank, labels[i], features, spectra, floor

  def evaluate(state, gather):
    bank, label, features, spectra, floor = reference(gather)
    fake = fakes(state, gather, label)
    a, b = distances.standardise(features, gather(describe, Rows(image=fake)))
    small, _ = gather(shrink, Rows(image=fake, label=label))
    index, distance = distances.nearest(small, bank)
    shown = index[:NEIGHBOURS]
    found = gather(read, Subset(dataset.train, shown.ravel()))
    found = found[..., 0].reshape(*shown.shape, *found.shape[1:3])
    spectra = spectra | {"fake": distances.radial_spectrum(fake[..., 0])}
    return floor | {
      # Named for what they are: not the Inception-v3 FID and KID.
      "frechet_random_filters": distances.frechet_distance(a, b),
      "kernel_random_filters": distances.kernel_distance(a, b),
      "spectrum_gap_db": distances.spectrum_gap(
        spectra["real"], spectra["fake"]
      ),
      "nearest_train_rms": np.median(distance[:, 0]),
      "images": len(fake),
      "spectrum": pictures.curves(
        np.arange(len(spectra["fake"]))[1:],
        {name: 10 * power[1:] for name, power in spectra.items()},
        "radial frequency (cycles a picture)",
        "mean power (dB)",
      ),
      "neighbours": pictures.neighbours(
        fake[: len(shown), ..., 0], found, distance[: len(shown)]
      ),
    }

  return evaluate, preview

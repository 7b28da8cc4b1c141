"""How good images are, beside reals: every figure with its interval.

Distances, spectra, and the four figures of evaluation/manifold.py, of fakes
against train reals, and of held-out reals against the same. Equally many of
each class and in all, since most of them depend on the number.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from jaxfake import contracts
from jaxfake.classifiers import features, neural, registry
from jaxfake.data import matching, pipeline, sources
from jaxfake.evaluation import distances, inception, manifold, metrics
from jaxfake.experiments.generator_comparison import plan
from jaxfake.generators import guards
from jaxfake.runtime import xla

BATCH = 64


def spaces(
  names: list[str], classifier: pathlib.Path, inception_weights: str
) -> dict[str, Callable]:
  """{space: uint8 images (n, s, s, 1) to features (n, d)}; `classifier` is the
  folder of a finished run, `inception_weights` a file."""
  filters = xla.jit(distances.random_filter_features)
  published = functools.cache(inception.extractor)
  known = {
    "random_filters": lambda x: features.in_batches(filters, x, BATCH),
    "classifier": lambda x: features.pooled(x, network(classifier)),
    plan.INCEPTION: lambda x: features.in_batches(
      published(inception_weights), x, features.BATCH
    ),
  }
  return {name: known[name] for name in names}


def network(path: pathlib.Path) -> features.Network:
  config, variables = neural.load(path)
  return features.Network(config.model.name, variables)


class Seen(NamedTuple):
  """Some images as the figures see them."""

  images: np.ndarray  # uint8 (n, s, s, 1)
  labels: np.ndarray  # (n,)
  patients: np.ndarray  # (n,); each fake is its own.
  features: dict[str, np.ndarray]  # By space, (n, d).
  spectra: np.ndarray  # (n, s // 2)


def seen(
  images: np.ndarray,
  labels: np.ndarray,
  patients: Sequence[str] | np.ndarray,
  by_space: dict[str, Callable],
) -> Seen:
  described = {name: of(images) for name, of in by_space.items()}
  spectra = distances.radial_spectra(images[..., 0])
  return Seen(images, labels, np.asarray(patients), described, spectra)


def reals(
  splits: pipeline.Splits, limit: int, by_space: dict[str, Callable]
) -> tuple[Seen, Seen]:
  """Train and held-out reals, equally many of each class, at most `limit`."""
  both = splits.train, splits.held_out
  labels, others = (np.asarray(x.column("label")) for x in both)
  chosen = matching.matched(labels, others, limit)
  found = []
  for source, i in zip(both, chosen, strict=True):
    part = sources.Subset(source, i)
    images, of = pipeline.arrays(part).values()
    found.append(seen(images, of, part.column("patient"), by_space))
  return found[0], found[1]


def fakes(
  generator: contracts.Generator,
  like: Seen,
  seed: int,
  by_space: dict[str, Callable],
) -> Seen:
  """As many fakes of the same classes as some reals."""
  images = guards.drawn(generator, like.labels.astype(np.int32), seed)
  return seen(images, like.labels, np.arange(len(images)), by_space)


def scaled(space: str, *sets: np.ndarray) -> list[np.ndarray]:
  """Features (n, d) of a space: the literature's as they are, others so that
  the first set has mean 0 and deviation 1."""
  return [*sets] if space == plan.INCEPTION else distances.standardise(*sets)


def redrawn(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The indices of all images of as many patients, drawn with replacement."""
  names, who = np.unique(patients, return_inverse=True)
  drawn = rng.integers(len(names), size=len(names))
  often = np.bincount(drawn, minlength=len(names))
  return np.repeat(np.arange(len(who)), often[who])


def with_interval(value: float, samples: Sequence[float]) -> dict[str, float]:
  """A figure and the 95 % interval of its resamples, moved so that their mean
  is the figure: images drawn twice bias a distance upwards."""
  low, high = np.percentile(samples, [2.5, 97.5]) - np.mean(samples) + value
  return {"value": float(value), "low": float(low), "high": float(high)}


def share(
  outcomes: np.ndarray, draws: Iterable[np.ndarray], patients: np.ndarray
) -> dict[str, float]:
  """The mean of outcomes (n,), and its interval over draws of indices."""
  value = outcomes.mean()
  if value not in (0, 1):
    return with_interval(value, [outcomes[i].mean() for i in draws])
  # All draws agree, and so tell nothing.
  n = len(np.unique(patients))
  low, high = metrics.clopper_pearson(value * n, n)
  return {"value": float(value), "low": low, "high": high}


def of_sets(real: Seen, other: Seen, resamples: int, seed: int) -> dict:
  """{name: {"value", "low", "high"}} of images beside train reals."""
  rng = np.random.default_rng(seed)
  of_real = [redrawn(real.patients, rng) for _ in range(resamples)]
  of_other = [redrawn(other.patients, rng) for _ in range(resamples)]

  def distance(of: Callable, a, b):
    pairs = zip(of_real, of_other, strict=True)
    return with_interval(of(a, b), [of(a[i], b[j]) for i, j in pairs])

  gap = lambda a, b: distances.spectrum_gap(a.mean(0), b.mean(0))
  found = {"spectrum_gap_db": distance(gap, real.spectra, other.spectra)}
  for space, a in real.features.items():
    a, b = scaled(space, a, other.features[space])
    frechet, kernel = plan.distances(space)
    found[frechet] = distance(distances.frechet_distance, a, b)
    found[kernel] = distance(distances.kernel_distance, a, b)
    for name, x in manifold.outcomes(a, b).items():
      reals = name in ("recall", "coverage")
      draws, images = (of_real, real) if reals else (of_other, other)
      found[f"{name}_{space}"] = share(x, draws, images.patients)
  return found


def out_of_range(real: Seen, held: Seen, fake: Seen) -> dict:
  """{name: share of fakes further from train reals than 99 % of held-out}."""
  found = {}
  for space in real.features:
    sets = [x.features[space] for x in (real, held, fake)]
    a, b, c = scaled(space, *sets)
    far = [distances.nearest(x, a, 1)[1][:, 0] for x in (b, c)]
    found[f"out_of_range_{space}"] = guards.out_of_range(*far)
  return found


def agreement(classifier: registry.Classifier, images: Seen) -> dict:
  """How often a classifier of originals calls images what they are, or what
  their generator was told: {"agreement": {"value", "low", "high"}}."""
  figures = metrics.figures(
    images.labels,
    classifier.probabilities(images.images),
    images.patients,
    classes=classifier.classes,
    resamples=200,
  )
  accuracy = figures["accuracy"]
  return {"agreement": {k: accuracy[k] for k in ("value", "low", "high")}}

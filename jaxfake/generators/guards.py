"""Whether a generator gives its train images away: asked before images leave.

Copies: fakes that are nearer to a train image than the nearest 1 % of held-out
reals, by two measures at once: the distance itself, and the distance over the
mean distance to the next 50 train images (Carlini et al., 2023,
arXiv:2301.13188). By the first alone blurred fakes are suspect, since they are
nearer to every image; by the second alone those that are too dark or too
bright, since few images are near them. The generator fails where copies are
more than held-out reals would give. Few copies among many fakes go unnoticed.

Membership: the full black-box attack of Chen et al., 2020, arXiv:1909.03935,
without a reference model: an image whose nearest fake is near is called one of
the train images. An AUC of 0.5 tells nothing.

Both in two spaces: thumbnails, and standardised random-filter features.

Hallucinations: fakes further from every real than 99 % of held-out reals are,
in any features.
"""

from collections.abc import Callable, Sequence
import itertools
import pathlib
from typing import Any

import jax
import numpy as np
import scipy.special

from jaxfake import data, errors
from jaxfake.contracts import Config, Dataset, Generator, Items
from jaxfake.data import matching, pipeline, sources, work
from jaxfake.evaluation import distances, metrics, pictures
from jaxfake.generators import common, measure, registry
from jaxfake.runtime import disk, progress, xla
from jaxfake.training import workdir

FILE = "guards.json"  # Of a run: verdicts by the hash of their checkpoint.
PASSED, FAILED, UNKNOWN = "passed", "failed", "unknown"
FAKES, SEED = 512, 2**32 - 1  # So many are looked at, drawn by this seed.
FEWEST = 100  # Held-out reals that tell anything of their nearest 1 %.
NEIGHBOURS = 50
LEVEL = 0.01  # At which both spaces together fail an honest generator.
HALVINGS = 200
BATCH = 64


def thumbnails(images: np.ndarray) -> np.ndarray:
  """float32 (n, 32 * 32) of uint8 (n, s, s, 1), s a multiple of 32."""
  t = measure.THUMBNAIL
  side = images.shape[1] // t
  x = images.astype(np.float32).reshape(-1, t, side, t, side)
  return x.mean((2, 4)).reshape(len(x), -1)


def described(images: Items | sources.Rows) -> dict[str, np.ndarray]:
  """Every image in each space: {space: float32 (n, d)}."""
  filters = xla.jit(distances.random_filter_features)
  parts = {"thumbnails": [], "random_filters": []}
  with work.threads() as pool:
    items = work.in_order(pool, images.__getitem__, range(len(images)))
    while batch := [x["image"] for x in itertools.islice(items, BATCH)]:
      x, n = np.stack(batch), len(batch)
      parts["thumbnails"].append(thumbnails(x))
      padded = np.resize(x, (BATCH, *x.shape[1:]))  # One shape is compiled.
      parts["random_filters"].append(np.asarray(filters(padded))[:n])
  return {space: np.concatenate(x) for space, x in parts.items()}


def nearness(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
  """Distance of each query (n, d) to the nearest of a bank (m, d), and the same
  over its mean distance to the next 50, or to all others: (n, 2)."""
  _, apart = distances.nearest(queries, bank, NEIGHBOURS + 1)
  first, others = apart[:, 0], apart[:, 1:].mean(1)
  return np.stack([first, first / np.maximum(others, 1e-9)], 1)


def at_least(count: int, n: int, a: float, b: float) -> float:
  """The chance of `count` or more of n where each has one chance, drawn from
  the beta distribution of a and b: beta-binomial."""
  # Not of scipy.stats, which takes a second to import.
  k, log_beta = np.arange(count, n + 1), scipy.special.betaln
  ways = -np.log(n + 1) - log_beta(n - k + 1, k + 1)
  of_each = ways + log_beta(k + a, n - k + b) - log_beta(a, b)
  return float(min(np.exp(of_each).sum(), 1.0))


def copies(held: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
  """How many fakes are nearer, by both measures (m, 2), than the nearest 1 % of
  held-out reals (n, 2) are by each.

  `p` bounds the chance of so many with held-out reals in the fakes' place. By
  one measure alone it would be that chance: the threshold is the k-th smallest
  of n, so the number below it is beta-binomial, of parameters k and n - k + 1
  (a binomial one takes the threshold for known).
  """
  k = max(1, len(held) // 100)
  thresholds = np.partition(held, k - 1, axis=0)[k - 1]
  near = int((fake < thresholds).all(1).sum())
  return {
    "thresholds": thresholds.tolist(),
    "copies": near,
    "share": near / len(fake),
    "p": at_least(near, len(fake), k, len(held) - k + 1),
    "medians": np.median(fake, 0).tolist(),
    "medians_held_out": np.median(held, 0).tolist(),
  }


def suspicious(found: dict[str, dict]) -> bool:
  """Whether the copies of {space: copies} are too many to be chance."""
  return min(x["p"] for x in found.values()) < LEVEL / len(found)


def false_alarms(held: dict[str, np.ndarray], patients: np.ndarray) -> float:
  """How often a half of the held-out reals is called copies beside the other
  half; nearness by space, halves by patient."""
  names, who = np.unique(patients, return_inverse=True)
  rng = np.random.default_rng(0)
  alarms = 0
  for _ in range(HALVINGS):
    first = (rng.permutation(len(names)) % 2)[who] == 0
    halves = {k: copies(x[first], x[~first]) for k, x in held.items()}
    alarms += suspicious(halves)
  return alarms / HALVINGS


def membership(
  train: np.ndarray, held: np.ndarray, fake: np.ndarray, patients: Sequence[str]
) -> dict[str, Any]:
  """AUC of the attack with its interval over patients: {"value", "low", "high",
  "interval"}. `patients` are those of the train images, then of the others."""
  apart = np.concatenate(
    [distances.nearest(x, fake, 1)[1][:, 0] for x in (train, held)]
  )
  p = 1 / (1 + apart / np.median(apart))  # Any that falls with the distance.
  labels = np.repeat([1, 0], [len(train), len(held)])
  figures = metrics.figures(
    labels,
    np.stack([1 - p, p], 1),
    np.asarray(patients),
    classes=("held out", "train"),
    resamples=200,
  )
  return figures["auc"]


def out_of_range(held: np.ndarray, fake: np.ndarray) -> dict[str, float]:
  """What share of fakes is further from the nearest train image than 99 % of
  held-out reals are, by distances (m,), (n,): {"value", "low", "high"}.

  The interval is of the share alone, the threshold as it is.
  """
  k = max(1, len(held) // 100)
  beyond = int((fake > np.partition(held, -k)[-k]).sum())
  low, high = metrics.clopper_pearson(beyond, len(fake))
  return {"value": beyond / len(fake), "low": low, "high": high}


def drawn(generator: Generator, labels: np.ndarray, seed: int) -> np.ndarray:
  """uint8 (n, s, s, 1) of a generator, image i of label i; this process's
  devices do it."""
  count = jax.local_device_count()
  batch = -(-BATCH // count) * count
  starts = range(0, len(labels), batch)
  made = []
  with work.shown("drawing fakes", len(labels)) as advance:
    for rows in registry.images(generator, seed, labels, starts, batch):
      made.append(rows)
      for _ in labels[(len(made) - 1) * batch : len(made) * batch]:
        advance()
  return pictures.to_gray(np.concatenate(made)[: len(labels)])[..., None]


def unknown(why: str) -> dict[str, Any]:
  return {"verdict": UNKNOWN, "why": why}


def too_few(held: int) -> dict[str, Any] | None:
  """The verdict where so many held-out images can tell nothing."""
  if held >= FEWEST:
    return None
  return unknown(
    f"too few images to tell: {held} held out, expected at least {FEWEST}"
  )


def examined(generator: Generator, splits: pipeline.Splits) -> dict[str, Any]:
  """The verdict on a generator, and what it rests on; `splits` are of what it
  learnt from."""
  if few := too_few(len(splits.held_out)):
    return few
  if generator.size % measure.THUMBNAIL:
    return unknown(
      f"images are {generator.size} px: expected a multiple of"
      f" {measure.THUMBNAIL}"
    )
  progress.say(f"looking for copies among {FAKES} fakes")
  labels, held_labels = (
    np.asarray(x.column("label")) for x in (splits.train, splits.held_out)
  )
  told = np.zeros(FAKES, np.int32)
  if generator.conditional and len(generator.classes) > 1:
    told = matching.evenly(labels, FAKES).astype(np.int32)
  fakes = described(sources.Rows(image=drawn(generator, told, SEED)))
  train, held = described(splits.train), described(splits.held_out)
  whose, held_whose = (
    np.asarray(x.column("patient")) for x in (splits.train, splits.held_out)
  )
  # Equally many of each class, lest classes be told apart and not membership.
  i, j = matching.matched(labels, held_labels, 2 * FAKES)
  found, near_held, attacks = {}, {}, {}
  for space, bank in train.items():
    reals, others, made = bank, held[space], fakes[space]
    if space == "random_filters":
      reals, others, made = distances.standardise(bank, others, made)
    near_held[space] = nearness(others, reals)
    found[space] = copies(near_held[space], nearness(made, reals))
    attacks[space] = membership(
      reals[i], others[j], made, [*whose[i], *held_whose[j]]
    )
  return {
    "verdict": FAILED if suspicious(found) else PASSED,
    "why": said(found),
    "fakes": FAKES,
    "train_images": len(labels),
    "held_out_images": len(held_labels),
    "held_out_patients": len(set(held_whose)),
    "held_out_split": splits.held_out_split,
    "copies": found,
    "false_alarms": false_alarms(near_held, held_whose),
    "membership_auc": attacks,
  }


def said(found: dict[str, dict]) -> str:
  """What was found in the space that is the most suspicious."""
  space = min(found, key=lambda k: found[k]["p"])
  x = found[space]
  return (
    f"{x['copies']} of {FAKES} fakes are nearer to a train image than the"
    f" nearest 1 % of held-out reals ({space.replace('_', ' ')}, p"
    f" {x['p']:.2g})"
  )


def of_run(path: pathlib.Path, generator: Generator) -> dict[str, Any]:
  """The verdict on a run's generator: what training wrote, or what is found now
  from the images that the run's configuration names."""
  known = kept(path)
  if generator.sha256 in known:
    return known[generator.sha256]
  config = workdir.read_config(path)
  facts = disk.read_json(path / "dataset.json")
  counts = {k: sum(x.values()) for k, x in facts["counts"].items()}
  # Before any image is read.
  if few := too_few(max(counts.get(k, 0) for k in ("val", "test"))):
    return few
  try:
    dataset = data.prepare(config.data)
  except errors.UserError as error:
    return unknown(f"the run's images cannot be read here: {error}")
  if dataset.facts["content_sha256"] != facts["content_sha256"]:
    return unknown("the images are not those that the run learnt from")
  # Loaded anew: a translator may have been given images of a user.
  anew = registry.load(path, generator.step)
  return examined(anew, splits_of(config, dataset))


def splits_of(config: Config, dataset: Dataset) -> pipeline.Splits:
  """What a run of a configuration learns from."""
  splits = pipeline.splits(dataset, config.data)
  return common.of_class(splits, config.get("only_class", ""))


def kept(path: pathlib.Path) -> dict[str, dict]:
  """A run's verdicts by the hash of their checkpoint."""
  return disk.read_json(path / FILE) if (path / FILE).exists() else {}


def keep(
  path: pathlib.Path,
  load: Callable,
  config: Config,
  dataset: Dataset,
  writer: bool,
) -> None:
  """Has a run that has ended say in its folder whether its generator copies;
  nothing where that is known, or its images are too few to tell."""
  splits = splits_of(config, dataset)
  if too_few(len(splits.held_out)):
    return
  generator = load(path)
  if generator.sha256 in kept(path):
    return
  found = examined(generator, splits)
  progress.say(f"copies of train images: {found['verdict']}; {found['why']}")
  if writer:
    disk.write_json(path / FILE, kept(path) | {generator.sha256: found})

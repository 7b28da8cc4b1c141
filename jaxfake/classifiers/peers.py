"""Detectors of other kinds, that a protocol sets ours beside.

Two networks that look at residuals and learn from reals and fakes (NPR, SRM;
models/residual), and one that learns from reals alone: how badly an autoencoder
repeats a picture (as anomalies are found; Baur et al., 2021,
doi:10.1016/j.media.2020.101952). All take crops, and score a picture by the
mean over crops that are spread evenly over it.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts
from jaxfake.classifiers import forensic
from jaxfake.data import crops
from jaxfake.models import residual, trace_autoencoder
from jaxfake.runtime import xla

BATCH = 32
SPREAD = 3  # Crops along each side of a picture.
RATE = 1e-3

Score = Callable[[np.ndarray], np.ndarray]  # uint8 (n, s, s) to (n,)


@dataclasses.dataclass(frozen=True)
class Crops:
  """uint8 (n, s, s), and whose they are (n,)."""

  images: np.ndarray
  labels: np.ndarray  # 1 of a fake.
  sources: np.ndarray
  origins: np.ndarray  # Of a fake that was made of a real, the real's source.

  def __getitem__(self, which: np.ndarray) -> "Crops":
    columns = self.images, self.labels, self.sources, self.origins
    return Crops(*(x[which] for x in columns))


def drawn(config: contracts.Config, source: contracts.Items) -> Crops:
  """One crop of each picture that `forensic` learns from, as they are."""
  config = config.copy_and_resolve_references()
  config.each, config.delivered = 1, 0
  rows, _, images = zip(*forensic.drawn(config, source), strict=True)
  columns = source.column("label"), source.column("source")
  columns += (forensic.origins(source),)
  return Crops(
    np.stack(images), *(np.array([x[i] for i in rows]) for x in columns)
  )


def over(image: np.ndarray) -> np.ndarray:
  """Crops (SPREAD ** 2, SIDE, SIDE) of uint8 (h, w), evenly spread."""
  at = [
    np.linspace(0, side - crops.SIDE, SPREAD).round().astype(int)
    for side in image.shape
  ]
  return np.stack(
    [
      image[y : y + crops.SIDE, x : x + crops.SIDE]
      for y in at[0]
      for x in at[1]
    ]
  )


def of_pictures(score: Score, images: Sequence[np.ndarray]) -> np.ndarray:
  """Scores (n,) of crops (n, SPREAD ** 2, SIDE, SIDE): the means over crops."""
  stacked = np.asarray(images)
  flat = stacked.reshape(-1, *stacked.shape[-2:])
  return score(flat).reshape(len(images), -1).mean(1)


def balanced(of: Crops, rng: np.random.Generator) -> np.ndarray:
  """Indices (BATCH,): of classes alike, and within one of sources by the root
  of their crops, as `forensic` weighs reals."""
  halves = []
  for label in (0, 1):
    those = np.flatnonzero(of.labels == label)
    if not len(those):
      continue
    _, index, count = np.unique(
      of.sources[those], return_inverse=True, return_counts=True
    )
    weight = 1 / np.sqrt(count[index])
    halves.append(rng.choice(those, BATCH // 2, p=weight / weight.sum()))
  return np.concatenate(halves)


class Peer(NamedTuple):
  """A network, as functions of its parameters and of gray levels (b, s, s, 1);
  labels (b,) are 1 of a fake."""

  init: Callable  # (key, x) -> parameters
  loss: Callable  # (parameters, x, labels) -> ()
  score: Callable  # (parameters, x) -> (b,), larger of a fake.
  of_reals_alone: bool = False


def of_residuals(kind: str) -> Peer:
  """A network that sees one of residual.RESIDUALS; scores are logits."""
  net = residual.ResidualNetwork(kind)

  def loss(params, x, labels):
    logits = net.apply(params, x)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

  return Peer(net.init, loss, net.apply)


def of_reconstruction() -> Peer:
  """An autoencoder of reals; scores are the logarithm of the error with which
  it repeats a crop."""
  net = trace_autoencoder.TraceAutoencoder("bilinear", depth=3, latent=8)
  key = jax.random.key(0)  # It draws nothing: its bottleneck is plain.

  def error(params, x):
    x = x / 127.5 - 1
    return jnp.square(net.apply(params, x, key) - x).mean((1, 2, 3))

  return Peer(
    lambda key, x: net.init(key, x, key),
    lambda params, x, labels: error(params, x).mean(),
    lambda params, x: jnp.log(error(params, x) + 1e-8),
    of_reals_alone=True,
  )


PEERS = {
  "NPR network": functools.partial(of_residuals, "npr"),
  "SRM network": functools.partial(of_residuals, "srm"),
  "reconstruction error, of reals alone": of_reconstruction,
}


@functools.cache
def _compiled(name: str, steps: int):
  """Of a peer: its start, its step by Adam on a cosine, and its score."""
  peer = PEERS[name]()
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

  def begin(key, images):
    params = peer.init(key, _pixels(images))
    return params, optimizer.init(params)

  def step(params, state, images, labels):
    gradient = jax.grad(peer.loss)(params, _pixels(images), labels)
    update, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, update), state

  score = lambda params, images: peer.score(params, _pixels(images))
  return xla.jit(begin), xla.jit(step), xla.jit(score)


def _pixels(images: jax.Array) -> jax.Array:
  return images[..., None].astype(jnp.float32)


def fitted(name: str, of: Crops, steps: int, seed: int) -> Score:
  """A peer, by its name in PEERS, that learnt from crops."""
  begin, step, score = _compiled(name, steps)
  of = of[of.labels == 0] if PEERS[name]().of_reals_alone else of
  rng = np.random.default_rng(seed)
  params, state = begin(jax.random.key(seed), of.images[:1])
  for _ in range(steps):
    which = balanced(of, rng)
    labels = of.labels[which].astype(np.float32)
    params, state = step(params, state, of.images[which], labels)

  def scores(images):
    scored = []
    for first in range(0, len(images), BATCH):
      part = images[first : first + BATCH]
      padded = np.zeros((BATCH, *part.shape[1:]), np.uint8)
      padded[: len(part)] = part
      scored.append(np.asarray(score(params, padded))[: len(part)])
    return np.concatenate(scored)

  return scores

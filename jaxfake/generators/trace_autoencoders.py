"""Autoencoders that repeat pictures: every way to enlarge maps, several
depths, bottlenecks and losses (models/trace_autoencoder)."""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts
from jaxfake.generators import trace_pieces
from jaxfake.models import trace_autoencoder as networks
from jaxfake.runtime import xla

LOSSES = "l1", "spectral", "adversarial"


class Spec(NamedTuple):
  """One network."""

  kind: str  # Of enlarging.
  depth: int
  width: int
  latent: int
  bottleneck: str
  direct: bool
  averaged: bool
  loss: str

  def network(self) -> networks.TraceAutoencoder:
    return networks.TraceAutoencoder(*self[:-1])


def spec(kind: str, rng: np.random.Generator) -> Spec:
  pick = lambda *values: values[rng.integers(len(values))]
  direct = rng.random() < 0.3 and kind.startswith("transpose")
  return Spec(
    kind,
    pick(1, 2, 2, 3),
    pick(12, 16, 16, 20),
    pick(4, 8, 16),
    pick(*networks.BOTTLENECKS),
    bool(direct),
    bool(rng.random() < 0.4),
    pick(*LOSSES, "adversarial"),
  )


def repeat(
  spec: Spec, params: contracts.Tree, pieces: Sequence[trace_pieces.Piece]
) -> list[np.ndarray]:
  """uint8 (s, s) of each piece, by a trained network."""
  forward = jax.jit(spec.network().apply)
  return trace_pieces.repeated(
    pieces, lambda x, call: forward(params, x, jax.random.key(call))
  )


def train(
  config: contracts.Config,
  i: int,
  spec: Spec,
  pieces: Sequence[trace_pieces.Piece],
) -> tuple[list, list[float]]:
  """Parameters after both stages; the mean error, gray levels, at both."""
  net, critic = spec.network(), networks.PatchCritic()
  x = jnp.zeros((1, config.crop, config.crop, 1))
  key = jax.random.key(config.seed + i)
  init = functools.partial(jax.jit, compiler_options=xla.run_once_options())
  params = init(net.init)(key, x, key), init(critic.init)(key, x)
  opts = optax.adam(1e-3, 0.5, 0.9), optax.adam(5e-4, 0.5, 0.9)
  states = tuple(o.init(p) for o, p in zip(opts, params, strict=True))
  step = xla.jit(functools.partial(_step, spec.loss, net, critic, opts))

  def advance(state, batch, key):
    params, states, error = step(*state, batch, key)
    return (params, states), error

  kept = lambda state: state[0][0]
  return trace_pieces.learnt(config, i, pieces, advance, (params, states), kept)


def _step(loss: str, net, critic, opts, params, states, batch, key):
  """One step of the network and, under "adversarial", of its critic."""
  x = batch[..., None].astype(jnp.float32) / 127.5 - 1

  def of_network(p):
    y = net.apply(p, x, key)
    value = jnp.abs(x - y).mean()
    if loss != "l1":
      value += (0.1 if loss == "spectral" else 0.05) * spectral_distance(x, y)
    if loss == "adversarial":
      value -= 0.02 * critic.apply(params[1], y).mean()
    return value, y

  (_, y), gradient = jax.value_and_grad(of_network, has_aux=True)(params[0])
  update, state = opts[0].update(gradient, states[0])
  network, of_critic = optax.apply_updates(params[0], update), params[1]
  critic_state = states[1]
  if loss == "adversarial":  # Hinge (Lim and Ye, 2017, arXiv:1705.02894).
    y = jax.lax.stop_gradient(y)
    hinge = lambda p: (
      jax.nn.relu(1 - critic.apply(p, x)) + jax.nn.relu(1 + critic.apply(p, y))
    ).mean()
    update, critic_state = opts[1].update(jax.grad(hinge)(params[1]), states[1])
    of_critic = optax.apply_updates(params[1], update)
  return (network, of_critic), (state, critic_state), jnp.abs(x - y).mean()


def spectral_distance(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean difference of log amplitude, under a Hann window, of (b, s, s, 1)."""
  window = jnp.hanning(x.shape[1])
  window = (window[:, None] * window)[..., None]
  amplitude = lambda v: jnp.log(
    jnp.abs(jnp.fft.rfft2(v * window, axes=(1, 2))) + 0.05
  )
  return jnp.abs(amplitude(x) - amplitude(y)).mean()

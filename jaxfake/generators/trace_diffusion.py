"""Denoisers that repeat pictures: noise added and taken away in a few steps, as
the last of a diffusion model's (models/trace_denoiser)."""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts
from jaxfake.generators import trace_pieces
from jaxfake.models import trace_denoiser as networks
from jaxfake.runtime import xla

STEPS = 5  # Of denoising.
LEAST_SIGMA = 0.02  # Of images in [-1, 1]; from there to none in one step.
SIGMAS = 0.08, 0.6  # What denoising begins with.
LEARNT = -1.8, 1.0  # Mean and deviation of a learnt sigma's logarithm.


class Spec(NamedTuple):
  """One network."""

  kind: str
  upsampling: str
  depth: int
  width: int
  ancestral: bool  # New noise at every step (Ho et al., 2020).

  def network(self) -> networks.TraceDenoiser:
    return networks.TraceDenoiser(*self[1:-1])


def spec(kind: str, rng: np.random.Generator) -> Spec:
  pick = lambda *values: values[rng.integers(len(values))]
  upsampling = pick("nearest", "linear")
  return Spec(kind, upsampling, pick(1, 2), pick(12, 16), pick(False, True))


def repeat(
  spec: Spec, params: contracts.Tree, pieces: Sequence[trace_pieces.Piece]
) -> list[np.ndarray]:
  """uint8 (s, s) of each piece, by a trained network; each begins with its own
  noise."""
  forward = jax.jit(functools.partial(sampled, spec))
  return trace_pieces.repeated(
    pieces, lambda x, call: forward(params, x, jax.random.key(call))
  )


def sampled(
  spec: Spec, params: contracts.Tree, x: jax.Array, key: jax.Array
) -> jax.Array:
  """Images (b, h, w, 1), noised and denoised by Euler's steps along the
  probability flow (Karras et al., 2022, algorithm 1), or ancestral ones."""
  keys = jax.random.split(key, STEPS + 2)
  low, high = map(np.log, SIGMAS)
  begin = jax.random.uniform(keys[0], x.shape[:1], minval=low, maxval=high)
  times = jnp.linspace(0, 1, STEPS)[:, None]
  sigmas = jnp.exp(begin + times * (np.log(LEAST_SIGMA) - begin))
  sigmas = jnp.concatenate([sigmas, jnp.zeros_like(sigmas[:1])])
  wide = lambda s: s[:, None, None, None]
  x = x + wide(sigmas[0]) * jax.random.normal(keys[1], x.shape)
  for k in range(STEPS):
    now, then = sigmas[k], sigmas[k + 1]
    clean = jnp.asarray(spec.network().apply(params, x, now))
    noise = (x - clean) / wide(now)
    if spec.ancestral:
      new = then * jnp.sqrt(jnp.maximum(1 - (then / now) ** 2, 0))
      kept = jnp.sqrt(jnp.maximum(then**2 - new**2, 0))
      x = clean + wide(kept) * noise
      x = x + wide(new) * jax.random.normal(keys[k + 2], x.shape)
    else:
      x = clean + wide(then) * noise
  return x


def train(
  config: contracts.Config,
  i: int,
  spec: Spec,
  pieces: Sequence[trace_pieces.Piece],
) -> tuple[list, list[float]]:
  """Parameters after both stages; the mean error, gray levels, at both."""
  net = spec.network()
  x = jnp.zeros((1, config.crop, config.crop, 1))
  init = jax.jit(net.init, compiler_options=xla.run_once_options())
  params = init(jax.random.key(config.seed + i), x, jnp.ones(1))
  opt = optax.adam(2e-3, 0.9, 0.99)
  step = xla.jit(functools.partial(_step, net, opt))

  def advance(state, batch, key):
    params, of_opt, error = step(*state, batch, key)
    return (params, of_opt), error

  kept = lambda state: state[0]
  begin = params, opt.init(params)
  return trace_pieces.learnt(config, i, pieces, advance, begin, kept)


def _step(net, opt, params, state, batch, key):
  x = batch[..., None].astype(jnp.float32) / 127.5 - 1
  level, noise = jax.random.split(key)
  mean, deviation = LEARNT
  sigma = jnp.exp(mean + deviation * jax.random.normal(level, x.shape[:1]))
  noised = x + sigma[:, None, None, None] * jax.random.normal(noise, x.shape)

  def loss(params):
    error = net.apply(params, noised, sigma) - x
    weight = 1 / sigma**2 + 1 / networks.SIGMA_DATA**2
    mean = jnp.square(error).mean((1, 2, 3))
    return (weight * mean).mean(), jnp.abs(error).mean()

  (_, error), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  update, state = opt.update(gradient, state)
  return optax.apply_updates(params, update), state, error

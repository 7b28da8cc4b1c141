"""The family `wgan_gp`: a GAN whose critic estimates a Wasserstein distance,
its gradient held near 1 by a penalty (Gulrajani et al., 2017,
arXiv:1704.00028).

With `only_class` it learns from the images of one class: for few images of each
class Prezja et al. (2022, doi:10.1038/s41598-022-23081-4) train a generator for
each.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
import optax

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.generators import common, gan, losses
from jaxfake.runtime import devices
from jaxfake.training import augment, loop, workdir
from jaxfake.training.task import Task

CONFIG = "wgan_gp.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")
load = gan.load
summary = common.summary


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  gan.check_networks(config)
  common.require_above(config, "penalty", 0)
  common.require_at_least(config, "critic_steps", 1)
  devices, n = jax.device_count(), config.critic_steps
  if config.batch_size % (n * devices):
    raise errors.ConfigError(
      f"batch_size is {config.batch_size}: expected a multiple of critic_steps"
      f" ({n}) times the devices ({devices}), since each of the critic's steps"
      " takes a part of the batch"
    )
  common.check_only_class(config)


def part(x: jax.Array, k: int, n: int) -> jax.Array:
  """The k-th of n equal parts of a batch (b, ...), (b / n, ...): every n-th
  row, so that a device has rows of its own of each part."""
  return x.reshape(-1, n, *x.shape[1:])[:, k]


def stepper(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`step(state, batch) -> (state, metrics)`."""
  loss = losses.wgan_gp(config.penalty)
  update = updater(config, *gan.networks(config, classes), loss)

  def step(state: gan.State, batch):
    return update(
      state, common.to_float(config, batch["image"]), batch["label"]
    )

  return step


def updater(
  config: contracts.Config,
  generator: nn.Module,
  critic: nn.Module,
  loss: losses.Loss,
) -> Callable:
  """`update(state, real, label) -> (state, metrics)`: the critic's updates,
  each by a part of the batch, images (b, s, s, c) in [-1, 1], then the
  generator's through the new critic. Algorithm 1.

  Unrolled: in a loop XLA on CPU has slow convolutions, see
  xla.steps_per_dispatch.
  """
  adam = common.optimiser(config)
  names = augment.names(config.augment)
  augmented = functools.partial(augment.augment, names)
  n = config.critic_steps
  _, by_batch, _ = devices.mesh_and_shardings()

  def latents(key, count: int) -> jax.Array:
    z = jax.random.normal(key, (count, gan.latents(config)))
    # XLA by itself has every device make the fakes of the whole batch.
    return jax.lax.with_sharding_constraint(z, by_batch)

  def critic_step(d: gan.Network, judge: Callable, real, fake, key):
    """The critic after an update, and what was seen."""

    def d_loss(params):
      now = judge(d.variables | {"params": params})
      judged = loss.discriminator(now, real, fake, jax.random.split(key, 3))
      return sum(judged.terms.values()), (judged.judge.variables, judged.terms)

    gradient, (after, terms) = jax.grad(d_loss, has_aux=True)(d.params)
    seen = {f"d_loss_{name}": x for name, x in terms.items()}
    seen["d_gradient"] = optax.tree.norm(gradient)
    return gan.updated(adam, d, gradient, after), seen

  def update(state: gan.State, real: jax.Array, label: jax.Array):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_fakes, k_z, k_judge, *k_steps = jax.random.split(key, 3 + n)
    d, g, each = state.discriminator, state.generator, []
    # The generator stays while the critic learns: one pass makes all fakes.
    z = latents(k_fakes, len(label))
    fakes, _ = gan.trained(generator, g.variables, z, label)
    for k in range(n):
      judge = gan.judging(critic, augmented, part(label, k, n))
      rows = part(real, k, n), part(fakes, k, n)
      d, seen = critic_step(d, judge, *rows, k_steps[k])
      each.append(seen)
    seen = jax.tree.map(lambda *x: sum(x) / n, *each)
    # Equation 1: what the critic makes of the distance, without the penalty.
    seen["wasserstein"] = -(seen["d_loss_real"] + seen["d_loss_fake"])

    label = part(label, 0, n)
    z = latents(k_z, len(label))
    judge = gan.judging(critic, augmented, label)

    def g_loss(params):
      now = g.variables | {"params": params}
      fake, changed = gan.trained(generator, now, z, label)
      return loss.generator(judge(d.variables), fake, k_judge), changed

    grad = jax.value_and_grad(g_loss, has_aux=True)
    (seen["g_loss"], changed), gradient = grad(g.params)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = gan.updated(adam, g, gradient, changed)
    ema = common.averaged(config.ema, state.step, state.ema, g.variables)
    return gan.State(state.step + 1, g, d, ema), seen

  return update


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of training a WGAN-GP on a data set's train images: see
  gan.make."""
  return gan.task(config, dataset, gan.initial, stepper)


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the GAN and returns an exit code, ready to be called."""
  splits = common.of_class(splits, config.only_class)
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  model = config.model
  return {
    "upsample": model.upsample,
    "width": model.width,
    "norm": model.norm,
    "critic_steps": config.critic_steps,
    "only_class": config.only_class,
  }

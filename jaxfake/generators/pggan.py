"""The family `pggan`: a GAN that grows (Karras et al., 2018, "Progressive
Growing of GANs for Improved Quality, Stability, and Variation",
arXiv:1710.10196).

Training begins with small images. Each further resolution fades in and is then
trained for a while; how far the networks have grown is a function of the step
alone. A resolution is a program of its own, so that small images cost little.
The state has the parameters of all from the start: those of resolutions to come
do not change.

The loss is the WGAN-GP's, with the reals' scores kept near 0. Left out: larger
batches for small images.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.generators import common, gan, losses, wgan_gp
from jaxfake.models import pggan
from jaxfake.training import loop, workdir
from jaxfake.training.task import Task

CONFIG = "pggan.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")
load = gan.load
summary = common.summary


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  gan.check_networks(config)
  sides = [4 << i for i in range(resolutions(config.data.size))]
  errors.check_choice("grow.first", config.grow.first, sides)
  common.require_at_least(config, "grow.fade", 0)
  common.require_at_least(config, "grow.hold", 1)
  last = begins(config)[-1]
  if config.total_steps <= last:
    raise errors.ConfigError(
      f"total_steps is {config.total_steps}: expected above {last}, where"
      f" {config.data.size} px begin by grow.fade and grow.hold"
    )
  common.require_above(config, "penalty", 0)
  common.require_at_least(config, "drift", 0)
  common.require_at_least(config, "critic_steps", 1)
  parts = config.critic_steps * config.model.group * jax.device_count()
  if config.batch_size % parts:
    raise errors.ConfigError(
      f"batch_size is {config.batch_size}: expected a multiple of {parts}:"
      f" critic_steps ({config.critic_steps}), since each takes a part of the"
      f" batch, times model.group ({config.model.group}), whose images lie on"
      f" one device, times the devices ({jax.device_count()})"
    )
  common.check_only_class(config)


def resolutions(size: int) -> int:
  """How many there are from 4 px to a size."""
  return size.bit_length() - 2


def begins(config: contracts.Config) -> list[int]:
  """The steps at which the first resolution and each further one begin."""
  grow = config.grow
  further = resolutions(config.data.size) - resolutions(grow.first)
  return [0] + [grow.hold + i * (grow.fade + grow.hold) for i in range(further)]


def level(config: contracts.Config, step: jax.Array) -> jax.Array:
  """How many resolutions there are at a step; a fraction has faded in.

  In its `fade` steps a resolution counts 1, 2, ... parts of `fade + 1`.
  """
  since = step - jnp.array(begins(config)[1:], jnp.int32)
  faded = jnp.clip((since + 1) / (config.grow.fade + 1), 0, 1)
  return resolutions(config.grow.first) + faded.sum()


def shrunk(real: jax.Array, side: int, share: jax.Array) -> jax.Array:
  """Real images (b, s, s, c) as (b, side, side, c), of half the resolution but
  for a share: as sharp as the generator's can be. Appendix A."""
  while real.shape[1] > side:
    real = pggan.halved(real)
  return pggan.mixed(share, pggan.doubled(pggan.halved(real)), real)


def stepper(
  config: contracts.Config, classes: Sequence[str], further: int = 0
) -> Callable:
  """`step(state, batch) -> (state, metrics)` while so many resolutions follow
  the first."""
  sides = resolutions(config.grow.first) + further
  generator, critic = (
    net.clone(sides=sides) for net in gan.networks(config, classes)
  )
  loss = losses.with_drift(losses.wgan_gp(config.penalty), config.drift)
  update = wgan_gp.updater(config, generator, critic, loss)
  begin = begins(config)[further]

  def step(state: gan.State, batch):
    now = level(config, state.step)
    growth = {"growth": {"level": now}}

    def grown(network: gan.Network) -> gan.Network:
      # Adam begins anew with a resolution, as in the authors' code: what it
      # knows of old layers would make the first steps of new ones too large.
      zero = lambda x: jnp.where(state.step == begin, jnp.zeros_like(x), x)
      opt = jax.tree.map(zero, network.opt)
      return dataclasses.replace(
        network, variables=network.variables | growth, opt=opt
      )

    state = state.replace(
      generator=grown(state.generator), discriminator=grown(state.discriminator)
    )
    real = common.to_float(config, batch["image"])
    real = shrunk(real, 2 << sides, jnp.clip(now - sides + 1, 0, 1))
    state, seen = update(state, real, batch["label"])
    # Not averaged: sampling shows what has grown so far.
    return state.replace(ema=state.ema | growth), seen | {"level": now}

  return step


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of training a GAN that grows on a data set's train images: see
  gan.make."""
  later = tuple(
    (begin, stepper(config, dataset.classes, further))
    for further, begin in enumerate(begins(config))
    if further
  )
  task = gan.task(config, dataset, gan.initial, stepper)
  return task._replace(later=later)


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the GAN and returns an exit code, ready to be called."""
  splits = common.of_class(splits, config.only_class)
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "width": config.model.width,
    "first": config.grow.first,
    "fade": config.grow.fade,
    "hold": config.grow.hold,
    "drift": config.drift,
    "only_class": config.only_class,
  }

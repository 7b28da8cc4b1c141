"""The family `stylegan2`: a small StyleGAN2 (Karras et al., 2020, "Analyzing
and Improving the Image Quality of StyleGAN", arXiv:1912.04958).

The non-saturating loss, an R1 penalty of the discriminator and, if asked for,
the generator's path length regularisation, both lazy: one step in so many. For
small sets the discriminator sees images augmented with a probability that
follows how far it overfits: adaptive discriminator augmentation, ADA (Karras et
al., 2020, "Training Generative Adversarial Networks with Limited Data",
arXiv:2006.06676). Sections and equations are the first paper's unless ADA is
named. Left out: mixing of styles, and truncation.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.generators import common, gan, losses
from jaxfake.runtime import devices, xla
from jaxfake.training import augment, loop, workdir
from jaxfake.training.task import Task

CONFIG = "stylegan2.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")
summary = common.summary


class State(gan.State):
  """Whatever must survive a restart."""

  p: jax.Array  # Probability of each augmentation.
  overfit: jax.Array  # ADA's r_t, summed up since p last changed.
  path_mean: jax.Array  # Of path lengths, a moving average.


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  gan.check_networks(config)
  for field in ("r1.weight", "path.weight"):
    common.require_at_least(config, field, 0)
  for field in ("r1.every", "path.every", "ada.every", "ada.images"):
    common.require_at_least(config, field, 1)
  for field in ("path.decay", "ada.target"):
    if not 0 <= (value := common.value(config, field)) < 1:
      raise errors.ConfigError(f"{field} is {value}: expected 0 to below 1")
  count, n = jax.device_count(), config.model.group
  if config.batch_size % (n * count):
    raise errors.ConfigError(
      f"batch_size is {config.batch_size}: expected a multiple of model.group"
      f" ({n}) times the devices ({count}), since the discriminator compares"
      " the images of a group, which lie on one device"
    )
  common.check_only_class(config)


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> State`."""
  init = gan.initial(config, classes)

  def with_zeros(key) -> State:
    zeros = {x: jnp.zeros(()) for x in ("p", "overfit", "path_mean")}
    return State(**(vars(init(key)) | zeros))

  return with_zeros


def lazily(
  step: jax.Array,
  group: contracts.Config,
  term: Callable,
  params: contracts.Tree,
  aux: contracts.Tree,
) -> tuple[jax.Array, Any, Any]:
  """A regulariser's value, its gradient and what else it gives, at one step in
  `group.every`; zeros and `aux` at the others.

  `term(params) -> (value, aux)` counts `every` times as much where it is
  computed, so that its share of all steps is that of `group.weight`. Section
  3.1; the paper's updates are two, with Adam's rates corrected for it, here it
  is a part of one.
  """
  if not group.weight:
    return jnp.zeros(()), jax.tree.map(jnp.zeros_like, params), aux
  weight = group.weight * group.every

  def weighed(params):
    value, aux = term(params)
    return weight * value, aux

  def now():
    (value, aux), gradient = jax.value_and_grad(weighed, has_aux=True)(params)
    return value, gradient, aux

  def later():
    return jnp.zeros(()), jax.tree.map(jnp.zeros_like, params), aux

  return xla.cond(step % group.every == 0, now, later)


def path_lengths(draw: Callable, style: jax.Array, key: jax.Array) -> jax.Array:
  """How far each image moves as its style does, (b,): |J^T y| of equation 4,
  where J is the derivative of `draw(style)` and y are images of noise whose
  length does not depend on the images' size."""
  images, pull_back = jax.vjp(draw, style)
  noise = jax.random.normal(key, images.shape)
  (slope,) = pull_back(noise / images[0].size ** 0.5)
  return jnp.sqrt((slope**2).sum(-1))


def adapted(
  config: contracts.Config, state: State, real: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """ADA's p and sum after a step, from the logits (b,) of its reals.

  r_t, the mean sign of the logits, nears 1 where the discriminator knows the
  train images by heart. Every `ada.every` steps p moves by a fixed amount
  towards the r_t wanted, as fast as takes `ada.images` from 0 to 1. ADA,
  section 3.
  """
  ada = config.ada
  overfit = state.overfit + jnp.sign(real).mean()
  due = (state.step + 1) % ada.every == 0
  way = jnp.sign(overfit / ada.every - ada.target)
  moved = state.p + way * (ada.every * config.batch_size / ada.images)
  p = jnp.where(due, jnp.clip(moved, 0, 1), state.p)
  return p, jnp.where(due, 0, overfit)


def stepper(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`step(state, batch) -> (state, metrics)`: the discriminator's update, then
  the generator's through the new discriminator."""
  generator, discriminator = gan.networks(config, classes)
  loss, adam = losses.bce, common.optimiser(config)
  names = augment.names(config.augment)
  _, by_batch, _ = devices.mesh_and_shardings()

  def discriminate(state: State, judge: Callable, real, fake, keys):
    """The discriminator after its update, the logits of the reals, and what was
    seen."""
    d, (*keys, k_r1) = state.discriminator, keys
    gradient, _, logits, seen = gan.judge_gradient(
      loss, judge, d, real, fake, keys
    )
    r1 = lambda params: (losses.r1(judge({"params": params}), real, k_r1), ())
    seen["d_loss_r1"], more, _ = lazily(state.step, config.r1, r1, d.params, ())
    gradient = jax.tree.map(jnp.add, gradient, more)
    seen["d_gradient"] = optax.tree.norm(gradient)
    return gan.updated(adam, d, gradient, {}), logits, seen

  def step(state: State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_z, k_judge, k_path, *k_d = jax.random.split(key, 6)
    real, label = common.to_float(config, batch["image"]), batch["label"]
    z = jax.random.normal(k_z, (len(label), gan.latents(config)))
    # XLA by itself has every device make the fakes of the whole batch.
    z = jax.lax.with_sharding_constraint(z, by_batch)
    augmented = functools.partial(augment.augment_some, names, state.p)
    judge = gan.judging(discriminator, augmented, label)
    g = state.generator

    def generate(params):
      return generator.apply({"params": params}, z, label, train=True)

    # One forward pass of the generator serves both players' updates.
    fake, pull_back = jax.vjp(generate, g.params)
    d, logits, seen = discriminate(state, judge, real, fake, k_d)
    g_loss = lambda x: loss.generator(judge(d.variables), x, k_judge)
    seen["g_loss"], gradient = jax.value_and_grad(g_loss)(fake)
    (gradient,) = pull_back(gradient)

    def path(params):
      apply = functools.partial(generator.apply, {"params": params})
      draw = lambda style: apply(style, z, method="draw")
      lengths = path_lengths(draw, apply(z, label, method="style"), k_path)
      old = state.path_mean
      mean = old + (1 - config.path.decay) * (lengths.mean() - old)
      mean = jax.lax.stop_gradient(mean)
      return ((lengths - mean) ** 2).mean(), mean

    seen["g_loss_path"], more, path_mean = lazily(
      state.step, config.path, path, g.params, state.path_mean
    )
    gradient = jax.tree.map(jnp.add, gradient, more)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = gan.updated(adam, g, gradient, {})
    ema = common.averaged(config.ema, state.step, state.ema, g.variables)
    p, overfit = adapted(config, state, logits)
    seen |= {"p": p, "path_mean": path_mean}
    return State(state.step + 1, g, d, ema, p, overfit, path_mean), seen

  return step


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of training a StyleGAN2 on a data set's train images: see
  gan.make."""
  return gan.task(config, dataset, initial, stepper)


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the GAN and returns an exit code, ready to be called."""
  splits = common.of_class(splits, config.only_class)
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)


def load(path: pathlib.Path, step: int | None = None) -> common.Generator:
  """The generator of a run's folder. Raises ConfigError: see
  common.restored."""
  return gan.generator(*common.restored(path, initial, step))


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "width": config.model.width,
    "mapping_layers": config.model.mapping_layers,
    "r1": config.r1.weight,
    "path": config.path.weight,
    "augment": config.augment,
    "only_class": config.only_class,
  }

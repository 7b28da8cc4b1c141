"""The family `inpainter`: a region of a radiograph filled given its
surroundings (data.name=inpainting).

A conditional GAN (Isola et al., 2017, "Image-to-Image Translation with
Conditional Adversarial Networks", arXiv:1611.07004), whose equations and
sections are named below. CT-GAN (Mirsky et al., 2019, arXiv:1901.03597) puts
nodules into CT scans and takes them out by two such networks.

The paper's noise is dropout. Here it is a picture of normal deviates, so that a
fill is a function of it.

What it shares with other inpainters is in filling.py.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.generators import common, filling, gan
from jaxfake.models import inpainter
from jaxfake.nn import layers
from jaxfake.runtime import devices, xla
from jaxfake.training import augment, workdir
from jaxfake.training.task import Task

CONFIG = "inpainter.py"
SHOWN = ("region_error", "frechet_random_filters", "kernel_random_filters")
summary = common.summary


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  filling.check(config)
  errors.check_choice("data.size", config.data.size, inpainter.SIZES)
  inpainter.check(config.model)
  common.require_at_least(config, "l1", 0)


def networks(
  config: contracts.Config,
) -> tuple[inpainter.Generator, inpainter.Discriminator]:
  """The generator and discriminator modules of a config."""
  return inpainter.networks(config.model, layers.DTYPES[config.dtype])


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> gan.State`."""
  del classes  # It is told none.
  adam = common.optimiser(config)
  x = jnp.zeros((1, config.data.size, config.data.size, 1))

  def init(key) -> gan.State:
    def network(net, key):
      params = net.init(key, x, x, x)["params"]
      return gan.Network({"params": params}, adam.init(params))

    g, d = map(network, networks(config), jax.random.split(key))
    # Donated to the step, so it must not share buffers with the parameters.
    ema = jax.tree.map(jnp.copy, g.params)
    return gan.State(jnp.zeros((), jnp.int32), g, d, ema)

  return init


def applied(net: nn.Module, params: contracts.Tree, *inputs: jax.Array) -> Any:
  return net.apply({"params": params}, *inputs)


def filled(
  net: nn.Module,
  params: contracts.Tree,
  image: jax.Array,
  mask: jax.Array,
  noise: jax.Array,
) -> jax.Array:
  """Pictures (b, s, s, 1) whose region alone is the network's."""
  return jnp.where(mask > 0, applied(net, params, image, mask, noise), image)


def region_error(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean absolute difference in the regions of a batch: equation 3, which
  the paper takes over whole pictures."""
  return (jnp.abs(x - y) * mask).sum() / mask.sum()


def stepper(config: contracts.Config) -> Callable:
  """`step(state, batch) -> (state, metrics)`: the discriminator's update,
  equation 1, halved as in section 3.3, then the generator's through the new
  discriminator, equation 4."""
  generator, discriminator = networks(config)
  adam = common.optimiser(config)
  _, by_batch, _ = devices.mesh_and_shardings()

  def step(state: gan.State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_turn, k_noise = jax.random.split(key)
    real, mask = filling.to_float(
      *augment.turned(k_turn, batch["image"], batch["mask"])
    )
    # XLA by itself has every device fill the whole batch.
    noise = jax.lax.with_sharding_constraint(
      jax.random.normal(k_noise, real.shape), by_batch
    )
    g, d = state.generator, state.discriminator

    score = lambda params, x: applied(discriminator, params, real, mask, x)

    def d_loss(params):
      on_real, on_fake = score(params, real), score(params, fake)
      loss = jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean()
      return loss / 2, {
        "d_real": jax.nn.sigmoid(on_real).mean(),
        "d_fake": jax.nn.sigmoid(on_fake).mean(),
      }

    def g_loss(fake):
      terms = {
        "adversarial": jax.nn.softplus(-score(d.params, fake)).mean(),
        "l1": config.l1 * region_error(fake, real, mask),
      }
      return sum(terms.values()), terms

    # One forward pass of the generator serves both networks' updates.
    fake, pull_back = jax.vjp(
      lambda params: filled(generator, params, real, mask, noise), g.params
    )
    (loss, seen), gradient = jax.value_and_grad(d_loss, has_aux=True)(d.params)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen |= {"d_loss": loss, "d_gradient": optax.tree.norm(gradient)}
    d = gan.updated(adam, d, gradient, {})
    gradient, terms = jax.grad(g_loss, has_aux=True)(fake)
    (gradient,) = pull_back(gradient)
    seen |= {f"g_loss_{name}": value for name, value in terms.items()}
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = gan.updated(adam, g, gradient, {})
    ema = common.averaged(config.ema, state.step, state.ema, g.params)
    return gan.State(state.step + 1, g, d, ema), seen

  return step


def filler(config: contracts.Config) -> Callable:
  """`fill(params, image, mask, noise)`: see filling."""
  generator, _ = networks(config)
  return xla.jit(functools.partial(filled, generator))


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of learning to fill the windows of a data set.

  `dataset` are pipeline.Splits that read image, mask and label.
  """
  init, step = initial(config, dataset.classes), stepper(config)
  return filling.task(config, dataset, init, step, filler(config))


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the networks and returns an exit code, ready to be called."""
  return filling.prepare(make, config, splits, run)


def load(path: pathlib.Path, step: int | None = None) -> filling.Inpainter:
  """The inpainter of a run's folder. Raises ConfigError: see
  common.restored."""
  return filling.load(initial, filler, path, step)


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "fill": config.data.inpainting.fill,
    "width": config.model.width,
    "patch": config.model.patch,
    "l1": config.l1,
  }

"""The family `diffusion_inpainter`: a region of a radiograph filled by a
diffusion model that is given its surroundings (data.name=inpainting).

The diffusion is that of edm.py (Karras et al., 2022, arXiv:2206.00364, whose
equations are named below). Its condition is that of Palette (Saharia et al.,
2022, arXiv:2111.05826, section 3): the region under noise, and beside it, as
more channels, what surrounds it and where it is. Only the region has noise and
a loss. What it shares with other inpainters is in filling.py.
"""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts
from jaxfake.data import pipeline
from jaxfake.generators import common, edm, filling
from jaxfake.models import inpainter, unet
from jaxfake.nn import layers
from jaxfake.runtime import xla
from jaxfake.training import augment, workdir
from jaxfake.training.task import Task

CONFIG = "diffusion_inpainter.py"
SHOWN = ("region_error", "frechet_random_filters", "kernel_random_filters")
summary = common.summary


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  filling.check(config)
  unet.check(config.model, config.data.size)
  edm.check_noise(config)


def network(config: contracts.Config) -> unet.UNet:
  return unet.unet(config.model, 0, layers.DTYPES[config.dtype])


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> common.State`."""
  del classes  # It is told none.
  net, adam = network(config), edm.optimiser(config)
  x = jnp.zeros((1, config.data.size, config.data.size, 1))

  def init(key) -> common.State:
    beside = inpainter.seen(x, x)
    variables = net.init(key, x, jnp.zeros(1), beside=beside, train=False)
    return common.first(variables["params"], adam)

  return init


def denoiser(config: contracts.Config, **options: Any) -> Callable:
  """`denoise(params, x, sigma, image, mask)`: the region of noisy pictures x
  (b, s, s, 1), whose noise has the deviations sigma (b,), without noise, and 0
  elsewhere. Equation 7, of a network that sees nothing of x but the region and
  nothing of `image` but its surroundings."""
  noise, net = config.noise, network(config)
  precondition = edm.edm(config.sigma_data, noise.mean, noise.deviation)

  def denoise(params, x, sigma, image, mask):
    beside = inpainter.seen(image, mask)
    told = edm.denoiser(precondition, net, beside=beside, **options)
    return mask * told(params, mask * x, sigma, None)

  return denoise


def region_loss(
  error: jax.Array, mask: jax.Array, weight: jax.Array
) -> jax.Array:
  """The mean of weights (b,) times the mean squares of errors (b, s, s, 1) in
  the region of each row."""
  squares = (mask * error**2).sum((1, 2, 3)) / mask.sum((1, 2, 3))
  return (weight * squares).mean()


def stepper(config: contracts.Config) -> Callable:
  """`step(state, batch) -> (state, metrics)`: equation 8 in the regions, at a
  noise of its own for each row."""
  noise, adam = config.noise, edm.optimiser(config)
  precondition = edm.edm(config.sigma_data, noise.mean, noise.deviation)

  def step(state: common.State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_turn, k_sigma, k_noise, k_dropout = jax.random.split(key, 4)
    real, mask = filling.to_float(
      *augment.turned(k_turn, batch["image"], batch["mask"])
    )
    sigma = precondition.draw(k_sigma, len(real))
    noisy = edm.with_noise(real, sigma, k_noise)
    denoise = denoiser(config, train=True, rngs={"dropout": k_dropout})

    def loss(params):
      error = denoise(params, noisy, sigma, real, mask) - real
      return region_loss(error, mask, precondition.weight(sigma))

    value, gradient = jax.value_and_grad(loss)(state.params)
    # The norm, so that a NaN is seen in the step whose update it would spoil.
    seen = {"loss": value, "gradient": optax.tree.norm(gradient)}
    return common.updated(config, adam, state, gradient), seen

  return step


def filler(config: contracts.Config) -> Callable:
  """`fill(params, image, mask, noise)`: see filling. Heun's method from the
  noise, of which nothing is drawn on the way."""
  denoise, levels = denoiser(config, train=False), edm.sigmas(config.sampler)

  @jax.jit
  def begin(mask, noise):
    return levels[0] * mask * noise

  @xla.jit
  def slope(params, x, sigma, image, mask):
    clean = denoise(params, x, jnp.full(len(x), sigma), image, mask)
    return (x - clean) / sigma

  @jax.jit
  def end(x, image, mask):
    return jnp.where(mask > 0, jnp.clip(x, -1, 1), image)

  slope = edm.in_turn(slope)

  def fill(params, image, mask, noise):
    def toward(x, sigma):
      return slope(params, x, np.float32(sigma), image, mask)

    return end(edm.heun(toward, begin(mask, noise), levels), image, mask)

  return fill


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of learning to fill the windows of a data set.

  `dataset` are pipeline.Splits that read image, mask and label.
  """
  init, step = initial(config, dataset.classes), stepper(config)
  return filling.task(config, dataset, init, step, filler(config))


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the network and returns an exit code, ready to be called."""
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
    "steps": config.sampler.steps,
  }

"""The family `edm`: a diffusion model (Karras et al., 2022, "Elucidating the
Design Space of Diffusion-Based Generative Models", arXiv:2206.00364).

A network learns to take noise away from images; sampling begins with noise and
follows the probability flow to an image. Equations, tables and algorithms named
below are the paper's. With `parametrisation = "ddpm"` the network predicts the
noise, as in Ho et al. (2020, arXiv:2006.11239), by the column "VP" of table 1.
"""

from collections.abc import Callable, Iterable, Sequence
import itertools
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.generators import common
from jaxfake.models import unet
from jaxfake.nn import layers
from jaxfake.runtime import devices, xla
from jaxfake.training import loop, workdir
from jaxfake.training.task import Task

CONFIG = "edm.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")
summary = common.summary

# Of the variance preserving process: table 1. Ho et al.'s 1,000 steps of 1e-4
# to 0.02 in continuous time.
BETA_SPREAD, BETA_LEAST = 19.9, 0.1
TIMES = 1000
LEAST_TIME = 1e-5


class Preconditioning(NamedTuple):
  """Functions of the noise's deviation sigma, elementwise: equation 7.

  The denoiser is skip * x + out * network(scale * x, level); its squared error
  counts `weight` times. `draw(key, n)` gives the sigmas (n,) of training.
  """

  skip: Callable
  out: Callable
  scale: Callable
  level: Callable
  weight: Callable
  draw: Callable


def edm(sigma_data: float, mean: float, deviation: float) -> Preconditioning:
  """Table 1, column "Ours": what the network sees and what it should answer
  have unit variance where images deviate by `sigma_data`; ln(sigma) is drawn
  from a normal distribution."""
  both = lambda s: s**2 + sigma_data**2
  return Preconditioning(
    skip=lambda s: sigma_data**2 / both(s),
    out=lambda s: s * sigma_data / jnp.sqrt(both(s)),
    scale=lambda s: 1 / jnp.sqrt(both(s)),
    level=lambda s: jnp.log(s) / 4,
    weight=lambda s: both(s) / (s * sigma_data) ** 2,
    draw=lambda key, n: jnp.exp(
      mean + deviation * jax.random.normal(key, (n,))
    ),
  )


def ddpm() -> Preconditioning:
  """Table 1, column "VP": the network answers with the noise itself, turned,
  and is told the time in 0 to 999; times are drawn uniformly."""

  def sigma(t):
    return jnp.sqrt(jnp.expm1(BETA_SPREAD * t**2 / 2 + BETA_LEAST * t))

  def time(s):
    root = jnp.sqrt(BETA_LEAST**2 + 2 * BETA_SPREAD * jnp.log1p(s**2))
    return (root - BETA_LEAST) / BETA_SPREAD

  return Preconditioning(
    skip=jnp.ones_like,
    out=lambda s: -s,
    scale=lambda s: 1 / jnp.sqrt(s**2 + 1),
    level=lambda s: (TIMES - 1) * time(s),
    weight=lambda s: 1 / s**2,
    draw=lambda key, n: sigma(
      jax.random.uniform(key, (n,), minval=LEAST_TIME, maxval=1)
    ),
  )


PARAMETRISATIONS = ("edm", "ddpm")


def preconditioning(config: contracts.Config) -> Preconditioning:
  if config.parametrisation == "ddpm":
    return ddpm()
  return edm(config.sigma_data, config.noise.mean, config.noise.deviation)


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  unet.check(config.model, config.data.size)
  check_diffusion(config)


def check_diffusion(config: contracts.Config) -> None:
  """The same, of all but the network."""
  field = "parametrisation"
  errors.check_choice(field, config.parametrisation, PARAMETRISATIONS)
  common.check(config)
  check_noise(config)
  common.require_at_least(config, "sampler.guidance", 0)
  _require_finite(config, "sampler.guidance")
  if not 0 <= config.unlabelled < 1:
    raise errors.ConfigError(
      f"unlabelled is {config.unlabelled}: expected 0 to below 1"
    )
  guided = config.model.conditional and config.unlabelled > 0
  if config.sampler.guidance != 1 and not guided:
    raise errors.ConfigError(
      f"sampler.guidance is {config.sampler.guidance}: expected 1 unless"
      " model.conditional is True and unlabelled above 0, since it needs a"
      " network that knows images with and without their class"
    )
  common.check_only_class(config)


def check_noise(config: contracts.Config) -> None:
  """The same, of the noise in training and in sampling, and of the rate."""
  for field in ("sigma_data", "noise.deviation", "sampler.sigma_min"):
    common.require_above(config, field, 0)
  least = config.sampler.sigma_min
  common.require_above(config, "sampler.sigma_max", least)
  common.require_at_least(config, "sampler.rho", 1)
  common.require_at_least(config, "sampler.steps", 2)
  common.require_at_least(config, "opt.warmup", 0)
  for field in ("noise.mean", "sampler.sigma_max"):
    _require_finite(config, field)


def _require_finite(config, field):
  if not math.isfinite(value := common.value(config, field)):
    raise errors.ConfigError(f"{field} is {value}: expected a number")


def network(config: contracts.Config, classes: Sequence[str]) -> unet.UNet:
  told = len(classes) if config.model.conditional else 0
  return unet.unet(config.model, told, layers.DTYPES[config.dtype])


def denoiser(
  precondition: Preconditioning, net: unet.UNet, **options: Any
) -> Callable:
  """`denoise(params, x, sigma, label)`: noisy images (b, s, s, c) and their
  noise's deviations (b,) to clean images. Equation 7."""

  def denoise(params, x, sigma, label):
    s = sigma[:, None, None, None]
    answer = net.apply(
      {"params": params},
      precondition.scale(s) * x,
      precondition.level(sigma),
      label,
      **options,
    )
    return precondition.skip(s) * x + precondition.out(s) * answer

  return denoise


def optimiser(config: contracts.Config) -> optax.GradientTransformation:
  """Adam, whose rate grows evenly over its first `warmup` steps."""
  opt = config.opt
  rate = lambda i: opt.lr * jnp.minimum(1, (i + 1) / max(opt.warmup, 1))
  return optax.adam(rate, b1=opt.b1, b2=opt.b2)


def shape(config: contracts.Config) -> tuple[int, int, int]:
  """Of an image."""
  return config.data.size, config.data.size, config.model.channels


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> State`."""
  return initial_of(config, classes, shape(config))


def initial_of(
  config: contracts.Config, classes: Sequence[str], shape: Sequence[int]
) -> Callable:
  """The same, for x of that shape."""
  net, adam = network(config, classes), optimiser(config)

  def init(key) -> common.State:
    inputs = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    params = net.init(key, *inputs, train=False)["params"]
    return common.first(params, adam)

  return init


def stepper(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`step(state, batch) -> (state, metrics)`."""
  learn = learner(config, classes)

  def step(state: common.State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    x = common.to_float(config, batch["image"])
    return learn(state, x, batch["label"], key)

  return step


def learner(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`learn(state, x, label, key) -> (state, metrics)` from x (b, s, s, c), of
  deviation `sigma_data`: the weighted error of denoising, equation 8, at a
  noise of its own for each row."""
  net, adam = network(config, classes), optimiser(config)
  precondition = preconditioning(config)

  def learn(state: common.State, x, label, key):
    k_sigma, k_noise, k_class, k_dropout = jax.random.split(key, 4)
    sigma = precondition.draw(k_sigma, len(x))
    noisy = with_noise(x, sigma, k_noise)
    # Some learn without their class, for guidance: Ho and Salimans, 2022,
    # arXiv:2207.12598, algorithm 1.
    forgotten = jax.random.bernoulli(k_class, config.unlabelled, label.shape)
    label = jnp.where(forgotten, len(classes), label)
    options = dict(train=True, rngs={"dropout": k_dropout})
    denoise = denoiser(precondition, net, **options)

    def loss(params):
      error = denoise(params, noisy, sigma, label) - x
      return (precondition.weight(sigma) * (error**2).mean((1, 2, 3))).mean()

    value, gradient = jax.value_and_grad(loss)(state.params)
    # The norm, so that a NaN is seen in the step whose update it would spoil.
    seen = {"loss": value, "gradient": optax.tree.norm(gradient)}
    return common.updated(config, adam, state, gradient), seen

  return learn


def with_noise(x: jax.Array, sigma: jax.Array, key: jax.Array) -> jax.Array:
  """Images (b, s, s, c) under noise of the deviations (b,). Traced."""
  _, by_batch, _ = devices.mesh_and_shardings()
  noise = jax.random.normal(key, x.shape)
  # XLA by itself has every device draw the whole batch.
  noise = jax.lax.with_sharding_constraint(noise, by_batch)
  return x + sigma[:, None, None, None] * noise


def sigmas(sampler: contracts.Config) -> np.ndarray:
  """The deviations that sampling goes through, (steps + 1,), falling to 0:
  equation 5."""
  first, last = (
    np.float64(x) ** (1 / sampler.rho)
    for x in (sampler.sigma_max, sampler.sigma_min)
  )
  return np.append(np.linspace(first, last, sampler.steps) ** sampler.rho, 0)


def heun(slope: Callable, x: jax.Array, sigmas: Iterable[float]) -> jax.Array:
  """Images at the last of some falling deviations, from images x at the first:
  algorithm 1. `slope(x, sigma)` is (x - denoised) / sigma, the flow's."""
  for now, then in itertools.pairwise(map(float, sigmas)):
    first = slope(x, now)
    ahead = _moved(x, then - now, first)
    if then > 0:
      second = slope(ahead, then)
      ahead = _moved(x, (then - now) / 2, first, second)
    x = ahead
  return x


@jax.jit
def _moved(x, by, *slopes):
  return x + by * sum(slopes)


def sampler(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`sample(params, seed, index, label)` -> uint8 (n, s, s, c)."""
  draw, end = flow(config, classes, shape(config)), xla.jit(common.to_uint8)
  return lambda params, *of: end(draw(params, *of))


def flow(
  config: contracts.Config, classes: Sequence[str], shape: Sequence[int]
) -> Callable:
  """`draw(params, seed, index, label)` -> (n, *shape), from noise.

  Programs of one denoising are called in turn, since in a loop XLA on CPU has
  slow convolutions (see xla.steps_per_dispatch), and unrolled they would take
  minutes to compile.
  """
  precondition, guidance = preconditioning(config), config.sampler.guidance
  net = network(config, classes)
  denoise = denoiser(precondition, net, train=False)
  levels = sigmas(config.sampler)

  @xla.jit
  def begin(seed, index):
    return levels[0] * common.latents(seed, index, *shape)

  @xla.jit
  def slope(params, x, sigma, label):
    each = jnp.full(len(x), sigma)
    clean = denoise(params, x, each, label)
    if guidance != 1:  # Ho and Salimans, equation 6, by its weight plus 1.
      without = denoise(params, x, each, jnp.full_like(label, len(classes)))
      clean = without + guidance * (clean - without)
    return (x - clean) / sigma

  slope = in_turn(slope)

  def draw(params, seed, index, label):
    toward = lambda x, sigma: slope(params, x, np.float32(sigma), label)
    return heun(toward, begin(seed, index), levels)

  return draw


def in_turn(program: Callable) -> Callable:
  """The same compiled program, for many calls that go one after another: one
  that waits holds its memory (xla.dispatches_at_once)."""
  if xla.dispatches_at_once() > 1:
    return program

  def alone(*arguments):
    y = program(*arguments)
    xla.wait(y)
    return y

  return alone


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of training a diffusion model on a data set's train images.

  `dataset` are pipeline.Splits.
  """
  common.require_classes(config, dataset)
  return common.task(
    config,
    dataset,
    initial(config, dataset.classes),
    stepper(config, dataset.classes),
    sampler(config, dataset.classes),
  )


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the model and returns an exit code, ready to be called."""
  splits = common.of_class(splits, config.only_class)
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)


def load(path: pathlib.Path, step: int | None = None) -> common.Generator:
  """The generator of a run's folder. Raises ConfigError: see
  common.restored."""
  config, classes, state = common.restored(path, initial, step)
  draw, name = sampler(config, classes), config.parametrisation
  return common.Generator(draw, name, config, classes, state)


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "parametrisation": config.parametrisation,
    "width": config.model.width,
    "patch": config.model.patch,
    "steps": config.sampler.steps,
    "guidance": config.sampler.guidance,
    "only_class": config.only_class,
  }

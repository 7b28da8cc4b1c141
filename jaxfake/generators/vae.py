"""The family `vae`: a variational autoencoder (Kingma and Welling, 2014,
arXiv:1312.6114).

An encoder gives each image a normal distribution of latents, a decoder repeats
the image from a draw of it, and the loss holds that distribution near the
prior, N(0, 1). Images are made from draws of the prior. They are blurred, as a
VAE's are: the decoder's answer is the middle of all images that the latents may
stand for.

With a small `kl` the latents keep more of the image and are further from the
prior: an autoencoder for latent_diffusion.py (Rombach et al., 2022,
arXiv:2112.10752, section 3.1, here without the paper's perceptual and
adversarial losses).
"""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.data.sources import Subset
from jaxfake.evaluation import distances, pictures
from jaxfake.generators import common
from jaxfake.models import autoencoder
from jaxfake.nn import layers
from jaxfake.runtime import devices, xla
from jaxfake.training import loop, workdir
from jaxfake.training.task import Task

CONFIG = "vae.py"
SHOWN = ("frechet_random_filters", "reconstruction_error")
summary = common.summary

ERRORS = {"l1": jnp.abs, "l2": jnp.square}
# Power of rounding to 8 bits, of images in [-1, 1]: what is below reaches none.
ROUNDING = (2 / 255) ** 2 / 12
SHOWN_PAIRS = 32  # Pictures beside their reconstructions.


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  autoencoder.check(config.model, config.data.size)
  common.check(config)
  errors.check_choice("reconstruction", config.reconstruction, ERRORS)
  for field in ("spectral", "kl"):
    common.require_at_least(config, field, 0)
  common.check_only_class(config)


def network(
  config: contracts.Config, classes: Sequence[str]
) -> autoencoder.Autoencoder:
  dtype = layers.DTYPES[config.dtype]
  return autoencoder.autoencoder(config.model, len(classes), dtype)


def latent_shape(config: contracts.Config) -> tuple[int, int, int]:
  return autoencoder.latent_shape(config.model, config.data.size)


def encoder(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`encode(params, image, label)`: uint8 (b, s, s, 1) to mean and logarithmic
  variance of their latents, each (b, s', s', latents)."""
  net = network(config, classes)

  def encode(params, image, label):
    x = common.to_float(config, image)
    return net.apply({"params": params}, x, label, method="encode")

  return encode


def decoder(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`decode(params, z, label)`: latents to images (b, s, s, c)."""
  net = network(config, classes)

  def decode(params, z, label):
    return net.apply({"params": params}, z, label, method="decode")

  return decode


def drawn(
  key: jax.Array, mean: jax.Array, log_variance: jax.Array
) -> jax.Array:
  """A draw of each latent from its distribution."""
  _, by_batch, _ = devices.mesh_and_shardings()
  noise = jax.random.normal(key, mean.shape)
  # XLA by itself has every device draw the whole batch.
  noise = jax.lax.with_sharding_constraint(noise, by_batch)
  return mean + jnp.exp(log_variance / 2) * noise


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  """Kullback and Leibler's, of latents from the prior, in nats (b,): appendix
  B, with the sign of a loss."""
  each = mean**2 + jnp.exp(log_variance) - 1 - log_variance
  return each.sum((1, 2, 3)) / 2


def spectrum(x: jax.Array) -> jax.Array:
  """Power of images (b, s, s, c) at each frequency, (b, s / 2 + 1, s, c); that
  of white noise is its variance.

  A product of matrices: of an FFT XLA gives each device the whole batch.
  """
  size = x.shape[1]
  angles = 2 * np.pi / size * np.outer(np.arange(size), np.arange(size))
  wave = np.stack([np.cos(angles), np.sin(angles)]) / np.sqrt(size)
  wave = wave.astype(np.float32)
  half = wave[:, : size // 2 + 1]  # The rest is the same again.
  z = jnp.einsum(
    "pkh,qlw,bhwc->pqbklc", half, wave, x, precision=jax.lax.Precision.HIGHEST
  )
  return (z[0, 0] - z[1, 1]) ** 2 + (z[0, 1] + z[1, 0]) ** 2


def spectral_distance(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean absolute difference of logarithmic spectra; in sound Yamamoto et al.,
  2020, arXiv:1910.11480, have it for short pieces."""
  log = lambda x: jnp.log(spectrum(x) + ROUNDING)
  return jnp.abs(log(x) - log(y)).mean()


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> State`."""
  net, adam = network(config, classes), common.optimiser(config)

  def init(key) -> common.State:
    size, channels = config.data.size, config.model.channels
    inputs = jnp.zeros((1, size, size, channels)), jnp.zeros(1, jnp.int32)
    return common.first(net.init(key, *inputs)["params"], adam)

  return init


def stepper(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`step(state, batch) -> (state, metrics)`: equation 10 with one draw, an
  error in place of the likelihood, and a distance of spectra added."""
  encode, decode = encoder(config, classes), decoder(config, classes)
  adam, error = common.optimiser(config), ERRORS[config.reconstruction]

  def step(state: common.State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    image, label = batch["image"], batch["label"]
    x = common.to_float(config, image)

    def loss(params):
      latents = encode(params, image, label)
      y = decode(params, drawn(key, *latents), label)
      seen = {
        "reconstruction": error(y - x).mean(),
        "spectral": spectral_distance(x, y),
        # For each pixel, as the error is.
        "kl": divergence(*latents).mean() / x[0].size,
      }
      seen["loss"] = (
        seen["reconstruction"]
        + config.spectral * seen["spectral"]
        + config.kl * seen["kl"]
      )
      return seen["loss"], seen

    gradient, seen = jax.grad(loss, has_aux=True)(state.params)
    # The norm, so that a NaN is seen in the step whose update it would spoil.
    seen["gradient"] = optax.tree.norm(gradient)
    return common.updated(config, adam, state, gradient), seen

  return step


def sampler(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`sample(params, seed, index, label)` -> uint8 (n, s, s, c)."""
  decode, shape = decoder(config, classes), latent_shape(config)

  @xla.jit
  def sample(params, seed, index, label):
    z = common.latents(seed, index, *shape)
    return common.to_uint8(decode(params, z, label))

  return sample


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of training an autoencoder on a data set's train images.

  `dataset` are pipeline.Splits.
  """
  common.require_classes(config, dataset)
  task = common.task(
    config,
    dataset,
    initial(config, dataset.classes),
    stepper(config, dataset.classes),
    sampler(config, dataset.classes),
  )
  repeat = repeating(config, dataset)

  def evaluate(state, gather):
    return task.evaluate(state, gather) | repeat(state.ema, gather)

  return task._replace(evaluate=evaluate)


def repeating(config: contracts.Config, dataset: pipeline.Splits) -> Callable:
  """`repeat(params, gather)`: how near held-out images come back from the means
  of their latents, as figures and a picture for Task.evaluate.

  The error is the mean absolute difference in gray levels of 255.
  """
  encode = encoder(config, dataset.classes)
  decode = decoder(config, dataset.classes)

  @xla.jit
  def both(params, batch):
    image, label = batch["image"], batch["label"]
    y = decode(params, encode(params, image, label)[0], label)
    return image, common.to_gray(common.to_uint8(y))

  held = dataset.held_out
  n = min(config.eval.images, len(held))
  held = Subset(held, np.arange(n) * len(held) // n)

  def repeat(params, gather):
    x, y = gather(lambda batch: both(params, batch), held)
    x, y = x[..., 0], y[..., 0]
    sides = [
      (name, pictures.sheet(side[:SHOWN_PAIRS], 8))
      for name, side in ((f"real, {dataset.held_out_split}", x), ("again", y))
    ]
    return {
      "reconstruction_error": np.abs(x.astype(float) - y).mean(),
      "reconstruction_spectrum_gap_db": distances.spectrum_gap(
        distances.radial_spectrum(x), distances.radial_spectrum(y)
      ),
      "reconstructions": pictures.captioned(sides, 2),
    }

  return repeat


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
  draw = sampler(config, classes)
  return common.Generator(draw, "vae", config, classes, state)


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "width": config.model.width,
    "halvings": config.model.halvings,
    "latents": config.model.latents,
    "spectral": config.spectral,
    "kl": config.kl,
    "only_class": config.only_class,
  }

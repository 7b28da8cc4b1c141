"""How a GAN learns, samples and is measured."""

import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import errors, metrics, pictures, platform
from jaxfake.generators import augment, losses
from jaxfake.models import dcgan
from jaxfake.task import Rows, Subset, Task

MODELS = {"dcgan": dcgan.make}
PREVIEW = 32  # Pictures a block.
NEIGHBOURS = 8
THUMBNAIL = 32  # Pixels a side: what nearest neighbours are sought in.


class Network(struct.PyTreeNode):
  """A network in training: parameters, batch statistics, Adam's moments."""

  params: Any
  batch_stats: Any
  opt: Any


class State(struct.PyTreeNode):
  """Whatever must survive a restart."""

  step: jax.Array
  generator: Network
  discriminator: Network
  ema: Any  # The averaged generator's variables: what sampling uses.


def check(config) -> None:
  """Raises ConfigError for values no run could use."""
  errors.check_choice("model.name", config.model.name, MODELS)
  errors.check_choice("data.size", config.data.size, dcgan.SIZES)
  errors.check_choice("model.channels", config.model.channels, (1, 3))
  errors.check_choice("loss", config.loss, losses.LOSSES)
  for name in augmentations(config):
    errors.check_choice("augment", name, augment.AUGMENTATIONS)
  if not 0 <= config.ema < 1:
    raise errors.ConfigError(f"ema is {config.ema}: expected 0 <= ema < 1")


def augmentations(config) -> tuple[str, ...]:
  return tuple(name for name in config.augment.split(",") if name)


def networks(config, classes):
  """The generator and discriminator modules of a config."""
  return MODELS[config.model.name](config.model, len(classes), config.data.size)


def latents(seed: int | jax.Array, index: jax.Array, size: int) -> jax.Array:
  """Latent vectors (n, size), each a function of (seed, index) alone."""
  key = jax.random.key(seed)
  draw = lambda i: jax.random.normal(jax.random.fold_in(key, i), (size,))
  return jax.vmap(draw)(index)


def to_uint8(x: jax.Array) -> jax.Array:
  """[-1, 1] to 0..255, rounded."""
  return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)


def compiled(fn):
  """`jax.jit` with this machine's compiler options."""
  return jax.jit(fn, compiler_options=platform.compiler_options())


def sampler(config, classes):
  """`sample(variables, seed, index, label)` -> uint8 (n, s, s, c), to be
  compiled by the caller."""
  generator, _ = networks(config, classes)

  def sample(variables, seed, index, label):
    z = latents(seed, index, config.model.latents)
    return to_uint8(generator.apply(variables, z, label, train=False))

  return sample


def make(config, dataset) -> Task:
  """The task of training a GAN on a data set's train images.

  `dataset` has `classes`, and `train` and `held_out`: sources of images.
  """
  generator, discriminator = networks(config, dataset.classes)
  loss = losses.LOSSES[config.loss]
  adam = optax.adam(config.opt.lr, b1=config.opt.b1, b2=config.opt.b2)
  names = augmentations(config)

  def init(key):
    kg, kd = jax.random.split(key)
    z = jnp.zeros((1, config.model.latents))
    shape = (1, config.data.size, config.data.size, config.model.channels)
    label = jnp.zeros(1, jnp.int32)
    g = generator.init(kg, z, label, train=True)
    d = discriminator.init(kd, jnp.zeros(shape), label, train=True)
    network = lambda v: Network(
      v["params"], v["batch_stats"], adam.init(v["params"])
    )
    # The average must not share buffers with what it averages: both are
    # donated to the step.
    ema = jax.tree.map(jnp.copy, dict(g))
    return State(jnp.zeros((), jnp.int32), network(g), network(d), ema)

  def update(network, gradient):
    updates, opt = adam.update(gradient, network.opt, network.params)
    params = optax.apply_updates(network.params, updates)
    return network.replace(params=params, opt=opt)

  def judge(params, batch_stats, x, label, key):
    """Logits (b,) of a train-mode pass, and the new batch statistics."""
    logits, variables = discriminator.apply(
      {"params": params, "batch_stats": batch_stats},
      augment.augment(names, key, x),
      label,
      train=True,
      mutable=["batch_stats"],
    )
    return logits, variables["batch_stats"]

  def step(state: State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_z, k_real, k_fake, k_judge = jax.random.split(key, 4)
    real = batch["image"].astype(jnp.float32) / 127.5 - 1
    real = jnp.repeat(real, config.model.channels, -1)
    label = batch["label"]  # The fakes' too: the same class mix.
    z = jax.random.normal(k_z, (len(label), config.model.latents))
    g, d = state.generator, state.discriminator

    def generate(params):
      x, variables = generator.apply(
        {"params": params, "batch_stats": g.batch_stats},
        z,
        label,
        train=True,
        mutable=["batch_stats"],
      )
      return x, variables["batch_stats"]

    # One forward pass of the generator serves both players' updates.
    fake, pull_back, g_stats = jax.vjp(generate, g.params, has_aux=True)

    def d_loss(params):
      on_real, stats = judge(params, d.batch_stats, real, label, k_real)
      on_fake, stats = judge(params, stats, fake, label, k_fake)
      real_term, fake_term = loss.discriminator(on_real, on_fake)
      seen = {
        "d_loss_real": real_term,
        "d_loss_fake": fake_term,
        "d_real": jax.nn.sigmoid(on_real).mean(),
        "d_fake": jax.nn.sigmoid(on_fake).mean(),
      }
      return real_term + fake_term, (stats, seen)

    gradient, (d_stats, seen) = jax.grad(d_loss, has_aux=True)(d.params)
    d = update(d, gradient).replace(batch_stats=d_stats)

    def g_loss(x):
      return loss.generator(judge(d.params, d_stats, x, label, k_judge)[0])

    seen["g_loss"], gradient = jax.value_and_grad(g_loss)(fake)
    g = update(g, pull_back(gradient)[0]).replace(batch_stats=g_stats)

    # The average forgets its first, random steps: decay grows to config.ema.
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema, (1 + t) / (10 + t))
    ema = jax.tree.map(
      lambda old, new: decay * old + (1 - decay) * new,
      state.ema,
      {"params": g.params, "batch_stats": g.batch_stats},
    )
    return State(state.step + 1, g, d, ema), seen

  return Task(init, step, *measures(config, dataset))


def measures(config, dataset):
  """The task's `evaluate` and `preview`."""
  sample = sampler(config, dataset.classes)
  conditional = config.model.conditional

  @compiled
  def draw(variables, batch):
    x = sample(variables, config.seed, batch["index"], batch["label"])
    return (
      x.astype(jnp.float32).mean(-1, keepdims=True).round().astype(jnp.uint8)
    )

  read = jax.jit(lambda batch: (batch["image"], batch["label"]))

  @compiled
  def describe(batch):
    x = batch["image"]
    side = x.shape[1] // THUMBNAIL
    small = x.astype(jnp.float32).reshape(
      len(x), THUMBNAIL, side, THUMBNAIL, side
    )
    return metrics.random_filter_features(x), small.mean((2, 4))

  def fakes(state, gather, label):
    rows = Rows(index=np.arange(len(label), dtype=np.int32), label=label)
    return gather(functools.partial(draw, state.ema), rows)

  @functools.cache
  def blocks(gather):
    """For each block of a preview its caption, real images and labels."""
    if not conditional:
      n = min(PREVIEW, len(dataset.train))
      images, labels = gather(read, Subset(dataset.train, range(n)))
      return [("", images, labels)]
    found = {c: [] for c in range(len(dataset.classes))}
    for i in range(len(dataset.train)):
      label = int(dataset.train[i]["label"])
      if len(found[label]) < PREVIEW:
        found[label].append(i)
      if all(len(v) == PREVIEW for v in found.values()):
        break
    made = []
    for c, indices in found.items():
      if indices:
        images, labels = gather(read, Subset(dataset.train, indices))
        made.append((dataset.classes[c] + " ", images, labels))
    return made

  def preview(state, gather):
    cells = []
    for name, real, label in blocks(gather):
      fake = fakes(state, gather, label)
      cells.append((f"real {name}", pictures.sheet(real[..., 0], 8)))
      cells.append((f"fake {name}", pictures.sheet(fake[..., 0], 8)))
    return {"preview": pictures.captioned(cells, 2)}

  @functools.cache
  def reference(gather):
    """What is measured against: it does not change during a run."""
    # One n for all: the Fréchet distance's bias depends on it.
    n = min(config.eval.images, len(dataset.train), len(dataset.held_out))

    def spread(source):  # Evenly, since a source may be sorted by class.
      return Subset(source, np.arange(n) * len(source) // n)

    images, labels = gather(read, spread(dataset.train))
    features, _ = gather(describe, Rows(image=images))
    _, bank = gather(describe, dataset.train)
    held, _ = gather(read, spread(dataset.held_out))
    held_features, held_small = gather(describe, Rows(image=held))
    return images, labels, features, bank, held, held_features, held_small

  def evaluate(state, gather):
    real, label, features, bank, held, held_features, held_small = reference(
      gather
    )
    fake = fakes(state, gather, label)
    fake_features, fake_small = gather(describe, Rows(image=fake))
    a, b, h = metrics.standardise(features, fake_features, held_features)
    # Each spectrum (s // 2,) is of log10 power; decibels are ten times that.
    frequency = np.arange(config.data.size // 2)
    spectra = {
      "real": metrics.radial_spectrum(real[..., 0]),
      "held-out real": metrics.radial_spectrum(held[..., 0]),
      "fake": metrics.radial_spectrum(fake[..., 0]),
    }
    gap = 10 * np.abs(spectra["fake"] - spectra["real"])[1:]
    floor = 10 * np.abs(spectra["held-out real"] - spectra["real"])[1:]
    index, distance = metrics.nearest(fake_small, bank)
    _, held_distance = metrics.nearest(held_small, bank, 1)
    shown = slice(NEIGHBOURS)
    flat = index[shown].ravel()
    found, _ = gather(read, Subset(dataset.train, flat))
    found = found[..., 0].reshape(*index[shown].shape, *found.shape[1:3])
    return {
      # Named for what they are: not the Inception-v3 FID and KID.
      "frechet_random_filters": metrics.frechet_distance(a, b),
      "frechet_random_filters_held_out": metrics.frechet_distance(a, h),
      "kernel_random_filters": metrics.kernel_distance(a, b),
      "kernel_random_filters_held_out": metrics.kernel_distance(a, h),
      "spectrum_gap_db": gap.mean(),
      "spectrum_gap_db_held_out": floor.mean(),
      "nearest_train_rms": np.median(distance[:, 0]),
      "nearest_train_rms_held_out": np.median(held_distance),
      "images": len(fake),
      "spectrum": pictures.curves(
        frequency[1:],
        {name: 10 * s[1:] for name, s in spectra.items()},
        "radial frequency (cycles a picture)",
        "mean power (dB)",
      ),
      "neighbours": pictures.neighbours(
        fake[shown, ..., 0], found, distance[shown]
      ),
    }

  return evaluate, preview

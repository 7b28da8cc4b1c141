"""How a GAN learns and samples."""

import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from jaxfake import augment, distances, errors, loop, platform
from jaxfake.generators import losses, measure
from jaxfake.models import dcgan, layers
from jaxfake.task import Task

MODELS = {"dcgan": dcgan.make}


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
  errors.check_choice("model.upsample", config.model.upsample, dcgan.UPSAMPLES)
  errors.check_choice("model.channels", config.model.channels, (1, 3))
  errors.check_choice("loss", config.loss, losses.LOSSES)
  errors.check_choice("dtype", config.dtype, layers.DTYPES)
  augment.names(config.augment)
  for field, least in (
    ("model.width", 1),
    ("model.max_width", 1),
    ("model.latents", 1),
    ("eval.images", 2),
  ):
    group, name = field.split(".")
    if config[group][name] < least:
      raise errors.ConfigError(
        f"{field} is {config[group][name]}: expected at least {least}"
      )
  decays = {"ema": config.ema, "opt.b1": config.opt.b1, "opt.b2": config.opt.b2}
  for field, value in decays.items():
    if not 0 <= value < 1:
      raise errors.ConfigError(f"{field} is {value}: expected 0 to below 1")
  if not config.opt.lr > 0:
    raise errors.ConfigError(f"opt.lr is {config.opt.lr}: expected above 0")


def networks(config, classes):
  """The generator and discriminator modules of a config."""
  return MODELS[config.model.name](
    config.model, len(classes), config.data.size, layers.DTYPES[config.dtype]
  )


def latents(seed: int | jax.Array, index: jax.Array, size: int) -> jax.Array:
  """Latent vectors (n, size), each a function of (seed, index) alone."""
  key = jax.random.key(seed)
  draw = lambda i: jax.random.normal(jax.random.fold_in(key, i), (size,))
  return jax.vmap(draw)(index)


def to_uint8(x: jax.Array) -> jax.Array:
  """[-1, 1] to 0..255, rounded."""
  return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)


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
  if config.model.conditional and not dataset.classes:
    raise errors.ConfigError(
      "model.conditional is True, but not every image of the data has a class"
    )
  generator, discriminator = networks(config, dataset.classes)
  loss = losses.LOSSES[config.loss]
  adam = optax.adam(config.opt.lr, b1=config.opt.b1, b2=config.opt.b2)
  names = augment.names(config.augment)
  _, by_batch, _ = loop.mesh_and_shardings()

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
    # XLA by itself has every device make the fakes of the whole batch.
    z = jax.lax.with_sharding_constraint(z, by_batch)
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
    seen["d_gradient"] = optax.tree.norm(gradient)
    d = update(d, gradient).replace(batch_stats=d_stats)

    def g_loss(x):
      return loss.generator(judge(d.params, d_stats, x, label, k_judge)[0])

    seen["g_loss"], gradient = jax.value_and_grad(g_loss)(fake)
    (gradient,) = pull_back(gradient)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = update(g, gradient).replace(batch_stats=g_stats)

    # The average forgets its first, random steps: decay grows to config.ema.
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema, (1 + t) / (10 + t))
    ema = jax.tree.map(
      lambda old, new: decay * old + (1 - decay) * new,
      state.ema,
      {"params": g.params, "batch_stats": g.batch_stats},
    )
    return State(state.step + 1, g, d, ema), seen

  sample = sampler(config, dataset.classes)

  @platform.jit
  def draw(variables, batch):
    x = sample(variables, config.seed, batch["index"], batch["label"])
    gray = x.astype(jnp.float32).mean(-1, keepdims=True)
    return jnp.round(gray).astype(jnp.uint8)

  by_class = dataset.classes if config.model.conditional else ()
  evaluate, preview = measure.make(
    dataset,
    config.eval.images,
    by_class,
    lambda state: functools.partial(draw, state.ema),
  )
  return Task(init, step, evaluate, preview)


def prepare(config, splits, run):
  """What trains the GAN and returns an exit code, ready to be called."""
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)


def summary(path, result: dict) -> str:
  """What a finished run reached, where everything is, what to do next."""
  last = sorted((path / "pictures").glob("preview-*.png"))[-1]
  figures = "\n".join(
    f"  {name.removeprefix('eval/'):36} {value:.4g}"
    for name, value in result["metrics"].items()
    if name != "step"
  )
  few = ""
  if (n := result["metrics"]["eval/images"]) < distances.FEATURES:
    few = (
      f"  ({n:.0f} images each, fewer than the {distances.FEATURES} features:"
      " take these distances as a sign of life, no more)\n"
    )
  return (
    f"Finished {result['step']} steps.\n{figures}\n{few}"
    f"  picture   {last}\n"
    f"  figures   {path}/result.json, {path}/metrics.jsonl\n"
    "Next: python -m jaxfake.sample"
    f" --workdir {path} --count 100 --out samples"
  )

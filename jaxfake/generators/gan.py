"""The family `gan`: two networks, one of which makes images."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts, errors, named
from jaxfake.evaluation import distances
from jaxfake.generators import losses, measure
from jaxfake.nn import layers
from jaxfake.runtime import devices, disk, xla
from jaxfake.training import augment, checkpoint, loop, workdir
from jaxfake.training.task import Task

CONFIG = "dcgan.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Network:
  """A network in training: Linen's variables, whatever collections it has, and
  Adam's moments of its parameters."""

  variables: dict[str, Any]  # {"params": ..., "batch_stats": ..., ...}
  opt: Any

  @property
  def params(self):
    return self.variables["params"]

  def tree_flatten_with_keys(self):
    # Each collection as a field of its own: so old checkpoints have them.
    rest = sorted(self.variables.keys() - {"params"})
    names = ("params", *rest)
    fields = {name: self.variables[name] for name in names} | {"opt": self.opt}
    key = jax.tree_util.GetAttrKey
    return [(key(name), value) for name, value in fields.items()], names

  @classmethod
  def tree_unflatten(cls, names, values):
    *collections, opt = values
    return cls(dict(zip(names, collections, strict=True)), opt)


class State(struct.PyTreeNode):
  """Whatever must survive a restart."""

  step: jax.Array
  generator: Network
  discriminator: Network
  ema: Any  # The averaged generator's variables: what sampling uses.


def check(config) -> None:
  """Raises ConfigError for values no run could use."""
  adversaries = model(config)
  errors.check_choice("data.size", config.data.size, adversaries.SIZES)
  adversaries.check(config.model)
  errors.check_choice("model.channels", config.model.channels, (1, 3))
  errors.check_choice("loss", config.loss, losses.LOSSES)
  errors.check_choice("dtype", config.dtype, layers.DTYPES)
  augment.names(config.augment)
  for group, name, least in (("model", "latents", 1), ("eval", "images", 2)):
    if config[group][name] < least:
      raise errors.ConfigError(
        f"{group}.{name} is {config[group][name]}: expected at least {least}"
      )
  decays = {"ema": config.ema, "opt.b1": config.opt.b1, "opt.b2": config.opt.b2}
  for field, value in decays.items():
    if not 0 <= value < 1:
      raise errors.ConfigError(f"{field} is {value}: expected 0 to below 1")
  if not config.opt.lr > 0:
    raise errors.ConfigError(f"opt.lr is {config.opt.lr}: expected above 0")


def model(config):
  """The module with the networks of a config. Raises ConfigError."""
  name = config.model.name
  return named.find("model.name", name, contracts.Adversaries).load()


def networks(config, classes):
  """The generator and discriminator modules of a config."""
  return model(config).make(
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


class Judge(NamedTuple):
  """A discriminator as its losses see it (losses.py)."""

  logits: Callable  # (variables, x, key) -> (logits, changed collections)
  variables: dict[str, Any]

  def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, "Judge"]:
    logits, changed = self.logits(self.variables, x, key)
    return logits, self._replace(variables=self.variables | changed)


def trained(net, variables, *inputs):
  """A network's train-mode output, and the collections that it changes."""
  mutable = sorted(variables.keys() - {"params"})
  return net.apply(variables, *inputs, train=True, mutable=mutable)


def optimiser(config) -> optax.GradientTransformation:
  return optax.adam(config.opt.lr, b1=config.opt.b1, b2=config.opt.b2)


def initial(config, classes) -> Callable:
  """`init(key) -> State`."""
  generator, discriminator = networks(config, classes)
  adam = optimiser(config)

  def init(key) -> State:
    kg, kd = jax.random.split(key)
    z = jnp.zeros((1, config.model.latents))
    shape = (1, config.data.size, config.data.size, config.model.channels)
    label = jnp.zeros(1, jnp.int32)
    g = dict(generator.init(kg, z, label, train=True))
    d = dict(discriminator.init(kd, jnp.zeros(shape), label, train=True))
    network = lambda v: Network(v, adam.init(v["params"]))
    # The average must not share buffers with what it averages: both are
    # donated to the step.
    ema = jax.tree.map(jnp.copy, g)
    return State(jnp.zeros((), jnp.int32), network(g), network(d), ema)

  return init


def stepper(config, classes) -> Callable:
  """`step(state, batch) -> (state, metrics)`: the discriminator's update, then
  the generator's through the new discriminator."""
  generator, discriminator = networks(config, classes)
  loss = losses.LOSSES[config.loss]
  adam = optimiser(config)
  names = augment.names(config.augment)
  _, by_batch, _ = devices.mesh_and_shardings()

  def update(network: Network, gradient, changed: dict) -> Network:
    updates, opt = adam.update(gradient, network.opt, network.params)
    params = optax.apply_updates(network.params, updates)
    return Network(network.variables | changed | {"params": params}, opt)

  def judge_of(label) -> Callable:
    def logits(variables, x, key):
      x = augment.augment(names, key, x)
      return trained(discriminator, variables, x, label)

    return functools.partial(Judge, logits)

  def judge_step(d: Network, judge: Callable, real, fake, keys):
    """The discriminator after its update, and what was seen."""

    def d_loss(params):
      judged = loss.discriminator(
        judge(d.variables | {"params": params}), real, fake, keys
      )
      seen = {f"d_loss_{name}": x for name, x in judged.terms.items()} | {
        "d_real": jax.nn.sigmoid(judged.real).mean(),
        "d_fake": jax.nn.sigmoid(judged.fake).mean(),
      }
      return sum(judged.terms.values()), (judged.judge.variables, seen)

    gradient, (after, seen) = jax.grad(d_loss, has_aux=True)(d.params)
    seen["d_gradient"] = optax.tree.norm(gradient)
    return update(d, gradient, after), seen

  def step(state: State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_z, k_real, k_fake, k_judge = jax.random.split(key, 4)
    real = batch["image"].astype(jnp.float32) / 127.5 - 1
    real = jnp.repeat(real, config.model.channels, -1)
    label = batch["label"]  # The fakes' too: the same class mix.
    z = jax.random.normal(k_z, (len(label), config.model.latents))
    # XLA by itself has every device make the fakes of the whole batch.
    z = jax.lax.with_sharding_constraint(z, by_batch)
    g, judge = state.generator, judge_of(label)

    def generate(params):
      return trained(generator, g.variables | {"params": params}, z, label)

    # One forward pass of the generator serves both players' updates.
    fake, pull_back, changed = jax.vjp(generate, g.params, has_aux=True)
    d, seen = judge_step(
      state.discriminator, judge, real, fake, (k_real, k_fake)
    )
    g_loss = lambda x: loss.generator(judge(d.variables), x, k_judge)
    seen["g_loss"], gradient = jax.value_and_grad(g_loss)(fake)
    (gradient,) = pull_back(gradient)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = update(g, gradient, changed)
    ema = averaged(config.ema, state.step, state.ema, g.variables)
    return State(state.step + 1, g, d, ema), seen

  return step


def averaged(most: float, step: jax.Array, average, new):
  """The moving average, which forgets its first, random steps: its decay grows
  to `most`."""
  t = step.astype(jnp.float32)
  decay = jnp.minimum(most, (1 + t) / (10 + t))
  mix = lambda old, new: decay * old + (1 - decay) * new
  return jax.tree.map(mix, average, new)


def make(config, dataset) -> Task:
  """The task of training a GAN on a data set's train images.

  `dataset` are pipeline.Splits.
  """
  if config.model.conditional and not dataset.classes:
    raise errors.ConfigError(
      "model.conditional is True, but not every image of the data has a class"
    )
  sample = sampler(config, dataset.classes)

  @xla.jit
  def draw(variables, batch):
    x = sample(variables, config.seed, batch["index"], batch["label"])
    gray = x.astype(jnp.float32).mean(-1, keepdims=True)
    return jnp.round(gray).astype(jnp.uint8)

  measures = measure.Measures(
    dataset,
    config.eval.images,
    dataset.classes if config.model.conditional else (),
    lambda state: functools.partial(draw, state.ema),
  )
  return Task(
    initial(config, dataset.classes),
    stepper(config, dataset.classes),
    measures.evaluate,
    measures.preview,
  )


def restored(path: pathlib.Path, step: int | None = None):
  """A run's config, classes and state, from its folder alone; the last one that
  is whole, where no step is given.

  Raises ConfigError where the folder holds no run, or not that checkpoint.
  """
  config = workdir.read_config(path)
  if "dtype" not in config:  # Older runs do not say it.
    config.dtype = "float32"
  classes = tuple(disk.read_json(path / "dataset.json")["classes"])
  saved = checkpoint.Checkpoints(path / "checkpoints", read_only=True)
  with saved as checkpoints:
    steps = checkpoints.steps()
    if not steps or step not in (None, *steps):
      raise errors.ConfigError(
        f"{path} has no checkpoint{'' if step is None else f' of step {step}'}:"
        f" expected one of {steps or 'a run that has saved one'}"
      )
    like = loop.abstract_state(initial(config, classes))
    if step is None:
      remedy = "put a copy back, or train again"
      _, state = checkpoints.restore_last(like, remedy)
    else:
      state = checkpoints.restore(step, like)
  return config, classes, state


class Generator:
  """A trained generator: contracts.Generator."""

  def __init__(self, config, classes: Sequence[str], state: State):
    _, self._by_batch, everywhere = devices.mesh_and_shardings(
      jax.local_devices()
    )
    ema = jax.tree.map(np.asarray, state.ema)
    self._ema = jax.device_put(ema, everywhere)
    self._draw = xla.jit(sampler(config, classes))
    self.name, self.size = config.model.name, config.data.size
    self.classes, self.conditional = tuple(classes), config.model.conditional
    self.step, self.sha256 = int(state.step), checkpoint.sha256(state)

  def sample(self, seed: int, index: np.ndarray, label: np.ndarray):
    index, label = jax.device_put((index, label), self._by_batch)
    return self._draw(self._ema, np.uint32(seed), index, label)


def load(path: pathlib.Path, step: int | None = None) -> Generator:
  """The generator of a run's folder. Raises ConfigError: see `restored`."""
  return Generator(*restored(path, step))


def describe(config) -> dict[str, Any]:
  """What tells one GAN from another."""
  model = config.model
  return {
    "upsample": model.upsample,
    "width": model.width,
    "loss": config.loss,
  }


def prepare(config, splits, run) -> Callable[[], int]:
  """What trains the GAN and returns an exit code, ready to be called."""
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)


def summary(path: pathlib.Path, result: dict) -> str:
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

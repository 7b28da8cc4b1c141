"""The family `gan`: two networks, one of which makes images."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import optax

from jaxfake import contracts, errors, named
from jaxfake.data import pipeline
from jaxfake.generators import common, losses
from jaxfake.nn import layers
from jaxfake.runtime import devices, xla
from jaxfake.training import augment, loop, workdir
from jaxfake.training.task import Task

CONFIG = "dcgan.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")
summary = common.summary


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Network:
  """A network in training: Linen's variables, whatever collections it has, and
  Adam's moments of its parameters."""

  variables: dict[str, Any]  # {"params": ..., "batch_stats": ..., ...}
  opt: Any

  @property
  def params(self) -> Any:
    return self.variables["params"]

  def tree_flatten_with_keys(self) -> tuple:
    # Each collection as a field of its own: so old checkpoints have them.
    rest = sorted(self.variables.keys() - {"params"})
    names = ("params", *rest)
    fields = {name: self.variables[name] for name in names} | {"opt": self.opt}
    key = jax.tree_util.GetAttrKey
    return [(key(name), value) for name, value in fields.items()], names

  @classmethod
  def tree_unflatten(cls, names: Sequence, values: Sequence) -> "Network":
    *collections, opt = values
    return cls(dict(zip(names, collections, strict=True)), opt)


class State(struct.PyTreeNode):
  """Whatever must survive a restart."""

  step: jax.Array
  generator: Network
  discriminator: Network
  ema: Any  # The averaged generator's variables: what sampling uses.


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  check_networks(config)
  errors.check_choice("loss", config.loss, losses.LOSSES)


def check_networks(config: contracts.Config) -> None:
  """Raises ConfigError for values of the fields that all GANs have."""
  adversaries = model(config)
  errors.check_choice("data.size", config.data.size, adversaries.SIZES)
  adversaries.check(config.model)
  common.require_at_least(config, "model.latents", 1)
  common.check(config)
  augment.names(config.augment)


def model(config: contracts.Config) -> Any:
  """The module with the networks of a config. Raises ConfigError."""
  name = config.model.name
  return named.find("model.name", name, contracts.Adversaries).load()


def latents(config: contracts.Config) -> int:
  """How many normal deviates an image is made of."""
  return model(config).latents(config.model, config.data.size)


def networks(
  config: contracts.Config, classes: Sequence[str]
) -> tuple[Any, Any]:
  """The generator and discriminator modules of a config."""
  return model(config).make(
    config.model, len(classes), config.data.size, layers.DTYPES[config.dtype]
  )


def sampler(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`sample(variables, seed, index, label)` -> uint8 (n, s, s, c), to be
  compiled by the caller."""
  generator, _ = networks(config, classes)

  def sample(variables, seed, index, label):
    z = common.latents(seed, index, latents(config))
    return common.to_uint8(generator.apply(variables, z, label, train=False))

  return sample


class Judge(NamedTuple):
  """A discriminator as its losses see it (losses.py)."""

  logits: Callable  # (variables, x, key) -> (logits, changed collections)
  variables: dict[str, Any]

  def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, "Judge"]:
    logits, changed = self.logits(self.variables, x, key)
    return logits, self._replace(variables=self.variables | changed)


def trained(
  net: nn.Module, variables: Mapping[str, Any], *inputs: jax.Array
) -> tuple[jax.Array, Any]:
  """A network's train-mode output, and the collections that it changes."""
  mutable = sorted(variables.keys() - {"params"})
  return net.apply(variables, *inputs, train=True, mutable=mutable)


def updated(
  adam: optax.GradientTransformation,
  network: Network,
  gradient: contracts.Tree,
  changed: dict,
) -> Network:
  """A network after Adam's step, its other collections changed."""
  updates, opt = adam.update(gradient, network.opt, network.params)
  params = optax.apply_updates(network.params, updates)
  return Network(network.variables | changed | {"params": params}, opt)


def judging(
  discriminator: nn.Module, augmented: Callable, label: jax.Array
) -> Callable:
  """`judge(variables) -> Judge` of images of these labels, which it sees as
  `augmented(key, x)`."""

  def logits(variables, x, key):
    return trained(discriminator, variables, augmented(key, x), label)

  return functools.partial(Judge, logits)


def judge_gradient(
  loss: losses.Loss,
  judge: Callable,
  d: Network,
  real: jax.Array,
  fake: jax.Array,
  keys: Sequence[jax.Array],
) -> tuple[Any, Any, jax.Array, dict]:
  """The gradient of a discriminator's loss, the collections that it changes,
  the logits of the reals, and what was seen."""

  def d_loss(params):
    now = judge(d.variables | {"params": params})
    judged = loss.discriminator(now, real, fake, keys)
    seen = {f"d_loss_{name}": x for name, x in judged.terms.items()} | {
      "d_real": jax.nn.sigmoid(judged.real).mean(),
      "d_fake": jax.nn.sigmoid(judged.fake).mean(),
    }
    aux = judged.judge.variables, judged.real, seen
    return sum(judged.terms.values()), aux

  gradient, (after, real, seen) = jax.grad(d_loss, has_aux=True)(d.params)
  return gradient, after, real, seen


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> State`."""
  generator, discriminator = networks(config, classes)
  adam = common.optimiser(config)

  def init(key) -> State:
    kg, kd = jax.random.split(key)
    z = jnp.zeros((1, latents(config)))
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


def stepper(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`step(state, batch) -> (state, metrics)`: the discriminator's update, then
  the generator's through the new discriminator."""
  generator, discriminator = networks(config, classes)
  loss = losses.LOSSES[config.loss]
  adam = common.optimiser(config)
  names = augment.names(config.augment)
  augmented = functools.partial(augment.augment, names)
  _, by_batch, _ = devices.mesh_and_shardings()

  def step(state: State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_z, k_real, k_fake, k_judge = jax.random.split(key, 4)
    real = common.to_float(config, batch["image"])
    label = batch["label"]  # The fakes' too: the same class mix.
    z = jax.random.normal(k_z, (len(label), latents(config)))
    # XLA by itself has every device make the fakes of the whole batch.
    z = jax.lax.with_sharding_constraint(z, by_batch)
    g, judge = state.generator, judging(discriminator, augmented, label)

    def generate(params):
      return trained(generator, g.variables | {"params": params}, z, label)

    # One forward pass of the generator serves both players' updates.
    fake, pull_back, changed = jax.vjp(generate, g.params, has_aux=True)
    gradient, after, _, seen = judge_gradient(
      loss, judge, state.discriminator, real, fake, (k_real, k_fake)
    )
    seen["d_gradient"] = optax.tree.norm(gradient)
    d = updated(adam, state.discriminator, gradient, after)
    g_loss = lambda x: loss.generator(judge(d.variables), x, k_judge)
    seen["g_loss"], gradient = jax.value_and_grad(g_loss)(fake)
    (gradient,) = pull_back(gradient)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = updated(adam, g, gradient, changed)
    ema = common.averaged(config.ema, state.step, state.ema, g.variables)
    return State(state.step + 1, g, d, ema), seen

  return step


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of training a GAN on a data set's train images.

  `dataset` are pipeline.Splits.
  """
  return task(config, dataset, initial, stepper)


def task(
  config: contracts.Config,
  dataset: pipeline.Splits,
  initial: Callable,
  stepper: Callable,
) -> Task:
  """A GAN's task, of the state and the step that a config and classes get."""
  common.require_classes(config, dataset)
  sample = sampler(config, dataset.classes)

  @xla.jit
  def draw(variables, batch):
    x = sample(variables, config.seed, batch["index"], batch["label"])
    return common.to_gray(x)

  measures = common.measures(config, dataset, draw)
  return Task(
    initial(config, dataset.classes),
    stepper(config, dataset.classes),
    measures.evaluate,
    measures.preview,
  )


def restored(
  path: pathlib.Path, step: int | None = None
) -> tuple[contracts.Config, tuple[str, ...], State]:
  """A run's config, classes and state: common.restored."""
  return common.restored(path, initial, step)


def generator(
  config: contracts.Config, classes: Sequence[str], state: State
) -> common.Generator:
  """What samples from a state."""
  draw = xla.jit(sampler(config, classes))
  return common.Generator(draw, config.model.name, config, classes, state)


def load(path: pathlib.Path, step: int | None = None) -> common.Generator:
  """The generator of a run's folder. Raises ConfigError: see `restored`."""
  return generator(*restored(path, step))


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one GAN from another."""
  model = config.model
  return {
    "upsample": model.upsample,
    "width": model.width,
    "loss": config.loss,
  }


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the GAN and returns an exit code, ready to be called."""
  task = make(config, splits)
  return lambda: loop.train(config, task, splits.train, run)

"""The family `cyclegan`: images of one class made into another and back (Zhu et
al., 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks", arXiv:1703.10593).

No image of one class has a partner of the other. A generator for each class,
k = 0 or 1, makes images of class k of images of the other. Equations and
sections named below are the paper's.

What is measured and sampled is made of held-out images, never of train images.
"""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts, errors
from jaxfake.data import pipeline, sources
from jaxfake.generators import common, gan, translations, translator
from jaxfake.models import cyclegan
from jaxfake.nn import layers
from jaxfake.runtime import devices, xla
from jaxfake.training import loop, workdir
from jaxfake.training.task import Task

CONFIG = "cyclegan.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters", "cycle_error")
summary = common.summary

BOTH = range(2)


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  errors.check_choice("data.size", config.data.size, cyclegan.SIZES)
  cyclegan.check(config.model)
  common.check(config)
  common.require_at_least(config, "cycle", 0)
  common.require_at_least(config, "identity", 0)
  common.require_at_least(config, "history", 1)
  if config.from_class == config.to_class:
    raise errors.ConfigError(
      f"from_class and to_class are {config.to_class!r}: expected two classes"
    )


def of_classes(
  splits: pipeline.Splits, first: str, second: str
) -> pipeline.Splits:
  """pipeline.Splits of two classes alone, in the data set's order.

  Raises ConfigError where there is no such class, DataError where too few
  images are of it to learn and to be measured by.
  """
  labels = sorted(
    common.class_named(splits, field, name)
    for field, name in (("from_class", first), ("to_class", second))
  )
  names = tuple(splits.classes[k] for k in labels)
  parts = {}
  for part in ("train", "val", "test"):
    source = getattr(splits, part)
    parts[part] = source and sources.OfClasses(source, labels)
  splits = splits._replace(classes=names, **parts)
  for part, source in (("train", splits.train), ("held out", splits.held_out)):
    for k, name in enumerate(names):
      if (n := source.column("label").count(k)) < 2:
        raise errors.DataError(
          f"{n} images of {name} in {part}: expected at least 2"
        )
  return splits


class Pairs:
  """An image of each class by index, until the larger class has been through:
  {"image": of class 0, "other": of class 1}.

  Who stands beside whom does not matter: no term of the loss looks at both.
  """

  def __init__(self, source: contracts.Items):
    labels = np.asarray(source.column("label"))
    self._source = source
    self._places = [np.flatnonzero(labels == k) for k in BOTH]

  def __len__(self) -> int:
    return max(map(len, self._places))

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Pairs({len(self)} of {self._source})"

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    first, second = (
      self._source[int(places[i % len(places)])]["image"]
      for places in self._places
    )
    return {"image": first, "other": second}


class State(struct.PyTreeNode):
  """Whatever must survive a restart."""

  step: jax.Array
  generators: gan.Network  # Its `params` are those of both, in a tuple.
  discriminators: gan.Network
  history: tuple[jax.Array, ...]  # Of fakes, (history, s, s, c) each.
  ema: Any  # Of the generators' parameters: what sampling uses.


def networks(
  config: contracts.Config,
) -> tuple[cyclegan.Generator, cyclegan.Discriminator]:
  """The generator and discriminator modules of a config."""
  return cyclegan.networks(config.model, layers.DTYPES[config.dtype])


def applied(
  net: cyclegan.Generator | cyclegan.Discriminator,
  params: contracts.Tree,
  x: jax.Array,
) -> Any:
  return net.apply({"params": params}, x)


def optimiser(config: contracts.Config) -> optax.GradientTransformation:
  """Adam, whose rate falls evenly to 0 in the second half: section 4."""
  opt, total = config.opt, config.total_steps
  rate = lambda i: opt.lr * jnp.minimum(1, 2 * (1 - i / total))
  return optax.adam(rate, b1=opt.b1, b2=opt.b2)


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> State`."""
  del classes  # Always two.
  adam = optimiser(config)
  shape = config.data.size, config.data.size, config.model.channels

  def init(key) -> State:
    def both(net, key):
      x = jnp.zeros((1, *shape))
      params = tuple(net.init(k, x)["params"] for k in jax.random.split(key))
      return gan.Network({"params": params}, adam.init(params))

    g, d = map(both, networks(config), jax.random.split(key))
    # Donated to the step, so no two may share buffers.
    history = tuple(jnp.zeros((config.history, *shape)) for _ in BOTH)
    ema = jax.tree.map(jnp.copy, g.params)
    return State(jnp.zeros((), jnp.int32), g, d, history, ema)

  return init


def interleaved(x: jax.Array, y: jax.Array) -> jax.Array:
  """Rows of two batches (b, ...) in turn, (2 b, ...), so that a device has the
  same rows of both."""
  return jnp.stack([x, y], 1).reshape(-1, *x.shape[1:])


def apart(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The inverse of `interleaved`."""
  x = x.reshape(-1, 2, *x.shape[1:])
  return x[:, 0], x[:, 1]


def error(x: jax.Array, y: jax.Array) -> jax.Array:
  """The mean absolute difference."""
  return jnp.abs(x - y).mean()


def square(x: jax.Array) -> jax.Array:
  return (x**2).mean()


def recalled(
  key: jax.Array, history: jax.Array, fakes: jax.Array, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """What a discriminator is shown for new fakes (b, s, s, c), after `seen`
  before them, and the history (n, s, s, c) after: section 4.

  Row by row: while the history is not full a fake is kept, and shown. Later
  every second one, at random, takes the place of one that is shown instead.
  """
  k_swap, k_place = jax.random.split(key)
  b, n = len(fakes), len(history)
  count = seen + jnp.arange(b)
  new = count < n
  place = jnp.where(new, count, jax.random.randint(k_place, (b,), 0, n))
  swap = jax.random.bernoulli(k_swap, 0.5, (b,))

  def one(history, row):
    fake, place, new, swap = row
    old = history[place]
    history = history.at[place].set(jnp.where(new | swap, fake, old))
    return history, jnp.where(swap & ~new, old, fake)

  history, shown = jax.lax.scan(one, history, (fakes, place, new, swap))
  return shown, history


def stepper(config: contracts.Config) -> Callable:
  """`step(state, batch) -> (state, metrics)`: the generators' update, equations
  1 to 3 with least squares (section 4) and the identity loss of section 5.2,
  then the discriminators'."""
  generator, discriminator = networks(config)
  adam = optimiser(config)
  _, by_batch, everywhere = devices.mesh_and_shardings()

  def g_loss(params, d_params, x):
    """The terms' sum, the terms, and the fakes of each class."""
    make = lambda k, of: applied(generator, params[k], of)
    # Rows do not see each other: one pass makes fakes and identities.
    passes = [apart(make(k, interleaved(x[1 - k], x[k]))) for k in BOTH]
    fakes, same = zip(*passes, strict=True)
    back = [make(k, fakes[1 - k]) for k in BOTH]
    score = lambda k: applied(discriminator, d_params[k], fakes[k])
    terms = {
      "adversarial": sum(square(score(k) - 1) for k in BOTH),
      "cycle": config.cycle * sum(error(back[k], x[k]) for k in BOTH),
      "identity": config.identity * sum(error(same[k], x[k]) for k in BOTH),
    }
    return sum(terms.values()), (terms, fakes)

  def d_loss(params, x, fakes):
    """The loss, halved as in section 7.1, and its mean scores."""
    judge = lambda k: applied(
      discriminator, params[k], interleaved(x[k], fakes[k])
    )
    scores = [apart(judge(k)) for k in BOTH]
    loss = sum(square(real - 1) + square(fake) for real, fake in scores) / 2
    means = jnp.array([[x.mean() for x in pair] for pair in scores]).mean(0)
    return loss, {"d_loss": loss, "d_real": means[0], "d_fake": means[1]}

  def step(state: State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    x = [common.to_float(config, batch[name]) for name in ("image", "other")]
    g, d = state.generators, state.discriminators
    gradient, (terms, fakes) = jax.grad(g_loss, has_aux=True)(
      g.params, d.params, x
    )
    seen = {f"g_loss_{name}": value for name, value in terms.items()}
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = gan.updated(adam, g, gradient, {})

    shown, history = [], []
    for k in BOTH:
      # Every device keeps the whole history.
      fake = jax.lax.with_sharding_constraint(fakes[k], everywhere)
      old, after = recalled(
        jax.random.fold_in(key, k),
        state.history[k],
        fake,
        state.step * len(fake),
      )
      shown.append(jax.lax.with_sharding_constraint(old, by_batch))
      history.append(after)
    gradient, scores = jax.grad(d_loss, has_aux=True)(d.params, x, shown)
    seen |= scores | {"d_gradient": optax.tree.norm(gradient)}
    d = gan.updated(adam, d, gradient, {})
    ema = common.averaged(config.ema, state.step, state.ema, g.params)
    return State(state.step + 1, g, d, tuple(history), ema), seen

  return step


def translating(config: contracts.Config) -> Callable:
  """`translate(params, x, label)`: images (b, s, s, c) in [-1, 1], made of
  these classes, which are not their own."""
  generator, _ = networks(config)

  def translate(params, x, label):
    # Both ways, since a batch may have both: one is thrown away.
    made = [applied(generator, p, x) for p in params]
    return jnp.where(label[:, None, None, None] == 1, made[1], made[0])

  return translate


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of learning to translate between the two classes of a data set.

  `dataset` are pipeline.Splits; its batches are those of Pairs.
  """
  measures = translations.Measures(config, dataset, translating(config))
  return Task(
    initial(config, dataset.classes),
    stepper(config),
    measures.evaluate,
    measures.preview,
  )


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the networks and returns an exit code, ready to be called."""
  splits = of_classes(splits, config.from_class, config.to_class)
  task = make(config, splits)
  run.keep(translator.FILE, translator.packed(splits.held_out))
  return lambda: loop.train(config, task, Pairs(splits.train), run)


def load(path: pathlib.Path, step: int | None = None) -> translator.Translator:
  """The translator of a run's folder. Raises ConfigError: see
  common.restored."""
  config, classes, state = common.restored(path, initial, step)
  names = {config.from_class, config.to_class}
  classes = [name for name in classes if name in names]
  translate = translating(config)

  @xla.jit
  def draw(params, image, label):
    x = common.to_float(config, image)
    return common.to_uint8(translate(params, x, label))

  originals = translator.Originals(path)
  return translator.Translator(
    draw, config.task, config, classes, state, originals
  )


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "width": config.model.width,
    "blocks": config.model.blocks,
    "patch": config.model.patch,
    "cycle": config.cycle,
    "identity": config.identity,
  }

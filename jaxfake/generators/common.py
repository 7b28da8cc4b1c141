"""What generators that learn step by step share: checks, draws, the averaged
network, restoring it, and sampling from it."""

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
from jaxfake.evaluation import distances
from jaxfake.generators import measure
from jaxfake.nn import layers
from jaxfake.runtime import devices, disk, xla
from jaxfake.training import checkpoint, loop, workdir
from jaxfake.training.task import Task

CHANNELS = (1, 3)


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values of the fields of all that make images."""
  errors.check_choice("model.channels", config.model.channels, CHANNELS)
  check_learning(config)


def check_learning(config: contracts.Config) -> None:
  """Raises ConfigError for values of the fields that all have."""
  errors.check_choice("dtype", config.dtype, layers.DTYPES)
  require_at_least(config, "eval.images", 2)
  decays = {"ema": config.ema, "opt.b1": config.opt.b1, "opt.b2": config.opt.b2}
  for field, value in decays.items():
    if not 0 <= value < 1:
      raise errors.ConfigError(f"{field} is {value}: expected 0 to below 1")
  require_above(config, "opt.lr", 0)


def value(config: contracts.Config, field: str) -> Any:
  """Of a field "name" or "group.name"."""
  for name in field.split("."):
    config = config[name]
  return config


def require_at_least(
  config: contracts.Config, field: str, least: float
) -> None:
  """Raises ConfigError, also for NaN, as the two below do."""
  if not value(config, field) >= least:
    raise errors.ConfigError(
      f"{field} is {value(config, field)}: expected at least {least}"
    )


def require_above(config: contracts.Config, field: str, least: float) -> None:
  if not value(config, field) > least:
    raise errors.ConfigError(
      f"{field} is {value(config, field)}: expected above {least}"
    )


def require_classes(config: contracts.Config, dataset: pipeline.Splits) -> None:
  """Raises ConfigError where a network shall be told classes that there are
  none of."""
  if config.model.conditional and not dataset.classes:
    raise errors.ConfigError(
      "model.conditional is True, but not every image of the data has a class"
    )


def check_only_class(config: contracts.Config) -> None:
  """Raises ConfigError where one class is both left and told apart."""
  if config.only_class and config.model.conditional:
    raise errors.ConfigError(
      f"only_class is {config.only_class!r} and model.conditional is True:"
      " expected one of them, since one class needs no telling apart"
    )


def class_named(splits: pipeline.Splits, field: str, name: str) -> int:
  """The label of the class that a field names. Raises ConfigError."""
  if not splits.classes:
    raise errors.ConfigError(
      f"{field} is {name!r}, but not every image of the data has a class"
    )
  errors.check_choice(field, name, splits.classes)
  return splits.classes.index(name)


def of_class(splits: pipeline.Splits, name: str) -> pipeline.Splits:
  """The images of one class of pipeline.Splits; all where the name is "".

  Raises ConfigError where there is no such class, DataError where too few
  images are of it to learn and to be measured by.
  """
  if not name:
    return splits
  c = class_named(splits, "only_class", name)
  parts = {}
  for part in ("train", "val", "test"):
    source = getattr(splits, part)
    if len(source):
      labels = np.asarray(source.column("label"))
      source = sources.Subset(source, np.flatnonzero(labels == c))
    parts[part] = source
  splits = splits._replace(**parts)
  for part, source in (("train", splits.train), ("held out", splits.held_out)):
    if len(source) < 2:
      raise errors.DataError(
        f"only_class is {name}: {len(source)} images of it in {part}, expected"
        " at least 2"
      )
  return splits


def latents(seed: int | jax.Array, index: jax.Array, *shape: int) -> jax.Array:
  """Normal deviates (n, *shape), each row a function of (seed, index) alone."""
  key = jax.random.key(seed)
  draw = lambda i: jax.random.normal(jax.random.fold_in(key, i), shape)
  return jax.vmap(draw)(index)


def to_uint8(x: jax.Array) -> jax.Array:
  """[-1, 1] to 0..255, rounded."""
  return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)


def to_float(config: contracts.Config, image: jax.Array) -> jax.Array:
  """A batch's uint8 (b, s, s, 1) to [-1, 1], (b, s, s, model.channels)."""
  x = image.astype(jnp.float32) / 127.5 - 1
  return jnp.repeat(x, config.model.channels, -1)


def to_gray(x: jax.Array) -> jax.Array:
  """uint8 (b, s, s, c) to (b, s, s, 1)."""
  gray = x.astype(jnp.float32).mean(-1, keepdims=True)
  return jnp.round(gray).astype(jnp.uint8)


def optimiser(config: contracts.Config) -> optax.GradientTransformation:
  return optax.adam(config.opt.lr, b1=config.opt.b1, b2=config.opt.b2)


def averaged(
  most: float, step: jax.Array, average: contracts.Tree, new: contracts.Tree
) -> Any:
  """The moving average, which forgets its first, random steps: its decay grows
  to `most`."""
  t = step.astype(jnp.float32)
  decay = jnp.minimum(most, (1 + t) / (10 + t))
  mix = lambda old, new: decay * old + (1 - decay) * new
  return jax.tree.map(mix, average, new)


class State(struct.PyTreeNode):
  """Of one network: whatever must survive a restart."""

  step: jax.Array
  params: Any
  opt: Any
  ema: Any  # Of the parameters: what sampling uses.


def first(params: contracts.Tree, adam: optax.GradientTransformation) -> State:
  """The state before the first step."""
  # Both are donated to the step, so they must not share buffers.
  ema = jax.tree.map(jnp.copy, params)
  return State(jnp.zeros((), jnp.int32), params, adam.init(params), ema)


def updated(
  config: contracts.Config,
  adam: optax.GradientTransformation,
  state: State,
  gradient: contracts.Tree,
) -> State:
  """The state after Adam's step."""
  updates, opt = adam.update(gradient, state.opt, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = averaged(config.ema, state.step, state.ema, params)
  return State(state.step + 1, params, opt, ema)


def measures(
  config: contracts.Config, dataset: pipeline.Splits, draw: Callable
) -> measure.Measures:
  """A task's evaluation and previews; `draw(variables, batch)`, given the
  averaged network and {"index", "label"}, makes uint8 (b, s, s, 1)."""
  return measure.Measures(
    dataset,
    config.eval.images,
    dataset.classes if config.model.conditional else (),
    lambda state: lambda batch: draw(state.ema, batch),
  )


def task(
  config: contracts.Config,
  dataset: pipeline.Splits,
  init: Callable,
  step: Callable,
  sample: Callable,
) -> Task:
  """The task of a first state, a step, and what draws from its average:
  `sample(variables, seed, index, label)` -> uint8 (n, s, s, c)."""
  gray = xla.jit(to_gray)

  def draw(variables, batch):
    seed = np.uint32(config.seed)
    return gray(sample(variables, seed, batch["index"], batch["label"]))

  found = measures(config, dataset, draw)
  return Task(init, step, found.evaluate, found.preview)


def restored(
  path: pathlib.Path, initial: Callable, step: int | None = None
) -> tuple[contracts.Config, tuple[str, ...], Any]:
  """A run's config, classes and state, from its folder alone; the last one that
  is whole, where no step is given. `initial(config, classes)` is the task's
  `init`.

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


class Trained:
  """What trained generators have of their state, and how they draw by its
  average on the devices of this process."""

  def __init__(
    self,
    draw: Callable,
    name: str,
    config: contracts.Config,
    classes: Sequence[str],
    state: Any,
  ):
    _, self._by_batch, everywhere = devices.mesh_and_shardings(
      jax.local_devices()
    )
    ema = jax.tree.map(np.asarray, state.ema)
    self._ema = jax.device_put(ema, everywhere)
    self._draw = draw
    self.name, self.size, self.classes = name, config.data.size, tuple(classes)
    self.step, self.sha256 = int(state.step), checkpoint.sha256(state)

  def drawn(self, first: Sequence, *rows: np.ndarray) -> jax.Array:
    """`draw(variables, ...)` of what is no row of a batch, and of rows."""
    return self._draw(self._ema, *first, *jax.device_put(rows, self._by_batch))


class Generator(Trained):
  """A trained generator: contracts.Generator.

  `draw(variables, seed, index, label)` makes uint8 (n, s, s, c).
  """

  def __init__(
    self,
    draw: Callable,
    name: str,
    config: contracts.Config,
    classes: Sequence[str],
    state: Any,
  ):
    super().__init__(draw, name, config, classes, state)
    self.conditional = config.model.conditional
    only = config.get("only_class", "")
    if only:  # All that it makes is of the class that it learnt from.
      self.classes, self.conditional = (only,), True

  def sample(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> jax.Array:
    return self.drawn((np.uint32(seed),), index, label)


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

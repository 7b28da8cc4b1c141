"""How every network of `models.MODELS` learns labels, whatever they say."""

from collections.abc import Callable, Mapping
import functools
import pathlib
from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import configuration, contracts, errors, models
from jaxfake.data import pipeline
from jaxfake.data.sources import Rows
from jaxfake.evaluation import judge
from jaxfake.models.weights import pretrained
from jaxfake.nn import layers, winograd
from jaxfake.runtime import disk, litter, progress, xla
from jaxfake.training import augment, checkpoint
from jaxfake.training.task import Task

# How gray levels 0 to 255 become what a network reads: (x - offset) / scale.
# The last two are what published weights were trained with, taken over colours.
INPUTS = {
  "centred": (127.5, 127.5),
  "imagenet": (0.449 * 255, 0.226 * 255),
  "caffe": (114.8, 1.0),
}


class State(struct.PyTreeNode):
  """Whatever must survive a restart."""

  step: jax.Array
  seed: jax.Array  # Not a constant, so that seeds share a compiled program.
  params: Any
  batch_stats: Any
  opt: Any
  average: Any  # What is evaluated: of what learns, over the last steps.


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  c, opt = config.model, config.opt
  errors.check_choice("model.input", c.input, INPUTS)
  errors.check_choice("model.variant", c.variant, pretrained.VARIANTS)
  errors.check_choice("model.channels", c.channels, (1, 3))
  errors.check_choice("dtype", config.dtype, layers.DTYPES)
  smallest = models.smallest(c.name)
  if config.data.size < smallest:
    raise errors.ConfigError(
      f"data.size is {config.data.size}: {c.name} takes images from {smallest}"
    )
  augment.names(config.augment)
  for field, value in (
    ("model.dropout", c.dropout),
    ("label_smoothing", config.label_smoothing),
    ("opt.average", opt.average),
  ):
    check_share(field, value)
  check_optimiser(opt)
  if c.weights and not pathlib.Path(c.weights).exists():
    raise errors.ConfigError(f"model.weights is {c.weights}: no such file")


def check_share(field: str, value: float) -> None:
  """Raises ConfigError where a field is not 0 to below 1."""
  if not 0 <= value < 1:
    raise errors.ConfigError(f"{field} is {value}: expected 0 to below 1")


def check_optimiser(opt: contracts.Config) -> None:
  """Raises ConfigError for values of a config's `opt` that `optimiser` could
  not use."""
  check_share("opt.warmup", opt.warmup)
  if not opt.lr > 0:
    raise errors.ConfigError(f"opt.lr is {opt.lr}: expected above 0")
  if not opt.weight_decay >= 0:
    raise errors.ConfigError(
      f"opt.weight_decay is {opt.weight_decay}: expected at least 0"
    )


def network(config: contracts.Config, num_classes: int) -> nn.Module:
  return models.MODELS[config.model.name](
    num_classes=num_classes,
    dropout=config.model.dropout,
    dtype=layers.DTYPES[config.dtype],
    **pretrained.variant(config.model.variant, config.model.name),
  )


def prepared(config: contracts.Config, image: jax.Array) -> jax.Array:
  """uint8 (b, s, s, 1) to what the network reads, (b, s, s, channels)."""
  offset, scale = INPUTS[config.model.input]
  x = (image.astype(jnp.float32) - offset) / scale
  return jnp.repeat(x, config.model.channels, -1)


def scorer(config: contracts.Config, num_classes: int) -> Callable:
  """`logits(variables, image)`, uint8 (b, s, s, 1) to float32 (b, classes)."""
  net = network(config, num_classes)
  return lambda variables, image: net.apply(
    variables, prepared(config, image), train=False
  )


def abstract_variables(config: contracts.Config, num_classes: int) -> Any:
  """Shapes and types of a network's variables."""
  shape = 1, config.data.size, config.data.size, config.model.channels
  net = network(config, num_classes)
  return jax.eval_shape(
    lambda: net.init(jax.random.key(0), jnp.zeros(shape), train=False)
  )


def gflop_per_image(
  config: contracts.Config, num_classes: int, variables: contracts.Tree
) -> float:
  """Of scoring, as XLA counts the network as it is defined."""
  n, size = config.batch_size, config.data.size
  image = jax.ShapeDtypeStruct((n, size, size, 1), np.uint8)
  with winograd.spared_none():  # Counted without compiling it.
    lowered = jax.jit(scorer(config, num_classes)).lower(variables, image)
  return (lowered.cost_analysis() or {}).get("flops", np.nan) / n / 1e9


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Inversely to how many images a class has; their mean over images is 1."""
  counts = np.bincount(labels, minlength=num_classes)
  return (len(labels) / (num_classes * np.maximum(counts, 1))).astype(
    np.float32
  )


def optimiser(
  config: contracts.Config, steps: int
) -> optax.GradientTransformation:
  """AdamW (Loshchilov and Hutter, 2017, arXiv:1711.05101), the rate rising
  linearly and then falling along a cosine; only kernels decay."""
  opt = config.opt
  warmup = int(opt.warmup * steps)
  rate = optax.warmup_cosine_decay_schedule(
    0.0 if warmup else opt.lr, opt.lr, warmup, max(steps, warmup + 1)
  )
  kernels = lambda params: jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == "kernel", params
  )
  return optax.chain(
    optax.clip_by_global_norm(opt.clip),
    optax.adamw(rate, weight_decay=opt.weight_decay, mask=kernels),
  )


def make(config: contracts.Config, splits: pipeline.Splits, steps: int) -> Task:
  """The task of learning the labels of `splits`, in so many steps."""
  learning = Learning(config, splits, steps)
  return Task(
    learning.init,
    learning.step,
    learning.evaluate,
    preview=lambda state, gather: {},
    start=learning.start if config.model.weights else None,
    model=learning.model,
    best="loss",
    conclude=learning.conclude,
  )


class Learning:
  """The functions of a task, of one configuration and one data set.

  Where `model.frozen`, only the head learns. The network below it stays as it
  began; batch norm's statistics follow the train images where no weights were
  given, and are the weights' own otherwise.
  """

  def __init__(
    self, config: contracts.Config, splits: pipeline.Splits, steps: int
  ):
    self._config, self._splits = config, splits
    self._classes = len(splits.classes)
    self._augment = augment.names(config.augment)
    self._net = network(config, self._classes)
    self._score = xla.jit(scorer(config, self._classes))
    self._opt = optimiser(config, steps)
    # Batch statistics.
    self._adapt = not (config.model.frozen and config.model.weights)
    self._weights = np.ones(self._classes, np.float32)
    if config.class_weights:
      labels = np.asarray(splits.train.column("label"))
      self._weights = class_weights(labels, self._classes)
    self._labelled = jax.jit(lambda logits, batch: (logits, batch["label"]))

  def _learnt(self, params):
    """Those that are not frozen."""
    return {"head": params["head"]} if self._config.model.frozen else params

  def _copied(self, params, stats):
    # The average must not share buffers with what it averages: both are
    # donated to the step.
    return jax.tree.map(jnp.copy, (self._learnt(params), stats))

  def init(self, key: jax.Array) -> State:
    config = self._config
    size, channels = config.data.size, config.model.channels
    x = jnp.zeros((1, size, size, channels))
    variables = self._net.init(key, x, train=False)
    params, stats = variables["params"], variables.get("batch_stats", {})
    return State(
      jnp.zeros((), jnp.int32),
      jnp.uint32(config.seed),
      params,
      stats,
      self._opt.init(self._learnt(params)),
      self._copied(params, stats),
    )

  def start(self, state: State) -> State:
    """With the weights that the configuration names."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    model = self._config.model
    check_variant(self._config)
    state = state.replace(**initial(model.weights, model.name, variables))
    return state.replace(average=self._copied(state.params, state.batch_stats))

  def step(
    self, state: State, batch: Mapping[str, jax.Array]
  ) -> tuple[State, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    k_augment, k_dropout = jax.random.split(key)
    x = prepared(self._config, batch["image"])
    x = augment.augment(self._augment, k_augment, x)
    loss = functools.partial(self._loss, state, x, batch["label"], k_dropout)
    trained = self._learnt(state.params)
    (value, (logits, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(
      trained
    )
    updates, opt_state = self._opt.update(gradient, state.opt, trained)
    metrics = {
      "loss": value,
      "accuracy": (logits.argmax(-1) == batch["label"]).mean(),
      "gradient": optax.tree.norm(gradient),
    }
    trained = optax.apply_updates(trained, updates)
    stats = stats if self._adapt else state.batch_stats
    new = State(
      state.step + 1,
      state.seed,
      state.params | trained,
      stats,
      opt_state,
      self._averaged(state.step, state.average, (trained, stats)),
    )
    return new, metrics

  def _loss(self, state: State, x, label, k_dropout, trained):
    """Weighted cross entropy of smoothed labels; logits and batch statistics
    beside it."""
    target = optax.smooth_labels(
      jax.nn.one_hot(label, self._classes), self._config.label_smoothing
    )
    logits, changed = self._net.apply(
      {"params": state.params | trained, "batch_stats": state.batch_stats},
      x,
      train=self._adapt,
      mutable=["batch_stats"],
      rngs={"dropout": k_dropout},
    )
    weight = jnp.asarray(self._weights)[label]
    each = optax.softmax_cross_entropy(logits, target)
    stats = changed.get("batch_stats", {})
    return (weight * each).mean(), (logits, stats)

  def _averaged(self, step, average, new):
    """Exponentially (Polyak and Juditsky, 1992), over fewer steps at first."""
    decay = jnp.minimum(self._config.opt.average, (step + 1) / (step + 10))
    # In this form what does not change stays as it is, to the bit.
    mix = lambda a, b: (b + decay * (a - b)).astype(a.dtype)
    return jax.tree.map(mix, average, new)

  def _scores(
    self, variables, gather: Callable, source
  ) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a source."""

    def labelled(batch):
      return self._labelled(self._score(variables, batch["image"]), batch)

    return gather(labelled, source)

  def evaluate(self, state: State, gather: Callable) -> dict:
    val = self._splits.val
    logits, labels = self._scores(self.model(state), gather, val)
    return judge.validation(logits, labels, self._weights)

  def model(self, state: State) -> dict:
    """The averaged variables: what is kept, and scores."""
    trained, stats = state.average
    return {"params": state.params | trained, "batch_stats": stats}

  def conclude(self, variables: contracts.Tree, gather: Callable) -> dict:
    splits = self._splits
    val, test = (
      judge.Scored.of(self._scores(variables, gather, source)[0], source)
      for source in (splits.val, splits.test)
    )
    return judge.conclude(splits, val, test) | {
      "initial": origin(self._config),
      "cost": self._cost(variables, gather),
    }

  def _cost(self, variables, gather: Callable) -> dict:
    """What scoring takes, counted and measured."""
    config = self._config

    def score_all(images):
      score = lambda batch: self._score(variables, batch["image"])
      return gather(score, Rows(image=images))

    sizes = [x.size for x in jax.tree.leaves(variables["params"])]
    trained = jax.tree.leaves(self._learnt(variables["params"]))
    return {
      "parameters": sum(sizes),
      "trained_parameters": sum(x.size for x in trained),
      "gflop_per_image": gflop_per_image(config, self._classes, variables),
      "ms_per_image": judge.ms_per_image(
        score_all, self._splits.test, config.batch_size
      ),
    }


def check_variant(config: contracts.Config) -> None:
  """Raises ConfigError where a file's network is another variant of ours."""
  path, c = pathlib.Path(config.model.weights), config.model
  if path.is_dir():
    theirs = disk.read_json(path / "config.json")["model"]["variant"]
    same = theirs == c.variant
  else:
    needed = pretrained.options(path, c.name)
    same = needed == pretrained.variant(c.variant, c.name)
  if not same:
    other = next(x for x in pretrained.VARIANTS if x != c.variant)
    raise errors.ConfigError(
      f"model.variant is {c.variant!r}: {path} needs {other!r}"
    )


def origin(config: contracts.Config) -> str:
  """What the network began as, for a result to say."""
  began = config.model.weights or "random"
  if not config.model.frozen:
    return f"{began} weights, all trained"
  return f"{began} weights, frozen but for the head"


def initial(weights: str, name: str, variables: dict) -> dict:
  """Weights of network `name` from a file of another project's, or from the
  folder of a run, whose head is left out. Raises DataError, ConfigError."""
  path = pathlib.Path(weights)
  if not path.is_dir():
    loaded, report = pretrained.load(path, name, variables)
    progress.say(report)
    return loaded
  theirs = disk.read_json(path / "config.json")["model"]["name"]
  if theirs != name:
    raise errors.ConfigError(
      f"the weights in {path} are of {theirs}: expected some of {name}"
    )
  given = load(path)[1]
  given["params"]["head"] = variables["params"]["head"]
  progress.say(f"weights of the run {path}, but for the head")
  return given


def load(path: pathlib.Path) -> tuple[contracts.Config, Any]:
  """A run's config, and its best model's variables as arrays on one device."""
  config = configuration.of(disk.read_json(path / "config.json"))
  classes = disk.read_json(path / "dataset.json")["classes"]
  return config, restored(path, abstract_variables(config, len(classes)))


def restored(path: pathlib.Path, like: contracts.Tree) -> dict:
  """A run's best variables as arrays on one device; `like` has their shapes and
  types. Raises ConfigError where there are none yet."""
  place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    {"params": like["params"], "batch_stats": like.get("batch_stats", {})},
  )
  with checkpoint.Best(path, "loss", read_only=True) as best:
    if not best.entry:
      raise errors.ConfigError(f"{path} has no model yet: no best.json")
    return best.restore(like)


def files(path: pathlib.Path) -> list[str]:
  """The names of what `load` reads in a run's folder, below it."""
  steps = [p for p in (path / "best").iterdir() if p.name.isdigit()]
  model = [
    str(file.relative_to(path))
    for step in steps
    for file in step.rglob("*")
    if file.is_file() and not litter.is_litter(file.name)
  ]
  return ["config.json", "dataset.json", "best.json", *model]

"""The family `localizer`: a map of where a radiograph was altered, learnt from
masks (data.name=tampered).

A fully convolutional network (models/localizer) learns from windows of pictures
at their own resolution, some of them compressed, each as it is and altered. Its
loss is the logistic loss of pixels, in which the few altered ones of a batch
weigh as much as the others (Xie and Tu, 2015, arXiv:1504.06375, equation 2); of
these the same places, unaltered, weigh half. So it does not pay to mark the
places where others are altered. The weights of the smallest loss on validation
windows are kept.

Whole pictures are then mapped as they are, and thresholds settled on those of
validation (picture_maps.py).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from jaxfake import configuration, contracts, errors
from jaxfake.classifiers import detector, neural, picture_maps
from jaxfake.data import matching, pipeline, sources, tampered
from jaxfake.data import patients as whose
from jaxfake.data.tampered.windows import ALTERED, UNALTERED, Pairs
from jaxfake.evaluation import localization, metrics, report
from jaxfake.evaluation.verdicts import verdicts
from jaxfake.models import localizer as models
from jaxfake.models import pixel_unet
from jaxfake.nn import layers
from jaxfake.runtime import disk, xla
from jaxfake.training import augment, loop, workdir
from jaxfake.training.task import Task, schedule

CONFIG = "localizer.py"
FITS = (pipeline.NATIVE,)
CLASSES = "real", "fake"
BETWEEN = "between the thresholds"
# Of altered pixels, of the same places unaltered, and of all others.
WEIGHTS = np.array([0.5, 0.25, 0.25], np.float32)


class State(struct.PyTreeNode):
  """Whatever must survive a restart."""

  step: jax.Array
  seed: jax.Array  # Not a constant, so that seeds share a compiled program.
  params: Any
  batch_stats: Any
  opt: Any

  @classmethod
  def first(
    cls, seed: int, start: Mapping, opt: optax.GradientTransformation
  ) -> "State":
    """Before any step, of a network's first variables."""
    params, stats = start["params"], start["batch_stats"]
    step = jnp.zeros((), jnp.int32)
    return cls(step, jnp.uint32(seed), params, stats, opt.init(params))


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  if config.data.name != "tampered":
    raise errors.ConfigError(
      f"data.name is {config.data.name!r}: task localizer learns from the masks"
      " of tampered"
    )
  tampered.check(config.data.tampered)
  tampered.check_pairs(
    config.data.tampered,
    "for task localizer learns from each picture beside the same altered",
  )
  check_pixels(config)


def check_pixels(config: contracts.Config) -> None:
  """Raises ConfigError for values that no pixel_unet could learn by from
  windows."""
  errors.check_choice("dtype", config.dtype, layers.DTYPES)
  multiple = pixel_unet.MULTIPLE
  if config.window < 4 * multiple or config.window % multiple:
    raise errors.ConfigError(
      f"window is {config.window}: expected a multiple of {multiple} pixels, at"
      f" least {4 * multiple}"
    )
  for field in ("most", "most_val"):
    if config[field] < 2:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least 2"
      )
  if not 0 <= config.compressed <= 1:
    raise errors.ConfigError(
      f"compressed is {config.compressed}: expected a share, 0 to 1"
    )
  if config.model.width < 1:
    raise errors.ConfigError(
      f"model.width is {config.model.width}: expected at least 1"
    )
  neural.check_optimiser(config.opt)


def network(config: contracts.Config) -> models.Localizer:
  return models.Localizer(config.model.width, layers.DTYPES[config.dtype])


def scorer(config: contracts.Config) -> Callable:
  """`logits(variables, image)`, uint8 (b, h, w, 1) to float32 (b, h, w)."""
  net = network(config)
  return lambda variables, image: net.apply(
    variables, image.astype(jnp.float32), train=False
  )


def unpaired(x: jax.Array) -> jax.Array:
  """(b, 2, ...) as (2 b, ...)."""
  return x.reshape(-1, *x.shape[2:])


def losses(logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Of each picture (b, 3, 2): the sum of the logistic losses of altered pixels
  and how many there are, and the same of the same places where they are not
  altered, and of all others; of logits (b, h, w) and mask uint8 (b, h, w, 1) of
  windows.ALTERED, UNALTERED and 0."""
  mask = mask[..., 0]
  parts = []
  for value, sign in ((ALTERED, -1), (UNALTERED, 1), (0, 1)):
    which = (mask == value).astype(jnp.float32)
    both = which * jax.nn.softplus(sign * logits), which
    parts.append(jnp.stack(both, -1).sum((1, 2)))
  return jnp.stack(parts, 1)


def balanced(parts: jax.Array) -> jax.Array:
  """The loss of some pictures, from their `losses` (b, 3, 2): half the mean
  over altered pixels, a quarter that over the same places unaltered, and a
  quarter that over the others. Of a kind that they lack, nothing."""
  total, count = parts.sum(0).T
  return (total / jnp.maximum(count, 1)) @ WEIGHTS


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the network and returns an exit code, ready to be called.

  Raises DataError where a split lacks altered pictures, or others.
  """
  for name in ("train", "val", "test"):
    source = getattr(splits, name)
    labels = set(source.column("label")) if len(source) else set()
    if not (0 in labels and labels - {0}):
      raise errors.DataError(
        f"{name} has classes {sorted(labels)} of {', '.join(splits.classes)}:"
        " expected pictures as they are and altered ones in train, val and test"
        " (data.split=patient makes splits)"
      )
  train = Pairs(splits.train, config.window, config.compressed, config.seed)
  steps = schedule(config, len(train)).total
  return lambda: loop.train(config, make(config, splits, steps), train, run)


def make(config: contracts.Config, splits: pipeline.Splits, steps: int) -> Task:
  """The task of learning the masks of `splits`, in so many steps."""
  val = Pairs(splits.val, config.window, config.compressed, config.seed)
  learning = Learning(config, val, steps)
  conclude = functools.partial(concluded, config, splits, learning.score)
  return learning.task()._replace(conclude=conclude)


def variables(state: State) -> dict:
  """What is kept, and maps."""
  return {"params": state.params, "batch_stats": state.batch_stats}


class Learning:
  """The functions of a task, of one configuration and validation's pairs of
  windows, as windows.Pairs has them."""

  def __init__(
    self, config: contracts.Config, val: contracts.Examples, steps: int
  ):
    self._config, self._pairs = config, val
    self._net = network(config)
    self.score = xla.jit(scorer(config))
    self._losses = jax.jit(losses)
    self._opt = neural.optimiser(config, steps)

  def task(self) -> Task:
    """What trains, and keeps the best; it concludes nothing."""
    return Task(
      self.init,
      self.step,
      self.evaluate,
      self.preview,
      model=variables,
      best="loss",
    )

  @functools.cached_property
  def _val(self) -> sources.Rows:
    """Validation windows, made once; one of each two is altered."""
    stacked = pipeline.arrays(self._pairs)
    return sources.Rows(**{k: np.concatenate(x) for k, x in stacked.items()})

  def init(self, key: jax.Array) -> State:
    x = jnp.zeros((1, self._config.window, self._config.window, 1))
    start = self._net.init(key, x, train=False)
    return State.first(self._config.seed, start, self._opt)

  def step(
    self, state: State, batch: Mapping[str, jax.Array]
  ) -> tuple[State, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    pairs = batch["image"], batch["mask"]
    image, mask = augment.turned(key, *map(unpaired, pairs))

    def loss(params):
      logits, changed = self._net.apply(
        variables(state) | {"params": params},
        image.astype(jnp.float32),
        train=True,
        mutable=["batch_stats"],
      )
      return balanced(losses(logits, mask)), changed["batch_stats"]

    grad = jax.value_and_grad(loss, has_aux=True)
    (value, stats), gradient = grad(state.params)
    updates, opt = self._opt.update(gradient, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    new = State(state.step + 1, state.seed, params, stats, opt)
    return new, {"loss": value, "gradient": optax.tree.norm(gradient)}

  def preview(self, state: State, gather: Callable) -> dict[str, np.ndarray]:
    """Validation windows, their masks, and what the network says."""
    altered = np.arange(1, len(self._val), 2)
    count = min(picture_maps.EXAMPLES, len(altered))
    some = sources.Subset(self._val, matching.evenly(altered, count))
    logits = gather(lambda batch: self._logits(state, batch), some)
    columns = []
    for i in range(count):
      said = np.rint(255 * scipy.special.expit(logits[i])).astype(np.uint8)
      shown = *(some[i][name][..., 0] for name in ("image", "mask")), said
      columns.append(np.concatenate(shown))
    return {"preview": np.concatenate(columns, 1)}

  def _logits(self, state: State, batch) -> jax.Array:
    return self.score(variables(state), batch["image"])

  def evaluate(self, state: State, gather: Callable) -> dict[str, float]:
    """The loss of validation windows, the mean AUC of pixels of those in which
    something was altered, and how well the mean over a place tells altered ones
    from the same unaltered: an AUC too."""

    def scored(batch):
      logits = self._logits(state, batch)
      return logits, self._losses(logits, batch["mask"])

    logits, parts = gather(scored, self._val)
    masks = [self._val[i]["mask"][..., 0] for i in range(len(logits))]
    altered = np.array([(mask == ALTERED).any() for mask in masks])
    auc = [
      localization.measured(x, mask > 0, picture_maps.THRESHOLDS)["auc"]
      for x, mask in zip(logits, masks, strict=True)
      if (mask == ALTERED).any() and mask.min() == 0
    ]
    places = [
      x[m >= UNALTERED].mean() for x, m in zip(logits, masks, strict=True)
    ]
    return {
      "loss": float(balanced(parts)),
      "pixel_auc": float(np.mean(auc)),
      "place_auc": metrics.auc(altered.astype(int), np.array(places)),
    }


def concluded(
  config: contracts.Config,
  splits: pipeline.Splits,
  logits: Callable,
  model: contracts.Tree,
  gather: Callable,
) -> dict:
  """What the best model says of whole pictures, by `logits(model, image)`."""
  del gather  # Pictures have sizes of their own: every host maps all.
  score = functools.partial(logits, jax.device_get(model))
  parts = {
    "val": spread(splits.val, config.most_val),
    "test": spread(splits.test, config.most),
  }
  rows = {
    name: picture_maps.scored(score, source) for name, source in parts.items()
  }
  settled, chosen = picture_maps.settle(rows["val"])
  heatmap = lambda gray: settled.shown(picture_maps.mapped(score, gray))
  return {
    "calibration": dataclasses.asdict(settled),
    "counts": {
      name: {"images": len(x), "patients": len({r["patient"] for r in x})}
      for name, x in rows.items()
    },
    "ways": picture_maps.by_way(rows["test"], chosen),
    "maps": picture_maps.examples(heatmap, parts["test"]),
    "predictions": [
      picture_maps.predicted(name, row, settled, chosen)
      for name, x in rows.items()
      for row in x
    ],
  }


def spread(source: contracts.Items, most: int) -> sources.Subset:
  """At most so many items, altered and not in equal parts, evenly over a
  source."""
  altered = np.array(source.column("label")) > 0
  chosen = []
  for those in (np.flatnonzero(altered), np.flatnonzero(~altered)):
    chosen += matching.evenly(those, min(most // 2, len(those))).tolist()
  return sources.Subset(source, sorted(chosen))


@dataclasses.dataclass(frozen=True)
class Detector:
  """A trained localizer: whole pictures to verdicts and maps."""

  score: Callable
  rule: picture_maps.Rule

  classes = CLASSES
  canonical = staticmethod(detector.whole)

  def judge(self, images: Sequence[np.ndarray]) -> list[dict]:
    """Of uint8 (h, w) each: p_fake, here of an altered picture, verdict and
    reason."""
    scores = [
      localization.top(picture_maps.mapped(self.score, x)) for x in images
    ]
    p_fake = self.rule.probability(scores)
    ends = self.rule.real_at_most, self.rule.fake_at_least
    return [
      {
        "p_fake": float(p),
        "verdict": verdict,
        "reason": BETWEEN if verdict == "uncertain" else None,
      }
      for p, verdict in zip(p_fake, verdicts(p_fake, ends), strict=True)
    ]

  def about(self) -> dict:
    """What a list of verdicts says of it."""
    low, high = self.rule.real_at_most, self.rule.fake_at_least
    return {"name": "localizer", "real_at_most": low, "fake_at_least": high}

  def map(self, gray: np.ndarray) -> np.ndarray:
    """Where a picture uint8 (h, w) looks altered: float32 (h, w), at or above 1
    where a pixel counts as altered, at or below 0 where nothing is drawn."""
    return self.rule.shown(picture_maps.mapped(self.score, gray))


def files(path: pathlib.Path) -> list[str]:
  """The names of what `load` reads in a run's folder, beside result.json."""
  return neural.files(path)


def load(path: pathlib.Path) -> Detector:
  """Of a finished run's folder. Raises ConfigError where it has no model."""
  xla.require_devices()
  path = pathlib.Path(path)
  result = disk.read_json(path / "result.json")
  config = configuration.of(result["config"])
  score = functools.partial(xla.jit(scorer(config)), restored(path, config))
  return Detector(score, picture_maps.Rule(**result["calibration"]))


def restored(path: pathlib.Path, config: contracts.Config) -> dict:
  """The best variables of a run of a configuration. Raises ConfigError where
  there are none."""
  x = jnp.zeros((1, config.window, config.window, 1))
  init = functools.partial(network(config).init, train=False)
  return neural.restored(path, jax.eval_shape(init, jax.random.key(0), x))


def summary(path: pathlib.Path, result: dict) -> str:
  """What a finished run reached and where everything is."""
  note = whose.unknown(result["dataset"])
  test = result["counts"]["test"]
  table = report.markdown([localization.shown(row) for row in result["ways"]])
  return (
    f"{test['images']} test pictures of {test['patients']} patients"
    + f" ({note})" * bool(note)
    + f":\n{table}\n  {path}/result.json, {path}/predictions.csv,"
    f" {path}/pictures"
  )

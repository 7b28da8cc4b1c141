"""The family `reconstruction`: a map of where a radiograph is unlike what its
surroundings say, learnt from originals alone. No mask and no altered picture is
ever seen.

A network (models/reconstruction) learns from windows of pictures at their own
resolution, some of them compressed, in which squares are hidden. It says what
level each hidden pixel has and how far it may be off. Its loss is the negative
log likelihood of hidden pixels under Laplace's distribution, by which outliers,
such as letters and edges, count by their distance and not by its square. The
weights of the smallest loss on validation windows are kept.

A whole picture is then looked at as often as it takes to hide every pixel once.
What counts is how large the errors about a pixel are beside what was said of
them: their mean size, which tells one Laplace distribution from another. Its
logarithm is taken less its median over the picture and over its median absolute
deviation. What that is worth, validation's originals say (rarity.py): at most
1 % of originals like them are called fake; of what is altered nothing is known.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import configuration, contracts, errors
from jaxfake import data as datasets
from jaxfake.classifiers import (
  detector,
  localizer,
  neural,
  overlay,
  picture_maps,
  rarity,
)
from jaxfake.classifiers.localizer import State, variables
from jaxfake.data import matching, pipeline, sources, work
from jaxfake.data import patients as whose
from jaxfake.data.tampered import windows
from jaxfake.evaluation import localization
from jaxfake.evaluation.verdicts import VERDICTS
from jaxfake.models import reconstruction as models
from jaxfake.nn import layers
from jaxfake.runtime import disk, xla
from jaxfake.training import augment, loop, workdir
from jaxfake.training.task import Task, schedule

CONFIG = "reconstruction.py"
FITS = (pipeline.NATIVE,)
# Pixels: what is larger is mapped by several, all ways to hide squares at once.
TILE = 512
PERIODS = 2, 3, 4


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  datasets.check_originals("data.name", config.data.name)
  localizer.check_pixels(config)
  errors.check_choice("period", config.period, PERIODS)
  if config.square < 2 or config.square * config.period > config.window:
    raise errors.ConfigError(
      f"square is {config.square}: expected at least 2 pixels, and period,"
      f" {config.period}, of them in the {config.window} of window"
    )
  if config.draws < 1:
    raise errors.ConfigError(f"draws is {config.draws}: expected at least 1")


def network(config: contracts.Config) -> models.Reconstruction:
  dtype = layers.DTYPES[config.dtype]
  return models.Reconstruction(config.model.width, config.square, dtype)


def hidden(
  shape: tuple[int, ...], square: int, period: int, top: Any, left: Any
) -> Any:
  """Bool (h, w): squares of so many pixels a side, every `period`-th along
  either axis, of a lattice that begins so far above and to the left. Of NumPy
  for whole numbers, for which nothing is compiled."""
  rows, columns = (
    (np.arange(n) + start) // square % period == 0
    for n, start in zip(shape, (top, left), strict=True)
  )
  return rows[:, None] & columns


def ways(shape: tuple[int, ...], square: int, period: int) -> np.ndarray:
  """Bool (h, w, period ** 2): ways to hide squares of a picture, which hide
  each of its pixels once."""
  starts = np.ndindex(period, period)
  every = [
    hidden(shape, square, period, i * square, j * square) for i, j in starts
  ]
  return np.stack(every, -1)


def drawn(
  key: jax.Array, config: contracts.Config, shape: tuple[int, ...]
) -> jax.Array:
  """Bool (b, h, w, 1): of each image of some (b, h, w, 1) what is hidden, at
  random places of the lattice."""
  count, most = shape[0], config.square * config.period
  of = functools.partial(hidden, shape[1:3], config.square, config.period)
  starts = jax.random.randint(key, (2, count), 0, most)
  return jax.vmap(of)(*starts)[..., None]


def scorer(config: contracts.Config) -> Callable:
  """`errors(variables, picture)`, uint8 (1, h, w, 1 + n), a picture and n ways
  to hide it, to float32 (1, h, w): by how many of the deviations that were said
  each pixel is off, where it is hidden."""
  net = network(config)

  def score(variables, picture):
    gray, which = picture[..., :1], jnp.moveaxis(picture[..., 1:], -1, 0)
    gray = gray.astype(jnp.float32).repeat(len(which), 0)  # (n, h, w, 1)
    which = which.reshape(gray.shape).astype(jnp.float32)
    mean, deviation = net.apply(variables, gray, which, train=False)
    off = (gray[..., 0] - mean) / deviation
    return (which[..., 0] * off).sum(0, keepdims=True)

  return score


def mapped(
  score: Callable, config: contracts.Config, gray: np.ndarray, tile: int = TILE
) -> np.ndarray:
  """Errors float32 (h, w) of a picture uint8 (h, w), by `score(picture)`."""
  which = ways(gray.shape, config.square, config.period)
  picture = np.concatenate([gray[..., None], which.astype(np.uint8)], -1)
  reach = models.reach(config.square)
  return picture_maps.mapped(score, picture, tile, reach)


def likelihood(
  gray: jax.Array, which: jax.Array, mean: jax.Array, deviation: jax.Array
) -> jax.Array:
  """Of each image (b, 3): sums over its hidden pixels of the negative log
  likelihood and of the absolute error in gray levels, and how many there are;
  of images (b, h, w, 1), what is hidden alike, and what was said (b, h, w)."""
  off = jnp.abs(gray[..., 0] - mean)
  each = off / deviation + jnp.log(2 * deviation), off, jnp.ones_like(off)
  return (jnp.stack(each, -1) * which).sum((1, 2))


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the network and returns an exit code, ready to be called.

  Raises DataError where validation or test lack originals.
  """
  for name in ("val", "test"):
    if len(getattr(splits, name)) < 2:
      raise errors.DataError(
        f"{name} has {len(getattr(splits, name))} originals: expected at least"
        " 2 in val and test (data.split=patient makes splits)"
      )
  train = squares(config, splits.train)
  steps = schedule(config, len(train)).total
  return lambda: loop.train(config, make(config, splits, steps), train, run)


def squares(
  config: contracts.Config, source: contracts.Items
) -> windows.Squares:
  """The windows of a source."""
  window, draws = config.window, config.draws
  return windows.Squares(source, window, config.compressed, draws, config.seed)


def make(config: contracts.Config, splits: pipeline.Splits, steps: int) -> Task:
  """The task of learning what originals look like, in so many steps."""
  learning = Learning(config, squares(config, splits.val), steps)
  return Task(
    learning.init,
    learning.step,
    learning.evaluate,
    learning.preview,
    model=variables,
    best="loss",
    conclude=functools.partial(concluded, config, splits),
  )


class Learning:
  """The functions of a task, of one configuration and validation's windows."""

  def __init__(
    self, config: contracts.Config, val: contracts.Examples, steps: int
  ):
    self._config, self._windows = config, val
    self._net = network(config)
    self._opt = neural.optimiser(config, steps)
    self._said = jax.jit(
      lambda variables, image, which: self._net.apply(
        variables, image.astype(jnp.float32), which, train=False
      )
    )
    self._likelihood = jax.jit(likelihood)

  @functools.cached_property
  def _val(self) -> sources.Rows:
    """Validation windows, and what is hidden of each: the same each time."""
    image = pipeline.arrays(self._windows)["image"]
    key = jax.random.key(self._config.seed)
    which = np.asarray(drawn(key, self._config, image.shape))
    return sources.Rows(image=image, hidden=which.astype(np.float32))

  def init(self, key: jax.Array) -> State:
    start = begun(self._config, key)
    return State.first(self._config.seed, start, self._opt)

  def step(
    self, state: State, batch: Mapping[str, jax.Array]
  ) -> tuple[State, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    k_turn, k_hide = jax.random.split(key)
    (gray,) = augment.turned(k_turn, batch["image"].astype(jnp.float32))
    which = drawn(k_hide, self._config, gray.shape).astype(jnp.float32)

    def loss(params):
      said, changed = self._net.apply(
        variables(state) | {"params": params},
        gray,
        which,
        train=True,
        mutable=["batch_stats"],
      )
      total, error, count = likelihood(gray, which, *said).sum(0)
      return total / count, (error / count, changed["batch_stats"])

    grad = jax.value_and_grad(loss, has_aux=True)
    (value, (error, stats)), gradient = grad(state.params)
    updates, opt = self._opt.update(gradient, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    new = State(state.step + 1, state.seed, params, stats, opt)
    norm = optax.tree.norm(gradient)
    return new, {"loss": value, "error": error, "gradient": norm}

  def _of(self, state: State, batch) -> tuple[jax.Array, jax.Array]:
    return self._said(variables(state), batch["image"], batch["hidden"])

  def evaluate(self, state: State, gather: Callable) -> dict[str, float]:
    """The loss of validation windows, and how many gray levels the hidden
    pixels are off."""
    parts = gather(
      lambda batch: self._likelihood(
        batch["image"], batch["hidden"], *self._of(state, batch)
      ),
      self._val,
    )
    loss, error, count = parts.sum(0, dtype=np.float64)
    return {"loss": float(loss / count), "error": float(error / count)}

  def preview(self, state: State, gather: Callable) -> dict[str, np.ndarray]:
    """Validation windows, what is seen of them, and with what the network says
    is hidden."""
    count = min(picture_maps.EXAMPLES, len(self._val))
    chosen = matching.evenly(np.arange(len(self._val)), count)
    some = sources.Subset(self._val, chosen)
    mean, _ = gather(lambda batch: self._of(state, batch), some)
    columns = []
    for i in range(count):
      gray, which = (some[i][name][..., 0] for name in ("image", "hidden"))
      filled = np.rint(np.where(which, mean[i], gray)).clip(0, 255)
      shown = gray, np.where(which, 0, gray), filled.astype(np.uint8)
      columns.append(np.concatenate(shown))
    return {"preview": np.concatenate(columns, 1).astype(np.uint8)}


def concluded(
  config: contracts.Config,
  splits: pipeline.Splits,
  model: contracts.Tree,
  gather: Callable,
) -> dict:
  """What the best model says of whole originals that are held out."""
  del gather  # Pictures have sizes of their own: every host maps all.
  score = functools.partial(xla.jit(scorer(config)), jax.device_get(model))
  parts = {
    "val": sources.spread(splits.val, config.most_val),
    "test": sources.spread(splits.test, config.most),
  }
  maps, total = {}, sum(map(len, parts.values()))
  with work.shown("pictures mapped", total) as advance:
    for name, source in parts.items():
      maps[name] = []
      for i in range(len(source)):
        gray = source[i]["image"][..., 0]
        off = mapped(score, config, gray)
        maps[name].append(rarity.unusual(off, gray, config.square))
        advance()
  rule = rarity.settle(maps["val"])
  maps = {
    name: [rule.evidence(x) for x in found] for name, found in maps.items()
  }
  rows = {name: rows_of(rule, parts[name], x) for name, x in maps.items()}
  said = [row["verdict"] for row in rows["test"]]
  return {
    "calibration": dataclasses.asdict(rule),
    "counts": {
      name: {"images": len(x), "patients": len({r["patient"] for r in x})}
      for name, x in rows.items()
    },
    "test_originals": {x: said.count(x) / len(said) for x in VERDICTS},
    "maps": examples(rule, parts["test"], maps["test"]),
    "predictions": [
      {"split": name} | row for name, x in rows.items() for row in x
    ],
  }


def rows_of(
  rule: rarity.Rule, source: contracts.Items, maps: list[np.ndarray]
) -> list[dict]:
  """Lines of predictions.csv, of some originals and their maps."""
  scores = [localization.top(x) for x in maps]
  ranks = rule.rank(scores)
  columns = (source.column(name) for name in ("id", "patient"))
  told = zip(*columns, scores, ranks, rule.verdicts(ranks), strict=True)
  return [
    {
      "id": name,
      "patient": patient,
      "score": f"{score:.6g}",
      "p_fake": f"{rank:.6g}",
      "verdict": verdict,
    }
    for name, patient, score, rank, verdict in told
  ]


def examples(
  rule: rarity.Rule, source: contracts.Items, maps: list[np.ndarray]
) -> np.ndarray:
  """Some originals, as they are and under their maps: uint8 (h, w, 3)."""
  count, strips = min(picture_maps.EXAMPLES, len(maps)), []
  for i in matching.evenly(np.arange(len(maps)), count):
    gray = source[int(i)]["image"][..., 0]
    seen = overlay.coloured(gray), overlay.overlay(gray, rule.shown(maps[i]))
    everywhere = np.ones(gray.shape, bool)
    strips.append(np.concatenate([overlay.zoomed(x, everywhere) for x in seen]))
  return np.concatenate(strips, 1)


@dataclasses.dataclass(frozen=True)
class Detector:
  """A trained reconstruction: whole pictures to verdicts and maps."""

  score: Callable
  config: contracts.Config
  rule: rarity.Rule

  classes = localizer.CLASSES
  canonical = staticmethod(detector.whole)

  def evidence(self, gray: np.ndarray) -> np.ndarray:
    """How unusual a picture uint8 (h, w) is about each pixel: float32
    (h, w)."""
    off = mapped(self.score, self.config, gray)
    return self.rule.evidence(rarity.unusual(off, gray, self.config.square))

  def judge(self, images: Sequence[np.ndarray]) -> list[dict]:
    """Of uint8 (h, w) each: p_fake, here the share of originals that look less
    altered, verdict and reason."""
    ranks = self.rule.rank([localization.top(self.evidence(x)) for x in images])
    return [
      {
        "p_fake": float(p),
        "verdict": verdict,
        "reason": localizer.BETWEEN if verdict == "uncertain" else None,
      }
      for p, verdict in zip(ranks, self.rule.verdicts(ranks), strict=True)
    ]

  def about(self) -> dict:
    """What a list of verdicts says of it."""
    low, high = self.rule.real_at_most, self.rule.fake_at_least
    return {
      "name": "reconstruction",
      "real_at_most": low,
      "fake_at_least": high,
      "originals": len(self.rule.scores),
    }

  def map(self, gray: np.ndarray) -> np.ndarray:
    """Where a picture uint8 (h, w) looks altered: float32 (h, w), at or above 1
    where a pixel counts as altered, at or below 0 where nothing is drawn."""
    return self.rule.shown(self.evidence(gray))


def files(path: pathlib.Path) -> list[str]:
  """The names of what `load` reads in a run's folder, beside result.json."""
  return neural.files(path)


def load(path: pathlib.Path) -> Detector:
  """Of a finished run's folder. Raises ConfigError where it has no model."""
  xla.require_devices()
  path = pathlib.Path(path)
  result = disk.read_json(path / "result.json")
  config = configuration.of(result["config"])
  like = jax.eval_shape(functools.partial(begun, config), jax.random.key(0))
  model = neural.restored(path, like)
  score = functools.partial(xla.jit(scorer(config)), model)
  return Detector(score, config, rarity.Rule(**result["calibration"]))


def begun(config: contracts.Config, key: jax.Array) -> Any:
  """The network's first variables."""
  x = jnp.zeros((1, config.window, config.window, 1))
  return network(config).init(key, x, x, train=False)


def summary(path: pathlib.Path, result: dict) -> str:
  """What a finished run reached and where everything is."""
  note = whose.unknown(result["dataset"])
  val, test = (result["counts"][name] for name in ("val", "test"))
  said = ", ".join(f"{x:.0%} {k}" for k, x in result["test_originals"].items())
  return (
    f"{test['images']} test originals of {test['patients']} patients"
    + f" ({note})" * bool(note)
    + f" called {said}, by {val['images']} of validation\n"
    f"  {path}/result.json, {path}/predictions.csv, {path}/pictures"
  )

"""Programs that are fitted at once, without the loop: scikit-learn's over
stated features, and the convolutional reservoir.

A program here is a class made from a configuration: `fit(images, labels)`, or
`load(folder)`, then `logits(images)`, uint8 (n, s, s, 1) to float64 (n, k).
"""

import pathlib
import time

import jax
import numpy as np
import safetensors.numpy

from jaxfake import contracts, errors, models
from jaxfake.classifiers import classical, features, neural, reservoir
from jaxfake.data import pipeline
from jaxfake.evaluation import judge
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

PROGRAMS = (*classical.PROGRAMS, "reservoir")
TIMED = 32  # Images a batch, of the scoring time.


class Classical:
  """A program of scikit-learn's over `classical.features`."""

  _model: classical.Model  # Once it is fitted or loaded.
  _network: features.Network | None = None

  def __init__(self, config: contracts.Config):
    self._config, self._seed = config.classical, config.seed
    self._name = config.model.name

  def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
    if "network" in self._config.features.split(","):
      name, weights = self._config.network, self._config.weights
      variables = features.random_network(name, self._seed, images)
      if weights:
        variables = neural.initial(weights, name, variables)
      self._network = features.Network(name, variables)
    x = self._features(images)
    options = self._config[self._name].to_dict()
    self._model = classical.fit(self._name, options, x, labels, self._seed)

  def _features(self, images):
    return features.features(self._config.features, images, self._network)

  def logits(self, images: np.ndarray) -> np.ndarray:
    return classical.logits(self._model, self._features(images))

  def save(self, folder: pathlib.Path) -> None:
    classical.save(self._model, folder / "model.skops")
    if self._network:
      arrays = {
        "/".join((kind, layer, array)): np.asarray(value)
        for kind, layers in self._network.variables.items()
        for layer, values in layers.items()
        for array, value in values.items()
      }
      safetensors.numpy.save_file(arrays, folder / "network.safetensors")

  def load(self, folder: pathlib.Path) -> None:
    self._model = classical.load(folder / "model.skops")
    if "network" in self._config.features.split(","):
      variables = {}
      path = folder / "network.safetensors"
      for name, value in safetensors.numpy.load_file(path).items():
        kind, layer, array = name.split("/")
        layers = variables.setdefault(kind, {})
        layers.setdefault(layer, {})[array] = value
      self._network = features.Network(self._config.network, variables)

  def files(self) -> list[str]:
    """The names of what `load` reads."""
    network = "network" in self._config.features.split(",")
    return ["model.skops", *["network.safetensors"] * network]

  def parameters(self) -> dict[str, int]:
    """All, and those that were learnt."""
    learnt = int(classical.parameters(self._model))
    frozen = self._network.variables["params"] if self._network else {}
    frozen = sum(x.size for x in jax.tree.leaves(frozen))
    return {"parameters": learnt + frozen, "trained_parameters": learnt}


class Reservoir:
  """The convolutional reservoir: see reservoir.py."""

  _model: reservoir.Model  # Once it is fitted or loaded.

  def __init__(self, config: contracts.Config):
    self._options, self._seed = config.reservoir.to_dict(), config.seed

  def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
    self._model = reservoir.fit(self._options, images, labels, self._seed)

  def logits(self, images: np.ndarray) -> np.ndarray:
    return reservoir.logits(self._model, images)

  def save(self, folder: pathlib.Path) -> None:
    reservoir.save(self._model, folder / "model.npz")

  def load(self, folder: pathlib.Path) -> None:
    self._model = reservoir.load(folder / "model.npz")

  def files(self) -> list[str]:
    """The names of what `load` reads."""
    return ["model.npz"]

  def parameters(self) -> dict[str, int]:
    """All, and those that were learnt."""
    learnt = int(reservoir.parameters(self._model))
    frozen = int(reservoir.frozen(self._model))
    return {"parameters": learnt + frozen, "trained_parameters": learnt}


def program(config: contracts.Config) -> Reservoir | Classical:
  """What `config.model.name` names, not fitted yet."""
  return (Reservoir if config.model.name == "reservoir" else Classical)(config)


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no fit could use."""
  if config.model.name == "reservoir":
    options = config.reservoir.to_dict()
    reservoir.Reservoir(size=config.data.size, seed=config.seed, **options)
    return
  c = config.classical
  for name in c.features.split(","):
    errors.check_choice("classical.features", name, features.FEATURES)
  errors.check_choice("classical.network", c.network, models.MODELS)
  if c.weights:
    path = pathlib.Path(c.weights) / "config.json"
    theirs = disk.read_json(path)["model"]
    read = {"input": "centred", "channels": 1, "variant": "torch"}
    if {k: theirs.get(k) for k in read} != read:
      raise errors.ConfigError(
        f"classical.weights is {c.weights}: expected a run with"
        f" {', '.join(f'model.{k}={v}' for k, v in read.items())}"
      )


def train(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> int:
  """Fits, saves and judges; returns exit code 0. See loop.train."""
  run.begin(0)
  images, labels = pipeline.arrays(splits.train).values()
  fitted = program(config)
  progress.say(f"fitting {config.model.name} to {len(images):,} images")
  begin = time.monotonic()
  fitted.fit(images, labels)
  seconds = time.monotonic() - begin
  progress.say(f"fitted in {progress.duration(seconds)}; scoring")
  if run.writer:
    fitted.save(run.path)
  val, test = (
    judge.Scored.of(fitted.logits(pipeline.arrays(source)["image"]), source)
    for source in (splits.val, splits.test)
  )
  cost = {
    **fitted.parameters(),
    "gflop_per_image": None,  # Not counted.
    "ms_per_image": judge.ms_per_image(fitted.logits, splits.test, TIMED),
  }
  facts = {"cost": cost, "train_seconds": seconds}
  run.finish(0, facts, judge.conclude(splits, val, test))
  return 0

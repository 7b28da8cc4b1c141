"""Trained programs: load one, score images, know its files.

A trained program is a run's folder, whatever it is: `load(folder)` gives the
one outward thing, a Classifier.
"""

from collections.abc import Callable, Sequence
import functools
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from jaxfake import configuration, contracts, errors, models, named
from jaxfake.classifiers import features, fitted, neural
from jaxfake.data import pipeline, real_or_fake
from jaxfake.evaluation import calibration
from jaxfake.evaluation.verdicts import verdicts
from jaxfake.runtime import disk, xla

BETWEEN = "between the thresholds"
BATCH = 32  # Images scored at once: one shape, compiled once.


class Classifier(NamedTuple):
  """A trained program. `logits` takes uint8 (n, s, s, 1), s = config's size."""

  config: contracts.Config
  classes: tuple[str, ...]
  logits: Callable
  temperature: float
  threshold: float | None  # Of the second of two classes.
  # No verdict between these; where there are two classes.
  uncertain: tuple[float, float] | None

  @property
  def canonical(self) -> Callable:
    """uint8 (s, s) of uint8 gray (h, w): what the program's own images were
    put through. Of modules without JAX: decoding workers call it."""
    data = self.config.data
    if data.name == "real_or_fake":
      return real_or_fake.canonical(data)
    return functools.partial(
      pipeline.fit, size=data.size, how=data.fit, kernel=data.kernel
    )

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Calibrated, float64 (n, k), of uint8 images (n, s, s, 1)."""
    return calibration.softmax(self.logits(images), self.temperature)

  def judge(self, images: Sequence[np.ndarray]) -> list[dict]:
    """Of a detector and uint8 (s, s): p_fake, verdict and reason of each."""
    if not images:
      return []
    p_fake = self.probabilities(np.stack(images)[..., None])[:, 1]
    assert self.uncertain is not None  # Of two classes.
    said = verdicts(p_fake, self.uncertain)
    return [
      {
        "p_fake": float(p),
        "verdict": verdict,
        "reason": BETWEEN if verdict == "uncertain" else None,
      }
      for p, verdict in zip(p_fake, said, strict=True)
    ]

  def about(self) -> dict:
    """Of a detector, what a list of verdicts says of it."""
    assert self.uncertain is not None  # Of two classes.
    low, high = self.uncertain
    return {
      "name": self.config.model.name,
      "size": self.config.data.size,
      "trained_on_fakes": self.config.data.real_or_fake.fakes,
      "real_at_most": low,
      "fake_at_least": high,
    }


def load(path: pathlib.Path) -> Classifier:
  """The program that a finished run trained, from its folder alone.

  Raises ConfigError where the folder holds no finished run of a classifier, or
  JAX finds no such device as the environment asks for.
  """
  xla.require_devices()
  path = pathlib.Path(path)
  result = disk.read_json(path / "result.json")
  if "calibration" not in result:
    raise errors.ConfigError(f"{path} is a run, but not of a classifier")
  config = configuration.of(result["config"])
  classes = tuple(result["dataset"]["classes"])
  if config.model.name in models.MODELS:
    logits = _network(path, len(classes))
  else:
    program = fitted.program(config)
    program.load(path)
    logits = program.logits
  figures = result["calibration"]
  return Classifier(
    config,
    classes,
    logits,
    figures["temperature"],
    figures["threshold"],
    figures["uncertain"],
  )


def files(path: pathlib.Path) -> list[str]:
  """The names of all files in a run's folder that its scores depend on."""
  task = disk.read_json(path / "result.json")["config"]["task"]
  field = f"{path}/result.json: task"
  family = named.find(field, task, contracts.DetectorFamily).load()
  return sorted({"result.json", *family.files(path)})


def sha256(path: pathlib.Path) -> str:
  """Hash of the names and bytes of `files`: of what a score depends on."""
  digest = hashlib.sha256()
  for name in files(path):
    digest.update(name.encode() + b"\0")
    digest.update(hashlib.sha256((path / name).read_bytes()).digest())
  return digest.hexdigest()


def _network(path: pathlib.Path, num_classes: int) -> Callable:
  config, variables = neural.load(path)
  score = xla.jit(neural.scorer(config, num_classes))

  fn = functools.partial(score, variables)
  return lambda images: features.in_batches(fn, images, BATCH)

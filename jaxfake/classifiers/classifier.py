"""The family `classifier`: every network and classical program that learns
labels, whatever they say."""

from collections.abc import Callable
import pathlib

import jax

from jaxfake import configuration, contracts, errors, models
from jaxfake.classifiers import fitted, neural, registry
from jaxfake.data import patients, pipeline
from jaxfake.evaluation import judge
from jaxfake.runtime import disk
from jaxfake.training import loop, workdir
from jaxfake.training.task import schedule

CONFIG = "classifier.py"
SHOWN = ("accuracy", "auc")
NAMES = (*models.MODELS, *fitted.PROGRAMS)


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  errors.check_choice("model.name", config.model.name, NAMES)
  if config.model.name in models.MODELS:
    neural.check(config)
    return
  if jax.process_count() > 1:
    raise errors.ConfigError(
      f"{config.model.name} is fitted by one process, not {jax.process_count()}"
    )
  fitted.check(config)


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the program and returns an exit code, ready to be called.

  Raises DataError where the images cannot be learnt from.
  """
  judge.check(splits)
  if config.model.name not in models.MODELS:
    return lambda: fitted.train(config, splits, run)
  steps = schedule(config, len(splits.train)).total
  task = neural.make(config, splits, steps)
  return lambda: loop.train(config, task, splits.train, run)


def load(path: pathlib.Path) -> registry.Classifier:
  """The program that a finished run trained, from its folder alone. Raises
  ConfigError: see programs.load."""
  return registry.load(path)


def files(path: pathlib.Path) -> list[str]:
  """The names of what `load` reads in a run's folder, beside result.json."""
  result = disk.read_json(path / "result.json")
  config = configuration.of(result["config"])
  if config.model.name in models.MODELS:
    return neural.files(path)
  return fitted.program(config).files()


def summary(path: pathlib.Path, result: dict) -> str:
  """What a finished run reached and where everything is."""
  figures, cost, test = result["figures"], result["cost"], result["counts"]
  rows = [f"  {'':36} value   95 % interval"]
  for name, x in figures.items():
    if x["value"] is None:
      rows.append(f"  {name:36}     -   {x['reason']}")
    else:
      rows.append(
        f"  {name:36} {x['value']:.4f}  {x['low']:.4f} to {x['high']:.4f}"
      )
  note = patients.unknown(result["dataset"])
  note = f" ({note})" if note else ""
  gflop = cost["gflop_per_image"]
  flops = f"{gflop:.3g} GFLOP, " if gflop else ""
  return (
    f"{result['config']['model']['name']} on {test['test']['images']} test"
    f" images of {test['test']['patients']} patients{note}:\n"
    + "\n".join(rows)
    + f"\n  {cost['parameters']:,} parameters; {flops}"
    f"{cost['ms_per_image']:.3g} ms an image; trained in"
    f" {result['train_seconds']:.0f} s\n"
    f"  figures   {path}/result.json, {path}/predictions.csv\n"
    f"  pictures  {path}/pictures"
  )

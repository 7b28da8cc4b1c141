"""Generators side by side: all learn from one data set, each for its own steps;
then as many fakes of each are held beside train reals, and held-out reals
beside the same.

classifier/, generators/NAME      runs
measured/NAME.json                figures of a generator, not measured again
pictures/NAME.png                 its fakes beside reals
table.md, table.csv, table.html   all figures
result.json                       the same, with configuration
"""

from collections.abc import Callable
import pathlib

import jax

from jaxfake import contracts, data, errors, models
from jaxfake.classifiers import classifier
from jaxfake.data import pipeline
from jaxfake.experiments import jobs
from jaxfake.experiments.generator_comparison import measured, plan, report
from jaxfake.models.weights import fid_weights
from jaxfake.runtime import progress
from jaxfake.training import workdir

CONFIG = "generators.py"


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values that no comparison could use, and DataError
  where Inception's weights are not the published ones."""
  if jax.process_count() > 1:
    raise errors.ConfigError("task generator_comparison runs in one process")
  for name in plan.spaces(config) or [""]:
    errors.check_choice("spaces", name, plan.SPACES)
  if plan.INCEPTION in plan.spaces(config):
    if not config.inception_weights:
      raise errors.ConfigError(
        f"inception_weights is '': expected the file {fid_weights.FILE}, which"
        " the space inception is made with"
      )
    fid_weights.verified(config.inception_weights)
  for field, least in (("images", 6), ("resamples", 2)):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )
  c = plan.classifier(config)
  pipeline.check(c.data)
  errors.check_choice("classifier.model.name", c.model.name, models.MODELS)
  if (c.model.channels, c.model.input) != (1, "centred"):
    raise errors.ConfigError(
      f"classifier.model.channels is {c.model.channels}, input"
      f" {c.model.input!r}: expected 1 and centred"
    )
  classifier.check(c)
  if not plan.runs(config, pathlib.Path()):
    raise errors.ConfigError("generators and runs are empty: expected one")


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Trains and measures what is left and writes the table; returns an exit
  code. `train(config, path)` does one run and returns its exit code."""
  check(config)
  with workdir.held(config, path):
    return _run(config, path, train)


def _run(config, path, train) -> int:
  dataset = data.prepare(config.data)
  progress.say(dataset.summary())
  if "classifier" in plan.spaces(config):
    place = path / "classifier"
    job = jobs.of_run("classifier", plan.classifier(config), place, train)
    if code := jobs.chain([job]):
      return code
  beside = measured.Beside(config, path, dataset)
  runs = plan.runs(config, path)

  def write(failed) -> str:
    rows = beside.rows(runs)
    return report.write(config, path, dataset.facts, rows, failed)

  def after(failed) -> None:
    write(failed)

  code, failed = jobs.each([beside.job(x, train) for x in runs], after)
  if code in (0, 1):
    progress.say(write(failed))
  return code

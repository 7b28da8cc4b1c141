"""One run of a configuration.

JAX, TFDS and Grain take seconds to import: a wrong flag must not wait for them.
"""

import pathlib

from jaxfake import configuration, contracts, named
from jaxfake.runtime import processes, xla


def run(config: contracts.Config, path: pathlib.Path, file: str) -> int:
  """Does what the configuration of a file says; returns the exit code."""
  xla.cache_compiled()
  xla.release_after_compiling()
  processes.join()
  from jaxfake.runtime import progress

  progress.say(f"configuration: {file}")

  kinds = contracts.Family, contracts.Experiment
  task = named.find("task", config.task, *kinds)
  if task.meets(contracts.Experiment):
    return task.load().run(config, path, train)
  return train(config, path)


def train(config: contracts.Config, path: pathlib.Path) -> int:
  """One run: data, model, training; returns the exit code."""
  import jax

  from jaxfake import data
  from jaxfake.data import pipeline
  from jaxfake.generators import guards
  from jaxfake.runtime import disk, progress
  from jaxfake.training import loop, workdir

  family = configuration.family(config)
  makes = named.find("task", config.task, contracts.Family).meets(
    contracts.GeneratorFamily
  )
  run = workdir.Workdir(path, writer=jax.process_index() == 0)

  def prepare():
    if "batch_size" in config:  # A task of the loop's.
      loop.check(config)
      pipeline.check(config.data, getattr(family, "FITS", pipeline.FITS))
    family.check(config)
    run.claim()  # Before minutes go into preparing data.
    progress.say(f"run: {path}")
    dataset = data.prepare(config.data)
    progress.say(dataset.summary())
    train = family.prepare(config, pipeline.splits(dataset, config.data), run)
    run.open(config.to_dict(), dataset.facts)
    return train, dataset

  try:
    train, dataset = processes.together(prepare)
    code = train()
    if code == 0 and makes:
      guards.keep(path, family.load, config, dataset, run.writer)
  finally:
    run.close()
  if code == 0 and run.writer:
    result = disk.read_json(path / "result.json")
    progress.say(family.summary(path, result))
  return code

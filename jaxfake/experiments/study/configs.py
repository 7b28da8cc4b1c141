"""The runs a study is made of: each one's configuration, and its place."""

import pathlib
from types import ModuleType

import ml_collections

from jaxfake import configuration, contracts, named
from jaxfake.experiments import comparison

SOURCE = "source"  # The generator whose fakes detectors learn from.
ON_FAKES = "cnn_on_fakes"  # The classifier that learns from fakes alone.


def with_data(
  base: contracts.Config, config: contracts.Config
) -> contracts.Config:
  """A copy of a run's configuration with the study's data, split by patient."""
  c = configuration.changed(base, {"data": config.data.to_dict()}, "")
  c.data.split = "patient"
  return c


def generators(config: contracts.Config) -> list[str]:
  """Their names: the one detectors learn from first, the unseen one last."""
  ends = [SOURCE, config.unseen]
  between = [name for name in config.generators if name not in ends]
  return [ends[0], *between, ends[1]]


def generator(config: contracts.Config, name: str) -> contracts.Config:
  """The configuration of one of `config.generators`: some fields changed of
  `config.generator`, or of its own file's where it names one as `config`, or of
  its own family's where it names another `task`. Raises ConfigError."""
  changes, place = config.generators[name], f"generators.{name}"
  base = config.generator
  group = isinstance(changes, ml_collections.ConfigDict)
  if group and "config" in changes:
    changes = dict(changes)
    file = configuration.find(str(changes.pop("config")), f"{place}.config")
    base = configuration.load(file)
  elif group and "task" in changes:
    base = configuration.reference(f"{place}.task", str(changes["task"]))
  return configuration.changed(with_data(base, config), changes, place)


def family(config: contracts.Config, name: str) -> ModuleType:
  """The module of one of `config.generators`. Raises ConfigError."""
  task = generator(config, name).task
  field = f"generators.{name}.task"
  return named.find(field, task, contracts.GeneratorFamily).load()


def program(
  config: contracts.Config, name: str, group: str
) -> contracts.Config:
  """The configuration of a program within its budget."""
  c = with_data(config.classifier, config)
  budget, changes = comparison.budgeted(config, group, name)
  c.epochs = config.budgets[budget].epochs
  c.data.train_images = config.budgets[budget].train_images
  c.model.name = name
  return configuration.changed(c, changes, f"{group}.{name}")


def classifier(config: contracts.Config, name: str) -> contracts.Config:
  """Of findings, on the originals."""
  return program(config, name, "classifiers")


def on_fakes(
  config: contracts.Config, path: pathlib.Path, originals: int
) -> contracts.Config:
  """The CNN that learns findings from as many fakes as there are originals."""
  c = classifier(config, "cnn")
  c.data.name, c.data.dir = "generated", str(fakes(path, SOURCE))
  if c.data.get("patients"):  # Of the originals.
    c.data.patients = ""
  c.data.train_images = originals
  return c


def detector(
  config: contracts.Config, name: str, path: pathlib.Path, made_by: str = SOURCE
) -> contracts.Config:
  """Of fakes by one generator."""
  c = program(config, name, "detectors")
  c.data.name = "real_or_fake"
  # All are brought to the generator's size, and then off its grids.
  c.data.real_or_fake.via = config.data.size
  c.data.size = config.data.size * 9 // 8
  c.data.real_or_fake.real = config.data.name
  c.data.real_or_fake.fakes = str(fakes(path, made_by))
  return c


def fakes(path: pathlib.Path, name: str) -> pathlib.Path:
  return path / "fakes" / name

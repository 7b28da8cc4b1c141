"""The runs of a comparison: each one's configuration, and its place."""

import pathlib
from typing import NamedTuple

from jaxfake import configuration, contracts, errors, named

INCEPTION = "inception"  # The literature's; its weights are the user's to give.
SPACES = "random_filters", "classifier", INCEPTION
HELD = "held-out reals"  # The name of their row.


class Run(NamedTuple):
  """A generator: its whole configuration, None of a run that is there."""

  name: str
  config: contracts.Config | None
  path: pathlib.Path


def spaces(config: contracts.Config) -> list[str]:
  return [x for x in config.spaces.split(",") if x]


def distances(space: str) -> tuple[str, str]:
  """What the Fréchet and the kernel distance in a space are called."""
  if space == INCEPTION:
    return "fid", "kid"
  return f"frechet_{space}", f"kernel_{space}"


def classifier(config: contracts.Config) -> contracts.Config:
  """Of findings, whose features are a space."""
  changes = {"data": config.data.to_dict()}
  return configuration.changed(config.classifier, changes, "classifier")


def runs(config: contracts.Config, path: pathlib.Path) -> list[Run]:
  """Every generator, in order. Raises ConfigError."""
  only = [x for x in config.only.split(",") if x]
  if not (only or config.runs):
    only = list(config.generators)
  found = []
  for name in only:
    errors.check_choice("only", name, config.generators)
    c = generator(config, name)
    field = f"generators.{name}.task"
    named.find(field, c.task, contracts.GeneratorFamily).load().check(c)
    found.append(Run(name, c, path / "generators" / name))
  for text in filter(None, config.runs.split(",")):
    name, equals, folder = text.partition("=")
    taken = [HELD, *(x.name for x in found)]
    if not equals or name in taken:
      raise errors.ConfigError(
        f"runs has {text!r}: expected NAME=FOLDER, another name than"
        f" {', '.join(taken)}"
      )
    found.append(Run(name, None, pathlib.Path(folder)))
  return found


def generator(config: contracts.Config, name: str) -> contracts.Config:
  """The configuration of one of `config.generators`: that of its file, on the
  comparison's data, some fields changed."""
  changes, place = dict(config.generators[name]), f"generators.{name}"
  if "config" not in changes:
    raise errors.ConfigError(f"{place}.config is missing: expected a file")
  file = configuration.find(changes.pop("config"), f"{place}.config")
  base = configuration.load(file)
  base = configuration.changed(base, {"data": config.data.to_dict()}, "")
  return configuration.changed(base, changes, place)

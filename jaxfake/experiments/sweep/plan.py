"""A sweep: ordinary runs of one configuration, each with some fields changed.

A configuration's `sweep()` yields the changes, {"opt.lr": 1e-4}. Those that
change the same fields are one ablation, named by them. {} is the configuration
itself, and stands beside each of the others.
"""

from collections.abc import Callable, Sequence
import hashlib
import pathlib
import re
import runpy
from typing import NamedTuple

from jaxfake import configuration, contracts, errors, named
from jaxfake.experiments.jobs import Run
from jaxfake.runtime import disk

LONGEST = 80  # Letters of a folder's name.


class Setting(NamedTuple):
  """One row of the table: an ablation's values, and a run for each seed."""

  values: dict  # {field: value}
  base: bool  # Whether the configuration has these values itself.
  runs: list[Run]

  @property
  def ablation(self) -> str:
    return ", ".join(self.values)

  @property
  def label(self) -> str:
    return ", ".join(
      repr(x) if x == "" else str(x) for x in self.values.values()
    )


def plan(
  parse: Callable,
  arguments: Sequence[str],
  root: pathlib.Path,
  only: str,
  seeds: int,
) -> list[Setting]:
  """Every row of a sweep, in order of its ablations.

  `parse(arguments) -> (configuration, default folder)` is main's. `root` is
  where the runs go, `only` fields whose ablations are taken ("": all). Raises
  ConfigError.
  """
  if seeds < 1:
    raise errors.ConfigError(f"--seeds is {seeds}: expected at least 1")
  base = parse(["", *arguments])[0].to_dict()
  named.find("task of a sweep", base["task"], contracts.Swept)
  flat = disk.flatten(base)
  groups = ablations(yielded(arguments[0].partition("=")[2]), flat)
  fields = dict.fromkeys(x for group in groups for x in group)
  for name in filter(None, only.split(",")):
    errors.check_choice("--only", name, fields)
  settings = []
  for group, changes in groups.items():
    if only and not set(group) & set(only.split(",")):
      continue
    for values in changes:
      flags = [f"--config.{field}={value}" for field, value in values.items()]
      runs = []
      for seed in range(flat["seed"], flat["seed"] + seeds):
        whole = [*arguments, *flags, f"--config.seed={seed}"]
        config = parse(["", *whole])[0].to_dict()
        name = f"{folder(flat, disk.flatten(config))}-seed{seed}"
        path = root / "runs" / name
        whole.append(f"--workdir={path}")
        runs.append(Run(name, seed, tuple(whole), config, path))
      same = all(flat[field] == value for field, value in values.items())
      settings.append(Setting(values, same, runs))
  return settings


def yielded(config: str) -> list[dict]:
  """What the sweep() of FILE[:VARIANT] yields. Raises ConfigError."""
  file = configuration.find(config).partition(":")[0]
  module = runpy.run_path(file)
  if "sweep" not in module:
    raise errors.ConfigError(
      f"{file} has no sweep(): expected a function that yields the fields to"
      ' change, for example {"opt.lr": 1e-4}'
    )
  changes = list(module["sweep"]())
  for change in changes:
    if not isinstance(change, dict) or "seed" in change:
      raise errors.ConfigError(
        f"sweep() of {file} yields {change!r}: expected a dict of fields, such"
        ' as {"opt.lr": 1e-4}; seeds are --seeds'
      )
  return changes


def ablations(changes: list[dict], flat: dict) -> dict[tuple, list[dict]]:
  """{fields: their values, each once}, numbers in order; where {} is among the
  changes, with the values of the configuration itself.

  Raises ConfigError naming a field that the configuration lacks.
  """
  groups = {}
  for change in changes:
    for field in change:
      errors.check_choice("a field of sweep()", field, flat)
    if change and change not in groups.setdefault(tuple(change), []):
      groups[tuple(change)].append(change)
  for fields, group in groups.items():
    own = {field: flat[field] for field in fields}
    if {} in changes and own not in group:
      group.insert(0, own)
    if all(type(x) in (int, float) for y in group for x in y.values()):
      group.sort(key=lambda x: tuple(x.values()))
  return groups


def folder(base: dict, config: dict) -> str:
  """A name for what a configuration changes, but for the seed. The same
  changes have the same name, so that ablations share their runs."""
  changed = {
    field: value
    for field, value in config.items()
    if field != "seed" and value != base[field]
  }
  text = ",".join(f"{field}={value}" for field, value in changed.items())
  name = re.sub(r"[^\w.,=+-]", "_", text)
  if name != text or len(name) > LONGEST:
    name = name[:LONGEST] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
  return name or "base"


def unique(settings: list[Setting]) -> list[Run]:
  """Every run once, all of the first seed before the second's: so that a sweep
  that is stopped has something to compare."""
  runs = {run.name: run for x in settings for run in x.runs}
  return sorted(runs.values(), key=lambda run: run.seed)

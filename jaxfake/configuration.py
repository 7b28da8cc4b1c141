"""Configurations: where their files are, and changes that are checked.

Wherever a configuration is changed, by a study, a comparison or a file that
builds on another, `changed` does it: a field that is not there, or a value of
another type, is an error that names it.
"""

from collections.abc import Mapping
import difflib
import os
import pathlib
import runpy
import traceback

import ml_collections

from jaxfake import errors

# The file with all fields of each task.
TASKS = {
  "gan": "dcgan.py",
  "classifier": "classifier.py",
  "comparison": "comparison.py",
  "few_images": "few_images.py",
  "study": "study.py",
}
# Groups whose fields have names of the user's: each is a change of another
# configuration, and checked as one.
ROWS = "programs", "generators", "classifiers", "detectors"
# The same, of fields that are alike.
ALIKE = ("budgets",)


def shipped() -> pathlib.Path:
  """The folder of our own: beside the modules where jaxfake is installed,
  beside the package in a clone."""
  package = pathlib.Path(__file__).parent
  inside = package / "configs"
  return inside if inside.is_dir() else package.parent / "configs"


def find(argument: str) -> str:
  """FILE[:VARIANT] with the path of a file that exists: FILE itself, else for
  configs/NAME our own. Raises ConfigError."""
  file, colon, variant = argument.partition(":")
  if os.path.isfile(file):
    return argument
  folder, name = os.path.split(os.path.normpath(file))
  ours = shipped() / name
  if folder == "configs" and ours.is_file():
    return f"{ours}{colon}{variant}"
  names = sorted(f"configs/{x.name}" for x in shipped().glob("*.py"))
  raise errors.ConfigError(
    f"--config {argument}: no such file; expected a file, or one of"
    f" {', '.join(names)}{errors.nearest(file, names)}"
  )


def load(argument: str):
  """What get_config() of FILE[:VARIANT] returns. Raises ConfigError."""
  file, colon, variant = argument.partition(":")
  try:
    found = runpy.run_path(file)
    if "get_config" not in found:
      raise errors.ConfigError(f"{file} has no function get_config(variant)")
    config = found["get_config"](*[variant] * bool(colon))
  except errors.ConfigError:
    raise
  except Exception as error:  # A file of the user's may raise anything.
    raise errors.ConfigError(f"{file}{_where(error, file)}: {_said(error)}")
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.ConfigError(
      f"{file}: get_config() returns {config!r}: expected a ConfigDict"
    )
  return config


def _where(error: Exception, file: str) -> str:
  lines = [
    x.lineno
    for x in traceback.extract_tb(error.__traceback__)
    if x.filename == file
  ]
  lines += [error.lineno] if isinstance(error, SyntaxError) else []
  return f", line {lines[-1]}" if lines else ""


def _said(error: Exception) -> str:
  """In one line; of a locked ConfigDict's, without all its other fields."""
  text = " ".join(str(error).split())
  start, _, rest = text.partition(" Other fields present")
  hint = rest[rest.find("Did you mean") :] if "Did you mean" in rest else ""
  text = f"{start} {hint}".strip().strip("'\"")
  known = isinstance(error, ValueError | AttributeError) and text
  return text if known else f"{type(error).__name__}: {text}"


def check(config) -> None:
  """Raises ConfigError where the fields are not those of the task's own
  configuration. A task that is not known is left to others."""
  if config.get("task") not in TASKS:
    return
  reference = load(str(shipped() / TASKS[config.task]))
  _require_all(reference, config, "")
  changed(reference, config, "")


def changed(config, changes: Mapping, where: str):
  """A locked copy of a configuration, some fields changed: {field: value}, of a
  group {field: {field: value}}.

  `where` says where the changes stand, for the ConfigError that is raised where
  they do not fit.
  """
  made = ml_collections.ConfigDict(config.to_dict())
  _put(made, changes, where)
  return made.lock()


def _put(config, changes, where: str) -> None:
  for name in changes:
    value, place = changes[name], f"{where}.{name}" if where else name
    if name not in config:
      raise errors.ConfigError(
        f"{place}: there is no field {name!r}; expected one of"
        f" {', '.join(config)}{errors.nearest(name, config)}"
      )
    old = config[name]
    groups = [isinstance(x, Mapping | ml_collections.ConfigDict) for x in (old, value)]
    if not _fits(old, value) or groups[0] != groups[1]:
      expected = "a group of fields" if groups[0] else _kind(old)
      raise errors.ConfigError(f"{place} is {value!r}: expected {expected}")
    if name in ROWS:
      with config.unlocked():
        config[name] = ml_collections.ConfigDict(dict(value))
    elif name in ALIKE:
      first = next(iter(old.values()))
      for row in value:
        _require_all(first, value[row], f"{place}.{row}")
        with old.unlocked():
          old[row] = changed(first, value[row], f"{place}.{row}")
    elif groups[0]:
      _put(old, value, place)
    else:
      config[name] = type(old)(value)

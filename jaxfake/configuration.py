"""Configurations: where their files are, and changes that are checked.

Wherever a configuration is changed, by a study, a comparison or a file that
builds on another, `changed` does it: a field that is not there, or a value of
another type, is an error that names it.
"""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
import runpy
import traceback
from types import ModuleType

from absl import flags
import ml_collections
from ml_collections import config_flags

from jaxfake import contracts, errors, named

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


def find(argument: str, field: str = "--config") -> str:
  """FILE[:VARIANT] with the path of a file that exists: FILE itself, else for
  configs/NAME our own. Raises ConfigError that names a field."""
  file, colon, variant = argument.partition(":")
  if os.path.isfile(file):
    return argument
  folder, name = os.path.split(os.path.normpath(file))
  ours = shipped() / name
  if folder == "configs" and ours.is_file():
    return f"{ours}{colon}{variant}"
  names = sorted(f"configs/{x.name}" for x in shipped().glob("*.py"))
  raise errors.ConfigError(
    f"{field} {argument}: no such file; expected a file, or one of"
    f" {', '.join(names)}{errors.nearest(file, names)}"
  )


def of(fields: Mapping) -> contracts.Config:
  """The configuration with these fields, such as those in a result."""
  return ml_collections.ConfigDict(fields)


def load(argument: str) -> contracts.Config:
  """What get_config() of FILE[:VARIANT] returns. Raises ConfigError."""
  file, colon, variant = argument.partition(":")
  try:
    namespace = runpy.run_path(file)
    if "get_config" not in namespace:
      raise errors.ConfigError(f"{file} has no function get_config(variant)")
    config = namespace["get_config"](*[variant] * bool(colon))
  except errors.ConfigError:
    raise
  except Exception as error:  # A file of the user's may raise anything.
    raise errors.ConfigError(
      f"{argument}{_where(error, file)}: {_said(error)}"
    ) from error
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


def check(config: contracts.Config, where: str = "") -> None:
  """Raises ConfigError where the fields are not those of the task's own
  configuration; `where` it stands in another one."""
  field = f"{where}.task" if where else "task"
  base = reference(field, config.get("task", ""))
  _require_all(base, config, where)
  changed(base, config, where)


def reference(field: str, task: str) -> contracts.Config:
  """The configuration with all fields of a task, which `field` names. Raises
  ConfigError where there is no such task."""
  of_task = named.find(field, task, contracts.Family, contracts.Experiment)
  ours = of_task.module.startswith("jaxfake.")
  folder = shipped() if ours else of_task.file.parent
  return load(str(folder / of_task.literal("CONFIG")))


def family(config: contracts.Config) -> ModuleType:
  """The module of the family that a configuration names. Raises ConfigError."""
  return named.find("task", config.task, contracts.Family).load()


def changed(
  config: contracts.Config,
  changes: Mapping | ml_collections.ConfigDict,
  where: str,
) -> contracts.Config:
  """A locked copy of a configuration, some fields changed: {field: value}, of a
  group {field: {field: value}}.

  `where` says where the changes stand, for the ConfigError that is raised where
  they do not fit.
  """
  if not _is_group(changes):
    raise errors.ConfigError(
      f"{where} is {changes!r}: expected {_kind(config)}"
    )
  copy = ml_collections.ConfigDict(config.to_dict())
  _put(copy, changes, where)
  return copy.lock()


def _put(config, changes, where: str) -> None:
  for name in changes:
    value, place = changes[name], f"{where}.{name}" if where else name
    if name not in config:
      raise errors.ConfigError(
        f"{place}: there is no field {name!r}; expected one of"
        f" {', '.join(config)}{errors.nearest(name, config)}"
      )
    old = config[name]
    grouped = _is_group(old)
    if grouped != _is_group(value) or not (grouped or _fits(old, value)):
      raise errors.ConfigError(f"{place} is {value!r}: expected {_kind(old)}")
    if name in ROWS:
      config[name] = value
    elif name in ALIKE:
      like = next(iter(old.values()))
      for row in value:
        old[row] = changed(like, value[row], f"{place}.{row}")
        _require_all(like, value[row], f"{place}.{row}")
    elif grouped and _of_other_task(old, value):
      check(value, place)
      config[name] = value
    elif grouped:
      _put(old, value, place)
    else:
      config[name] = type(old)(value)


def _require_all(reference, config, where: str) -> None:
  """Raises ConfigError where a field of the reference is missing."""
  for name in reference:
    place = f"{where}.{name}" if where else name
    if name not in config:
      raise errors.ConfigError(
        f"{place} is missing{errors.nearest(name, config)}"
      )
    if name in (*ROWS, *ALIKE) or not _is_group(reference[name]):
      continue
    group = config[name]
    if _is_group(group) and not _of_other_task(reference[name], group):
      _require_all(reference[name], config[name], place)


def _of_other_task(old, group) -> bool:
  """Whether a group is the configuration of a run of another family."""
  return "task" in old and group.get("task", old["task"]) != old["task"]


def _is_group(value) -> bool:
  return isinstance(value, Mapping | ml_collections.ConfigDict)


def _fits(old, value) -> bool:
  """Whether a value may stand where `old` does: a whole number may where a
  fraction does, a truth value nowhere but for another."""
  if isinstance(old, tuple):
    listed = isinstance(value, tuple | list)
    return listed and all(_fits(old[0], x) for x in value if old)
  if isinstance(old, float):
    if type(value) is int:  # Some have no float of their own.
      return abs(value) <= 2**53
    return isinstance(value, float)
  return type(value) is type(old)


def _kind(old) -> str:
  if _is_group(old):
    return f"a group of {', '.join(old)}"
  names = {bool: "True or False", int: "a whole number", float: "a number"}
  name = names.get(type(old), "a text")
  if isinstance(old, tuple):
    name = "a tuple"
  return f"{name}, such as {old!r}"


def parse(argv: list[str]) -> tuple[contracts.Config, pathlib.Path]:
  """The configuration and the run's folder. Raises ConfigError."""
  argv, name = located(argv)
  load(name)  # Says where a file is wrong.
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", None, "FILE[:VARIANT]", flag_values=values, sys_argv=argv
  )
  flags.DEFINE_string("workdir", None, "Where it goes.", flag_values=values)
  try:
    rest = values(argv)[1:]
    if rest:
      raise errors.ConfigError(
        f"{rest[0]!r} is not a flag: expected --config and --workdir"
      )
    config = values.config.copy_and_resolve_references()
    overrides = config_flags.get_override_values(values["config"])
  except errors.ConfigError:
    raise
  except Exception as error:  # ml_collections raises errors of many kinds.
    raise errors.ConfigError(_one_line(error, argv)) from error
  check(config)
  if values.workdir is not None:
    return config, pathlib.Path(values.workdir)
  return config, default_workdir(name, overrides)


def located(argv: list[str]) -> tuple[list[str], str]:
  """The arguments with the path of the configuration's file, and FILE[:VARIANT]
  with it. Raises ConfigError where there is no such file."""
  for i, flag in enumerate(argv):
    name, equals, value = flag.partition("=")
    if name.lstrip("-") != "config" or not name.startswith("-"):
      continue
    if not equals:
      if i + 1 == len(argv):
        raise errors.ConfigError(
          "Missing value of --config: expected FILE[:VARIANT]"
        )
      value = argv[i + 1]
    argument = find(value)
    after = argv[i + 1 + (not equals) :]
    return [*argv[:i], f"--config={argument}", *after], argument
  raise errors.ConfigError(
    "no --config: expected one, for example --config configs/dcgan.py:quick"
  )


def default_workdir(config: str, overrides: dict) -> pathlib.Path:
  """runs/<file>[-<variant>][-<hash of what was overridden>].

  More steps, other reports or more rows belong to the same run.
  """
  same_run = ("total_steps", "every.", "tensorboard", "only")
  overrides = {k: v for k, v in overrides.items() if not k.startswith(same_run)}
  file, _, variant = config.partition(":")
  name = pathlib.Path(file).stem + (f"-{variant}" if variant else "")
  if overrides:
    text = json.dumps(overrides, sort_keys=True, default=str)
    name += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
  return pathlib.Path("runs") / name


def _one_line(error: Exception, argv: list[str]) -> str:
  """What an error of a flag says, in one line."""
  # ml_collections quotes messages that are quoted already.
  text = str(error).replace("\\n", "\n").replace("\\'", "'")
  lines = [x.strip() for x in text.splitlines() if x.strip()]
  if isinstance(error, LookupError | AttributeError):
    lines = [x.strip("\"'") for x in lines]
    flags_given = [x.partition("=")[0] for x in argv]
    named = [x for x in flags_given if x.endswith(f".{lines[0]}")]
    lines[0] = f"{(named or ['--config'])[0]}: there is no field {lines[0]!r}"
  return ". ".join(lines) or type(error).__name__

r"""Runs a configuration: data, model, training, checkpoints, evaluation.

    python -m jaxfake.main --config FILE[:VARIANT] [--workdir FOLDER]
      [--config.FIELD=VALUE ...]

  --config FILE[:VARIANT]   an experiment, for example configs/dcgan.py:quick;
                            ours are found as configs/NAME from any folder
  --config.FIELD=VALUE      changes one of its fields, for example
                            --config.data.dir=FOLDER --config.batch_size=32
  --workdir FOLDER          where everything goes; runs/NAME where not given.
                            The same command again continues the run.

Exit codes: 0 finished, 1 the run failed, 2 a mistake in the command, the
configuration or the data, 75 saved after SIGTERM, 130 saved after Ctrl-C.
"""

import hashlib
import json
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from jaxfake import (
  configuration,
  contracts,
  errors,
  named,
  platform,
  processes,
)

# JAX, TFDS and Grain take seconds to import: a wrong flag must not wait.


def parse(argv: list[str]):
  """The configuration and the run's folder. Raises ConfigError."""
  argv, name = located(argv)
  configuration.load(name)  # Says where a file is wrong.
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
  configuration.check(config)
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
    found = configuration.find(value)
    after = argv[i + 1 + (not equals) :]
    return [*argv[:i], f"--config={found}", *after], found
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


def run(config, path: pathlib.Path, file: str) -> int:
  """Does what the configuration of a file says; returns the exit code."""
  platform.cache_compiled()
  platform.release_after_compiling()
  processes.join()
  from jaxfake import progress

  progress.say(f"configuration: {file}")

  kinds = contracts.Family, contracts.Experiment
  task = named.find("task", config.task, *kinds)
  if task.meets(contracts.Experiment):
    return task.load().run(config, path, train)
  return train(config, path)


def train(config, path: pathlib.Path) -> int:
  """One run: data, model, training; returns the exit code."""
  import jax

  from jaxfake import data, loop, progress, workdir
  from jaxfake.data import pipeline

  family = configuration.family(config)
  run = workdir.Workdir(path, writer=jax.process_index() == 0)

  def prepare():
    if "batch_size" in config:  # A task of the loop's.
      loop.check(config)
      pipeline.check(config.data)
    family.check(config)
    run.claim()  # Before minutes go into preparing data.
    progress.say(f"run: {path}")
    dataset = data.prepare(config.data)
    progress.say(dataset.summary())
    train = family.prepare(config, pipeline.splits(dataset, config.data), run)
    run.open(config.to_dict(), dataset.facts)
    return train

  try:
    code = processes.together(prepare)()
  finally:
    run.close()
  if code == 0 and run.writer:
    result = workdir.read_json(path / "result.json")
    progress.say(family.summary(path, result))
  return code


def main(argv: list[str]) -> int:
  if {"-h", "-help", "--help", "--helpfull", "--helpshort"} & set(argv):
    print(__doc__)
    return 0
  work = lambda: run(*parse(argv), located(argv)[1])
  return processes.exit_code("jaxfake", work)


if __name__ == "__main__":
  platform.tune_allocator()
  sys.exit(main(sys.argv))

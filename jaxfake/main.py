r"""Runs a configuration: data, model, training, checkpoints, evaluation.

    python -m jaxfake.main --config FILE[:VARIANT] [--workdir FOLDER]
      [--config.FIELD=VALUE ...]

  --config FILE[:VARIANT]   an experiment, for example configs/dcgan.py:quick
  --config.FIELD=VALUE      changes one of its fields, for example
                            --config.data.dir=FOLDER --config.batch_size=32
  --workdir FOLDER          where everything goes; runs/NAME where not given.
                            The same command again continues the run.

Exit codes: 0 finished, 1 the run failed, 2 a mistake in the command, the
configuration or the data, 75 saved after SIGTERM, 130 saved after Ctrl-C.
"""

import hashlib
import json
import os
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from jaxfake import errors

# JAX, TFDS and Grain take seconds to import: a wrong flag must not wait.

FLAGS = flags.FlagValues()
config_flags.DEFINE_config_file(
  "config", None, "FILE[:VARIANT]", lock_config=True, flag_values=FLAGS
)
flags.DEFINE_string("workdir", None, "Where the run goes.", flag_values=FLAGS)


def parse(argv: list[str]):
  """The configuration and the run's folder. Raises ConfigError."""
  try:
    rest = FLAGS(argv)[1:]
    if rest:
      raise errors.ConfigError(
        f"{rest[0]!r} is not a flag: expected --config and --workdir"
      )
    if FLAGS.config is None:
      raise errors.ConfigError(
        "no --config: expected one, for example --config configs/dcgan.py:quick"
      )
    # Where a config file failed, ml_collections raises on first use.
    config = FLAGS.config.copy_and_resolve_references()
    overrides = config_flags.get_override_values(FLAGS["config"])
  except errors.ConfigError:
    raise
  except Exception as error:  # A config file may raise anything.
    raise errors.ConfigError(_one_line(error)) from error
  if FLAGS.workdir is not None:
    return config, pathlib.Path(FLAGS.workdir)
  return config, default_workdir(_config_argument(argv), overrides)


def _config_argument(argv: list[str]) -> str:
  for i, argument in enumerate(argv):
    if argument in ("--config", "-config"):
      return argv[i + 1]
    if argument.startswith(("--config=", "-config=")):
      return argument.split("=", 1)[1]
  raise errors.ConfigError("no --config")


def default_workdir(config: str, overrides: dict) -> pathlib.Path:
  """runs/<file>[-<variant>][-<hash of what was overridden>]."""
  file, _, variant = config.partition(":")
  name = pathlib.Path(file).stem + (f"-{variant}" if variant else "")
  if overrides:
    text = json.dumps(overrides, sort_keys=True, default=str)
    name += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
  return pathlib.Path("runs") / name


def _one_line(error: Exception) -> str:
  """What an error says, in one line: of a traceback, its end."""
  # ml_collections quotes messages that are quoted already.
  text = str(error).replace("\\n", "\n").replace("\\'", "'").strip("\"")
  lines = [x.strip() for x in text.splitlines() if x.strip()]
  if any(x.startswith("Traceback") for x in lines):
    lines = lines[-1:]
  return ": ".join(lines) or type(error).__name__


def initialize_distributed() -> None:
  """Joins the other processes where a launcher started several."""
  import jax

  if "JAX_PROCESS_ID" in os.environ:
    # JAX_COORDINATOR_ADDRESS jax.distributed reads by itself.
    jax.distributed.initialize(
      num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
      process_id=int(os.environ["JAX_PROCESS_ID"]),
    )


def run(config, path: pathlib.Path) -> int:
  """Trains as the configuration says; returns the exit code."""
  initialize_distributed()
  import jax

  from jaxfake import data, loop, progress, workdir
  from jaxfake.data import pipeline
  from jaxfake.generators import gan

  tasks = {"gan": gan}
  errors.check_choice("task", config.task, tasks)
  task = tasks[config.task]
  loop.check(config)
  pipeline.check(config.data)
  task.check(config)
  progress.quiet = jax.process_index() > 0
  dataset = data.prepare(config.data)
  images = pipeline.Splits(dataset, config.data)
  run = workdir.Workdir(path, writer=jax.process_index() == 0)
  run.open(config.to_dict(), dataset.facts)
  try:
    code = loop.train(config, task.make(config, images), images.train, run)
  finally:
    run.close()
  if code == 0:
    progress.say(run.summary())
  return code


def main(argv: list[str]) -> int:
  if {"-h", "-help", "--help", "--helpfull", "--helpshort"} & set(argv):
    print(__doc__)
    return 0
  try:
    return run(*parse(argv))
  except errors.UserError as error:
    print(f"jaxfake: {error}", file=sys.stderr)
    return 2
  except errors.RunError as error:
    print(f"jaxfake: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("jaxfake: interrupted", file=sys.stderr)
    return 130


if __name__ == "__main__":
  sys.exit(main(sys.argv))

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

import sys

from jaxfake import configuration, run
from jaxfake.runtime import processes, xla


def main(argv: list[str]) -> int:
  if {"-h", "-help", "--help", "--helpfull", "--helpshort"} & set(argv):
    print(__doc__)
    return 0
  parse, located = configuration.parse, configuration.located
  work = lambda: run.run(*parse(argv), located(argv)[1])
  return processes.exit_code("jaxfake", work)


if __name__ == "__main__":
  xla.tune_allocator()
  sys.exit(main(sys.argv))

#!/usr/bin/env python3
r"""Runs of a configuration with some fields changed: what its sweep() yields.

  launch/sweep.py FILE[:VARIANT]              the commands, to look at
  launch/sweep.py FILE[:VARIANT] --jobs 2     runs them here, two at once
  launch/sweep.py FILE[:VARIANT] --slurm      as a job array of Slurm

--config.FIELD=VALUE changes a field of every run. Finished runs are skipped and
failed ones left alone, so the same command goes on after Ctrl-C, with other
--metric, more --seeds. Ends with table.html, table.md, table.csv and sweep.png
in the workdir. Exit codes: 0 all finished, 1 some failed, 2 a mistake, 75 and
130 stopped by SIGTERM and Ctrl-C.
"""

import argparse
import pathlib
import shlex
import sys

from jaxfake import configuration, errors
from jaxfake.experiments import jobs
from jaxfake.experiments.sweep import plan, report, slurm
from jaxfake.runtime import disk, progress


def parser() -> argparse.ArgumentParser:
  flags = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = flags.add_argument
  add("config", metavar="FILE[:VARIANT]")
  add("--only", default="", help="ablations of these fields: opt.lr,ema")
  add("--seeds", type=int, default=3, help="of each setting; 3")
  add("--workdir", type=pathlib.Path, help="runs/sweeps/NAME")
  add("--metric", default="", help="figures of a result.json: accuracy,auc")
  add("--retry", action="store_true", help="also runs that have failed")
  add("--jobs", type=int, help="so many at once")
  add("--slurm", action="store_true", help="submits them")
  add("--partition", help="of Slurm; the cluster's default")
  add("--minutes", type=int, default=1440, help="a job's limit; 1440")
  add("--gpus", type=int, help="of a job; none")
  add("--cpus", type=int, help="of a job; the cluster's default")
  return flags


def launch(args, rest: list[str]) -> int:
  """Prints, runs or submits what is left; returns an exit code."""
  if args.jobs is not None and args.jobs < 1:
    raise errors.ConfigError(f"--jobs is {args.jobs}: expected at least 1")
  arguments = [f"--config={args.config}", *rest]
  name = configuration.parse(["", *arguments])[1].name
  root = args.workdir or pathlib.Path("runs/sweeps") / name
  settings = plan.plan(
    configuration.parse, arguments, root, args.only, args.seeds
  )
  runs = plan.unique(settings)
  states = {run: run.state() for run in runs}
  skipped = ("finished",) if args.retry else ("finished", "failed")
  left = [run for run in runs if states[run] not in skipped]
  if not (args.jobs or args.slurm):
    for run in runs:
      text = shlex.join(run.command("python"))
      print(text if run in left else f"# {states[run]}: {text}")
    print(f"# {jobs.summary(states)}. --jobs N or --slurm runs them")
    return 0
  lock = disk.Lock(root, "--workdir")
  try:
    place = jobs.Here(left, args.jobs)
    if args.slurm:
      parameters = {
        "partition": args.partition,
        "time": args.minutes,
        "gpus_per_node": args.gpus,
        "cpus_per_task": args.cpus,
        "array_parallelism": args.jobs or 256,
      }
      place = slurm.Slurm(left, root, parameters)
    progress.say(f"sweep: {root}")
    code = jobs.watch(place, runs)
    command = shlex.join(["launch/sweep.py", *sys.argv[1:]])
    progress.say(report.write(root, command, settings, args.metric))
  finally:
    lock.close()
  if failures := jobs.failures(runs):
    progress.say("\n".join([*failures, "--retry runs them again"]))
  if any(run.state() in ("stopped", "waiting") for run in runs):
    progress.say("the same command goes on")
  return code


if __name__ == "__main__":
  try:
    sys.exit(launch(*parser().parse_known_args()))
  except errors.UserError as error:
    print(f"jaxfake: {error}", file=sys.stderr)
    sys.exit(errors.MISTAKE)
  except (errors.RunError, OSError) as error:
    print(f"jaxfake: {error}", file=sys.stderr)
    sys.exit(errors.FAILED)

"""Our programs beside PyTorch's: same networks, batches, precision, machine.

For every case each side runs in a process of its own, and they take turns.
PyTorch's is the better of eager and torch.compile. Of images a second the
median over rounds is given, with the range; what is achieved of the floating
point operations is compared with the best product of matrices of either
library, measured in the same run. Input of the training and scoring cases
lies on the device. Needs PyTorch: pip install 'jaxfake[bench]'.
"""

import argparse
import importlib.util
import pathlib
import sys
import tempfile

from jaxfake import errors
from jaxfake.benchmarks.cases import CASES, tiny

LOADED = 0.05  # Of all processors: what others may use before we warn.
PHANTOMS = 512
WIDE = 130  # Characters of the table in a file.


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog="python -m jaxfake.bench",
    description=__doc__,
    epilog=f"cases: {', '.join(CASES)}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = p.add_argument
  add(
    "--case",
    action="append",
    metavar="NAME",
    help="only this one; repeatable, or several joined by commas (all)",
  )
  add("--json", metavar="FILE", help="where to write a row for each case")
  add("--markdown", action="store_true", help="print the table as Markdown")
  add(
    "--data",
    metavar="FOLDER",
    help="radiographs in Kaggle's layout, for input_pipeline and detect_folder"
    f" (else {PHANTOMS} phantoms are drawn, JPEG files of 224 px)",
  )
  add("--rounds", type=int, default=7, help="turns of each side (7)")
  add("--seconds", type=float, default=2.0, help="of a turn, at least (2)")
  add(
    "--torch",
    choices=("best", "eager", "compile"),
    default="best",
    help="PyTorch's mode (best: both are measured)",
  )
  add("--tiny", action="store_true", help=argparse.SUPPRESS)
  return p


def chosen(names: list[str] | None) -> list[str]:
  """The cases asked for, each once. Raises ConfigError for an unknown one."""
  if names is None:
    return list(CASES)
  names = [x for name in names for x in name.split(",") if x]
  for name in names:
    errors.check_choice("--case", name, CASES)
  return list(dict.fromkeys(names))


def check(args: argparse.Namespace) -> None:
  """Raises ConfigError for what cannot be measured."""
  if importlib.util.find_spec("torch") is None:
    raise errors.ConfigError(
      "PyTorch, to be compared with, is missing: pip install 'jaxfake[bench]'"
    )
  if args.rounds < 1:
    raise errors.ConfigError(f"--rounds is {args.rounds}: expected at least 1")
  if args.data and not pathlib.Path(args.data).is_dir():
    raise errors.ConfigError(f"--data {args.data}: no such folder")
  if args.json and not pathlib.Path(args.json).absolute().parent.is_dir():
    raise errors.ConfigError(f"--json {args.json}: no such folder")


def run(args: argparse.Namespace) -> int:
  from jaxfake.benchmarks import compare, folder
  from jaxfake.data import work
  from jaxfake.runtime import disk, progress

  check(args)
  names = chosen(args.case)
  effort = compare.Effort(
    rounds=args.rounds,
    seconds=args.seconds,
    modes=("eager", "compile") if args.torch == "best" else (args.torch,),
    matrix=dict.fromkeys(("cpu", "gpu"), 256)
    if args.tiny
    else {"cpu": 2048, "gpu": 8192},
  )
  rows = []
  with tempfile.TemporaryDirectory(prefix="jaxfake-bench-") as scratch:
    place = pathlib.Path(scratch)
    if args.data:
      (place / "images").symlink_to(pathlib.Path(args.data).absolute())
    elif {"input", "detect"} & {CASES[name].kind for name in names}:
      count = 40 if args.tiny else PHANTOMS
      progress.say(f"drawing {count} phantoms")
      folder.make(place / "images", count)
    for name in names:
      case = tiny(CASES[name]) if args.tiny else CASES[name]
      row = compare.measure(name, case, place, effort, progress.say)
      rows.append(row)
      if args.json:
        disk.write_json(pathlib.Path(args.json), rows)
      if said := warning(row, work.cores()):
        progress.say(said)
  show(rows, args.markdown)
  return 0


def warning(row: dict, cores: int) -> str | None:
  """What to say where others computed as well."""
  load = row["foreign_load"]
  if load is None or load <= LOADED * cores:
    return None
  said = (
    f"{row['case']}: others kept {load:.2f} processors busy of {cores}: take"
    " its figures with care"
  )
  if row["cpu_ratio"]:
    said += f" (the ratio by processor time is {row['cpu_ratio']:.2f})"
  return said


def show(rows: list[dict], markdown: bool) -> None:
  """Prints the table for people, and what it does not tell."""
  from rich import console, table

  from jaxfake.evaluation import report
  from jaxfake.runtime import progress

  cells = [row_of_table(row) for row in rows]
  if markdown:
    print(report.markdown(cells))
  else:
    shown = table.Table(box=None)
    for name in cells[0]:
      left = name == "case"
      shown.add_column(name, justify="left" if left else "right", no_wrap=left)
    for row in cells:
      shown.add_row(*row.values())
    width = None if sys.stdout.isatty() else WIDE
    console.Console(width=width).print(shown)
  environment = rows[0]["environment"]
  progress.say(
    f"{rows[0]['device']}, {environment['cpu_count']} CPUs;"
    f" JAX {environment['versions']['jax']}, PyTorch {rows[0]['torch']}"
  )
  for row in rows:
    for note in row["notes"]:
      progress.say(f"{row['case']}: {note}")


def row_of_table(row: dict) -> dict[str, str]:
  """What people read of a row; ours / PyTorch's where there are two."""
  share = lambda x: "-" if x is None else f"{100 * x:.0f} %"
  whole = lambda x: "-" if x is None else f"{x:,.0f}"
  pair = lambda form, name: f"{form(row[name])} / {form(row[f'peer_{name}'])}"
  low, high = row["ratio_range"]
  return {
    "case": row["case"],
    "batch": f"{row['batch']} x {row['size']} px",
    "precision": row["precision"],
    "images/s": f"{row['images_per_s']:.4g}",
    "PyTorch's": f"{row['peer_images_per_s']:.4g} ({row['torch_mode']})",
    "ratio": f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
    "of ceiling": pair(share, "ceiling_fraction"),
    "peak MB": pair(whole, "peak_mb"),
    "compile s": pair(whole, "compile_seconds"),
    "others' load": "-"
    if row["foreign_load"] is None
    else f"{row['foreign_load']:.2f}",
  }


def main(argv: list[str] | None = None) -> int:
  args = parser().parse_args(argv)
  try:
    return run(args)
  except errors.UserError as error:
    print(f"jaxfake.bench: {error}", file=sys.stderr)
    return 2
  except (errors.RunError, OSError) as error:
    print(f"jaxfake.bench: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("jaxfake.bench: interrupted", file=sys.stderr)
    return 130


if __name__ == "__main__":
  sys.exit(main())

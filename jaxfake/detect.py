"""Real or deepfake: a verdict for each of your radiographs.

PNG, JPEG and DICOM files, given or found in folders, are scored by the detector
that comes with the program, or by one of yours: --model RUN, the folder of a
finished run. p_fake is the calibrated probability of a fake. A verdict is
`real` or `fake` beyond the detector's two thresholds, and `uncertain` between
them, for what is unlike all it knows, and without p_fake for what is no
radiograph; `reason` says which. How it fares on generators and hospitals that
it never saw is in its model card, --card.

Exit codes: 0 all files were read, 1 some were not, 2 a mistake in the command.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import heapq
import itertools
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from jaxfake import errors

if TYPE_CHECKING:
  from jaxfake import contracts
  from jaxfake.classifiers import writers

SHOWN = 40  # Rows printed.
ORDER = {"fake": 0, "uncertain": 1, "real": 2, None: 3}


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog="python -m jaxfake.detect",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = p.add_argument
  add("paths", nargs="*", metavar="FILE_OR_FOLDER")
  add(
    "--model",
    help="the folder of a finished detector's run (default: the detector that"
    " comes with the program)",
  )
  add("--card", action="store_true", help="print its model card and end")
  add(
    "--maps",
    metavar="FOLDER",
    help="where to write each picture with what looks made in yellow to red",
  )
  add("--csv", help="where to write rows as CSV, as they come")
  add("--jsonl", help="where to write rows as JSON lines, as they come")
  add("--json", help="where to write all rows and the model's facts as JSON")
  add(
    "--resume",
    action="store_true",
    help="go on with --csv and --jsonl: leave out files with a row there of the"
    " same bytes and model (without it they are overwritten)",
  )
  return p


class Table:
  """What people read first: fakes and doubts before the rest, SHOWN rows."""

  def __init__(self):
    self._heap, self._count, self._number = [], 0, itertools.count()

  def add(self, row: dict) -> None:
    self._count += 1
    key = -ORDER[row["verdict"]], row["p_fake"] or 0, -next(self._number)
    push = heapq.heappush if len(self._heap) < SHOWN else heapq.heappushpop
    push(self._heap, (key, row))

  def text(self) -> str:
    lines = [f"{'p_fake':>7}  {'verdict':9}  file"]
    for _, row in sorted(self._heap, key=lambda x: x[0], reverse=True):
      p = "" if row["p_fake"] is None else f"{row['p_fake']:.4f}"
      mark = "  (says that it is synthetic)" if row["marked"] else ""
      why = row["error"] or row["reason"]
      why = f"  {why}" if why else ""
      said = row["verdict"] or "-"
      lines.append(f"{p:>7}  {said:9}  {row['file']}{mark}{why}")
    if self._count > SHOWN:
      lines.append(f"and {self._count - SHOWN} more: --csv OUT has all")
    return "\n".join(lines)


def unfinished(files: list[str], done: list[dict[str, str]]) -> Iterator[str]:
  """The files that lack a row of their bytes in some output."""
  from jaxfake.classifiers import detector
  from jaxfake.data import image_error

  for path in files:
    name = detector.printable(path)
    hashes = {rows.get(name) for rows in done}
    if None not in hashes and "" not in hashes and len(hashes) == 1:
      try:
        data = detector.opened(path)
        if hashes == {detector.sha256(path, data)}:
          continue
      except (image_error.ImageError, OSError):
        pass  # Its new row says why.
    yield path


def rows_before(outputs: list, model: str) -> list[dict[str, str]]:
  """For each output its files with the hash in their last row.

  Raises ConfigError where another model gave a row.
  """
  from jaxfake.classifiers import detector

  done = []
  for kind, path in outputs:
    hashes = {}
    for row in kind.rows(path, detector.FIELDS):
      if row["model"] != model:
        raise errors.ConfigError(
          f"--resume: {path} has verdicts of another model"
          f" ({row['model'][:12]}, not {model[:12]}): expected a new file"
        )
      hashes[row["file"]] = row["sha256"] or ""
    done.append(hashes)
  return done


def run(args: argparse.Namespace) -> int:
  from jaxfake.classifiers import detector, writers

  if args.card:
    return show_card(args)
  if not args.paths:
    raise errors.ConfigError("no FILE_OR_FOLDER: expected some to look at")
  kinds = (writers.Csv, args.csv), (writers.JsonLines, args.jsonl)
  outputs = [(kind, path) for kind, path in kinds if path]
  if args.resume and (args.json or not outputs):
    raise errors.ConfigError("--resume goes on with --csv or --jsonl alone")
  places = [path for _, path in outputs] + [args.json] * bool(args.json)
  if len({os.path.realpath(path) for path in places}) < len(places):
    raise errors.ConfigError(f"{places[0]}: expected a file for each output")
  for place in places:
    if not os.path.isdir(os.path.dirname(place) or "."):
      raise errors.ConfigError(f"{place}: there is no such folder to write to")
  own = places + [args.maps] * bool(args.maps)
  files, passed = detector.listed(args.paths, own)
  with contextlib.ExitStack() as stack:
    keep = lambda sink: stack.enter_context(contextlib.closing(sink))
    sinks = [keep(k(out, detector.FIELDS, args.resume)) for k, out in outputs]
    whole = keep(writers.Json(args.json)) if args.json else None
    detector.start()
    path = model_path(args)
    program, model = detector.load(path)
    maps = None
    if args.maps:
      if not hasattr(program, "map"):
        raise errors.ConfigError(
          f"--maps: {program.about()['name']} makes none; expected a detector"
          " of configs/forensic.py, as the one that comes with the program, or"
          " of configs/localizer.py or configs/reconstruction.py"
        )
      maps = writers.Maps(args.maps)
    total = len(files)
    if args.resume:
      files = list(unfinished(files, rows_before(outputs, model)))
    for sink in sinks:
      sink.begin()
    if whole:
      whole.begin({"path": str(path), "sha256": model} | program.about())
    table, counts = scored(program, model, files, sinks, whole, maps)
  print(table.text())
  about = program.about()
  by = f"{about['name']} in {path}"
  if path == detector.SHIPPED:
    by = "the detector that comes with the program (--card tells of it)"
  more = f", {total - len(files)} had rows before" if args.resume else ""
  more += f", {passed} of litter or tables passed over" if passed else ""
  print(
    ", ".join(f"{n} {name}" for name, n in counts.items())
    + f"{more}; real up to {about['real_at_most']:.3g}, fake from"
    f" {about['fake_at_least']:.3g}, by {by}"
  )
  return 1 if counts["not read"] else 0


def model_path(args: argparse.Namespace) -> pathlib.Path:
  """The folder of what gives the verdicts."""
  from jaxfake.classifiers import detector

  return pathlib.Path(args.model) if args.model else detector.SHIPPED


def show_card(args: argparse.Namespace) -> int:
  """Prints the model card of what would give the verdicts."""
  from jaxfake.classifiers import detector

  path = model_path(args)
  try:
    print((path / detector.CARD).read_text(), end="")
  except OSError as error:
    raise errors.ConfigError(
      f"{path / detector.CARD}: {error.strerror}; expected a detector that"
      " configs/ship.py made"
    ) from error
  return 0


def scored(
  program: "contracts.Detector",
  model: str,
  files: Sequence[str],
  sinks: "Sequence[contracts.VerdictWriter]",
  whole: "writers.Json | None",
  maps: "writers.Maps | None",
) -> tuple[Table, dict]:
  """Writes each file's row as it comes; returns what is said of all."""
  from jaxfake.classifiers import detector
  from jaxfake.data import work
  from jaxfake.evaluation.verdicts import VERDICTS

  said = (*VERDICTS, "not read", "marked")
  table, counts, complete = Table(), dict.fromkeys(said, 0), False
  try:
    with (
      contextlib.closing(
        detector.score(program, files, maps=maps is not None)
      ) as rows,
      work.shown("files", len(files)) as advance,
    ):
      for row in rows:
        row["model"] = model
        if maps:
          maps.write(row, row.pop("map"))
        for sink in [*sinks, whole] if whole else sinks:
          sink.write(row)
        table.add(row)
        if row["verdict"]:
          counts[row["verdict"]] += 1
        counts["not read"] += row["error"] is not None
        counts["marked"] += bool(row["marked"])
        advance()
    complete = True
  finally:
    if whole:
      whole.finish(counts, complete)
  return table, counts


def main(argv: list[str] | None = None) -> int:
  args = parser().parse_args(argv)
  from jaxfake.runtime import processes

  again = "--resume with the same --csv or --jsonl"
  return processes.exit_code("jaxfake.detect", lambda: run(args), again)


if __name__ == "__main__":
  sys.exit(main())

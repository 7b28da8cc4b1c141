"""Real or deepfake: a verdict for each of your radiographs.

PNG, JPEG and DICOM files, given or found in folders, are scored by a trained
detector, for example one of a study's: --model runs/study-quick/detectors/cnn.
p_fake is the calibrated probability of a fake. A verdict is `real` or `fake`
beyond the detector's two thresholds, both from validation, and `uncertain`
between them. A detector knows the generators it learnt from; the study's report
says how it fares on others.

Exit codes: 0 all files were read, 1 some were not, 2 a mistake in the command.
"""

import argparse
from collections.abc import Iterator
import hashlib
import os
import pathlib
import sys

from jaxfake import errors

SHOWN = 40  # Rows printed.
VERDICTS = "real", "uncertain", "fake"


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog="python -m jaxfake.detect",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = p.add_argument
  add("paths", nargs="+", metavar="FILE_OR_FOLDER")
  add("--model", required=True, help="the folder of a finished detector's run")
  add("--csv", help="where to write all rows as CSV")
  add("--json", help="where to write all rows and the model's facts as JSON")
  return p


def found(paths: list[str]) -> list[str]:
  """Every regular file given or in a folder given, each once, in order.

  Raises ConfigError where a path does not exist, or no file is found.
  """
  files = []
  for path in paths:
    if os.path.isdir(path):
      for folder, folders, names in os.walk(path):
        folders.sort()
        places = (os.path.join(folder, name) for name in sorted(names))
        files += [place for place in places if os.path.isfile(place)]
    elif os.path.exists(path):
      files.append(path)
    else:
      raise errors.ConfigError(f"{path}: no such file or folder")
  if not files:
    raise errors.ConfigError(f"{', '.join(paths)}: no file in there")
  return list(dict.fromkeys(files))


def load(path: pathlib.Path):
  """The detector in a run's folder. Raises ConfigError where there is none."""
  from jaxfake.classifiers import programs

  program = programs.load(path)
  if program.classes != VERDICTS[::2]:
    raise errors.ConfigError(
      f"--model {path} tells {' from '.join(program.classes)}: expected a"
      " detector, of real and fake (data.name=real_or_fake)"
    )
  return program


def model_sha256(path: pathlib.Path) -> str:
  """Of what a verdict depends on: the model's files, by name, and how they are
  read."""
  files = sorted(
    file
    for file in path.rglob("*")
    if file.is_file()
    and file.relative_to(path).parts[0].startswith(("best", "model."))
  )
  digest = hashlib.sha256()
  for file in [path / "config.json", path / "result.json", *files]:
    digest.update(str(file.relative_to(path)).encode() + b"\0")
    digest.update(hashlib.sha256(file.read_bytes()).digest())
  return digest.hexdigest()


def examined(program, path: str):
  """A file's row without a verdict, and what is scored, or None."""
  from jaxfake.data import image_file, marks

  row = dict.fromkeys(
    ("file", "p_fake", "verdict", "error", "marked", "sha256")
  )
  row["file"] = path
  try:
    data = image_file.read_bytes(path)
    row["sha256"] = sha256(path, data)
    row["marked"] = marks.marked(data)
    return row, program.canonical(image_file.read(data))
  except image_file.ImageError as error:
    row["error"] = error.reason
    return row, None


def sha256(path: str, data: bytes) -> str:
  from jaxfake.data import image_file

  if len(data) <= image_file.MAX_BYTES:
    return hashlib.sha256(data).hexdigest()
  with open(path, "rb") as file:  # Too large to hold; only its start was read.
    return hashlib.file_digest(file, "sha256").hexdigest()


def rows(program, files: list[str]) -> Iterator[dict]:
  """A row for each file, in order; files are read while others are scored."""
  import functools

  from jaxfake.classifiers import programs
  from jaxfake.data import work

  waiting = []
  read = functools.partial(examined, program)
  with work.threads() as pool, work.shown("files", len(files)) as advance:
    for item in work.in_order(pool, read, files):
      waiting.append(item)
      advance()
      if sum(image is not None for _, image in waiting) == programs.BATCH:
        yield from judged(program, waiting)
        waiting = []
    yield from judged(program, waiting)


def judged(program, items: list) -> Iterator[dict]:
  """The rows of some files with their verdicts."""
  import numpy as np

  images = [image for _, image in items if image is not None]
  p = iter(program.probabilities(np.stack(images))[:, 1] if images else ())
  low, high = program.uncertain
  for row, image in items:
    if image is not None:
      score = float(next(p))
      said = (
        "fake" if score >= high else "real" if score <= low else "uncertain"
      )
      row |= {"p_fake": score, "verdict": said}
    yield row


def table(made: list[dict]) -> str:
  """What people read first: fakes and doubts before the rest."""
  order = {"fake": 0, "uncertain": 1, "real": 2, None: 3}
  shown = sorted(
    made, key=lambda x: (order[x["verdict"]], -(x["p_fake"] or 0))
  )[:SHOWN]
  lines = [f"{'p_fake':>7}  {'verdict':9}  file"]
  for row in shown:
    p = "" if row["p_fake"] is None else f"{row['p_fake']:.4f}"
    mark = "  (says that it is synthetic)" if row["marked"] else ""
    why = f"  {row['error']}" if row["error"] else ""
    lines.append(f"{p:>7}  {row['verdict'] or '-':9}  {row['file']}{mark}{why}")
  if len(made) > SHOWN:
    lines.append(f"and {len(made) - SHOWN} more: --csv OUT has all")
  return "\n".join(lines)


def run(args) -> int:
  from jaxfake import workdir

  files, path = found(args.paths), pathlib.Path(args.model)
  program = load(path)
  made = list(rows(program, files))
  counts = {
    name: sum(row["verdict"] == name for row in made) for name in VERDICTS
  }
  counts["not read"] = sum(row["error"] is not None for row in made)
  counts["marked"] = sum(bool(row["marked"]) for row in made)
  low, high = program.uncertain
  if args.csv:
    workdir.write_csv(pathlib.Path(args.csv), made)
  if args.json:
    data = program.config.data
    model = {
      "path": str(path),
      "sha256": model_sha256(path),
      "name": program.config.model.name,
      "size": data.size,
      "trained_on_fakes": data.real_or_fake.fakes,
      "real_at_most": low,
      "fake_at_least": high,
    }
    workdir.write_json(
      pathlib.Path(args.json), {"model": model, "counts": counts, "rows": made}
    )
  print(table(made))
  print(
    ", ".join(f"{n} {name}" for name, n in counts.items())
    + f"; real up to {low:.3g}, fake from {high:.3g}, by"
    f" {program.config.model.name} in {path}"
  )
  return 1 if counts["not read"] else 0


def main(argv: list[str] | None = None) -> int:
  args = parser().parse_args(argv)
  try:
    return run(args)
  except (errors.UserError, OSError) as error:
    print(f"jaxfake.detect: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("jaxfake.detect: interrupted", file=sys.stderr)
    return 130


if __name__ == "__main__":
  sys.exit(main())

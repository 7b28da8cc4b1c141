"""python -m jaxfake.data list | prepare | check | describe."""

import argparse
from collections.abc import Sequence
import json
import sys

import ml_collections

from jaxfake import contracts, data, errors, named


def _names() -> list[str]:
  """The sources that this command can look at."""
  sources = named.every(contracts.Source)
  return [x.name for x in sources if x.defines("entries")]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns its exit code: 1 unreadable files, 2 misuse."""
  args = _parser().parse_args(argv)
  try:
    return args.run(args)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return errors.MISTAKE
  except KeyboardInterrupt:
    print("interrupted; the same command begins anew", file=sys.stderr)
    return errors.INTERRUPTED


def _list(args):
  """Prints what there is and what has been prepared."""
  from jaxfake.data import records

  for source in named.every(contracts.Source):
    print(f"{source.name:14}{source.load().ABOUT}")
  root = records.root()
  print(f"\nprepared in {root}:")
  prepared = sorted(root.glob("jaxfake_*/*/*/dataset_info.json"))
  for path in prepared:
    size = sum(f.stat().st_size for f in path.parent.iterdir())
    print(f"  {path.parent.relative_to(root)}  {size / 2**20:,.0f} MB")
  if not prepared:
    print("  nothing yet")
  return 0


def _prepare(args):
  """Prepares a data set and says where it is."""
  dataset = data.prepare(_config(args))
  for split, counts in dataset.facts["counts"].items():
    print(split, *(f"{name} {n:,}" for name, n in counts.items()), sep="  ")
  if dataset.facts["skipped"]:
    print(f"left out as unreadable: {dataset.facts['skipped']}")
  print(dataset.summary())
  print(dataset.read.directory)
  return 0


def _check(args):
  """Reads every file of a folder; lists those that cannot be read."""
  from jaxfake.data import decoders, image_error, reading, work

  entries, _ = data.entries(_config(args))
  if not entries:
    print(f"{args.name}: drawn, not read; there are no files to check")
    return 0
  bad = []
  with (
    decoders.Pool(reading.place) as pool,
    work.shown("checking", len(entries)) as advance,
  ):
    for record in work.in_order(pool, reading.read_entry, entries):
      advance()
      if isinstance(record, image_error.ImageError):
        bad.append(record)
  for error in bad:
    print(error)
  print(f"{len(entries):,} images, {len(bad)} unreadable")
  return 1 if bad else 0


def _describe(args):
  """Prints what a data set holds; draws it where asked."""
  from jaxfake.data import describe

  dataset = data.prepare(_config(args))
  facts = describe.description(dataset)
  print(json.dumps(facts, indent=2) if args.json else describe.text(facts))
  if args.picture:
    try:
      describe.contact_sheet(dataset).save(args.picture)
    except (OSError, ValueError) as error:
      raise errors.UserError(f"--picture {args.picture}: {error}") from error
    print(f"picture: {args.picture}", file=sys.stderr)
  return 0


def _config(args):
  """Returns the flags as the `data` part of a config."""
  return ml_collections.ConfigDict(
    dict(
      name=args.name,
      dir=args.dir,
      size=args.size,
      split=args.split,
      unreadable=args.unreadable,
      patients=args.patients,
      phantom=dict(images=args.images, seed=args.seed, nodules=args.nodules),
      many_sources=dict(leave_out=args.leave_out, licences=args.licences),
    )
  )


def _parser():
  parser = argparse.ArgumentParser(
    prog="python -m jaxfake.data", description="Looks at data sets."
  )
  commands = parser.add_subparsers(required=True, metavar="COMMAND")
  for run in _list, _prepare, _check, _describe:
    name = run.__name__[1:]
    help = (run.__doc__ or "").rstrip(".")
    sub = commands.add_parser(name, help=help, description=help)
    sub.set_defaults(run=run)
    if run is _list:
      continue
    add = sub.add_argument
    add("name", choices=_names())
    add(
      "--dir", default="", help="the folder of images; of many_sources, several"
    )
    add("--split", default="official", choices=data.POLICIES)
    add(
      "--patients",
      default="",
      metavar="FILE",
      help="a CSV file, columns file and patient",
    )
    add("--unreadable", default="stop", choices=data.UNREADABLE)
    add("--size", type=int, default=256, help="of the phantom, pixels")
    add("--images", type=int, default=2000, help="of the phantom")
    add("--seed", type=int, default=0, help="of the phantom")
    add("--nodules", action="store_true", help="in the phantom, with masks")
    add(
      "--leave-out",
      default="",
      metavar="NAMES",
      help="many_sources that are test images alone, separated by commas",
    )
    add(
      "--licences",
      default="",
      metavar="NAMES",
      help="of many_sources those to learn from, others are test images alone",
    )
    if run is _describe:
      add("--json", action="store_true", help="print JSON")
      add("--picture", metavar="OUT.png", help="save a contact sheet")
  return parser


if __name__ == "__main__":
  sys.exit(main())

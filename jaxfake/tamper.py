"""Alters a region of your own radiographs, to measure whether it is found.

A lesion is put into a PNG, JPEG or DICOM file, or what is in a box is taken
out. Only the region's pixels change, in the file's own bits. Every output says
that it is synthetic, and has a mask beside it, white where it was altered.

--inject: nodule (the default) is drawn by X-ray physics, splice blends in a
piece of --donor, copy-move one of the same picture. --remove: copy-move (the
default) blends in a piece from beside or from the other lung, median, harmonic
and biharmonic fill smoothly. Of both: learnt fills by a network, --model.

A result is a function of the file's bytes and the flags. The same command again
leaves alone what is done; --out is refused where other flags made it.

Exit codes: 0 all files were altered, 1 some could not be, 2 a mistake in the
command.
"""

import argparse
from collections.abc import Iterator
import functools
import hashlib
import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from jaxfake import __version__, errors

if TYPE_CHECKING:
  from jaxfake.data.tampered import files

ABOUT, MANIFEST = "tampering.json", "manifest.jsonl"


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog="python -m jaxfake.tamper",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = p.add_argument
  add("paths", nargs="+", metavar="FILE_OR_FOLDER")
  kind = p.add_mutually_exclusive_group(required=True)
  for name, what in (("inject", "put a lesion in"), ("remove", "take one out")):
    kind.add_argument(
      f"--{name}", dest="kind", action="store_const", const=name, help=what
    )
  add(
    "--box",
    required=True,
    metavar="X,Y,W,H",
    help="where, in pixels from the upper left of the picture as it is shown",
  )
  add("--out", required=True, help="a folder to make, or to finish")
  add("--method", help="how; see above")
  add("--donor", metavar="FILE", help="of splice: the other picture")
  add(
    "--donor-box",
    metavar="X,Y,W,H",
    help="of splice: where in it (default: where it looks most like a lesion)",
  )
  add(
    "--model",
    metavar="WORKDIR",
    help="of learnt: a run of an inpainter, such as configs/inpainter.py",
  )
  add("--seed", type=int, default=0, help="another seed, another lesion (0)")
  add(
    "--touch-up",
    action="store_true",
    help="add the noise that the region lacks beside its surroundings",
  )
  return p


def ordered(args: argparse.Namespace) -> tuple[Any, Any]:
  """What the flags ask for: a files.Order of no path, and the inpainter, where
  it is of one. Raises ConfigError."""
  from jaxfake.data.tampered import files, learnt, region, scene

  method = args.method or scene.DEFAULT[args.kind]
  scene.check(args.kind, method)
  if args.seed not in range(2**32):
    raise errors.ConfigError(f"--seed {args.seed}: expected 0 to 2**32 - 1")
  splice = method == "splice"
  if splice and not args.donor:
    raise errors.ConfigError("--method splice: expected --donor FILE")
  if args.donor_box and not args.donor:
    raise errors.ConfigError("--donor-box: expected --donor FILE, too")
  if args.donor and not splice:
    raise errors.ConfigError(f"--donor: {method} needs none, only splice does")
  if args.donor and not os.path.isfile(args.donor):
    raise errors.ConfigError(f"--donor {args.donor}: no such file")
  if args.model and method != learnt.NAME:
    raise errors.ConfigError(f"--model: {method} needs none, only learnt does")
  if method == learnt.NAME and not args.model:
    raise errors.ConfigError("--method learnt: expected --model WORKDIR")
  box = region.parse("--box", args.box)
  donor_box = args.donor_box and region.parse("--donor-box", args.donor_box)
  model = args.model and learnt.load("--model", args.model, args.kind)
  order = files.Order(
    path="",
    kind=args.kind,
    method=method,
    box=box,
    seed=args.seed,
    touch_up=args.touch_up,
    donor=args.donor or "",
    donor_box=donor_box or None,
    model_sha256=model.sha256 if model else "",
  )
  return order, model


def about(order: "files.Order") -> dict:
  """What tampering.json says: whatever decides what is made of a file."""
  facts = order._asdict()
  del facts["path"], facts["answer"]
  donor = facts.pop("donor")
  facts["donor_sha256"] = None
  if donor:
    with open(donor, "rb") as file:
      facts["donor_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
  boxes = {k: facts[k] and list(facts[k]) for k in ("box", "donor_box")}
  return facts | boxes | {"jaxfake": __version__, "synthetic": True}


def begin(out: pathlib.Path, facts: dict) -> None:
  """Makes or reopens the folder. Raises ConfigError where other flags made
  what is in it."""
  from jaxfake.runtime import disk

  place = out / ABOUT
  if place.exists():
    old = disk.read_json(place)
    if changed := [k for k in facts if old.get(k) != facts[k]]:
      raise errors.ConfigError(
        f"--out {out} was made otherwise: "
        + "; ".join(f"{k} {old.get(k)!r}, now {facts[k]!r}" for k in changed)
      )
  disk.write_json(place, facts)


def write(out: pathlib.Path, path: str, altered: "files.Altered") -> dict:
  """Writes an altered file and its mask, whole or not at all; its row."""
  from jaxfake.classifiers import detector

  sha256 = altered.facts["original_sha256"]
  stem = f"{pathlib.PurePath(detector.printable(path)).stem[:80]}-{sha256[:12]}"
  names = {"file": stem + altered.suffix, "mask": f"{stem}-mask.png"}
  for name, data in zip(
    names.values(), (altered.data, altered.mask), strict=True
  ):
    part = out / (name + ".part")
    part.write_bytes(data)
    part.replace(out / name)
  return names | {"original": detector.printable(path)} | altered.facts


def undone(out: pathlib.Path, files: list[str]) -> list[str]:
  """The files that have no row of their bytes, or whose output has gone."""
  from jaxfake.classifiers import detector
  from jaxfake.data import image_error
  from jaxfake.runtime import disk

  done = {
    (x["original"], x["original_sha256"])
    for x in disk.read_lines(out / MANIFEST)
    if (out / x["file"]).exists() and (out / x["mask"]).exists()
  }
  left = []
  for path in files:
    try:
      data = detector.opened(path)
      key = detector.printable(path), detector.sha256(path, data)
    except (image_error.ImageError, OSError):
      key = None  # Altering it says why.
    if key not in done:
      left.append(path)
  return left


def altered(pool: Any, orders: list, model: Any) -> Iterator:
  """A files.Altered or an ImageError of each order, in order. An inpainter runs
  here, in no worker: what it is asked and what it answers go to and fro."""
  from jaxfake.data import image_error, work
  from jaxfake.data.tampered import files, learnt

  if not model:
    yield from work.in_order(pool, files.alter, orders)
    return
  ask = functools.partial(files.asked, size=model.size)

  def one(order):
    question = pool.call(ask, order)
    if isinstance(question, image_error.ImageError):
      return question
    answer = learnt.Answer(model.fill(*question))
    return pool.call(files.alter, order._replace(answer=answer))

  with work.threads() as threads:
    yield from work.in_order(threads, one, orders)


def run(args: argparse.Namespace) -> int:
  from jaxfake.classifiers import detector
  from jaxfake.data import decoders, image_error, work
  from jaxfake.data.tampered import files as altering
  from jaxfake.runtime import disk

  (order, model), out = ordered(args), pathlib.Path(args.out)
  files, passed = detector.listed(args.paths)
  if (out / ABOUT).exists():  # What it made before is not made of again.
    own = os.path.realpath(out) + os.sep
    files = [x for x in files if not os.path.realpath(x).startswith(own)]
  if not files:
    raise errors.ConfigError(f"{args.paths[0]}: no file but those of --out")
  name = lambda order: order.path
  with decoders.Pool(name) as pool:
    if order.donor:
      seen = pool.call(altering.check_donor, order)
      if isinstance(seen, image_error.ImageError):
        donor = detector.printable(order.donor)
        raise errors.ConfigError(f"--donor {donor}: {seen.reason}")
    lock = disk.Lock(out, "--out", ABOUT)
    try:
      begin(out, about(order))
      _drop_torn_line(out / MANIFEST)
      left = undone(out, files)
      orders = [order._replace(path=path) for path in left]
      bad = 0
      with (
        work.shown("files", len(left)) as advance,
        open(out / MANIFEST, "a") as manifest,
      ):
        outputs = altered(pool, orders, model)
        for path, output in zip(left, outputs, strict=True):
          if isinstance(output, image_error.ImageError):
            bad += 1
            where = detector.printable(path)
            print(f"{where}: {output.reason}", file=sys.stderr)
          else:
            row = write(out, path, output)
            manifest.write(json.dumps(row) + "\n")
            manifest.flush()
          advance()
    finally:
      lock.close()
  count = len(left) - bad
  text = f"{count} altered, marked as synthetic, in {out}"
  text += f", {len(files) - len(left)} were before" * (len(left) < len(files))
  text += f", {bad} could not be" * bool(bad)
  text += f", {passed} of litter or tables passed over" * bool(passed)
  print(text)
  return errors.FAILED if bad else errors.FINISHED


def _drop_torn_line(path: pathlib.Path) -> None:
  """Drops what a kill left half written at the end of a file of lines."""
  if path.exists():
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"\n") + 1])


def main(argv: list[str] | None = None) -> int:
  args = parser().parse_args(argv)
  from jaxfake.runtime import processes

  return processes.exit_code("jaxfake.tamper", lambda: run(args))


if __name__ == "__main__":
  sys.exit(main())

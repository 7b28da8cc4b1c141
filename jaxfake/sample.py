"""Synthetic radiographs from a trained generator, every one marked as such.

Image i is a function of (seed, i) and its class alone: it does not change with
--count or with where the command was interrupted. (Another machine or --batch
multiplies in another order: single pixels may differ by one gray level.) The
same command again goes on where it stopped. Several processes, and any number
of them, make the same folder. It is a data set: data.name=generated.

A translator (configs/cyclegan.py) makes image i of another: of a held-out image
that its run keeps, or with --from of the i-th file of your folder.
manifest.jsonl and sources.csv name it.

A generator whose fakes are copies of its train images is refused: see
jaxfake/generators/guards.py, and `guard` in sampler.json for what was found.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import itertools
import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxfake import __version__, contracts, errors
from jaxfake.data import generated_writer as writer
from jaxfake.generators import registry
from jaxfake.runtime import disk, processes, progress

if TYPE_CHECKING:
  import numpy as np


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog="python -m jaxfake.sample", description=__doc__
  )
  add = p.add_argument
  add("--workdir", required=True, help="a run of jaxfake.main")
  add("--count", type=int, help="how many images (with --from: of all files)")
  add("--out", required=True, help="a folder to make, or to finish")
  add(
    "--class",
    dest="name",
    help="of a class-conditional run: only this class (else all, in turn)",
  )
  add(
    "--from",
    dest="folder",
    metavar="FOLDER",
    help="of a translator: make images of --class of the PNG, JPEG and DICOM"
    " files in there, which are of the other class",
  )
  add("--seed", type=int, default=0, help="another seed, other images (0)")
  add(
    "--format",
    choices=("png", "array_record"),
    default="png",
    help="one file an image, or shards of 8,192 (png)",
  )
  add("--batch", type=int, default=64, help="images at once (64)")
  add("--step", type=int, help="a checkpoint other than the last")
  add(
    "--allow-copies",
    action="store_true",
    help="also of a generator that copies its train images",
  )
  return p


class Order(NamedTuple):
  """What a command asks of a generator."""

  generator: Any  # contracts.Generator
  labels: Any  # int32 (count,), whether it is told them or not.
  origins: list[dict]  # Of each image of a translator, else none.
  facts: dict  # Of every image.
  seed: int
  batch: int

  def record(self, i: int) -> dict:
    """What is known of image i."""
    label = int(self.labels[i]) if self.generator.conditional else None
    name = None if label is None else self.generator.classes[label]
    return self.facts | {"index": i, "label": label, "class": name}

  def png(self, item: tuple) -> bytes:
    i, image = item
    if self.origins:  # Which one is said in the manifest alone.
      return writer.png(image, self.record(i), writer.TRANSLATED)
    return writer.png(image, self.record(i))

  def line(self, i: int) -> dict:
    """What the manifest says of image i."""
    return self.record(i) | (self.origins[i] if self.origins else {})

  def drawn(self, indices: Iterable[int]) -> Iterator:
    """Yields (i, image) of ascending indices."""
    draw = lambda starts: registry.images(
      self.generator, self.seed, self.labels, starts, self.batch
    )
    return registry.in_batches(indices, self.batch, draw)


def ordered(args: argparse.Namespace) -> Order:
  """What the flags ask for. Raises ConfigError."""
  import jax

  if args.count is None and not args.folder:
    raise errors.ConfigError("--count: expected how many images")
  if (args.count is not None and args.count < 1) or args.batch < 1:
    raise errors.ConfigError("--count and --batch: expected at least 1")
  if args.seed not in range(2**32):
    raise errors.ConfigError(f"--seed {args.seed}: expected 0 to 2**32 - 1")
  # Perhaps a contracts.Translator.
  generator: Any = registry.load(pathlib.Path(args.workdir), args.step)
  if args.name is not None and not generator.conditional:
    raise errors.ConfigError(
      f"--class {args.name}: {args.workdir} is not class-conditional"
      " (model.conditional)"
    )
  if args.name is not None:
    errors.check_choice("--class", args.name, generator.classes)
  files = given(generator, args) if args.folder else None
  if args.count is None:
    args.count = len(files or ())
  devices = jax.local_device_count()
  facts: dict[str, Any] = {
    "model": generator.name,
    "checkpoint_sha256": generator.sha256,
    "seed": args.seed,
    "synthetic": True,
  }
  if files:
    generator.give(files)
    facts["from"] = files.fingerprint()
  labels = labels_of(generator.classes, args.name, args.count)
  origins = originals(generator, args, labels)
  batch = -(-args.batch // devices) * devices
  return Order(generator, labels, origins, facts, args.seed, batch)


def given(generator: contracts.Generator, args: argparse.Namespace) -> Any:
  """The files of --from, for a translator. Raises ConfigError, DataError."""
  from jaxfake.data import plain_folder

  if not hasattr(generator, "give"):
    raise errors.ConfigError(
      f"--from {args.folder}: {args.workdir} is no translator, its images are"
      " made of nothing; expected a run such as that of configs/cyclegan.py"
    )
  if args.name is None:
    raise errors.ConfigError(
      f"--from {args.folder}: expected --class, too, one of"
      f" {', '.join(generator.classes)}: what its images are made into"
    )
  files = plain_folder.PlainFolder(args.folder, "--from")
  if args.count is not None and args.count > len(files):
    raise errors.ConfigError(
      f"--count {args.count}: --from {args.folder} has {len(files)} files"
    )
  return files


def originals(
  generator: Any, args: argparse.Namespace, labels: "np.ndarray"
) -> list[dict]:
  """What each image is made of; none of a generator that needs no images.
  Raises ConfigError where one would be made of the same twice."""
  import numpy as np

  if not hasattr(generator, "origins"):
    return []
  index = np.arange(args.count, dtype=np.int32)
  origins = generator.origins(args.seed, index, labels)
  if (most := len({x["original"] for x in origins})) < args.count:
    raise errors.ConfigError(
      f"--count {args.count}: {args.workdir} keeps held-out images for {most}:"
      " expected no more, or files of your own, --from FOLDER --class NAME"
    )
  return origins


def labels_of(classes: Sequence[str], name: str | None, count: int) -> Any:
  """The labels of so many images: all classes in turn, or one by name."""
  import numpy as np

  if name is not None:
    return np.full(count, classes.index(name), np.int32)
  return np.arange(count, dtype=np.int32) % max(len(classes), 1)


def guarded(order: Order, args: argparse.Namespace) -> dict:
  """Whether the generator copies (guards.py), as the folder says where samples
  of it are in there already. Raises ConfigError where it does."""
  from jaxfake.generators import guards

  about = pathlib.Path(args.out, "sampler.json")
  before = disk.read_json(about) if about.exists() else {}
  known = before.get("checkpoint_sha256") == order.generator.sha256
  if known and "guard" in before:
    guard = before["guard"]
  else:
    guard = guards.of_run(pathlib.Path(args.workdir), order.generator)
  if guard["verdict"] == guards.FAILED and not args.allow_copies:
    raise errors.ConfigError(
      f"{args.workdir} copies its train images: {guard['why']}. Expected a"
      " generator that does not, by more train images or fewer steps;"
      " --allow-copies makes them all the same"
    )
  if guard["verdict"] != guards.PASSED:
    progress.say(f"copies of train images: {guard['verdict']}; {guard['why']}")
  return guard


def about(order: Order, args: argparse.Namespace, guard: dict) -> dict:
  """What sampler.json says: whatever decides the images, their number, and
  whether they may be copies."""
  return order.facts | {
    "guard": guard,
    "classes": list(order.generator.classes),
    "class": args.name,
    "size": order.generator.size,
    "format": args.format,
    "batch": order.batch,
    "step": order.generator.step,
    "count": args.count,
    "jaxfake": __version__,
  }


def write(out: pathlib.Path, order: Order, form: str, runs: list) -> None:
  """Makes the images of this process's runs of indices, and lists them."""
  import jax

  from jaxfake.data import work

  number = jax.process_index()
  place = writer.write_pngs if form == "png" else writer.write_shard
  shown = contextlib.nullcontext(lambda: None)
  if not number:
    shown = work.shown("sampling", sum(map(len, runs)))
  name = f"manifest-{number}.jsonl" if number else "manifest.jsonl"
  with (
    work.threads() as pool,
    shown as advance,
    open(out / name, "a") as manifest,
  ):
    drawn = order.drawn(itertools.chain.from_iterable(runs))
    encoded = work.in_order(pool, order.png, drawn)
    for indices in runs:
      chunk = []
      for data in itertools.islice(encoded, len(indices)):
        chunk.append(data)
        advance()
      for i, where in zip(indices, place(out, indices[0], chunk), strict=True):
        manifest.write(json.dumps(where | order.line(i)) + "\n")
      manifest.flush()
      os.fsync(manifest.fileno())


def run(args: argparse.Namespace) -> int:
  import jax

  order, out = ordered(args), pathlib.Path(args.out)
  number = jax.process_index()
  guard = processes.together(lambda: guarded(order, args))

  def claim():
    if number:
      return None
    lock = disk.Lock(out, "--out", "sampler.json")
    writer.begin(out, about(order, args, guard))
    return lock

  unit = writer.CHUNK if args.format == "png" else writer.SHARD
  lock = processes.together(claim)
  # All have read the manifest before the first adds to it.
  left = processes.together(lambda: writer.missing(out, args.count, unit))
  write(out, order, args.format, left[number :: jax.process_count()])
  processes.together(lambda: None)  # Until all have made theirs.
  if lock:
    writer.collect(out)
    if order.origins and args.format == "png":
      writer.tell_originals(out)
    lock.close()
  progress.say(
    f"{args.count} synthetic images of {args.workdir} in {out}\n"
    "As a data set: --config.data.name=generated"
    f" --config.data.dir={out} --config.data.split=patient"
  )
  return 0


def main(argv: list[str] | None = None) -> int:
  args = parser().parse_args(argv)

  def work() -> int:
    processes.join()
    return run(args)

  return processes.exit_code("jaxfake.sample", work)


if __name__ == "__main__":
  sys.exit(main())

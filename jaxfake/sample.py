"""Synthetic radiographs from a trained generator, every one marked as such.

Image i is a function of (seed, i) and its class alone: it does not change with
--count or with where the command was interrupted. (Another machine or --batch
multiplies in another order: single pixels may differ by one gray level.) The
same command again goes on where it stopped. Several processes, and any number
of them, make the same folder. It is a data set: data.name=generated.
"""

import argparse
import collections
from collections.abc import Iterable, Iterator
import contextlib
import io
import itertools
import json
import os
import pathlib
import sys
from typing import Any, NamedTuple

from jaxfake import __version__, errors, processes

CHUNK = 128  # PNG files between lines in the manifest.
SHARD = 8192  # Images of an ArrayRecord file.
# What image tools look for: IPTC's code for media made by a trained algorithm.
XMP = (
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
  ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
  ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
  ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/'
  'digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog="python -m jaxfake.sample", description=__doc__
  )
  add = p.add_argument
  add("--workdir", required=True, help="a run of jaxfake.main")
  add("--count", type=int, required=True, help="how many images")
  add("--out", required=True, help="a folder to make, or to finish")
  add(
    "--class",
    dest="name",
    help="of a class-conditional run: only this class (else all, in turn)",
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
  return p


def load(path: pathlib.Path, step: int | None = None):
  """The generator (contracts.Generator) of a run's folder alone.

  Raises ConfigError where the folder holds no run of one, or not that
  checkpoint.
  """
  from jaxfake import contracts, named, workdir

  task = workdir.read_json(path / "config.json")["task"]
  field = f"{path}/config.json: task"
  family = named.find(field, task, contracts.GeneratorFamily).load()
  return family.load(path, step)


def images(generator, seed: int, labels, starts, batch: int) -> Iterator:
  """Yields uint8 (batch, s, s, c) for each batch of indices from one of
  `starts`; those past the end of `labels` are of no use.

  Every batch has one shape, and one is computed while another is written. This
  process's devices do it: no other waits for it.
  """
  import numpy as np

  before = None
  for start in starts:
    index = np.arange(start, start + batch, dtype=np.int32)
    label = np.resize(labels[start : start + batch], batch)
    now = generator.sample(seed, index, label)
    if before is not None:
      yield np.asarray(before)
    before = now
  if before is not None:
    yield np.asarray(before)


def png(image, facts: dict) -> bytes:
  """PNG bytes of uint8 (h, w, c), marked as synthetic in its text chunks."""
  from PIL import Image, PngImagePlugin

  info = PngImagePlugin.PngInfo()
  info.add_text("Comment", "Synthetic image, not of a patient")
  info.add_text("Software", f"jaxfake {__version__}")
  info.add_text("jaxfake", json.dumps(facts, sort_keys=True))
  info.add_itxt("XML:com.adobe.xmp", XMP)
  out = io.BytesIO()
  image = image[..., 0] if image.shape[-1] == 1 else image
  Image.fromarray(image).save(out, "PNG", pnginfo=info)
  return out.getvalue()


def begin(out: pathlib.Path, facts: dict) -> None:
  """Makes or reopens the folder. Raises ConfigError where other samples are in
  it."""
  from jaxfake import workdir

  about = out / "sampler.json"
  if about.exists():
    old = workdir.read_json(about)
    if changed := [k for k in facts if k != "count" and old.get(k) != facts[k]]:
      raise errors.ConfigError(
        f"--out {out} holds other samples: "
        + "; ".join(f"{k} {old.get(k)!r}, now {facts[k]!r}" for k in changed)
      )
    if facts["count"] < old["count"]:
      raise errors.ConfigError(
        f"--out {out} is for {old['count']} images: expected at least as many"
      )
  workdir.write_json(about, facts)
  collect(out)


def collect(out: pathlib.Path) -> None:
  """Joins what each process has listed into manifest.jsonl, in order."""
  from jaxfake import workdir

  lists = sorted(out.glob("manifest*.jsonl"))
  # By index: killed in here, a process leaves lines in two of the files.
  rows = {x["index"]: x for path in lists for x in workdir.read_lines(path)}
  listed = collections.Counter(
    x["file"] for x in rows.values() if "record" in x
  )
  # Killed while a shard's lines were being written: the shard is made again.
  torn = {x for x, n in listed.items() if n < count_records(out / x)}
  whole = [rows[i] for i in sorted(rows) if rows[i]["file"] not in torn]
  manifest = out / "manifest.jsonl"
  part = manifest.with_name(manifest.name + ".part")
  part.write_text("".join(json.dumps(x) + "\n" for x in whole))
  part.replace(manifest)
  for path in lists:
    if path != manifest:
      path.unlink()


def missing(out: pathlib.Path, count: int, unit: int) -> list[list[int]]:
  """The indices still to be made, in runs; none crosses a multiple of unit."""
  from jaxfake import workdir

  made = {x["index"] for x in workdir.read_lines(out / "manifest.jsonl")}
  left = (i for i in range(count) if i not in made)
  # Along a run, an index and its place in the list differ by the same.
  runs = itertools.groupby(
    enumerate(left), lambda at: (at[1] - at[0], at[1] // unit)
  )
  return [[i for _, i in run] for _, run in runs]


def finished(out: pathlib.Path, count: int) -> bool:
  """Whether a folder holds so many samples already."""
  from jaxfake import workdir

  return len(workdir.read_lines(out / "manifest.jsonl")) >= count


def count_records(shard: pathlib.Path) -> int:
  from array_record.python import array_record_data_source

  with array_record_data_source.ArrayRecordDataSource(str(shard)) as source:
    return len(source)


def write_pngs(out: pathlib.Path, first: int, encoded: list[bytes]):
  """One file an image, 10,000 a folder; returns their places."""
  places = []
  for i, data in enumerate(encoded, first):
    file = pathlib.Path("images", f"{i // 10000:04}", f"{i:08}.png")
    if not places or i % 10000 == 0:
      (out / file).parent.mkdir(parents=True, exist_ok=True)
    (out / file).write_bytes(data)
    places.append({"file": str(file)})
  return places


def write_shard(out: pathlib.Path, first: int, encoded: list[bytes]):
  """One ArrayRecord file of PNG bytes; returns their places."""
  from array_record.python import array_record_module

  file = f"synthetic-{first:08}.array_record"
  part = out / (file + ".part")
  writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")
  for data in encoded:
    writer.write(data)
  writer.close()
  part.replace(out / file)
  return [{"file": file, "record": i} for i in range(len(encoded))]


def made(indices: Iterable[int], batch: int, draw) -> Iterator:
  """Yields (i, image) for ascending indices; draw(starts) makes the batches.

  A batch begins at a multiple of its size whatever was done before and by whom,
  so that each image sits in the same row of the same computation.
  """
  runs = [
    (start, list(wanted))
    for start, wanted in itertools.groupby(indices, lambda i: i - i % batch)
  ]
  drawn = draw(start for start, _ in runs)
  for (start, wanted), rows in zip(runs, drawn, strict=True):
    yield from ((i, rows[i - start]) for i in wanted)


class Order(NamedTuple):
  """What a command asks of a generator."""

  generator: Any  # contracts.Generator
  labels: Any  # int32 (count,), whether it is told them or not.
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
    return png(image, self.record(i))

  def drawn(self, indices: Iterable[int]) -> Iterator:
    """Yields (i, image) of ascending indices."""
    draw = lambda starts: images(
      self.generator, self.seed, self.labels, starts, self.batch
    )
    return made(indices, self.batch, draw)


def ordered(args) -> Order:
  """What the flags ask for. Raises ConfigError."""
  import jax

  if args.count < 1 or args.batch < 1:
    raise errors.ConfigError("--count and --batch: expected at least 1")
  if args.seed not in range(2**32):
    raise errors.ConfigError(f"--seed {args.seed}: expected 0 to 2**32 - 1")
  generator = load(pathlib.Path(args.workdir), args.step)
  if args.name is not None and not generator.conditional:
    raise errors.ConfigError(
      f"--class {args.name}: {args.workdir} is not class-conditional"
      " (model.conditional)"
    )
  if args.name is not None:
    errors.check_choice("--class", args.name, generator.classes)
  devices = jax.local_device_count()
  facts = {
    "model": generator.name,
    "checkpoint_sha256": generator.sha256,
    "seed": args.seed,
    "synthetic": True,
  }
  labels = labels_of(generator.classes, args.name, args.count)
  batch = -(-args.batch // devices) * devices
  return Order(generator, labels, facts, args.seed, batch)


def labels_of(classes, name: str | None, count: int):
  """The labels of so many images: all classes in turn, or one by name."""
  import numpy as np

  if name is not None:
    return np.full(count, classes.index(name), np.int32)
  return np.arange(count, dtype=np.int32) % max(len(classes), 1)


def about(order: Order, args) -> dict:
  """What sampler.json says: whatever decides the images, and their number."""
  return order.facts | {
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
  place = write_pngs if form == "png" else write_shard
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
        manifest.write(json.dumps(where | order.record(i)) + "\n")
      manifest.flush()
      os.fsync(manifest.fileno())


def run(args) -> int:
  import jax

  from jaxfake import progress, workdir

  order, out = ordered(args), pathlib.Path(args.out)
  number = jax.process_index()

  def claim():
    if number:
      return None
    lock = workdir.Lock(out, "--out", "sampler.json")
    begin(out, about(order, args))
    return lock

  unit = CHUNK if args.format == "png" else SHARD
  lock = processes.together(claim)
  # All have read the manifest before the first adds to it.
  left = processes.together(lambda: missing(out, args.count, unit))
  write(out, order, args.format, left[number :: jax.process_count()])
  processes.together(lambda: None)  # Until all have made theirs.
  if lock:
    collect(out)
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

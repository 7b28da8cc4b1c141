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
  """A run's config, classes and state, from its folder alone.

  Raises ConfigError where the folder holds no run, or not that checkpoint.
  """
  import ml_collections

  from jaxfake import checkpoint, loop, workdir
  from jaxfake.data import pipeline
  from jaxfake.generators import gan

  config = workdir.read_json(path / "config.json")
  config.setdefault("dtype", "float32")  # Older runs do not say it.
  config = ml_collections.ConfigDict(config)
  classes = tuple(workdir.read_json(path / "dataset.json")["classes"])
  errors.check_choice(f"{path}/config.json: task", config.task, ("gan",))
  task = gan.make(config, pipeline.Splits(classes, (), (), ()))
  saved = checkpoint.Checkpoints(path / "checkpoints", read_only=True)
  with saved as checkpoints:
    steps = checkpoints.steps()
    if not steps or step not in (None, *steps):
      raise errors.ConfigError(
        f"{path} has no checkpoint{'' if step is None else f' of step {step}'}:"
        f" expected one of {steps or 'a run that has saved one'}"
      )
    like = loop.abstract_state(task)
    if step is None:
      remedy = "put a copy back, or train again"
      _, state = checkpoints.restore_last(like, remedy)
    else:
      state = checkpoints.restore(step, like)
  return config, classes, state


def images(config, classes, state, seed, labels, starts, batch) -> Iterator:
  """Yields uint8 (batch, s, s, c) for each batch of indices from one of
  `starts`; those past the end of `labels` are of no use.

  Every batch has one shape, and one is computed while another is written. This
  process's devices do it: no other waits for it.
  """
  import jax
  import numpy as np

  from jaxfake import loop, platform
  from jaxfake.generators import gan

  _, by_batch, everywhere = loop.mesh_and_shardings(jax.local_devices())
  ema = jax.device_put(jax.tree.map(np.asarray, state.ema), everywhere)
  draw = platform.jit(gan.sampler(config, classes))
  before = None
  for start in starts:
    index = np.arange(start, start + batch, dtype=np.int32)
    label = np.resize(labels[start : start + batch], batch)
    index, label = jax.device_put((index, label), by_batch)
    now = draw(ema, np.uint32(seed), index, label)
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


def run(args) -> int:
  import jax
  import numpy as np

  from jaxfake import checkpoint, progress, workdir
  from jaxfake.data import work

  if args.count < 1 or args.batch < 1:
    raise errors.ConfigError("--count and --batch: expected at least 1")
  if args.seed not in range(2**32):
    raise errors.ConfigError(f"--seed {args.seed}: expected 0 to 2**32 - 1")
  config, classes, state = load(pathlib.Path(args.workdir), args.step)
  devices = jax.local_device_count()
  batch = -(-args.batch // devices) * devices
  conditional = config.model.conditional
  if args.name is not None and not conditional:
    raise errors.ConfigError(
      f"--class {args.name}: {args.workdir} is not class-conditional"
      " (model.conditional)"
    )
  if args.name is not None:
    errors.check_choice("--class", args.name, classes)
  every = np.arange(args.count, dtype=np.int32) % len(classes)
  labels = every if args.name is None else every * 0 + classes.index(args.name)
  facts = {
    "model": config.model.name,
    "checkpoint_sha256": checkpoint.sha256(state),
    "seed": args.seed,
    "synthetic": True,
  }
  out = pathlib.Path(args.out)
  about = facts | {
    "classes": list(classes),
    "class": args.name,
    "size": config.data.size,
    "format": args.format,
    "batch": batch,
    "step": int(state.step),
    "count": args.count,
    "jaxfake": __version__,
  }
  number, of = jax.process_index(), jax.process_count()

  def prepare():
    if number:
      return None
    lock = workdir.Lock(out, "--out", "sampler.json")
    begin(out, about)
    return lock

  unit = CHUNK if args.format == "png" else SHARD
  lock = processes.together(prepare)
  # All have read the manifest before the first adds to it.
  left = processes.together(lambda: missing(out, args.count, unit))
  mine = left[number::of]

  def record(i: int) -> dict:
    label = int(labels[i]) if conditional else None
    name = None if label is None else classes[label]
    return facts | {"index": i, "label": label, "class": name}

  write = write_pngs if args.format == "png" else write_shard
  draw = lambda starts: images(
    config, classes, state, args.seed, labels, starts, batch
  )
  encode = lambda item: png(item[1], record(item[0]))
  total = sum(map(len, mine))
  shown = contextlib.nullcontext(lambda: None)
  if not number:
    shown = work.shown("sampling", total)
  name = f"manifest-{number}.jsonl" if number else "manifest.jsonl"
  with (
    work.threads() as pool,
    shown as advance,
    open(out / name, "a") as manifest,
  ):
    drawn = made(itertools.chain.from_iterable(mine), batch, draw)
    encoded = work.in_order(pool, encode, drawn)
    for indices in mine:
      chunk = []
      for data in itertools.islice(encoded, len(indices)):
        chunk.append(data)
        advance()
      places = write(out, indices[0], chunk)
      for i, place in zip(indices, places, strict=True):
        manifest.write(json.dumps(place | record(i)) + "\n")
      manifest.flush()
      os.fsync(manifest.fileno())
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

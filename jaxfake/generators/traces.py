"""Fakes that show what real pictures show: repetitions by many small networks.

Each real picture is passed through small networks, taken early and late in
their training: autoencoders of every way to enlarge maps, of several depths,
bottlenecks and losses (trace_autoencoders), denoisers in a few steps, as the
last of a diffusion model's (trace_diffusion), and enlargement that is simulated
(trace_upsampling). Real and fake then differ in what a generator leaves and in
nothing else, so that a detector cannot learn a hospital or a finding instead
(aligned pairs: Rajan et al., 2024, arXiv:2410.11835; Guillaro et al., 2024,
arXiv:2412.17671).

The run's folder is a folder of data.name=many_sources: real/SOURCE/ holds the
pieces that were repeated, fake/trace_KIND/ their repetitions, sources.csv whose
they are. Networks learn from train patients, perhaps of some sources only. A
few repeat validation and test patients, the others train patients. Networks
that are finished are not trained again.
"""

from collections.abc import Callable, Sequence
import csv
import pathlib
import time
import types

import numpy as np
from PIL import Image

from jaxfake import contracts, errors
from jaxfake.data import crops, folders, generated_writer
from jaxfake.generators import (
  trace_autoencoders,
  trace_diffusion,
  trace_upsampling,
)
from jaxfake.generators.trace_pieces import SIDES, Piece
from jaxfake.models.trace_autoencoder import UPSAMPLINGS
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

CONFIG = "traces.py"
NOT_AUTOENCODERS = {
  "diffusion": trace_diffusion,
  "simulated": trace_upsampling,
}
KINDS = (*UPSAMPLINGS, *NOT_AUTOENCODERS)
FIELDS = "file", "patient", "licence", "original"


def maker(kind: str) -> types.ModuleType:
  """The module that trains networks of a kind and repeats pictures by them."""
  return NOT_AUTOENCODERS.get(kind, trace_autoencoders)


def specs(count: int, seed: int) -> list:
  """`count` networks, each kind in turn, the rest drawn."""
  kinds = [KINDS[i % len(KINDS)] for i in range(count)]
  return [
    maker(kind).spec(kind, np.random.default_rng((seed, i)))
    for i, kind in enumerate(kinds)
  ]


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  for field, least in (
    ("networks", 1),
    ("steps", 2),
    ("batch_size", 1),
    ("pictures", 1),
    ("repetitions", 1),
    ("validation", 2),
  ):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )
  if not 16 <= config.crop <= SIDES[0] or config.crop % 8:
    raise errors.ConfigError(
      f"crop is {config.crop}: expected a multiple of 8 from 16 to {SIDES[0]}"
    )
  if config.seed not in range(2**32):
    raise errors.ConfigError(f"seed is {config.seed}: expected 0 to 2**32 - 1")


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Trains what is left, repeats pictures, writes the folder; returns 0."""
  del train  # These networks are no runs of their own.
  check(config)
  with workdir.begun(config, path) as (folder, dataset):
    return _run(config, path, folder, dataset)


def _run(config, path, folder, dataset) -> int:
  pieces = {
    split: pieces_of(config, dataset, split, path)
    for split in folders.SPLITS
    if split in dataset.facts["counts"]
  }
  names = [name for name in config.learn_from.split(",") if name]
  learnt = [x for x in pieces["train"] if not names or x.source in names]
  if not learnt:
    raise errors.ConfigError(
      f"learn_from is {config.learn_from!r}: expected some of"
      f" {', '.join(sorted({x.source for x in pieces['train']}))}"
    )
  wanted = specs(config.networks, config.seed)
  begin = time.monotonic()
  for i, spec in enumerate(wanted):
    done = path / "networks" / f"{i:03}.json"
    if done.exists():
      progress.say(f"[{i + 1} of {len(wanted)}] {spec.kind}: done before")
      continue
    repeated = pieces["train"]
    if (i + 1) % config.validation == 0:
      repeated = [x for split in ("val", "test") for x in pieces.get(split, [])]
    facts = one(config, i, spec, learnt, repeated, path)
    done.parent.mkdir(exist_ok=True)
    disk.write_json(done, facts)
    error = ", ".join(f"{x:.1f}" for x in facts["error"])
    progress.say(
      f"[{i + 1} of {len(wanted)}] {spec.kind}: {facts['seconds']:.0f} s,"
      f" mean error {error} gray levels"
    )
  rows = [
    dict(zip(FIELDS, (x.file, x.patient, x.licence, ""), strict=True))
    for those in pieces.values()
    for x in those
  ]
  networks = [
    disk.read_json(p) for p in sorted((path / "networks").glob("*.json"))
  ]
  rows += [row for facts in networks for row in facts["rows"]]
  write_table(path / "sources.csv", rows)
  fakes = len(rows) - sum(map(len, pieces.values()))
  counts = {"reals": len(rows) - fakes, "fakes": fakes}
  folder.finish(config.networks, {"pictures": counts}, {})
  progress.say(
    f"{fakes:,} repetitions of {counts['reals']:,} pieces by {len(networks)}"
    f" networks in {path}, {progress.duration(time.monotonic() - begin)}\n"
    "As a data set:"
    f" --config.data.name=many_sources --config.data.dir={path}"
  )
  return 0


def write_table(path: pathlib.Path, rows: list[dict]) -> None:
  part = path.with_name(path.name + ".part")
  with open(part, "w", newline="") as file:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
  part.replace(path)


def pieces_of(
  config: contracts.Config,
  dataset: contracts.Dataset,
  split: str,
  path: pathlib.Path,
) -> list[Piece]:
  """Real pieces of a split, at most `pictures` a source, written as PNG."""
  source = dataset.source(split)
  many = dataset.name == "many_sources"
  column = lambda name, other: (
    source.column(name) if many else [other] * len(source)
  )
  names, licences = column("source", dataset.name), column("licence", "")
  labels = source.column("label") if many else [0] * len(source)
  patients, places = source.column("patient"), {}
  for i, name in enumerate(names):
    if not labels[i]:
      places.setdefault(name, []).append(i)
  pieces = []
  for name, indices in sorted(places.items()):
    n = min(config.pictures, len(indices))
    for i in (indices[k * len(indices) // n] for k in range(n)):
      rng = np.random.default_rng((config.seed, i))
      image = crops.real_size(source[i]["image"][..., 0], rng)
      if min(image.shape) < SIDES[0]:
        continue
      file = f"real/{name}/{split}_{i:06}.png"
      piece = Piece(square(image, rng), name, patients[i], licences[i], file)
      if not (path / file).exists():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(piece.image).save(path / file)
      pieces.append(piece)
  if not pieces:
    raise errors.DataError(
      f"{dataset.name}: no real {split} picture of {SIDES[0]} px or more"
    )
  return pieces


def square(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The largest of SIDES that fits, anywhere in uint8 (h, w)."""
  side = max(s for s in SIDES if s <= min(image.shape))
  top = rng.integers(image.shape[0] - side + 1)
  left = rng.integers(image.shape[1] - side + 1)
  return np.ascontiguousarray(image[top : top + side, left : left + side])


def one(
  config: contracts.Config,
  i: int,
  spec: trace_autoencoders.Spec | trace_diffusion.Spec | trace_upsampling.Spec,
  learnt: Sequence[Piece],
  repeated: Sequence[Piece],
  path: pathlib.Path,
) -> dict:
  """Trains network i and writes its repetitions; returns facts with rows."""
  begin = time.monotonic()
  stages, error = maker(spec.kind).train(config, i, spec, learnt)
  rng = np.random.default_rng((config.seed, i, 2))
  n = min(config.repetitions, len(repeated))
  which = rng.choice(len(repeated), n, replace=False) if n else []
  rows = []
  facts = {"model": "trace_autoencoder", "seed": config.seed, "network": i}
  for stage, params in enumerate(stages):
    mine = [repeated[j] for j in which[stage :: len(stages)]]
    for piece, image in zip(
      mine, maker(spec.kind).repeat(spec, params, mine), strict=True
    ):
      name = pathlib.Path(piece.file).stem
      file = f"fake/trace_{spec.kind}/{i:03}_{stage}_{piece.source}_{name}.png"
      (path / file).parent.mkdir(parents=True, exist_ok=True)
      data = generated_writer.png(image[..., None], facts | {"stage": stage})
      (path / file).write_bytes(data)
      values = file, piece.patient, piece.licence, piece.file
      rows.append(dict(zip(FIELDS, values, strict=True)))
  seconds = time.monotonic() - begin
  return {
    "spec": spec._asdict(),
    "error": error,
    "seconds": seconds,
    "rows": rows,
  }

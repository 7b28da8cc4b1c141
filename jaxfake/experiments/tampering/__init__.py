"""How well altered regions are found: by their noise, without learning, by a
network that learnt from originals alone, and by networks that learnt from
masks, of this method or only of the others.

Each of the test originals is altered by every method in turn, at one of
several sizes, with and without noise touched up, and delivered in several ways.
A map of missing noise (classifiers/inconsistency) then says where, and so do
maps of a reconstruction (classifiers/reconstruction) and of localizers
(classifiers/localizer). Beside them stand the originals
themselves, scored as if they were altered at the same places: lungs have more
detail than the rest of a picture, so chance is not an AUC of .5.

report.html, report.md, pictures/   to read
cells.csv                           every picture's figures
result.json                         all figures, and the audit for leaks
runs/                               reconstruction, and the localizers; half-0
                                    and half-1 learnt of others' pictures
                                    (centres)
rows.jsonl                          what is done so far: not done again by the
                                    same command after an interruption
"""

from collections.abc import Callable
import json
import pathlib

import numpy as np

from jaxfake import contracts, errors
from jaxfake.data import deliveries, pipeline, sources, tampered, work
from jaxfake.experiments.tampering import (
  centres,
  figures,
  halves,
  maps,
  report,
)
from jaxfake.experiments.tampering.ways import names, place, ways
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

CONFIG = "tampering.py"


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values that no measurement could use."""
  tampered.check(config.data.tampered)
  for name in names(config):
    errors.check_choice("deliveries", name, deliveries.DELIVERIES)
  if not names(config) or not config.sizes_mm or min(config.sizes_mm) <= 0:
    raise errors.ConfigError(
      f"deliveries is {config.deliveries!r}, sizes_mm {config.sizes_mm}:"
      " expected one at least, and millimetres"
    )
  for field, least in (("most", 2), ("most_val", 1), ("block", 3)):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )
  if config.data.name != "tampered" or not config.data.tampered.binary:
    raise errors.ConfigError(
      f"data.name is {config.data.name!r}: expected tampered, with"
      " data.tampered.binary"
    )
  tampered.check_pairs(
    config.data.tampered, "for test pictures are altered whole, in every way"
  )
  maps.check(config)
  centres.check(config)
  halves.check(config)


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Does all of it and writes the report; returns an exit code."""
  check(config)
  pipeline.check(config.data)
  with workdir.begun(config, path) as (folder, dataset):
    originals = tampered.originals(config.data)
    parts = {
      "val": sources.spread(originals.source("val"), config.most_val),
      "test": sources.spread(originals.source("test"), config.most),
    }
    if len(whose := set(parts["test"].column("patient"))) < 2:
      raise errors.DataError(
        f"test has {len(whose)} patients: expected at least 2; give more"
        " originals"
      )
    if code := maps.train(config, path, train):
      return code
    if code := halves.train(config, path):
      return code
    plain, trained = (
      maps.without_masks(config, path),
      maps.trained(config, path),
    )
    # Localizers have settled their thresholds on validation themselves.
    shown = {"val": plain, "test": [*plain, *trained]}
    rows = scored(config, parts, shown, path / "rows.jsonl")
    outcome = figures.figures(config, rows)
    outcome["audit"] = figures.audit(config, dataset)
    all_ways = report.drawable(shown["test"])
    halved = halves.trained(config, path)
    outcome["centres"] = centres.measured(
      config, lambda patient: [*all_ways, *halved(patient)]
    )
    disk.write_csv(path / "cells.csv", [flat(row) for row in rows])
    folder.finish(0, outcome, {})
    result = disk.read_json(path / "result.json")
    text = report.write(config, path, parts["test"], result, shown["test"])
    progress.say(text)
  return 0


def flat(row: dict) -> dict:
  return {k: v for k, v in row.items() if k != "iou"}


def scored(
  config: contracts.Config, parts: dict, shown: dict, path: pathlib.Path
) -> list[dict]:
  """A row for each original, way, delivery and map that is `shown` the split;
  those done are kept in `path`, a line an original."""
  done = {(x["split"], x["at"]): x["rows"] for x in disk.read_lines(path)}
  text = "".join(
    json.dumps({"split": split, "at": at, "rows": rows}) + "\n"
    for (split, at), rows in done.items()
  )
  path.write_text(text)  # Without a line that a kill left half written.
  with (
    open(path, "a") as file,
    work.shown("originals", sum(map(len, parts.values()))) as advance,
  ):
    for split, source in parts.items():
      for at in range(len(source)):
        if (split, at) not in done:
          rows = of_original(config, source, at, split, shown[split])
          line = {"split": split, "at": at, "rows": rows}
          file.write(json.dumps(line) + "\n")
          file.flush()
          done[split, at] = rows
        advance()
  return [row for split in parts for row in rows_of(done, split)]


def rows_of(done: dict, split: str) -> list[dict]:
  return [row for key in sorted(done) if key[0] == split for row in done[key]]


def of_original(
  config: contracts.Config,
  source: contracts.Items,
  at: int,
  split: str,
  shown: list,
) -> list[dict]:
  """The rows of one original, by some maps."""
  item, here, rows = source[at], place(config, source, at), []
  for way in ways(config):
    pixels, mask = here.altered(way)
    # What is touched up takes the first delivery alone.
    for name in names(config)[: 1 if way.touch_up else None]:
      seen = deliveries.DELIVERIES[name](pixels)
      if (where := fitted(name, mask, seen.shape)) is None:
        continue
      about = {
        "split": split,
        "id": item["id"],
        "patient": item["patient"],
        "way": str(way),
        "delivery": name,
        "mm": here.mm,
      }
      rows += [about | x.measured(seen, where) for x in shown if x.sees(way)]
  return rows


def fitted(
  name: str, mask: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray | None:
  """A mask as its delivered picture has it; None where nothing is left."""
  gray = np.where(mask, 255, 0).astype(np.uint8)
  if mask.shape != shape:
    moved = deliveries.DELIVERIES[name](gray)
    mask = moved > 127
  return mask if mask.any() and not mask.all() else None

"""How well altered regions are found by their noise, without learning.

Each of the test originals is altered by every method in turn, at one of
several sizes, with and without noise touched up, and delivered in several ways.
A map of missing noise (classifiers/inconsistency) then says where. Beside them
stand the originals themselves, scored as if they were altered at the same
places: lungs have more detail than the rest of a picture, so chance is not an
AUC of .5.

report.html, report.md, pictures/   to read
cells.csv                           every picture's figures
result.json                         all figures, and the audit for leaks
rows.jsonl                          what is done so far: not done again by the
                                    same command after an interruption
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from jaxfake import data as datasets
from jaxfake import errors
from jaxfake.classifiers import inconsistency, overlay
from jaxfake.data import deliveries, pipeline, reading, sources, tampered, work
from jaxfake.data import patients as whose
from jaxfake.data.tampered import places, region, scene
from jaxfake.evaluation import metrics, pictures, report
from jaxfake.experiments.study import leaks
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

CONFIG = "tampering.py"
NONE = "untampered"
THRESHOLDS = np.arange(0, 10, 0.25)  # Of evidence.
RESAMPLES = 1000


class Way(NamedTuple):
  """How a region is altered: kind "" leaves it as it is."""

  kind: str
  method: str
  touch_up: bool

  def __str__(self) -> str:
    if not self.kind:
      return NONE
    return f"{self.kind} {self.method}" + ", touched up" * self.touch_up


def check(config) -> None:
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


def names(config) -> list[str]:
  return [x.strip() for x in config.deliveries.split(",") if x.strip()]


def ways(config) -> list[Way]:
  """All ways to alter a region, the first to leave it as it is."""
  every = [Way("", "none", False)]
  for touch_up in (False, True):
    for kind in tampered.KINDS:
      for method in tampered.names(config.data.tampered, kind):
        every.append(Way(kind, method, touch_up))
  return every


def run(config, path: pathlib.Path, train) -> int:
  """Does all of it and writes the report; returns 0."""
  del train  # Nothing is learnt.
  check(config)
  pipeline.check(config.data)
  folder = workdir.Workdir(path)
  folder.claim()
  try:
    dataset = datasets.prepare(config.data)
    progress.say(dataset.summary())
    folder.open(config.to_dict(), dataset.facts)
    folder.begin(0)
    originals = tampered.originals(config.data)
    parts = {
      "val": spread(originals.source("val"), config.most_val),
      "test": spread(originals.source("test"), config.most),
    }
    rows = scored(config, parts, path / "rows.jsonl")
    outcome = figures(config, rows)
    outcome["audit"] = audit(config, dataset)
    disk.write_csv(path / "cells.csv", [flat(row) for row in rows])
    folder.finish(0, outcome, {})
    result = disk.read_json(path / "result.json")
    progress.say(write(config, path, parts["test"], result))
  finally:
    folder.close()
  return 0


def spread(source, most: int) -> sources.Subset:
  """At most so many items, evenly over a source."""
  n = min(most, len(source))
  return sources.Subset(source, np.arange(n) * len(source) // n)


def flat(row: dict) -> dict:
  return {k: v for k, v in row.items() if k != "iou"}


def scored(config, parts: dict, path: pathlib.Path) -> list[dict]:
  """A row for each original, way and delivery; those done are kept in `path`,
  a line an original."""
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
          rows = of_original(config, source, at, split)
          line = {"split": split, "at": at, "rows": rows}
          file.write(json.dumps(line) + "\n")
          file.flush()
          done[split, at] = rows
        advance()
  return [row for split in parts for row in rows_of(done, split)]


def rows_of(done: dict, split: str) -> list[dict]:
  return [row for key in sorted(done) if key[0] == split for row in done[key]]


class Place(NamedTuple):
  """An original, and where it is altered, whichever way."""

  image: np.ndarray
  box: region.Box
  other: scene.Donor  # For splicing: of another patient.
  mm: float
  seed: tuple[int, ...]

  def altered(self, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """The picture, and where it is altered; untampered, where it would be."""
    kind, method = way[:2] if way.kind else ("remove", "harmonic")
    pixels, mask = scene.tampered(
      self.image,
      self.box,
      kind,
      method,
      self.seed,
      touch_up=way.touch_up,
      other=self.other,
    )
    return pixels if way.kind else self.image, mask


def place(config, source, at: int) -> Place:
  """Of an item of a source."""
  item = source[at]
  image = item["image"][..., 0]
  rng = np.random.default_rng((config.seed, at))
  mm = config.sizes_mm[at % len(config.sizes_mm)]
  box = places.in_lung(image, places.side(mm, image.shape), rng)
  patients = source.column("patient")
  others = [j for j, who in enumerate(patients) if who != item["patient"]]
  other = source[(others or [at])[rng.integers(max(len(others), 1))]]
  donor = scene.donor(other["image"][..., 0])
  return Place(image, box, donor, mm, (config.seed, at, 1))


def of_original(config, source, at: int, split: str) -> list[dict]:
  """The rows of one original."""
  item, here, rows = source[at], place(config, source, at), []
  for way in ways(config):
    pixels, mask = here.altered(way)
    # What is touched up takes the first delivery alone.
    for name in names(config)[: 1 if way.touch_up else None]:
      seen = deliveries.DELIVERIES[name](pixels)
      if (where := fitted(name, mask, seen.shape)) is None:
        continue
      rows.append(
        {
          "split": split,
          "id": item["id"],
          "patient": item["patient"],
          "way": str(way),
          "delivery": name,
          "mm": here.mm,
        }
        | measured(inconsistency.evidence(seen, config.block), where)
      )
  return rows


def fitted(name: str, mask: np.ndarray, shape) -> np.ndarray | None:
  """A mask as its delivered picture has it; None where nothing is left."""
  gray = np.where(mask, 255, 0).astype(np.uint8)
  if mask.shape != shape:
    moved = deliveries.DELIVERIES[name](gray)
    mask = moved > 127
  return mask if mask.any() and not mask.all() else None


def measured(evidence: np.ndarray, mask: np.ndarray) -> dict:
  """AUC of pixels, IoU at each of THRESHOLDS, whether the peak lies in the
  mask, what share of the picture that is, and the peak's evidence."""
  flat, inside = evidence.ravel(), mask.ravel()
  ordered, own = np.sort(flat), flat[inside]
  n = len(own)
  # Mann and Whitney's U, ties counting half; those inside beat n / 2 of theirs.
  below, upto = (ordered.searchsorted(own, side) for side in ("left", "right"))
  auc = ((below + upto).mean() / 2 - n / 2) / (flat.size - n)
  steps = np.floor(flat / THRESHOLDS[1]).clip(-1, len(THRESHOLDS) - 1)
  bins = steps.astype(np.int64) + 1
  count = lambda which: np.bincount(bins[which], minlength=len(THRESHOLDS) + 1)
  # Pixels at or above each threshold.
  hit, miss = (
    count(which)[::-1].cumsum()[::-1][1:] for which in (inside, ~inside)
  )
  peak = int(flat.argmax())
  return {
    "auc": float(auc),
    "iou": (hit / (n + miss)).round(5).tolist(),
    "hit": float(inside[peak]),
    "share": n / flat.size,
    "peak": float(flat[peak]),
  }


def figures(config, rows: list[dict]) -> dict:
  """The threshold of validation, and figures of test by way and delivery, by
  way and size."""
  first = names(config)[0]
  known = [
    x
    for x in rows
    if x["split"] == "val" and x["delivery"] == first and x["way"] != NONE
  ]
  chosen = int(np.mean([x["iou"] for x in known], 0).argmax())
  test = [x for x in rows if x["split"] == "test"]
  plain = [x for x in test if x["way"] == NONE]
  outcome = {"threshold": float(THRESHOLDS[chosen]), "ways": [], "sizes": []}
  for way in map(str, ways(config)):
    for name in names(config):
      those = of(test, way=way, delivery=name)
      if those:
        row = {"way": way, "delivery": name}
        reals = of(plain, delivery=name)
        outcome["ways"].append(row | summary(those, chosen, reals))
    for mm in config.sizes_mm:
      those = of(test, way=way, delivery=first, mm=mm)
      if those:
        reals = of(plain, delivery=first, mm=mm)
        row = {"way": way, "mm": mm}
        outcome["sizes"].append(row | summary(those, chosen, reals))
  return outcome


def of(rows: list[dict], **values) -> list[dict]:
  """The rows that have some values."""
  return [x for x in rows if all(x[k] == v for k, v in values.items())]


def summary(rows: list[dict], chosen: int, reals: list[dict]) -> dict:
  """Means over pictures with 95 % intervals over patients, and the AUC of
  pictures against the untampered ones by their peak."""
  patients = np.array([x["patient"] for x in rows])
  means = {
    "pictures": len(rows),
    "patients": len(set(patients)),
    "pixel_auc": interval([x["auc"] for x in rows], patients),
    "iou": interval([x["iou"][chosen] for x in rows], patients),
    "hit": interval([x["hit"] for x in rows], patients, share=True),
    "chance": float(np.mean([x["share"] for x in rows])),
  }
  if rows[0]["way"] == NONE or len(set(patients)) < 2:
    return means | {"picture_auc": None}
  both = [*reals, *rows]
  labels = np.arange(len(both)) >= len(reals)
  peak = np.array([x["peak"] for x in both])
  auc = metrics.figures(
    labels.astype(int),
    ranked(peak),
    [x["patient"] for x in both],
    classes=("untampered", "tampered"),
    resamples=200,
  )["auc"]
  return means | {"picture_auc": {k: auc[k] for k in ("value", "low", "high")}}


def ranked(score: np.ndarray) -> np.ndarray:
  """Probabilities (n, 2) in the order of a score; equal ones stay equal."""
  p = np.unique(score, return_inverse=True)[1] + 1
  p = p / (p.max() + 1)
  return np.stack([1 - p, p], 1)


def interval(values, patients: np.ndarray, share: bool = False) -> dict:
  """Mean over pictures, and 95 % of the means of patients drawn again; of a
  share of 0 or 1, of which draws know nothing, Clopper and Pearson's interval
  over patients."""
  values = np.asarray(values, float)
  _, index = np.unique(patients, return_inverse=True)
  n = index.max() + 1
  total, count = (np.bincount(index, w, n) for w in (values, values * 0 + 1))
  draws = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
  means = total[draws].sum(1) / count[draws].sum(1)
  low, high = np.percentile(means, [2.5, 97.5])
  value = float(values.mean())
  if share and value in (0.0, 1.0):
    low, high = metrics.clopper_pearson(value * n, n)
  return {"value": value, "low": float(low), "high": float(high)}


def audit(config, dataset) -> dict:
  """leaks.audit of some pairs: what tells them apart without the region."""
  parts, each = [], 2
  for split in ("train", "test"):
    source = dataset.source(split)
    n = min(config.audited, len(source) // each)
    firsts = np.arange(n) * (len(source) // each) // n * each
    some = sources.Subset(source, np.stack([firsts, firsts + 1], 1).ravel())
    read = pipeline.arrays(pipeline.Images(some, config.data))
    parts.append((read["image"], read["label"], some.column("patient")))
  images, labels, _ = parts[1]
  files = [
    [reading.png(x[..., 0]) for x in images[labels == c]] for c in (0, 1)
  ]
  return leaks.audit(files, *parts)


def write(config, path: pathlib.Path, source, result: dict) -> str:
  """Writes report.html, report.md and pictures/; returns the gist as text."""
  first = names(config)[0]
  as_it_is = of(result["ways"], delivery=first)
  gist = [methods_row(row) for row in as_it_is]
  shown = examples(config, path / "pictures", source, result["threshold"])
  dataset = result["dataset"]
  untampered = as_it_is[0]
  about = (
    f"{dataset['originals']['name']}, {dataset['split']} split:"
    f" {untampered['pictures']} test originals of {untampered['patients']}"
    " patients, each altered in every way at one place in the lungs, "
    + " or ".join(f"{mm:g}" for mm in config.sizes_mm)
    + " mm wide in turn where the picture's shorter side counts as"
    f" {scene.FIELD_CM} cm. {whose.overlap(dataset)}."
  )
  reading_it = (
    "AUC of pixels: inside the mask against outside, within a picture; mean"
    f" over pictures. IoU: of the map above {result['threshold']:g}, which"
    " validation chose by the mean IoU of all ways. Peak in mask: of the map's"
    " maximum; chance is the mask's share of the picture. AUC of pictures: by"
    " the peak, against the untampered ones. Intervals are 95 %, over patients."
    f" The row {NONE} has the same masks laid over pictures in which nothing"
    " was altered: what a method adds is its difference to that row."
  )
  leaking = "; ".join(result["audit"]["leaks"]) or "no leak was found"
  parts = [
    about,
    reading_it,
    report.Heading("By method, as it is"),
    gist,
    report.Heading("By size, as it is"),
    grid(result["sizes"], "mm", " mm"),
    report.Heading("By delivery"),
    grid(result["ways"], "delivery"),
    report.Heading("What it looks like"),
    "From the left: original, altered, outline of the mask, map: red where it"
    " is above the threshold.",
    *shown,
    report.Heading("The audit for leaks"),
    "What could tell the two classes of data.name=tampered apart without"
    f" looking at the region: {leaking}.",
    report.Heading("Where this comes from"),
    report.origin([result]) + ".",
  ]
  title = "Altered regions, found by their noise"
  (path / "report.html").write_text(report.page(title, parts))
  (path / "report.md").write_text(report.markdown_page(title, parts, path))
  text = report.markdown(gist)
  return f"\n{text}\n  {path}/report.html, {path}/result.json"


def said(figure: dict | None, digits: int = 2) -> str:
  if figure is None:
    return "-"
  value, low, high = (
    f"{figure[k]:.{digits}f}".lstrip("0") or "0"
    for k in ("value", "low", "high")
  )
  return f"{value} ({low} to {high})"


def percent(figure: dict) -> str:
  value, low, high = (100 * figure[k] for k in ("value", "low", "high"))
  return f"{value:.0f}% ({low:.0f} to {high:.0f})"


def methods_row(row: dict) -> dict[str, str]:
  """A way's row of the page."""
  return {
    "way": row["way"],
    "AUC of pixels": said(row["pixel_auc"]),
    "IoU": said(row["iou"]),
    "peak in mask": percent(row["hit"]),
    "chance": f"{row['chance']:.1%}",
    "AUC of pictures": said(row["picture_auc"]),
  }


def grid(rows: list[dict], by: str, unit: str = "") -> list[dict[str, str]]:
  """AUC of pixels, and how often the peak lies in the mask, of each way by
  another of the rows' values."""
  columns = list(dict.fromkeys(row[by] for row in rows))
  table = []
  for way in dict.fromkeys(row["way"] for row in rows):
    cells = {"way": way}
    for value in columns:
      cell = of(rows, way=way) and of(rows, **{"way": way, by: value})
      name = f"{value:g}{unit}" if unit else str(value)
      text = "-"
      if cell:
        (row,) = cell
        text = f"{said(row['pixel_auc'])}; {100 * row['hit']['value']:.0f}%"
      cells[f"{name}: AUC; peak"] = text
    table.append(cells)
  return table


def examples(config, folder: pathlib.Path, source, threshold: float) -> list:
  """A picture for each way, of one original after the other."""
  parts = []
  for k, way in enumerate(ways(config)[1:]):
    at = k * len(source) // len(ways(config))
    here = place(config, source, at)
    changed, mask = here.altered(way)
    heatmap = inconsistency.evidence(changed, config.block)
    seen = overlay.overlay(changed, heatmap / max(threshold, 0.25))
    rim = mask ^ ndimage.binary_dilation(mask)
    outlined = coloured(changed)
    outlined[rim] = 255, 220, 60
    strip = [coloured(here.image), coloured(changed), outlined, seen]
    picture = np.concatenate([zoomed(x, mask) for x in strip], 1)
    name = f"{way}, {here.mm:g} mm".replace(",", "").replace(" ", "-")
    file = folder / f"{name}.png"
    text = {"Comment": "Contains synthetic images made by jaxfake"}
    pictures.save(file, picture, text)
    parts += [f"{way}, {here.mm:g} mm:", file]
  return parts


def coloured(gray: np.ndarray) -> np.ndarray:
  return np.repeat(gray[..., None], 3, 2)


def zoomed(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """A square about a mask, 280 px a side."""
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  side = max(3 * len(rows), 3 * len(columns), min(mask.shape) // 2)
  side = min(side, *mask.shape)
  corner = [
    int(np.clip((x[0] + x[-1] - side) // 2, 0, n - side))
    for x, n in zip((rows, columns), mask.shape, strict=True)
  ]
  part = picture[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
  image = Image.fromarray(np.ascontiguousarray(part))
  return np.asarray(image.resize((280, 280), Image.Resampling.BICUBIC))

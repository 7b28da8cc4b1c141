"""The page: report.html, report.md and pictures/."""

import pathlib

import numpy as np

from jaxfake import contracts
from jaxfake.classifiers import overlay
from jaxfake.data import patients as whose
from jaxfake.data.tampered import scene
from jaxfake.evaluation import localization, pictures, report
from jaxfake.evaluation.localization import of
from jaxfake.experiments.tampering import centres, maps
from jaxfake.experiments.tampering.maps import Map
from jaxfake.experiments.tampering.ways import NONE, names, place, ways

WHAT = {
  maps.NOISE: (
    "where noise is lacking by the picture's own rule; nothing is learnt"
  ),
  maps.RECONSTRUCTION: (
    "where a picture is unlike what a network that learnt from originals alone"
    " says of it by its surroundings"
  ),
  maps.TRAINED: "of a localizer that learnt every method",
  maps.LEFT_OUT: "of a localizer that learnt every method but this",
}


def write(
  config: contracts.Config,
  path: pathlib.Path,
  source: contracts.Items,
  result: dict,
  shown: list[Map],
) -> str:
  """Writes report.html, report.md and pictures/; returns the gist as text."""
  first = names(config)[0]
  as_it_is = of(result["ways"], delivery=first)
  gist = grid(as_it_is, "map")
  strips = examples(config, path / "pictures", source, result, shown)
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
  named = dict.fromkeys(row["map"] for row in as_it_is)
  the_maps = " ".join(f"{name}: {WHAT[name]}." for name in named)
  settled = ", ".join(f"{k} {x:g}" for k, x in result["thresholds"].items())
  reading_it = (
    "AUC of pixels: inside the mask against outside, within a picture; mean"
    " over pictures. IoU: of the map above a threshold that validation chose by"
    f" the mean IoU of the ways that the map knows ({settled}). Peak in"
    " mask: of the map's maximum; chance is the mask's share of the picture."
    " AUC of pictures: against the untampered ones, by the peak of"
    f" {maps.NOISE} and the mean of the highest"
    f" {localization.TOP:.1%} of the others. Intervals are 95 %, over patients."
    f" The row {NONE} has the same masks laid over pictures in which nothing"
    " was altered: what a method adds is its difference to that row."
  )
  leaking = "; ".join(result["audit"]["leaks"]) or "no leak was found"
  parts = [
    about,
    the_maps,
    reading_it,
    report.Heading("By method, as it is"),
    gist,
  ]
  for name in named:
    own = of(as_it_is, map=name)
    parts += [
      report.Heading(f"By method, as it is: {name}"),
      [localization.shown(row) for row in own],
      report.Heading(f"By size, as it is: {name}"),
      grid(of(result["sizes"], map=name), "mm", " mm"),
      report.Heading(f"By delivery: {name}"),
      grid(of(result["ways"], map=name), "delivery"),
    ]
  if result["centres"]:
    parts += [
      report.Heading("Others' altered pictures, of which the middle is known"),
      f"{config.centres}. Peak near: the map's maximum is at most"
      f" {config.centres_px:g} pixels from the middle of what was altered;"
      " chance, a place drawn anywhere in the picture is. AUC of pixels: of"
      " those so near to a middle against the others, within a picture. Above"
      " its mirror image: how often the map's mean there is higher than at the"
      " same place of the picture mirrored left to right; 50 % by chance."
      f" {maps.HALF}: of two localizers that learnt half of these patients each"
      " and were shown the other half. No other map learnt of these pictures.",
      centres.table(result["centres"]),
    ]
  parts += [
    report.Heading("What it looks like"),
    "From the left: original, altered, outline of the mask, map of"
    f" {', '.join(drawn.name for drawn in drawable(shown))}: red where it is"
    " above the threshold.",
    *strips,
    report.Heading("The audit for leaks"),
    "What could tell the two classes of data.name=tampered apart without"
    f" looking at the region: {leaking}.",
    report.Heading("Where this comes from"),
    report.origin([result]) + ".",
  ]
  title = "Altered regions found"
  (path / "report.html").write_text(report.page(title, parts))
  (path / "report.md").write_text(report.markdown_page(title, parts, path))
  text = report.markdown(gist)
  return f"\n{text}\n  {path}/report.html, {path}/result.json"


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
        auc = localization.said(row["pixel_auc"])
        text = f"{auc}; {100 * row['hit']['value']:.0f}%"
      cells[f"{name}: AUC; peak"] = text
    table.append(cells)
  return table


def drawable(shown: list[Map]) -> list[Map]:
  """The maps that know every way."""
  return [x for x in shown if x.name != maps.LEFT_OUT]


def examples(
  config: contracts.Config,
  folder: pathlib.Path,
  source: contracts.Items,
  result: dict,
  shown: list[Map],
) -> list:
  """A picture for each way, of one original after the other."""
  parts = []
  for k, way in enumerate(ways(config)[1:]):
    at = k * len(source) // len(ways(config))
    here = place(config, source, at)
    changed, mask = here.altered(way)
    strip = [overlay.coloured(here.image), overlay.coloured(changed)]
    strip.append(overlay.outlined(changed, mask))
    for drawn in drawable(shown):
      heatmap = drawn.of(changed)
      if drawn.name in result["thresholds"]:
        heatmap = heatmap / max(result["thresholds"][drawn.name], 0.25)
      strip.append(overlay.overlay(changed, heatmap))
    picture = np.concatenate([overlay.zoomed(x, mask) for x in strip], 1)
    name = f"{way}, {here.mm:g} mm".replace(",", "").replace(" ", "-")
    file = folder / f"{name}.png"
    text = {"Comment": "Contains synthetic images made by jaxfake"}
    pictures.save(file, picture, text)
    parts += [f"{way}, {here.mm:g} mm:", file]
  return parts

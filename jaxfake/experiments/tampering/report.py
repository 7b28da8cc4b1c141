"""The page: report.html, report.md and pictures/."""

import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage

from jaxfake.classifiers import inconsistency, overlay
from jaxfake.data import patients as whose
from jaxfake.data.tampered import scene
from jaxfake.evaluation import pictures, report
from jaxfake.experiments.tampering.figures import of
from jaxfake.experiments.tampering.ways import NONE, names, place, ways


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

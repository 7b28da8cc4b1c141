"""Altered pictures of others, of which only the middle of what was altered is
known, as of CT scans with lesions put in or taken out (Mirsky et al., 2019,
arXiv:1901.03597): how often the peak of a map is near it, and how well the map
tells what is near it from the rest."""

from collections.abc import Callable
import pathlib

import numpy as np

from jaxfake import contracts, errors
from jaxfake.data import image_file, work
from jaxfake.evaluation import localization
from jaxfake.experiments.tampering import maps
from jaxfake.runtime import disk

TABLE = "labels.csv"
COLUMNS = "file", "type", "patient", "x", "y"


def read(folder: pathlib.Path) -> list[dict]:
  """The pictures of FOLDER/labels.csv, whose columns are `file`, `type`,
  `patient`, `x` and `y`: of each its name, types, patient and (n, 2) middles.

  Raises ConfigError where the table is missing, or is none.
  """
  path = folder / TABLE
  try:
    rows = disk.read_csv(path)
    found = {}
    for row in rows:
      found.setdefault(row["file"], []).append(row)
    middle = lambda row: (float(row["x"]), float(row["y"]))
    return [
      {
        "file": name,
        "type": "+".join(sorted({row["type"] for row in those})),
        "patient": those[0]["patient"],
        "middles": [middle(row) for row in those],
      }
      for name, those in found.items()
    ]
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise errors.ConfigError(
      f"centres: {path} is no table of {', '.join(COLUMNS)}: {error!r}"
    ) from error


def check(config: contracts.Config) -> None:
  """Raises ConfigError where `centres` names no such folder."""
  if config.centres_px <= 0:
    raise errors.ConfigError(
      f"centres_px is {config.centres_px}: expected above 0"
    )
  if config.centres:
    folder = pathlib.Path(config.centres)
    pictures = read(folder)
    missing = [x["file"] for x in pictures if not (folder / x["file"]).exists()]
    if missing or not pictures:
      raise errors.ConfigError(
        f"centres is {config.centres!r}: {TABLE} names {len(pictures)}"
        f" pictures, of which {len(missing)} are missing {missing[:3]}"
      )


def opened(folder: pathlib.Path, about: dict) -> np.ndarray:
  """The pixels of one of `read`'s pictures: uint8 (h, w).

  Raises ImageError, and DataError where a middle lies outside.
  """
  gray = image_file.read(folder / about["file"])
  height, width = gray.shape
  for x, y in about["middles"]:
    if not (0 <= x < width and 0 <= y < height):
      raise errors.DataError(
        f"{folder / TABLE} has a middle of {about['file']} at {x:g}, {y:g}:"
        f" expected one within its {width} x {height} pixels"
      )
  return gray


def measured(
  config: contracts.Config, shown: Callable[[str], list[maps.Map]]
) -> list[dict]:
  """A row for each type and each of the maps that a patient's pictures are
  `shown`: how often its peak is at most `centres_px` from a middle, and a place
  drawn anywhere in the picture would be; the AUC of the pixels so near to a
  middle; and how often its mean there is above that at the same place of the
  picture mirrored left to right. Intervals are over patients.

  Raises ImageError, DataError where a picture cannot be used.
  """
  if not config.centres:
    return []
  folder = pathlib.Path(config.centres)
  pictures, rows = read(folder), []
  with work.shown("pictures with centres", len(pictures)) as advance:
    for about in pictures:
      gray = opened(folder, about)
      near = disc(gray.shape, about["middles"], config.centres_px)
      for drawn in shown(about["patient"]):
        rows.append(about | {"map": drawn.name} | figures(drawn.of(gray), near))
      advance()
  return [
    summary(localization.of(rows, map=name, **of), name, kind)
    for name in dict.fromkeys(row["map"] for row in rows)
    for kind, of in kinds(rows)
  ]


def figures(evidence: np.ndarray, near: np.ndarray) -> dict:
  """Of a map (h, w), and what is near a middle."""
  there, mirrored = evidence[near].mean(), evidence[:, ::-1][near].mean()
  above = float((np.sign(there - mirrored) + 1) / 2)
  found = localization.measured(evidence, near, maps.AT_ONE)
  return {k: found[k] for k in ("hit", "share", "auc")} | {"above": above}


def kinds(rows: list[dict]) -> list[tuple[str, dict]]:
  names = sorted({row["type"] for row in rows})
  return [("all", {}), *((name, {"type": name}) for name in names)]


def disc(shape: tuple, middles: list, radius: float) -> np.ndarray:
  """Bool (h, w): what is near one of the middles (x, y)."""
  rows, columns = np.indices(shape)
  return np.any(
    [np.hypot(columns - x, rows - y) <= radius for x, y in middles], 0
  )


def summary(rows: list[dict], name: str, kind: str) -> dict:
  patients = np.array([row["patient"] for row in rows])
  of = lambda name, **how: localization.interval(
    [row[name] for row in rows], patients, **how
  )
  return {
    "map": name,
    "type": kind,
    "pictures": len(rows),
    "patients": len(set(patients)),
    "hit": of("hit", share=True),
    "auc": of("auc"),
    "above": of("above", share=True),
    "chance": float(np.mean([row["share"] for row in rows])),
  }


def table(rows: list[dict]) -> list[dict[str, str]]:
  """As people read it."""
  return [
    {
      "map": row["map"],
      "type": row["type"],
      "pictures": str(row["pictures"]),
      "patients": str(row["patients"]),
      "peak near": localization.percent(row["hit"]),
      "chance": f"{row['chance']:.1%}",
      "AUC of pixels": localization.said(row["auc"]),
      "above its mirror image": localization.percent(row["above"]),
    }
    for row in rows
  ]

"""What a prepared data set holds: near-duplicates, a text, and a picture."""

import collections
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from jaxfake import data
from jaxfake.data import duplicates, patients, work

_CELL, _COLUMNS, _CAPTION = 128, 8, 14  # Of a contact sheet; pixels.


@dataclasses.dataclass(frozen=True)
class Hashes:
  """Difference hashes of all images: bits bool (n, 256), and whose they are."""

  bits: np.ndarray
  splits: np.ndarray  # str (n,)
  ids: list[str]
  patients: list[str]


def hashes(dataset: data.Dataset) -> Hashes:
  """Returns the hashes of all splits."""
  bits, splits, ids, patients = [], [], [], []
  total = sum(sum(c.values()) for c in dataset.facts["counts"].values())
  with work.threads() as pool, work.shown("comparing", total) as advance:
    for split in dataset.facts["counts"]:
      source = dataset.source(split)

      def one(i, source=source):
        item = source[i]
        return (
          duplicates.dhash(item["image"][..., 0]),
          item["id"],
          item["patient"],
        )

      for bit, id, patient in work.in_order(pool, one, range(len(source))):
        bits.append(bit)
        splits.append(split)
        ids.append(id)
        patients.append(patient)
        advance()
  return Hashes(np.array(bits), np.array(splits), ids, patients)


def near_duplicates(h: Hashes, limit: int = duplicates.NEAR) -> dict:
  """Counts the pairs of images at most `limit` bits apart; lists some.

  Returns {"pairs", "pairs_across_splits", "pairs_of_different_patients",
  "listed"}. "listed" has at most 1,000 pairs, those across splits first, then
  the nearest: {"distance", "a", "b", "splits", "same_patient"}.
  """
  _, splits = np.unique(h.splits, return_inverse=True)
  _, whose = np.unique(h.patients, return_inverse=True)
  total = across = strangers = 0
  kept = []  # (within one split?, distance, a, b)
  for distance, a, b in duplicates.pairs(h.bits, limit):
    within = splits[a] == splits[b]
    total += len(a)
    across += int(np.sum(~within))
    strangers += int(np.sum(whose[a] != whose[b]))
    kept += zip(within, distance, a, b, strict=True)
    kept = sorted(kept)[:1000]
  listed = [
    {
      "distance": int(distance),
      "a": h.ids[a],
      "b": h.ids[b],
      "splits": f"{h.splits[a]}-{h.splits[b]}",
      "same_patient": bool(whose[a] == whose[b]),
    }
    for _, distance, a, b in kept
  ]
  return {
    "pairs": total,
    "pairs_across_splits": across,
    "pairs_of_different_patients": strangers,
    "listed": listed,
  }


def description(dataset: data.Dataset) -> dict:
  """Returns the data set's facts with its near-duplicates, JSON-able."""
  near = near_duplicates(hashes(dataset))
  near["hash"] = f"dHash 16x16, at most {duplicates.NEAR} of 256 bits apart"
  return {**dataset.facts, "litter": dataset.litter, "near_duplicates": near}


def text(facts: dict) -> str:
  """Returns `description`'s facts as a page to read."""
  names = list(collections.ChainMap(*facts["counts"].values()))
  names.sort(key=lambda n: (n not in facts["classes"], n))
  width = max(12, *map(len, names))
  lines = [
    f"{facts['name']}  split: {facts['split']}"
    f"  fingerprint: {facts['fingerprint']}",
    "",
    f"{'':8}" + "".join(f"{n:>{width + 2}}" for n in [*names, "patients"]),
  ]
  for split, counts in facts["counts"].items():
    row = [*(counts.get(n, 0) for n in names), facts["patients"][split]]
    lines.append(f"{split:8}" + "".join(f"{n:>{width + 2},}" for n in row))
    for name in facts["classes"]:
      if not counts[name]:
        lines.append(f"{'':8}note: no {name} in {split}")
  sizes = facts["image_sizes"]
  lines += [
    "",
    *_patients(facts),
    "width   min {} median {:g} max {}".format(*sizes["width"]),
    "height  min {} median {:g} max {}".format(*sizes["height"]),
    f"{sizes['distinct']} sizes; commonest: "
    + ", ".join(f"{w} x {h} ({n:,})" for h, w, n in sizes["commonest"]),
    f"files left out as unreadable: {facts['skipped']}",
    *(f"  {line}" for line in facts["skipped_files"]),
    f"system and hidden files passed over: {facts['litter']}",
  ]
  near = facts["near_duplicates"]
  lines += [
    f"near-duplicates ({near['hash']}): {near['pairs']} pairs,"
    f" {near['pairs_across_splits']} across splits,"
    f" {near['pairs_of_different_patients']} of different patients"
    + (" or ones not known" if patients.unknown(facts) else ""),
  ]
  # Worth a look: what splits or patients should have kept apart.
  odd = [
    p
    for p in near["listed"]
    if len(set(p["splits"].split("-"))) > 1 or not p["same_patient"]
  ]
  for pair in odd[:20]:
    lines.append(f"  {pair['distance']:3}  {pair['a']}  {pair['b']}")
  if len(odd) > 20:
    lines.append("  and so on (--json lists up to 1,000)")
  return "\n".join(lines)


def _patients(facts: dict) -> list[str]:
  """What is known of patients, and of those in two splits; "none" only where
  all are known."""
  shared = [f"{k} {n}" for k, n in facts["patient_overlap"].items() if n]
  by = [f"{how} {n:,}" for how, n in facts["patients_by"].items() if n]
  if note := patients.unknown(facts):
    among = f"{', '.join(shared)} of those known; " if shared else ""
    lines = [f"patients in two splits: {among}{note}"]
  else:
    lines = [f"patients in two splits: {', '.join(shared) or 'none'}"]
  if by:
    lines.append(f"images whose patient is known, by what: {', '.join(by)}")
  return lines + patients.kept(facts)


def contact_sheet(dataset: data.Dataset, split: str = "train") -> Image.Image:
  """Returns two rows of images of each class, evenly from the whole split."""
  source = dataset.source(split)
  where = collections.defaultdict(list)
  # Evenly spread candidates suffice; a large set is not read whole.
  step = max(1, len(source) // 1000)
  for i in range(0, len(source), step):
    where[source[i]["label"]].append(i)
  strip = _CAPTION + 2 * _CELL
  sheet = Image.new("L", (_COLUMNS * _CELL, strip * len(where)), 0)
  draw = ImageDraw.Draw(sheet)
  for row, (label, indices) in enumerate(sorted(where.items())):
    name = dataset.classes[label] if label >= 0 else "no class"
    draw.text((2, row * strip + 1), f"{dataset.name} {split}: {name}", fill=255)
    n = min(len(indices), 2 * _COLUMNS)
    for k in range(n):
      image = source[indices[math.floor(k * len(indices) / n)]]["image"]
      tile = Image.fromarray(image[..., 0])
      tile.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
      x = k % _COLUMNS * _CELL + (_CELL - tile.width) // 2
      y = row * strip + _CAPTION + k // _COLUMNS * _CELL
      sheet.paste(tile, (x, y + (_CELL - tile.height) // 2))
  return sheet

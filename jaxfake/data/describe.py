"""What a prepared data set holds: near-duplicates, a text, and a picture."""

import collections
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from jaxfake import data
from jaxfake.data import work

# Of 256 bits. Measured on the 5,840 pictures of chest_xray_224: 34 pairs at
# most 12 apart, all of them 0, then nothing below 13. The same pictures from
# chest_xray, other size, aspect and JPEG history: at most 12 in 547.
NEAR = 12
_CELL, _COLUMNS, _CAPTION = 128, 8, 14  # Of a contact sheet; pixels.


@dataclasses.dataclass(frozen=True)
class Hashes:
  """Difference hashes of all images: bits bool (n, 256), and whose they are."""

  bits: np.ndarray
  splits: np.ndarray  # str (n,)
  ids: list[str]
  patients: list[str]


def dhash(image: np.ndarray) -> np.ndarray:
  """uint8 (h, w) -> bool (256,): is each of 16 x 17 means above its left one?

  Survives another size, aspect, brightness or JPEG quality; not a crop of 2 %
  (median distance 21) or a mirror.
  """
  small = Image.fromarray(image).resize((17, 16), Image.Resampling.BOX)
  small = np.asarray(small)
  return (small[:, 1:] > small[:, :-1]).ravel()


def hashes(dataset: data.Dataset) -> Hashes:
  """Returns the hashes of all splits."""
  bits, splits, ids, patients = [], [], [], []
  total = sum(sum(c.values()) for c in dataset.facts["counts"].values())
  with work.threads() as pool, work.shown("comparing", total) as advance:
    for split in dataset.facts["counts"]:
      source = dataset.source(split)

      def one(i, source=source):
        item = source[i]
        return dhash(item["image"][..., 0]), item["id"], item["patient"]

      for bit, id, patient in work.in_order(pool, one, range(len(source))):
        bits.append(bit)
        splits.append(split)
        ids.append(id)
        patients.append(patient)
        advance()
  return Hashes(np.array(bits), np.array(splits), ids, patients)


def near_duplicates(h: Hashes, limit: int = NEAR) -> dict:
  """Counts the pairs of images at most `limit` bits apart; lists some.

  Returns {"pairs", "pairs_across_splits", "pairs_of_different_patients",
  "listed"}. "listed" has at most 1,000 pairs, those across splits first, then
  the nearest: {"distance", "a", "b", "splits", "same_patient"}.

  Distances are one matrix product: bits as +-1 have product 256 - 2 distance.
  """
  signs = np.where(h.bits, 1, -1).astype(np.float32)  # (n, 256)
  _, splits = np.unique(h.splits, return_inverse=True)
  _, patients = np.unique(h.patients, return_inverse=True)
  total = across = strangers = 0
  kept = []  # (within one split?, distance, a, b)
  for start in range(0, len(signs), 1024):
    apart = (256 - signs[start : start + 1024] @ signs[start:].T) / 2
    a, b = np.nonzero(np.triu(apart <= limit, k=1))
    distance, a, b = apart[a, b], a + start, b + start
    within = splits[a] == splits[b]
    total += len(a)
    across += int(np.sum(~within))
    strangers += int(np.sum(patients[a] != patients[b]))
    kept += zip(within, distance, a, b, strict=True)
    kept = sorted(kept)[:1000]
  listed = [
    {
      "distance": int(distance),
      "a": h.ids[a],
      "b": h.ids[b],
      "splits": f"{h.splits[a]}-{h.splits[b]}",
      "same_patient": bool(patients[a] == patients[b]),
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
  near["hash"] = f"dHash 16x16, at most {NEAR} of 256 bits apart"
  return {**dataset.facts, "near_duplicates": near}


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
  shared = [f"{k} {n}" for k, n in facts["patient_overlap"].items() if n]
  sizes = facts["image_sizes"]
  lines += [
    "",
    f"patients in two splits: {', '.join(shared) or 'none'}",
    "width   min {} median {:g} max {}".format(*sizes["width"]),
    "height  min {} median {:g} max {}".format(*sizes["height"]),
    f"{sizes['distinct']} sizes; commonest: "
    + ", ".join(f"{w} x {h} ({n:,})" for h, w, n in sizes["commonest"]),
    f"files left out as unreadable: {facts['skipped']}",
    *(f"  {line}" for line in facts["skipped_files"]),
  ]
  near = facts["near_duplicates"]
  lines += [
    f"near-duplicates ({near['hash']}): {near['pairs']} pairs,"
    f" {near['pairs_across_splits']} across splits,"
    f" {near['pairs_of_different_patients']} of different patients",
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

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


def near_duplicates(h: Hashes, limit: int = NEAR) -> list[dict]:
  """Returns the pairs of images at most `limit` bits apart, nearest first.

  Each pair is {"distance", "a", "b", "splits", "same_patient"}. Distances are
  one matrix product: bits as +-1 have product 256 - 2 x distance.
  """
  signs = np.where(h.bits, 1, -1).astype(np.float32)  # (n, 256)
  pairs = []
  for start in range(0, len(signs), 1024):
    far = (256 - signs[start : start + 1024] @ signs[start:].T) / 2
    for i, j in zip(*np.nonzero(far <= limit), strict=True):
      if i < j:
        a, b = start + i, start + j
        pairs.append(
          {
            "distance": int(far[i, j]),
            "a": h.ids[a],
            "b": h.ids[b],
            "splits": f"{h.splits[a]}-{h.splits[b]}",
            "same_patient": h.patients[a] == h.patients[b],
          }
        )
  return sorted(pairs, key=lambda p: p["distance"])


def description(dataset: data.Dataset) -> dict:
  """Returns the data set's facts with its near-duplicates, JSON-able."""
  pairs = near_duplicates(hashes(dataset))
  across = [p for p in pairs if len(set(p["splits"].split("-"))) > 1]
  return {
    **dataset.facts,
    "near_duplicates": {
      "hash": f"dHash 16x16, at most {NEAR} of 256 bits apart",
      "pairs": len(pairs),
      "pairs_of_different_patients": sum(not p["same_patient"] for p in pairs),
      "pairs_across_splits": len(across),
      "across_splits": across,
      "within_splits": [p for p in pairs if p not in across],
    },
  }


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
  for pair in near["across_splits"][:20]:
    lines.append(f"  {pair['distance']:3}  {pair['a']}  {pair['b']}")
  if len(near["across_splits"]) > 20:
    lines.append("  (the others with --json)")
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

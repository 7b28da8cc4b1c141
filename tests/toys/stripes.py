"""A source: stripes whose width is the finding, each with a mask."""

import hashlib

import numpy as np

from jaxfake.data import builders, folders, reading, records, work

ABOUT = "stripes, thin or thick"
FINDINGS = True
COUNTS = {"train": 48, "val": 16, "test": 24}


def stripes(item: tuple[str, int, int]) -> dict:
  """The record of image i of a split: two of each patient."""
  split, i, size = item
  rng = np.random.default_rng((folders.SPLITS.index(split), i))
  label = i // 2 % 2
  mask = np.indices((size, size))[0] // (2 + 4 * label) % 2
  image = (60 + 90 * mask + rng.integers(0, 60, mask.shape)).astype(np.uint8)
  data = reading.png(image)
  return {
    "image": reading.Png(data, image.shape, hashlib.sha256(data).digest()),
    "label": label,
    "patient": f"{split}-{i // 2}",
    "id": f"{split}-{i}",
    "mask": reading.png((255 * mask).astype(np.uint8)),
  }


def prepare(data):
  recipe = builders.Recipe(
    name=f"{data.size}px",
    items={k: [(k, i, data.size) for i in range(n)] for k, n in COUNTS.items()},
    classes=("THIN", "THICK"),
    read=stripes,
    pool=work.threads,
    features={"mask": "image"},
  )
  facts = {"fingerprint": f"stripes-{data.size}", "split": "patient"}
  return records.prepare(data, recipe, facts)

"""The phantom: chest radiographs that are drawn, with patients and findings."""

import hashlib
import pathlib

from jaxfake import contracts, errors
from jaxfake import data as datasets
from jaxfake.data import folders, records

ABOUT = "procedural chest radiographs; needs no files"
FINDINGS = True
VIEWS = 4  # Images of one patient: anatomy.VIEWS_PER_PATIENT.
FEW = 256  # Images; below, starting processes costs more than it saves.
# Patients 0 to 9, and so on: 70 % train, 10 % val, 20 % test. The first three
# differ, so that a set of three patients has all splits.
SPLITS = "train test val train train train test train train train"
MASKED = {"mask": "image", "nodule_count": "integer"}  # The mask is 0 or 255.


def entries(data: contracts.Config) -> tuple[list, tuple[str, ...]]:
  """No files, and its classes."""
  return [], ("NORMAL", "PNEUMONIA")


def prepare(data: contracts.Config) -> datasets.Dataset:
  """`data.phantom` has images, seed and nodules."""
  from jaxfake.data import builders, work

  if data.dir:
    raise errors.ConfigError(
      f"data.dir is {data.dir!r}, but data.name=phantom reads no files: for a"
      " folder of radiographs add data.name=chest_xray"
    )
  n, seed, nodules = (data.phantom[k] for k in ("images", "seed", "nodules"))
  if seed < 0:
    raise errors.ConfigError(f"data.phantom.seed={seed}: at least 0")
  if data.size < 16:
    raise errors.ConfigError(f"data.size={data.size}: at least 16 pixels")
  if n < 3 * VIEWS:
    raise errors.ConfigError(
      f"data.phantom.images={n}: at least {3 * VIEWS}, for a patient in each"
      " of train, val and test"
    )
  pattern = SPLITS.split()
  items = {split: [] for split in folders.SPLITS}
  for i in range(n):
    split = pattern[i // VIEWS % len(pattern)]
    items[split].append((seed, i, data.size, bool(nodules)))
  # The drawing's own code is part of the key: a better phantom is drawn anew.
  here = pathlib.Path(__file__).parent
  digest = hashlib.blake2b(repr((n, seed, data.size, bool(nodules))).encode())
  for name in "anatomy.py", "organs.py", "xray_physics.py":
    digest.update((here / name).read_bytes())
  key = digest.hexdigest()[:16]
  recipe = builders.Recipe(
    name=f"{n}-seed{seed}-{data.size}px-{key}",
    items=items,
    classes=entries(data)[1],
    read=draw,
    pool=work.threads if n < FEW else work.processes,
    features=MASKED if nodules else {},
  )
  facts = {"fingerprint": key, "split": "patient"}
  return records.prepare(data, recipe, facts)


def draw(item: tuple[int, int, int, bool]) -> dict:
  """Returns the record of phantom (seed, index, size, nodules)."""
  from jaxfake.data.phantom import anatomy
  from jaxfake.data.reading import Png, png

  seed, index, size, nodules = item
  drawn = anatomy.radiograph(seed, index, size=size, nodules=nodules)
  data = png(drawn["image"])
  record = {
    "image": Png(data, drawn["image"].shape, hashlib.sha256(data).digest()),
    "label": int(drawn["label"]),
    "patient": str(drawn["patient"]),
    "id": f"phantom-{seed}-{index}",
  }
  if nodules:
    record["mask"] = png(drawn["mask"])
    record["nodule_count"] = int(drawn["nodule_count"])
  return record

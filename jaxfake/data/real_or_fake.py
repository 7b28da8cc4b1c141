"""Real and synthetic radiographs as one data set, its classes real and fake.

What could tell them apart without looking at the picture is taken away:

- Both go through one canonical path, `canonical`: uint8 gray, made square and
  resized by one kernel to the size that the generator draws (`via`), then by
  the same kernel to `size`, so that neither JPEG's grid of 8 pixels nor a
  generator's doubled maps fall on such a grid; a black frame laid over the
  border; the histogram inside it made uniform. A user's file takes the same
  path before it is scored. Without these steps the ends of the histogram alone
  told a DCGAN's fakes with an AUC of .77, the border with .70, the grid .74.
- Every split has as many fakes as reals of each finding, as far as the fakes'
  generator was told one.
- The reals are split by patient, as for the generator. A fake's split is a hash
  of its seed and index.
"""

from collections.abc import Sequence
import hashlib
import json
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import ndimage

from jaxfake import contracts, errors
from jaxfake import data as datasets
from jaxfake.data import folders, matching, pipeline
from jaxfake.data import patients as whose
from jaxfake.data.sources import Subset

CLASSES = "real", "fake"
ABOUT = "reals of a source, and fakes that jaxfake.sample made"
READS_PATIENTS = True


class Canonical(NamedTuple):
  """uint8 gray (h, w) of any size to what is scored, uint8 (size, size).

  A value that a decoding worker can be handed.
  """

  sizes: tuple[int, ...]  # Resized to one after the other.
  fit: str
  kernel: str
  frame: int  # Pixels.
  equalise: bool

  def __call__(self, image: np.ndarray) -> np.ndarray:
    for size in self.sizes:
      image = pipeline.fit(image, size, self.fit, self.kernel)
    inside = slice(self.frame, len(image) - self.frame)
    framed = np.zeros_like(image)
    picture = image[inside, inside]
    framed[inside, inside] = equalised(picture) if self.equalise else picture
    return framed


def canonical(data: contracts.Config) -> Canonical:
  """The path that a config's `data` asks for."""
  own = data.real_or_fake
  return Canonical(
    sizes=(own.via or data.size, data.size),
    fit=data.fit,
    kernel=data.kernel,
    frame=round(own.frame * data.size),
    equalise=own.equalise,
  )


def equalised(image: np.ndarray) -> np.ndarray:
  """uint8 (h, w) with its values spread evenly over 0 to 255, exactly.

  Exact histogram specification (Coltuc, Bolon and Chassery, 2006,
  doi:10.1109/TIP.2005.864170): pixels are ranked by value, equal ones by the
  means of their surroundings. Unlike the usual equalisation it leaves no trace
  of how many pixels were black, in what a histogram shows.
  """
  x = image.astype(np.float32)
  means = [ndimage.uniform_filter(x, side) for side in (5, 3)]
  order = np.lexsort([key.ravel() for key in (*means, x)])  # By the last first.
  out = np.empty(x.size, np.uint8)
  out[order] = np.arange(x.size) * 256 // x.size
  return out.reshape(image.shape)


class Source:
  """Reals, then fakes, of one split: contracts.Items."""

  features: ClassVar = {
    "image": "image",
    "label": "integer",
    "finding": "integer",
    "patient": "text",
    "id": "text",
  }

  def __init__(self, parts: Sequence[contracts.Items], data: contracts.Config):
    self._parts, self._canonical = parts, canonical(data)
    self._ends = np.cumsum([len(part) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Source(real_or_fake, {len(self)} images)"

  def column(self, name: str) -> list:
    """One fact of every image. "label" is 1 of a fake; "finding" is what the
    image shows, or -1."""
    if name == "label":
      return [int(i >= self._ends[0]) for i in range(len(self))]
    name = "label" if name == "finding" else name
    return [x for part in self._parts for x in part.column(name)]

  def raw(self, i: int) -> np.ndarray:
    """An image as it was read, uint8 (h, w)."""
    fake = int(i >= self._ends[0])
    return self._parts[fake][i - self._ends[0] * fake]["image"][..., 0]

  def __getitem__(self, i: int) -> dict:
    image = self._canonical(self.raw(i))
    return {"image": image[..., None], "label": int(i >= self._ends[0])}


def prepare(data: contracts.Config) -> datasets.Dataset:
  """What `config.data` names: `real_or_fake.real` is the kind of `dir`'s data,
  `real_or_fake.fakes` a folder that jaxfake.sample made.

  Raises ConfigError, DataError.
  """
  own = data.real_or_fake
  datasets.check_originals("data.real_or_fake.real", own.real)
  if own.via < 0:
    raise errors.ConfigError(
      f"data.real_or_fake.via is {own.via}: expected pixels, or 0 for none"
    )
  if not 0 <= own.frame < 0.5:
    raise errors.ConfigError(
      f"data.real_or_fake.frame is {own.frame}: expected 0 to below 0.5"
    )
  if not own.fakes:
    raise errors.ConfigError(
      "data.real_or_fake.fakes is '': expected a folder made by python -m"
      " jaxfake.sample"
    )
  real = datasets.prepare(_changed(data, name=own.real))
  fakes = _changed(data, name="generated", dir=own.fakes, split="patient")
  if fakes.get("patients"):  # Of the reals.
    fakes.patients = ""
  fake = datasets.prepare(fakes)
  parts, sources = (real, fake), {}
  # Whether the generator was told what to draw.
  conditional = all(x >= 0 for x in fake.source("train").column("label"))
  if conditional and real.classes != fake.classes:
    raise errors.DataError(
      f"{own.fakes}: its classes are {', '.join(fake.classes)}, those of the"
      f" reals {', '.join(real.classes)}"
    )
  for split in folders.SPLITS:
    if all(split in part.facts["counts"] for part in parts):
      sides = [part.source(split) for part in parts]
      findings = [np.asarray(x.column("label")) for x in sides]
      if not conditional:  # A finding counts for nothing.
        findings = [np.zeros_like(x) for x in findings]
      of_reals, of_fakes = findings
      chosen = map(np.sort, matching.matched(of_reals, of_fakes))
      sides = [Subset(side, i) for side, i in zip(sides, chosen, strict=True)]
      sources[split] = Source(sides, data)
  facts = _facts(data, real, fake, sources, conditional)
  read = sources.__getitem__
  return datasets.Dataset(data.name, CLASSES, facts, read, real.litter)


def _changed(data, **changes):
  changed = data.copy_and_resolve_references()
  changed.update(changes)
  return changed


def _facts(data, real, fake, sources, conditional) -> dict:
  counts, patients, unknown = {}, {}, {}
  for split, source in sources.items():
    labels, names = source.column("label"), source.column("patient")
    counts[split] = {c: labels.count(i) for i, c in enumerate(CLASSES)}
    patients[split] = len(set(names))
    unknown[split] = sum(not whose.known(name) for name in names)
  own = data.real_or_fake
  both = {"real": real.facts, "fake": fake.facts}
  made_of = [x["content_sha256"] for x in both.values()] + [
    own.via,
    own.equalise,
    own.frame,
  ]
  digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
  mix = "the same in every split" if conditional else "not known of the fakes"
  return {
    "name": data.name,
    "fingerprint": digest[:16],
    "content_sha256": digest,
    "split": real.facts["split"],
    "classes": list(CLASSES),
    "counts": counts,
    "patients": patients,
    "patients_unknown": unknown,
    "patient_overlap": real.facts["patient_overlap"],
    "patients_by": real.facts["patients_by"],
    "kept_together": real.facts["kept_together"],
    "too_alike": real.facts["too_alike"],
    "image_sizes": {k: x["image_sizes"] for k, x in both.items()},
    "findings": mix,
    "skipped": real.facts["skipped"] + fake.facts["skipped"],
    "skipped_files": real.facts["skipped_files"],
    "sources": both,
  }

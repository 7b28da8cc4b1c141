"""Windows of radiographs to learn to fill a region from (jaxfake.data.tampered,
method `learnt`).

An item is a window about a place in the lungs of an original, and a mask of
what is to be filled. With `fill` nodule the window has a drawn nodule in there
(inject.nodule), with plain it is as it was. Item i is a function of the seed, i
and the original.
"""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

import numpy as np

from jaxfake import contracts, errors
from jaxfake import data as datasets

ABOUT = "windows of a source's originals, and what to fill of them"
READS_PATIENTS = True
# What a region is filled with, and what that does to a picture.
FILLS = {"nodule": "inject", "plain": "remove"}
FEATURES = {
  "image": "image",
  "mask": "image",
  "label": "integer",
  "patient": "text",
  "id": "text",
}
_FACTS = "label", "patient", "id"  # The original's.


class Source:
  """A window of each original of one split: contracts.Items."""

  features = FEATURES

  def __init__(
    self, originals: contracts.Items, own: Mapping[str, Any], size: int
  ):
    self._originals, self._own, self._size = originals, dict(own), size

  def __len__(self) -> int:
    return len(self._originals)

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Source(inpainting, {len(self)} images)"

  def column(self, name: str) -> list:
    """One fact of every image, such as "label", without decoding any."""
    return self._originals.column(name)

  def __getitem__(self, i: int) -> dict:
    from jaxfake.data.tampered import learnt, places, scene

    if not 0 <= i < len(self):
      raise IndexError(f"{len(self)} images; asked for {i}")
    own, original = self._own, self._originals[i]
    image = original["image"][..., 0]
    rng = np.random.default_rng((own["seed"], i))
    lengths = np.log([own["least_mm"], own["most_mm"]])
    side = places.side(np.exp(rng.uniform(*lengths)), image.shape)
    box, ends = places.in_lung(image, side, rng), scene.ends(image)
    if own["fill"] == "nodule":
      seed = int(rng.integers(2**32))
      image, _ = scene.tampered(image, box, "inject", "nodule", seed)
    seen, mask = learnt.window(image, box, self._size)
    gray = np.rint((learnt.scaled(seen, ends) + 1) * 127.5)
    return {name: original[name] for name in _FACTS} | {
      "image": gray.astype(np.uint8)[..., None],
      "mask": np.where(mask, 255, 0).astype(np.uint8)[..., None],
    }


def check(own: contracts.Config) -> None:
  """Raises ConfigError for values of a config's data.inpainting."""
  errors.check_choice("data.inpainting.fill", own.fill, FILLS)
  if not 0 < own.least_mm <= own.most_mm:
    raise errors.ConfigError(
      f"data.inpainting.least_mm is {own.least_mm}, most_mm {own.most_mm}:"
      " expected millimetres, the first at most the second"
    )
  if own.seed < 0:
    raise errors.ConfigError(
      f"data.inpainting.seed is {own.seed}: expected at least 0"
    )


def prepare(data: contracts.Config) -> datasets.Dataset:
  """What `config.data` names: `inpainting.real` is the kind of `dir`'s data.

  Raises ConfigError, DataError.
  """
  own = data.inpainting
  check(own)
  datasets.check_originals("data.inpainting.real", own.real)
  originals = data.copy_and_resolve_references()
  originals.name, originals.size = own.real, own.original_size
  real = datasets.prepare(originals)
  made_of = [real.facts["content_sha256"], own.to_dict(), data.size]
  digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
  facts = real.facts | {
    "name": data.name,
    "fingerprint": digest.hexdigest()[:16],
    "content_sha256": digest.hexdigest(),
    "originals": real.facts,
  }
  read = lambda split: Source(real.source(split), own.to_dict(), data.size)
  return datasets.Dataset(
    data.name, real.classes, facts, read, real.litter, real.notes
  )

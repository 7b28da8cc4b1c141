"""The ways to alter a region, and where each original is altered."""

from typing import Any, NamedTuple

import numpy as np

from jaxfake import contracts
from jaxfake.data import tampered
from jaxfake.data.tampered import places, region, scene

NONE = "untampered"


class Way(NamedTuple):
  """How a region is altered: kind "" leaves it as it is."""

  kind: str
  method: str
  touch_up: bool

  def __str__(self) -> str:
    if not self.kind:
      return NONE
    return f"{self.kind} {self.method}" + ", touched up" * self.touch_up


def names(config: contracts.Config) -> list[str]:
  return [x.strip() for x in config.deliveries.split(",") if x.strip()]


def ways(config: contracts.Config) -> list[Way]:
  """All ways to alter a region, the first to leave it as it is."""
  every = [Way("", "none", False)]
  for touch_up in (False, True):
    for kind in tampered.KINDS:
      for method in tampered.names(config.data.tampered, kind):
        every.append(Way(kind, method, touch_up))
  return every


class Place(NamedTuple):
  """An original, and where it is altered, whichever way."""

  image: np.ndarray
  box: region.Box
  other: scene.Donor  # For splicing: of another patient.
  mm: float
  seed: tuple[int, ...]
  own: Any  # A config's data.tampered, which names inpainters.

  def altered(self, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """The picture, and where it is altered; untampered, where it would be."""
    kind, method = way[:2] if way.kind else ("remove", "harmonic")
    pixels, mask = scene.tampered(
      self.image,
      self.box,
      kind,
      method,
      self.seed,
      touch_up=way.touch_up,
      other=self.other,
      model=tampered.model(self.own, kind, method),
    )
    return pixels if way.kind else self.image, mask


def place(config: contracts.Config, source: contracts.Items, at: int) -> Place:
  """Of an item of a source."""
  item = source[at]
  image = item["image"][..., 0]
  rng = np.random.default_rng((config.seed, at))
  mm = config.sizes_mm[at % len(config.sizes_mm)]
  box = places.in_lung(image, places.side(mm, image.shape), rng)
  other = source[tampered.of_another(source.column("patient"), at, rng)]
  donor = scene.donor(other["image"][..., 0])
  seed = config.seed, at, 1
  return Place(image, box, donor, mm, seed, config.data.tampered)

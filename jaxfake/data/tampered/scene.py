"""A picture and the order to alter a region of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfake import errors
from jaxfake.data.tampered import inject, learnt, noise, remove
from jaxfake.data.tampered.region import Box

METHODS = {
  "inject": inject.METHODS | learnt.METHODS,
  "remove": remove.METHODS | learnt.METHODS,
}
DEFAULT = {"inject": "nodule", "remove": "copy-move"}
FIELD_CM = 30  # Of the shorter side, where a file does not say.
ENDS = 0.5, 99.5  # Percentiles that count as black and white.


class Donor(NamedTuple):
  """Another picture: float or whole values (h, w), bright where dense."""

  values: np.ndarray
  ends: tuple[float, float]


class Scene(NamedTuple):
  """What a method sees: values (h, w), bright where dense."""

  values: np.ndarray
  ends: tuple[float, float]  # Of its values: nearly black and nearly white.
  box: Box
  cm: float  # Side of a pixel.
  donor: Donor | None = None
  donor_box: Box | None = None
  model: Any = None  # A contracts.Inpainter, of what is learnt.


def check(kind: str, method: str) -> None:
  """Raises ConfigError where a kind has no such method."""
  errors.check_choice(f"--method of --{kind}", method, METHODS[kind])


def donor(values: np.ndarray) -> Donor:
  return Donor(values, ends(values))


def ends(values: np.ndarray) -> tuple[float, float]:
  """What counts as black and as white in a picture."""
  low, high = np.percentile(values, ENDS)
  return float(low), float(max(high, low + 1))


def seen(values: np.ndarray, box: Box, cm: float = 0.0, **others: Any) -> Scene:
  """A scene of whole numbers (h, w), bright where dense; `cm` is a pixel's side
  (0: not known), `others` are fields of it."""
  cm = cm or FIELD_CM / min(values.shape)
  return Scene(values, ends(values), box, cm, **others)


def tampered(
  values: np.ndarray,
  box: Box,
  kind: str,
  method: str,
  seed: int | Sequence[int],
  cm: float = 0.0,
  touch_up: bool = False,
  other: Donor | None = None,
  other_box: Box | None = None,
  model: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Values (h, w) with a box altered, and where: bool (h, w).

  Of what `seen` takes; `seed` is what numpy takes. Nothing outside the mask
  changes, and nothing leaves the picture's own range: a new extreme would
  change how a viewer shows all of it.
  """
  rng = np.random.default_rng(seed)
  scene = seen(values, box, cm, donor=other, donor_box=other_box, model=model)
  filled, mask = METHODS[kind][method](scene, rng)
  altered = values.astype(np.float64)
  part = altered[box.place]
  part[mask] = filled[mask]
  if touch_up:
    part += noise.matched(altered, box, mask, rng)
  whole = np.zeros(values.shape, bool)
  whole[box.place] = mask
  altered = np.clip(np.rint(altered), values.min(), values.max())
  return altered.astype(values.dtype), whole

"""Stored values of a DICOM radiograph -> 8-bit gray: the grayscale pipeline.

`gray` runs the stages of PS3.4 N.2 in their order, once, over a table of all
values that the bits stored can hold; the picture is then looked up. The
sections are of PS3.3:

1. modality: Modality LUT, or rescale (C.11.1);
2. values of interest: VOI LUT, or window (C.11.2). They are alternatives, and a
   reader may take either: the first LUT is taken, else the first window;
3. presentation: its shape, IDENTITY or INVERSE, says whether light and dark
   turn (C.11.6); where there is none, MONOCHROME1 turns them (C.7.6.3.1.2). An
   image has to have both alike (C.8.11.3); dcmtk and dcm4che go by the shape;
4. padding is black, whatever the rest makes of it (C.7.5.1.1.2).

The range that these can give becomes 0 to 255, never an image's own range. A
LUT, or unsigned pixels without either of 2, that are said to have 16 bits and
do not reach beyond 8, 10, 12 or 14 have as many (`image_file.depth`).

An element that is present but empty counts as absent. Numbers are taken from
the bytes of the file: sites write decimal commas, nulls and blanks.
"""

import re
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from jaxfake.data import image_file

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Refusal(ValueError):
  """Why a file is not read, in words that follow "is a DICOM file"."""


class Cell(NamedTuple):
  """Where a value lies in its allocated bits (C.7.6.3.1.1, PS3.5 8.1.1)."""

  allocated: int
  stored: int
  high: int
  signed: bool

  def values(self, raw: np.ndarray) -> np.ndarray:
    """Allocated bits, unsigned -> values; what else lies there, overlays of old
    files among it, is masked away."""
    shift = self.high + 1 - self.stored
    values = raw.astype(np.int32) >> shift & (1 << self.stored) - 1
    return self.extended(values)

  def extended(self, values: np.ndarray) -> np.ndarray:
    """Two's complement of the bits stored, where they are signed."""
    if not self.signed:
      return values
    sign = 1 << self.stored - 1
    return (values ^ sign) - sign

  def levels(self) -> np.ndarray:
    """All values that there can be, in order."""
    least = -(1 << self.stored - 1) if self.signed else 0
    return np.arange(least, least + (1 << self.stored), dtype=np.int32)


class Lut(NamedTuple):
  first: int
  entries: np.ndarray
  bits: int

  def __call__(self, values: np.ndarray) -> np.ndarray:
    at = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
    return self.entries[at.astype(np.int64)]


def gray(dataset: Dataset, raw: np.ndarray, cell: Cell) -> np.ndarray:
  """uint8 (h, w) of allocated bits (h, w)."""
  values = cell.values(raw)
  padding = _padding(dataset, raw, values, cell)
  levels = cell.levels()
  table, low, high, exact = _modality(dataset, levels, cell)
  share = _values_of_interest(dataset, table, low)
  if share is None:
    if exact and not cell.signed and cell.stored == 16:
      top = int(values[~padding].max(initial=0))
      ends = table[[0, (1 << image_file.depth(top)) - 1]]
      low, high = ends.min(), ends.max()
    share = (table - low) / max(high - low, 1e-12)
  if _inverse(dataset):
    share = 1 - share
  tones = np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)
  out = tones[values - levels[0]]
  out[padding] = 0
  return out


def _modality(dataset, levels, cell):
  """C.11.1: values, the range that they can have, and whether they are linear
  in what is stored."""
  if lut := _lut(dataset, "ModalityLUTSequence", signed=cell.signed):
    return lut(levels), 0, (1 << lut.bits) - 1, False
  slope = number(dataset, "RescaleSlope")
  intercept = number(dataset, "RescaleIntercept")
  slope = 1.0 if slope is None else slope
  if slope == 0:
    raise Refusal("whose rescale slope is 0")
  values = levels * slope + (intercept or 0.0)
  return values, values.min(), values.max(), True


def _values_of_interest(dataset, values, low):
  """C.11.2: shares of white, or None where the file has nothing to say."""
  if lut := _lut(dataset, "VOILUTSequence", signed=low < 0):
    return lut(values) / ((1 << lut.bits) - 1)
  window = _window(dataset)
  return None if window is None else _windowed(dataset, values, *window)


def _window(dataset):
  """The first window that has both a center and a width."""
  pairs = zip(
    numbers(dataset, "WindowCenter"),
    numbers(dataset, "WindowWidth"),
    strict=False,
  )
  return next((p for p in pairs if None not in p), None)


def _windowed(dataset, values, center, width):
  """C.11.2.1.2 and C.11.2.1.3."""
  function = text(dataset, "VOILUTFunction") or "LINEAR"
  if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
    raise Refusal("of an unknown window function")
  if width <= 0:
    raise Refusal("whose window has no width")
  if function == "SIGMOID":
    steep = np.clip(-4 * (values - center) / width, -700, 700)
    return 1 / (1 + np.exp(steep))
  if function == "LINEAR":
    if width < 1:
      raise Refusal("whose window is narrower than 1")
    center, width = center - 0.5, width - 1
  if width == 0:
    return (values > center).astype(float)
  return np.clip((values - center) / width + 0.5, 0, 1)


def _inverse(dataset):
  """C.11.6, C.7.6.3.1.2."""
  shape = text(dataset, "PresentationLUTShape")
  if shape in ("IDENTITY", "INVERSE"):
    return shape == "INVERSE"
  return text(dataset, "PhotometricInterpretation") == "MONOCHROME1"


def _padding(dataset, raw, values, cell):
  """C.7.5.1.1.2: which pixels are padding: of a value, or of a range."""
  ends = []
  for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
    code = _words(dataset, name)
    if code.size:
      ends.append(int(code[0]))
  if not ends or not _words(dataset, "PixelPaddingValue").size:
    return np.zeros(values.shape, bool)
  if cell.signed:
    ends = [(e ^ 0x8000) - 0x8000 for e in ends]
  least, most = cell.levels()[[0, -1]]
  if least <= min(ends) and max(ends) <= most:
    return (values >= min(ends)) & (values <= max(ends))
  # Beyond the bits stored: as some write it, in all the bits allocated.
  whole = cell._replace(stored=cell.allocated, high=cell.allocated - 1)
  values = whole.values(raw)
  return (values >= min(ends)) & (values <= max(ends))


def _lut(dataset, name, signed) -> Lut | None:
  """The first whole LUT of a sequence (C.11.1.1, C.11.2.1.1), if any.

  `signed`: whether what goes in can be negative, and so the first value mapped.
  """
  for item in sequence(dataset, name):
    descriptor = _words(item, "LUTDescriptor")
    data = raw_bytes(item, "LUTData")
    if not descriptor.size or not data:
      continue
    if len(descriptor) != 3:
      raise Refusal("whose LUT is damaged")
    count, first, bits = (int(x) for x in descriptor)
    count = count or 1 << 16
    if first >= 1 << 15 and (signed or vr(item, "LUTDescriptor") == "SS"):
      first -= 1 << 16
    entries = _entries(item, data, count)
    # What is said to have more bits than it reaches has fewer; and the other
    # way round.
    return Lut(first, entries, _lut_bits(int(entries.max()), bits))
  return None


def _lut_bits(top, said):
  reached = image_file.depth(top)
  if not 8 <= said <= 16:
    return reached
  return reached if top >= 1 << said else min(said, reached)


def _entries(item, data, count):
  """Entries of 16 bits, or of 8 where there are too few bytes for that."""
  if len(data) >= 2 * count:
    return _words(item, "LUTData")[:count].astype(np.int64)
  if len(data) < count:
    raise Refusal("whose LUT is cut off")
  entries = np.frombuffer(data, np.uint8)
  if vr(item, "LUTData") == "OW" and not _little(item, "LUTData"):
    entries = np.resize(entries, len(entries) + len(entries) % 2)
    entries = entries.reshape(-1, 2)[:, ::-1].ravel()
  return entries[:count].astype(np.int64)


def raw_bytes(dataset: Dataset, name: str) -> bytes:
  """An element's bytes as they stand in the file; empty where there is none."""
  element = dataset.get_item(name)
  return (element.value if element is not None else None) or b""


def vr(dataset: Dataset, name: str) -> str | None:
  """An element's value representation, where the file gives it."""
  element = dataset.get_item(name)
  return element.VR if element is not None else None


def _little(dataset, name):
  return getattr(dataset.get_item(name), "is_little_endian", True)


def _words(dataset, name):
  """An element of US, SS or OW, unsigned."""
  data = raw_bytes(dataset, name)
  order = "<u2" if _little(dataset, name) else ">u2"
  return np.frombuffer(data, order, len(data) // 2)


def integer(dataset: Dataset, name: str) -> int | None:
  """An element of US; None where it is absent or empty."""
  if vr(dataset, name) in ("IS", "DS"):  # As some write even Rows.
    value = number(dataset, name)
    return None if value is None else int(value)
  value = _words(dataset, name)
  return int(value[0]) if value.size else None


def text(dataset: Dataset, name: str) -> str:
  """The first word of an element of CS, in capitals."""
  word = raw_bytes(dataset, name).decode("latin-1").split("\\")[0]
  return word.strip("\0 \t\r\n").upper()


def numbers(dataset: Dataset, name: str) -> list:
  """An element of DS: its values, None for each that is empty."""
  values = []
  for word in raw_bytes(dataset, name).decode("latin-1").split("\\"):
    word = word.strip("\0 \t\r\n").replace(",", ".")
    if word and not _NUMBER.fullmatch(word):
      raise Refusal(f"whose {name} is not a number")
    values.append(float(word) if word else None)
    if word and not np.isfinite(values[-1]):
      raise Refusal(f"whose {name} is not a number")
  return values


def number(dataset: Dataset, name: str) -> float | None:
  """The first value of an element of DS, if any."""
  return numbers(dataset, name)[0]


def sequence(dataset: Dataset, name: str) -> list:
  """A sequence's items; none where it is absent or empty."""
  return list(dataset.get(name) or ())

"""DICOM files for tests, by a few words; and the gray that the standard says.

`expected` is PS3.3's arithmetic for one picture, pixel by pixel and as plain as
it stands there: no table, nothing of the package's.
"""

import io
import math

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate


def container(values, allocated, stored, high, junk=0):
  """Values as they lie in the bits allocated, with junk in all other bits."""
  cells = (np.asarray(values).astype(np.int64) & (1 << stored) - 1) << (
    high + 1 - stored
  )
  mask = (1 << stored) - 1 << high + 1 - stored
  cells |= junk & ~mask & (1 << allocated) - 1
  return cells.astype(np.uint8 if allocated == 8 else np.uint16)


def dataset(
  cells,
  stored=None,
  high=None,
  signed=False,
  syntax=uid.ExplicitVRLittleEndian,
  **elements,
):
  """A radiograph of allocated bits (h, w)."""
  ds = Dataset()
  ds.file_meta = FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = syntax
  ds.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
  ds.SOPInstanceUID = "1.2.3"
  ds.Modality = "DX"
  ds.PhotometricInterpretation = "MONOCHROME2"
  ds.Rows, ds.Columns = cells.shape
  ds.SamplesPerPixel = 1
  ds.BitsAllocated = 8 * cells.dtype.itemsize
  ds.BitsStored = stored or ds.BitsAllocated
  ds.HighBit = ds.BitsStored - 1 if high is None else high
  ds.PixelRepresentation = int(signed)
  for name, value in elements.items():
    setattr(ds, name, value)
  order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
  ds.PixelData = cells.astype(cells.dtype.newbyteorder(order)).tobytes()
  ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
  return ds


def wrapped(ds, stream, syntax):
  """The same with an encoded picture."""
  ds.file_meta.TransferSyntaxUID = syntax
  ds.PixelData = encapsulate([stream])
  ds["PixelData"].VR = "OB"
  ds["PixelData"].is_undefined_length = True
  return ds


def lut(entries, first=0, bits=16, signed=False, little=True, narrow=False):
  """A LUT's item; `narrow`: entries of a byte."""
  item = Dataset()
  count = len(entries) % (1 << 16)
  item.LUTDescriptor = [count, first, bits]
  item["LUTDescriptor"].VR = "SS" if signed else "US"
  if signed and count > 32767:
    raise ValueError("a signed count")
  if narrow:
    data = bytes(list(entries) + [0] * (len(entries) % 2))
  else:
    data = np.asarray(entries).astype("<u2" if little else ">u2").tobytes()
  item.LUTData = data
  item["LUTData"].VR = "OW"
  return item


def file(ds):
  out = io.BytesIO()
  pydicom.dcmwrite(out, ds, enforce_file_format=True)
  return out.getvalue()


def write(ds, path):
  path.write_bytes(file(ds))
  return path


def expected(
  values,
  stored,
  signed,
  *,
  rescale=None,
  modality=None,
  voi=None,
  window=None,
  function="LINEAR",
  inverse=False,
  padding=None,
):
  """Shares of white, as floats.

  `modality` and `voi`: (entries, first, bits); `window`: (center, width).
  """
  least = -(1 << stored - 1) if signed else 0
  out = np.empty(np.shape(values))
  for at, stored_value in np.ndenumerate(values):
    x, low, high = int(stored_value), least, least + (1 << stored) - 1
    if modality:
      x, low, high = look_up(x, modality), 0, (1 << modality[2]) - 1
    elif rescale:
      slope, intercept = rescale
      low, high = sorted(slope * v + intercept for v in (low, high))
      x = slope * x + intercept
    if voi:
      y = look_up(x, voi) / ((1 << voi[2]) - 1)
    elif window:
      y = windowed(x, *window, function)
    else:
      y = (x - low) / (high - low)
    y = 1 - y if inverse else y
    if padding and min(padding) <= stored_value <= max(padding):
      y = 0
    out[at] = y
  return out


def look_up(x, table):
  entries, first, _ = table
  return int(entries[min(max(round(x) - first, 0), len(entries) - 1)])


def windowed(x, c, w, function):
  """C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, of a range from 0 to 1."""
  if function == "SIGMOID":
    return 1 / (1 + math.exp(max(min(-4 * (x - c) / w, 700), -700)))
  if function == "LINEAR_EXACT":
    if x <= c - w / 2:
      return 0
    return 1 if x > c + w / 2 else (x - c) / w + 0.5
  if x <= c - 0.5 - (w - 1) / 2:
    return 0
  return 1 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5

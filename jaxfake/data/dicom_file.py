"""One DICOM file -> uint8 gray (h, w), or an `ImageError` that says why not.

dicom_pixels decodes, dicom_gray makes gray of it. Colour becomes Rec. 601 luma.
Pixel aspect and overlays are ignored.

Read: uncompressed, deflated, RLE, JPEG baseline, JPEG lossless, JPEG-LS and
JPEG 2000 with HTJ2K, 1 to 16 bits, with or without preamble and file meta
information. Refused by name: more than one frame, what is no projection
radiograph, 12-bit lossy JPEG and video.

No message holds a value from the header but sizes, codec and modality.
"""

from collections.abc import Callable
import io
import logging
import struct
from typing import Any
import warnings
import zlib

import numpy as np
from PIL import Image
from pydicom import filereader, uid
from pydicom.pixels.processing import apply_color_lut

from jaxfake.data import (
  dicom_gray,
  dicom_pixels,
  image_error,
  image_file,
  jpeg_file,
)
from jaxfake.data.dicom_gray import Refusal, integer, text

# Computed and digital radiography, radiographic imaging, the words that sites
# write for them, and what says nothing.
MODALITIES = ("CR", "DX", "RG", "DR", "XR", "OT", "")
GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
SYNTHETIC = 0x0008001C
_PIXELS, _FLOATS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF

# Both would tell of odd headers, and show what stands in them.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def parse(data: bytes, tags: list[int] | None = None) -> tuple:
  """(data set up to its pixel data, element of those or None) of a file.

  The transfer syntax is named even if it was not.
  """
  file = io.BytesIO(_inflated(data))
  dataset = filereader.read_partial(
    file,
    stop_when=lambda tag, vr, length: tag in (_PIXELS, *_FLOATS),
    force=True,
    specific_tags=tags,
  )
  implicit, little = dataset.original_encoding
  if "TransferSyntaxUID" not in dataset.file_meta:  # As pydicom guessed it.
    dataset.file_meta.TransferSyntaxUID = (
      uid.ImplicitVRLittleEndian
      if implicit
      else uid.ExplicitVRLittleEndian
      if little
      else uid.ExplicitVRBigEndian
    )
  at = file.tell()
  return dataset, _pixel_element(memoryview(file.getvalue())[at:], little)


def _inflated(data):
  """A deflated file with its data set plain (PS3.5 A.5); others as they are.

  No more is inflated than a file may have.
  """
  file = io.BytesIO(data)
  if data[128:132] == b"DICM":
    file.seek(132)
  meta: dict[int, Any] = dict(
    (element.tag, element.value)
    for element in filereader.data_element_generator(
      file, False, True, stop_when=lambda tag, vr, length: tag.group != 2
    )
  )
  syntax = (meta.get(0x00020010) or b"").rstrip(b"\0 ").decode("latin-1")
  if syntax != uid.DeflatedExplicitVRLittleEndian:
    return data
  inflater = zlib.decompressobj(-zlib.MAX_WBITS)
  plain = inflater.decompress(
    memoryview(data)[file.tell() :], image_file.MAX_BYTES + 1
  )
  if len(plain) > image_file.MAX_BYTES:
    raise Refusal(f"that inflates to more than {image_file.MAX_BYTES >> 20} MB")
  if not inflater.eof:
    raise Refusal("whose deflated data are cut off")
  name = uid.ExplicitVRLittleEndian.encode() + b"\0"
  header = struct.pack("<HH2sH", 2, 0x10, b"UI", len(name)) + name
  return bytes(128) + b"DICM" + header + plain


def _pixel_element(rest, little):
  """The element that `rest` begins with, if it is integer pixel data."""
  order = "<" if little else ">"
  if len(rest) < 12:
    return None
  group, number = struct.unpack(order + "HH", rest[:4])
  if group << 16 | number != _PIXELS:
    return None
  vr = bytes(rest[4:6])
  explicit = vr in (b"OB", b"OW", b"UN")
  at = 8 if explicit else 4
  length = struct.unpack(order + "I", rest[at : at + 4])[0]
  encapsulated = length == _UNDEFINED
  body = rest[at + 4 :]
  if not encapsulated:
    body = body[:length]
  return dicom_pixels.Element(
    vr.decode() if explicit else "OW", encapsulated, little, body
  )


def synthetic(data: bytes) -> bool:
  """Whether a file says, by Synthetic Data (0008,001C), that it is one."""
  try:
    dataset, _ = parse(data, [SYNTHETIC])
    return SYNTHETIC in dataset and dataset[SYNTHETIC].value == "YES"
  except Exception:  # Broken headers raise nearly anything; reading says so.
    return False


def read(name: str, data: bytes) -> np.ndarray:
  """uint8 gray (h, w) of a file's bytes; raises ImageError alone."""
  return guarded(name, _read, data)


def guarded(name: str, fn: Callable, *args: Any) -> Any:
  """What a function makes of a file; raises ImageError alone, of that name."""
  try:
    return fn(*args)
  except Refusal as error:
    why = f"is a DICOM file {error}"
  except jpeg_file.DamagedError as error:
    why = f"is a DICOM file whose picture is damaged: {error}"
  except Exception as error:  # Broken files raise nearly anything.
    why = f"is a damaged DICOM file ({type(error).__name__})"
  raise image_error.ImageError(name, why)


def _read(data):
  dataset, stored, layout, cell = decoded(data)
  if layout.photometric in GRAY:
    return dicom_gray.gray(dataset, stored, cell)
  if layout.photometric == PALETTE:
    stored = apply_color_lut(cell.values(stored), dataset)
    stored = (stored >> 8 * (stored.dtype.itemsize - 1)).astype(np.uint8)
  return np.array(Image.fromarray(stored[..., :3]).convert("L"))


def decoded(data: bytes) -> tuple:
  """(data set up to its pixel data, bits as allocated (h, w) or RGB of 8 bits,
  dicom_pixels.Layout, dicom_gray.Cell) of a radiograph's bytes; raises nearly
  anything (see guarded)."""
  dataset, element = parse(data)
  if element is None:
    raise Refusal("without a picture")
  modality = text(dataset, "Modality")
  if modality not in MODALITIES:
    expected = "expected a radiograph (CR, DX, DR or RG)"
    raise Refusal(f"of modality {modality[:16]}: {expected}")
  frames = dicom_gray.number(dataset, "NumberOfFrames")
  if frames not in (None, 0, 1):
    raise Refusal(f"of {frames:g} frames: expected one")
  layout, cell = _layout(dataset)
  syntax = dataset.file_meta.TransferSyntaxUID
  stored, coded = dicom_pixels.decoded(element, syntax, layout)
  if coded <= cell.stored:  # A codec that was handed the values alone.
    cell = cell._replace(high=cell.stored - 1)
  return dataset, stored, layout, cell


def _layout(dataset):
  """What the header says of the pixels: (Layout, Cell)."""
  height, width = integer(dataset, "Rows"), integer(dataset, "Columns")
  if not height or not width:
    raise Refusal(f"without pixels ({width or 0} x {height or 0})")
  if height * width > image_error.MAX_PIXELS:
    raise Refusal(
      f"of {width} x {height} pixels, more than the"
      f" {image_error.MAX_PIXELS:,} allowed"
    )
  allocated = integer(dataset, "BitsAllocated")
  if allocated not in (1, 8, 16):
    raise Refusal(f"of {allocated or 0} bits a pixel: expected at most 16")
  stored = integer(dataset, "BitsStored") or allocated
  high = integer(dataset, "HighBit")
  high = stored - 1 if high is None else high
  if not stored <= high + 1 <= allocated:
    raise Refusal(
      f"of {stored} bits that end at bit {high} of {allocated} allocated"
    )
  kind = text(dataset, "PhotometricInterpretation")
  if kind not in (*GRAY, *COLOUR, PALETTE):
    raise Refusal("of an unknown photometric interpretation")
  samples = integer(dataset, "SamplesPerPixel") or 1
  if samples != (3 if kind in COLOUR else 1):
    raise Refusal(
      f"of {samples} samples a pixel, which its photometric has not"
    )
  if kind in COLOUR and (allocated, stored) != (8, 8):
    raise Refusal(f"in colour of {stored} bits: expected 8")
  if height * width * samples * allocated // 8 > image_file.MAX_BYTES:
    raise Refusal(f"of more than {image_file.MAX_BYTES >> 20} MB of pixels")
  signed = integer(dataset, "PixelRepresentation") == 1
  planar = integer(dataset, "PlanarConfiguration") == 1
  return (
    dicom_pixels.Layout(height, width, samples, allocated, planar, kind),
    dicom_gray.Cell(allocated, stored, high, signed),
  )

"""One DICOM file -> uint8 gray (h, w), or an `ImageError` that says why not.

How stored values become gray, the same for every image: the modality transform
(rescale or its LUT), then the first window or VOI LUT where there is one, then
the range that these can give over the bits stored becomes 0 to 255. Nothing is
stretched to an image's own range. MONOCHROME1 is inverted, colour becomes Rec.
601 luma. Pixel aspect and overlays are ignored.

Read: uncompressed, deflated, RLE, JPEG baseline, JPEG lossless, JPEG-LS and
JPEG 2000, 1 to 16 bits, with or without preamble and file meta information.
Refused by name: more than one frame, what is no projection radiograph, and a
codec with no decoder under a permissive licence (12-bit lossy JPEG, HTJ2K,
video).

No message holds a value from the header but sizes, codec and modality.
"""

import io
import logging
import warnings

import gdcm
import numpy as np
from PIL import Image
import pydicom
from pydicom import pixels, uid

from jaxfake.data import image_file

# Computed and digital radiography, radiographic imaging; and what says nothing.
MODALITIES = ("CR", "DX", "RG", "OT", "")
GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
SYNTHETIC = 0x0008001C

# Both would tell of odd headers, and show what stands in them.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()


def parse(data: bytes, **options) -> pydicom.Dataset:
  """The data set of a file; its transfer syntax is named even if it was not."""
  dataset = pydicom.dcmread(io.BytesIO(data), force=True, **options)
  meta = getattr(dataset, "file_meta", None)
  if meta is None:
    meta = dataset.file_meta = pydicom.dataset.FileMetaDataset()
  if "TransferSyntaxUID" not in meta:  # As pydicom guessed it.
    implicit, little = dataset.original_encoding
    meta.TransferSyntaxUID = (
      uid.ImplicitVRLittleEndian
      if implicit
      else uid.ExplicitVRLittleEndian
      if little
      else uid.ExplicitVRBigEndian
    )
  return dataset


def synthetic(data: bytes) -> bool:
  """Whether a file says, by Synthetic Data (0008,001C), that it is one."""
  try:
    dataset = parse(data, specific_tags=[SYNTHETIC], stop_before_pixels=True)
    return SYNTHETIC in dataset and dataset[SYNTHETIC].value == "YES"
  except Exception:  # Broken headers raise nearly anything; reading says so.
    return False


def read(name: str, data: bytes) -> np.ndarray:
  """uint8 gray (h, w) of a file's bytes; raises ImageError alone."""
  try:
    return _read(name, data)
  except image_file.ImageError:
    raise
  except Exception as error:  # Broken files raise nearly anything.
    raise image_file.ImageError(
      name, f"is a damaged DICOM file ({type(error).__name__})"
    ) from error


def _read(name, data):
  def refuse(why):
    raise image_file.ImageError(name, f"is a DICOM file {why}")

  dataset = parse(data)
  modality = str(dataset.get("Modality") or "")
  if "PixelData" not in dataset:
    refuse("without a picture")
  if modality not in MODALITIES:
    refuse(f"of modality {modality[:16]}: expected a radiograph (CR, DX or RG)")
  if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
    refuse(f"of {frames} frames: expected one")
  height, width = int(dataset.Rows), int(dataset.Columns)
  if not height or not width:
    refuse(f"without pixels ({width} x {height})")
  if height * width > image_file.MAX_PIXELS:
    refuse(
      f"of {width} x {height} pixels, more than the"
      f" {image_file.MAX_PIXELS:,} allowed"
    )
  if dataset.BitsAllocated > 16:
    refuse(f"of {dataset.BitsAllocated} bits a pixel: expected at most 16")
  syntax = dataset.file_meta.TransferSyntaxUID
  kind = str(dataset.PhotometricInterpretation)
  if kind not in (*GRAY, *COLOUR, PALETTE):
    refuse("of an unknown photometric interpretation")
  if not all(_numbers(dataset.get("WindowWidth", 1))):
    refuse("whose window has no width")
  stored = _decoded(dataset, syntax, refuse)
  if kind in GRAY:
    return _gray(dataset, stored, kind)
  if kind == PALETTE:
    stored = pixels.apply_color_lut(stored, dataset)
    stored = (stored >> 8 * (stored.dtype.itemsize - 1)).astype(np.uint8)
  elif dataset.BitsStored != 8:
    refuse(f"in colour of {dataset.BitsStored} bits: expected 8")
  return np.array(Image.fromarray(stored[..., :3]).convert("L"))


def _numbers(value) -> list:
  """An element's values, one or several."""
  return (
    list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
  )


def _decoded(dataset, syntax, refuse):
  """Stored values (h, w) or, of colour, RGB (h, w, 3)."""
  try:
    decoder = pixels.get_decoder(syntax)
  except NotImplementedError:
    refuse("of an unknown transfer syntax")
  if not decoder.is_available:
    refuse(f"in {syntax.name}: no decoder of a permissive licence")
  try:
    return pixels.pixel_array(dataset)
  except RuntimeError:  # Every decoder gave up.
    refuse(f"whose pixels ({syntax.name}) no decoder at hand can read")


def _gray(dataset, stored, kind):
  """8 bits of stored integers, each value looked up: a large plate as floating
  point would take a gigabyte."""
  bits, signed = dataset.BitsStored, dataset.PixelRepresentation == 1
  least = -(1 << bits - 1) if signed else 0
  levels = np.arange(least, least + (1 << bits), dtype=np.int32)
  stored = np.clip(stored, levels[0], levels[-1])
  values = np.asarray(pixels.apply_modality_lut(levels, dataset), np.float64)
  low, high = values.min(), values.max()
  if dataset.get("VOILUTSequence") or "WindowWidth" in dataset:
    # pydicom wants whole values as integers.
    typed = values.astype(np.int32) if (values % 1 == 0).all() else values
    values = np.asarray(pixels.apply_voi_lut(typed, dataset, 0), np.float64)
    if dataset.get("VOILUTSequence"):
      low, high = 0, (1 << dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
  share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
  if kind == "MONOCHROME1":
    share = 1 - share
  return np.round(255 * share).astype(np.uint8)[stored.astype(np.int32) - least]

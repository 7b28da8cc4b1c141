"""A file with a region altered, in its own bits and marked as synthetic.

PNG and JPEG become PNG of the same bits; other metadata are left out, and the
orientation in EXIF is applied. DICOM becomes explicit little endian,
uncompressed, of the same header and of the values that its stream decodes to,
except:

- Synthetic Data (0008,001C) is YES, the SOP Instance UID is new, Image Type
  begins with DERIVED (PS3.3 C.7.6.1.1.2);
- Derivation Description, Source Image Sequence and Contributing Equipment
  Sequence say what was done, to which image, with what;
- the icon (0088,0200), a picture of the original, and what follows the pixels,
  digital signatures among it, are left out.

Only gray DICOM is altered, and nothing of it that is no stored value: overlays
in unused bits stay.
"""

import contextlib
import hashlib
import io
import json
from typing import NamedTuple
import uuid

import numpy as np
from PIL import Image

from jaxfake import __version__
from jaxfake.data import (
  generated_writer,
  image_file,
  jpeg_file,
  radiograph,
)
from jaxfake.data.image_error import ImageError
from jaxfake.data.tampered import learnt, scene
from jaxfake.data.tampered.region import Box

COMMENT = "Altered image: a region of it is synthetic"
_SPACINGS = "PixelSpacing", "ImagerPixelSpacing"  # mm


class Order(NamedTuple):
  """What to do to a file; decoding workers get it."""

  path: str
  kind: str  # "inject" or "remove".
  method: str
  box: Box
  seed: int
  touch_up: bool
  donor: str = ""  # A file.
  donor_box: Box | None = None
  model_sha256: str = ""  # Of the inpainter, of what is learnt.
  answer: learnt.Answer | None = None  # Of it, to what `asked` gives.


class Altered(NamedTuple):
  """An altered file: bytes of it and of its mask."""

  data: bytes
  suffix: str  # ".png" or ".dcm"
  mask: bytes  # PNG, 255 where it was altered.
  facts: dict  # What it says of itself.


class Values(NamedTuple):
  """A picture's values: int32 (h, w); those of colour are their luma."""

  values: np.ndarray
  negative: bool  # Whether dense is dark in them.
  cm: float  # Side of a pixel; 0: not known.
  kept: object  # What `write` needs to make a file of other values.

  @property
  def dense_bright(self) -> np.ndarray:
    """The values, turned where dense is dark."""
    return self.turned(self.values)

  def turned(self, values: np.ndarray) -> np.ndarray:
    ends = int(self.values.min()) + int(self.values.max())
    return ends - values if self.negative else values


def alter(order: Order) -> Altered:
  """Does what an order says. Raises ImageError.

  The same order and the same bytes give the same bytes.
  """
  data, opened, sha256 = _opened(order)
  other, facts = None, {}
  if order.donor:
    other, digest = _donor(order)
    facts = {"donor_sha256": digest}
  if order.model_sha256:
    facts = {"model_sha256": order.model_sha256}
  changed, mask = scene.tampered(
    opened.dense_bright,
    order.box,
    order.kind,
    order.method,
    _seed(order, sha256),
    opened.cm,
    order.touch_up,
    other,
    order.donor_box,
    order.answer,
  )
  facts = {
    "original_sha256": sha256,
    "kind": order.kind,
    "method": order.method,
    "box": list(order.box),
    "seed": order.seed,
    "touch_up": order.touch_up,
    "synthetic": True,
  } | facts
  values = opened.turned(changed)
  if image_file.looks_dicom(data):
    output, suffix = _dicom(order.path, opened, values, facts), ".dcm"
  else:
    output, suffix = _png(opened, values, facts), ".png"
  return Altered(output, suffix, _mask(mask), facts)


def asked(order: Order, size: int) -> learnt.Question:
  """What an inpainter of so many pixels a side is asked about an order's file.
  Raises ImageError."""
  _, opened, sha256 = _opened(order)
  rng = np.random.default_rng(_seed(order, sha256))
  return learnt.asked(scene.seen(opened.dense_bright, order.box), size, rng)


def _opened(order):
  """(bytes, Values, sha256) of an order's file, in which its box lies."""
  data = image_file.read_bytes(order.path)
  opened = read(order.path, data)
  h, w = opened.values.shape
  if not order.box.inside((h, w)):
    raise ImageError(
      order.path, f"has {w} x {h} pixels: the box {order.box} reaches beyond"
    )
  return data, opened, hashlib.sha256(data).hexdigest()


def _seed(order, sha256):
  """Of the same order and the same bytes the same."""
  return order.seed, int(sha256[:16], 16)


def check_donor(order: Order) -> None:
  """Raises ImageError where an order's donor cannot be one."""
  _donor(order)


def _donor(order):
  """(scene.Donor, sha256 of its file)."""
  data = image_file.read_bytes(order.donor)
  values = read(order.donor, data).dense_bright
  if order.donor_box and not order.donor_box.inside(values.shape):
    raise ImageError(
      order.donor,
      f"has {values.shape[1]} x {values.shape[0]} pixels: the box"
      f" {order.donor_box} reaches beyond",
    )
  return scene.donor(values), hashlib.sha256(data).hexdigest()


def read(name: str, data: bytes) -> Values:
  """A file's values. Raises ImageError where it is not read, is no radiograph
  or in colours that are not altered."""
  gray = image_file.read(data)
  if reason := radiograph.no_radiograph(gray):
    raise ImageError(name, f"is {reason}")
  if image_file.looks_dicom(data):
    from jaxfake.data import dicom_file

    values, cm, kept = dicom_file.guarded(name, _dicom_values, data)
  else:
    (values, kept), cm = _plain_values(name, data), 0.0
  # As a viewer shows it: VOI LUTs and polarities of all kinds come down to it.
  shown = gray.astype(np.float64) - gray.mean()
  negative = float((shown * (values - values.mean())).sum()) < 0
  return Values(values, negative, cm, kept)


def _plain_values(name, data):
  """(values, pixels (h, w) or (h, w, c)) of PNG or JPEG."""
  if data.startswith(b"\xff\xd8"):
    stream = jpeg_file.parse(data)
    head, pixels = jpeg_file.header(stream), jpeg_file.picture(stream)
  else:
    head = data
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
      bits, colour = data[24], data[25]
      if colour == 3 or bits < 8 or (bits == 16 and colour):
        raise ImageError(
          name,
          "is a PNG with a palette, of less than 8 bits, or of 16 bits in"
          " colour: expected gray of 8 or 16 bits or RGB of 8",
        )
      if "transparency" in image.info:
        raise ImageError(name, "has a transparent colour: expected none")
      pixels = np.asarray(image)
  with Image.open(io.BytesIO(head)) as image:
    pixels = image_file.upright(image, pixels)
  if pixels.ndim == 3 and pixels.shape[2] == 4 and head is not data:
    raise ImageError(name, "is a CMYK JPEG: expected gray or RGB")
  if pixels.ndim == 2:
    return pixels.astype(np.int32), pixels.astype(_unsigned(pixels))
  gray = pixels[..., 0]
  if pixels.shape[2] > 2:
    gray = np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))
  return gray.astype(np.int32), pixels


def _unsigned(pixels):
  """Some Pillows read 16 bits as 32."""
  return np.uint8 if pixels.dtype == np.uint8 else np.uint16


def _png(opened, values, facts):
  pixels = opened.kept
  if pixels.ndim == 2:
    output = values.astype(pixels.dtype)[..., None]
  else:
    colours = pixels.shape[2] - 1 + pixels.shape[2] % 2
    change = (values - opened.values)[..., None]
    output = pixels.copy()
    moved = pixels[..., :colours].astype(np.int32) + change
    output[..., :colours] = np.clip(moved, 0, 255)
  code = generated_writer.COMPOSITE
  return generated_writer.png(output, facts, COMMENT, code)


def _mask(mask):
  out = io.BytesIO()
  Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(out, "PNG")
  return out.getvalue()


def _dicom_values(data):
  """(values, cm, (data set, bits as allocated, Cell))."""
  from pydicom import uid

  from jaxfake.data import dicom_file, dicom_gray

  dataset, raw, layout, cell = dicom_file.decoded(data)
  if layout.photometric not in dicom_file.GRAY:
    raise dicom_gray.Refusal(f"in {layout.photometric}: expected gray")
  if layout.allocated not in (8, 16):
    raise dicom_gray.Refusal("of 1 bit a pixel: expected 8 to 16")
  if dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRBigEndian:
    raise dicom_gray.Refusal(
      "in Explicit VR Big Endian, which is retired: write it little endian"
    )
  return cell.values(raw), _spacing(dataset) / 10, (dataset, raw, cell)


def _spacing(dataset):
  """Of pixels, mm; 0 where the file does not say, or no number."""
  from jaxfake.data import dicom_gray

  for name in _SPACINGS:
    with contextlib.suppress(dicom_gray.Refusal):
      if (mm := dicom_gray.number(dataset, name)) and mm > 0:
        return mm
  return 0.0


def _dicom(name, opened, values, facts):
  try:
    return _written(opened.kept, values, facts)
  except Exception as error:  # Of odd headers, that pydicom does not write.
    raise ImageError(
      name, f"has a header that cannot be written ({type(error).__name__})"
    ) from error


def _written(kept, values, facts):
  import pydicom
  from pydicom import uid

  dataset, raw, cell = kept
  shift = cell.high + 1 - cell.stored
  own = (1 << cell.stored) - 1
  cells = raw.astype(np.int64) & ~(own << shift)
  cells |= (values.astype(np.int64) & own) << shift
  _mark(dataset, facts)
  dataset.HighBit = cell.high
  # Of what is decoded from JPEG, whether the header says so or not.
  lossy = uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000
  lossy += uid.JPEGLSNearLossless, uid.HTJ2K
  if dataset.file_meta.TransferSyntaxUID in lossy:
    dataset.LossyImageCompression = "01"
  dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  wide = cell.allocated > 8
  pixels = cells.astype("<u2" if wide else "u1").tobytes()
  dataset.add_new(0x7FE00010, "OW", pixels + b"\0" * (len(pixels) % 2))
  out = io.BytesIO()
  pydicom.dcmwrite(out, dataset, enforce_file_format=True)
  return out.getvalue()


def _mark(dataset, facts):
  """Says in a header that the picture is altered, from which, and by what."""
  from pydicom.dataset import Dataset
  from pydicom.uid import SecondaryCaptureImageStorage

  what = json.dumps(facts, sort_keys=True)
  words = dataset.get("ImageType") or []
  if isinstance(words, str):  # Some write a blank for the backslash.
    words = words.split()
  dataset.ImageType = ["DERIVED", *(words[1:] or ["PRIMARY"])]
  source = Dataset()
  source.ReferencedSOPClassUID = dataset.get("SOPClassUID")
  source.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID")
  if source.ReferencedSOPClassUID and source.ReferencedSOPInstanceUID:
    dataset.SourceImageSequence = [source]
  if not dataset.get("SOPClassUID"):
    dataset.SOPClassUID = SecondaryCaptureImageStorage
  # Of the same order the same (PS3.5 B.2: 2.25 and a UUID's number).
  digest = hashlib.sha256(f"jaxfake {__version__} {what}".encode()).digest()
  number = uuid.UUID(bytes=digest[:16], version=5).int
  dataset.SOPInstanceUID = f"2.25.{number}"
  meta = dataset.file_meta
  meta.MediaStorageSOPClassUID = dataset.SOPClassUID
  meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
  dataset.add_new(0x0008001C, "CS", "YES")
  dataset.DerivationDescription = f"{COMMENT}: {what}"[:1024]
  equipment, purpose = Dataset(), Dataset()
  purpose.CodeValue = "109103"
  purpose.CodingSchemeDesignator = "DCM"
  purpose.CodeMeaning = "Modifying Equipment"
  equipment.PurposeOfReferenceCodeSequence = [purpose]
  equipment.Manufacturer = "jaxfake"
  equipment.SoftwareVersions = __version__
  equipment.ContributionDescription = COMMENT
  before = list(dataset.get("ContributingEquipmentSequence") or ())
  dataset.ContributingEquipmentSequence = [*before, equipment]
  if "IconImageSequence" in dataset:
    del dataset.IconImageSequence

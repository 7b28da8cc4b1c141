"""One image file -> uint8 gray (h, w), or an `ImageError` that says why not.

PNG, JPEG (see jpeg_file) and DICOM (see dicom_file) are read and nothing else:
radiographs come as one of these, and each further decoder is a door for broken
and hostile files. A TIFF or BMP file is refused by name.

How pixels become 8-bit gray, the same for every image (nothing is stretched
to an image's own range, which would differ between real and fake):

- 16 bits: white is the top of the detector's depth, the least of 8, 10, 12, 14
  and 16 bits that holds all values, since converters write 12 bits into 16 as
  they are. So 65535 -> 255, and in a file that goes no further than 12 bits
  4095 -> 255.
- 1, 2 and 4 bit: full range, so 1-bit white is 255.
- Colour: Rec. 601 luma, as Pillow has it; R = G = B comes out exactly.
- Transparency: over black, since on a radiograph no exposure is black and a
  padded border should join it.
- CMYK: Adobe's inverted ink, which is what a JPEG with Adobe's marker holds;
  without the marker the sign of the picture is not known and it is refused.
- EXIF orientation is applied; colour profiles and gamma are ignored.
- An animated PNG gives its first picture.
"""

import io
import os
import stat
import struct

import numpy as np
from PIL import Image

from jaxfake.data import image_error, jpeg_file
from jaxfake.data.image_error import ImageError

# Of a file, and of what a PNG or a DICOM file inflates to; a 16-bit PNG of a
# 14" x 17" plate is about 20 MB, and 40 MB of pixels.
MAX_BYTES = 64 << 20

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_OTHER_FORMATS = {  # First bytes of what people try.
  b"II*\0": "a TIFF",
  b"MM\0*": "a TIFF",
  b"BM": "a BMP",
  b"GIF8": "a GIF",
  b"P2": "a PGM",
  b"P5": "a PGM",
  b"RIFF": "a WebP",
  b"\0\0\0\x0cjP  ": "a JPEG 2000",
  b"\xff\x4f\xff\x51": "a JPEG 2000",
  b"%PDF": "a PDF",
  b"PK": "a ZIP",
}
_UPRIGHT = {  # EXIF orientation -> the picture the right way up.
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1),
  6: lambda a: np.rot90(a, -1),
  7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
  8: lambda a: np.rot90(a),
}


def read(source: str | os.PathLike | bytes) -> np.ndarray:
  """Returns uint8 gray (h, w); raises ImageError alone. Threads may call it."""
  if isinstance(source, bytes):
    name, data = "<bytes>", source
  else:
    name, data = os.fspath(source), read_bytes(source)
  _check_bytes(name, data)
  if looks_dicom(data):
    from jaxfake.data import dicom_file  # pydicom: half a second to import.

    return dicom_file.read(name, data)
  try:
    if data.startswith(_PNG):
      return _png(name, data)
    if data.startswith(_JPEG):
      return _jpeg(name, data)
  except ImageError:
    raise
  except Exception as error:  # Broken files raise nearly anything in Pillow.
    raise ImageError(name, f"is damaged: {_first_line(error)}") from error
  raise ImageError(name, f"is {_what(data)}; PNG, JPEG and DICOM are read")


def _png(name, data):
  try:
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
  except struct.error as error:
    raise ImageError(name, "is cut off within its header") from error
  _check_size(name, width, height)
  channels = {2: 3, 4: 2, 6: 4}.get(colour, 1)
  if (-(-width * channels * bits // 8) + 1) * height > MAX_BYTES:
    raise ImageError(name, f"inflates to more than {MAX_BYTES >> 20} MB")
  wide = bits == 16 and channels > 1
  # Checksums of all chunks: a decoder stops at the last row, and misses damage
  # that still inflates.
  with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
    image.verify()
  with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
    image.load()
    return upright(image, _wide_gray(data) if wide else _gray(image))


def _jpeg(name, data):
  try:
    stream = jpeg_file.parse(data)
    header = stream.frame
    _check_size(name, header.width, header.height)
    if header.bits != 8:
      raise ImageError(name, f"is a JPEG of {header.bits} bits: expected 8")
    pixels = jpeg_file.picture(stream)
  except jpeg_file.CutOffError as error:
    raise ImageError(name, f"is cut off: {error}") from error
  except jpeg_file.DamagedError as error:
    raise ImageError(name, f"is damaged: {_first_line(error)}") from error
  if pixels.shape[2:] == (4,):
    if stream.adobe is None:
      raise ImageError(
        name,
        "is a CMYK JPEG without Adobe's marker, so dark and light cannot be"
        " told apart; save it as gray or RGB",
      )
    image = Image.fromarray(255 - pixels, "CMYK").convert("RGB")
  else:
    image = Image.fromarray(pixels)
  # Pillow does no more than find which way is up, in EXIF or XMP.
  head = io.BytesIO(jpeg_file.header(stream))
  with Image.open(head, formats=["JPEG"]) as tagged:
    return upright(tagged, np.array(image.convert("L")))


def upright(image: Image.Image, pixels: np.ndarray) -> np.ndarray:
  """Pixels (h, w) or (h, w, c) the right way up by an image's EXIF."""
  turn = _UPRIGHT.get(image.getexif().get(0x0112, 1), lambda a: a)
  return np.ascontiguousarray(turn(pixels))


def read_bytes(path: str | os.PathLike) -> bytes:
  """Returns a file's bytes, at most one over the limit; or an ImageError."""
  name = os.fspath(path)
  try:
    if not stat.S_ISREG(
      os.stat(path).st_mode
    ):  # Reading a pipe would wait for ever.
      raise ImageError(name, "is not a file")
    with open(path, "rb") as file:
      data = file.read(MAX_BYTES + 1)
  except OSError as error:
    raise ImageError(name, f"cannot be opened: {error.strerror}") from error
  return data


def _first_line(error):
  return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def looks_dicom(data: bytes) -> bool:
  """Whether bytes are DICOM: by the mark after the preamble or, without one,
  by a first element of group 2 or 8, little endian."""
  start = data[:4]
  return data[128:132] == b"DICM" or (
    start[:2] in (b"\x02\0", b"\x08\0") and start[3:] == b"\0"
  )


def _check_bytes(name, data):
  """Raises ImageError unless `data` is of a size to look at."""
  if not data:
    raise ImageError(name, "is empty (0 bytes)")
  if len(data) > MAX_BYTES:
    raise ImageError(name, f"is larger than {MAX_BYTES >> 20} MB")


def _check_size(name, width, height):
  """Raises ImageError unless a picture is of a size to decode."""
  if not width or not height:
    raise ImageError(name, f"has no pixels ({width} x {height})")
  if width * height > image_error.MAX_PIXELS:
    raise ImageError(
      name,
      f"has {width} x {height} pixels, more than the"
      f" {image_error.MAX_PIXELS:,} allowed",
    )


def _what(data):
  for magic, what in _OTHER_FORMATS.items():
    if data.startswith(magic):
      return f"{what} file"
  start = data[:12].decode("ascii", "replace")
  return f"no image that is known (it starts with {start!a})"


def depth(top: int) -> int:
  """Bits of the detector whose values reach `top`, in a container of 16.

  Of the depths that are built, not of the image's own range: those of real and
  of fake images would differ.
  """
  return next(bits for bits in (8, 10, 12, 14, 16) if top < 1 << bits)


def _wide_gray(data):
  """uint8 (h, w) of a PNG of 16 bits with colour or alpha.

  Pillow keeps its high bytes alone.
  """
  import imagecodecs  # A tenth of a second.

  pixels = imagecodecs.png_decode(data)  # A transparent colour as alpha.
  colours = pixels.shape[-1] - 1 + pixels.shape[-1] % 2
  weights = np.array([0.299, 0.587, 0.114] if colours == 3 else [1.0])
  white = (1 << depth(int(pixels[..., :colours].max()))) - 1
  gray = pixels[..., :colours] @ (weights * 255 / white)
  if colours < pixels.shape[-1]:
    gray *= pixels[..., -1] / 65535
  return np.rint(gray).astype(np.uint8)


def _gray(image):
  """Returns a loaded PNG as uint8 (h, w)."""
  if image.mode.startswith("I"):  # 16-bit gray: I;16, or I in older Pillows.
    wide = np.asarray(image).astype(np.uint32)
    key = image.info.get("transparency")
    if key is not None:
      wide[wide == key] = 0
    white = (1 << depth(int(wide.max()))) - 1
    return ((wide * 255 + white // 2) // white).astype(np.uint8)
  if image.has_transparency_data:
    image = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    image = Image.alpha_composite(black, image)
  return np.array(image.convert("L"))

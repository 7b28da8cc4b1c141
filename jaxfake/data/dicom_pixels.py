"""The pixel data of a DICOM file -> allocated bits, or RGB of 8 bits.

Native, RLE, JPEG (baseline and lossless), JPEG-LS and JPEG 2000 (also HTJ2K).
What a codestream says of itself is held against the header before a decoder
sees it, and what comes out against both; a picture that is cut off is refused.
"""

import struct
from typing import NamedTuple

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.processing import convert_color_space

from jaxfake.data import jpeg_file, jpeg_lossless
from jaxfake.data.dicom_gray import Refusal

JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
JPEG_LOSSLESS = (uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (
  uid.JPEG2000Lossless,
  uid.JPEG2000,
  uid.HTJ2KLossless,
  uid.HTJ2KLosslessRPCL,
  uid.HTJ2K,
)
NATIVE = (
  uid.ImplicitVRLittleEndian,
  uid.ExplicitVRLittleEndian,
  uid.DeflatedExplicitVRLittleEndian,
  uid.ExplicitVRBigEndian,
)
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")


class Layout(NamedTuple):
  """What the header says of the pixels (PS3.3 C.7.6.3)."""

  height: int
  width: int
  samples: int
  allocated: int
  planar: bool
  photometric: str


class Element(NamedTuple):
  """The pixel data element: its bytes, as far as the file has them."""

  vr: str
  encapsulated: bool
  little: bool
  data: memoryview


def decoded(element: Element, syntax: uid.UID, layout: Layout) -> tuple:
  """(pixels, bits that each was coded with) of a picture.

  Pixels are uint16 (h, w) of gray, uint8 (h, w, 3) RGB of colour.
  """
  if syntax in NATIVE:
    if element.encapsulated:
      raise Refusal(f"in {syntax.name}, yet in fragments")
    return _coloured(_native(element, layout), layout), layout.allocated
  for syntaxes, codec in _CODECS:
    if syntax in syntaxes:
      stream = _codestream(element.data)
      try:
        return codec(stream, layout)
      except (Refusal, jpeg_file.DamagedError):
        raise
      except (RuntimeError, ValueError) as error:
        raise Refusal(f"whose pixels ({syntax.name}) are damaged") from error
  known = syntax.name != str(syntax)  # Else its own number is its name.
  raise Refusal(
    f"in {syntax.name}, which is not read"
    if known
    else "of an unknown transfer syntax"
  )


def _native(element, layout):
  """PS3.5 8.1 and A.1 to A.3: (h, w) or (h, w, samples)."""
  height, width, samples = layout[:3]
  subsampled = layout.photometric == "YBR_FULL_422"
  count = height * width * (2 if subsampled else samples)
  need = -(-count * layout.allocated // 8)
  data = element.data
  if len(data) < need:
    raise Refusal(f"whose pixel data are cut off ({len(data)} of {need} bytes)")
  if len(data) >= 2 * need and len(data) > need + 64:
    raise Refusal(f"of {len(data)} bytes of pixel data where {need} make one")
  if layout.allocated <= 8:
    cells = np.frombuffer(data, np.uint8, need)
    if element.vr == "OW" and not element.little:
      whole = np.frombuffer(data, np.uint8, len(data) // 2 * 2)
      cells = whole.reshape(-1, 2)[:, ::-1].ravel()[:need]
    if layout.allocated == 1:
      cells = np.unpackbits(cells, bitorder="little")[:count]
  else:
    order = "<u2" if element.little else ">u2"
    cells = np.frombuffer(data, order, count).astype(np.uint16)
  if subsampled:  # Two of luma, then blue and red of both (C.7.6.3.1.2).
    pairs = cells.reshape(height, width // 2, 4)
    wide = pairs[..., [0, 2, 3, 1, 2, 3]]
    return wide.reshape(height, width, 3)
  if samples == 1:
    return cells.reshape(height, width)
  if layout.planar:
    return cells.reshape(samples, height, width).transpose(1, 2, 0)
  return cells.reshape(height, width, samples)


def _codestream(data):
  """PS3.5 A.4: a single frame's fragments, joined.

  The first item is the offset table, which one frame has no need of; some leave
  it out. The delimiter at the end may be missing. A last fragment that is cut
  off is taken as it is: each codec finds that for itself.
  """
  items, at = [], 0
  while bytes(data[at : at + 4]) == _ITEM and at + 8 <= len(data):
    size = struct.unpack("<I", data[at + 4 : at + 8])[0]
    items.append(bytes(data[at + 8 : at + 8 + size]))
    at += 8 + size
  if not items:
    raise Refusal("whose pixel data are not in fragments")
  if bytes(data[at : at + 4]) not in (_END, b"") and at < len(data):
    raise Refusal("whose fragments are damaged")
  if len(items) > 1 and not items[0].startswith(_STARTS):
    items = items[1:]
  stream = b"".join(items)
  if not stream:
    raise Refusal("whose pixel data are empty")
  return stream


def _rle(stream, layout):
  """PS3.5 annex G: a segment for each byte of each sample, most significant
  byte first."""
  height, width, samples = layout[:3]
  size, depth = height * width, max(layout.allocated // 8, 1)
  if layout.allocated == 1:
    raise Refusal("of 1 bit in RLE, which is not read")
  if len(stream) < 64:
    raise Refusal("whose RLE header is cut off")
  count, *starts = struct.unpack("<16I", stream[:64])
  if count != samples * depth:
    raise Refusal(f"of {count} RLE segments where {samples * depth} make one")
  ends = [*starts[1:count], len(stream)]
  planes = np.empty((samples, depth, size), np.uint8)
  for i, (start, end) in enumerate(zip(starts, ends, strict=False)):
    if not 64 <= start < end <= len(stream):
      raise Refusal("whose RLE segments are damaged")
    planes[i // depth, i % depth] = _unpacked(stream[start:end], size)
  wide = planes.astype(np.uint16)
  cells = wide[:, 0] if depth == 1 else wide[:, 0] << 8 | wide[:, 1]
  cells = cells.reshape(samples, height, width)
  cells = cells[0] if samples == 1 else cells.transpose(1, 2, 0)
  return _coloured(cells, layout), layout.allocated


def _unpacked(segment, size):
  # Segments are padded; what is more than that is not unpacked.
  plain = imagecodecs.packbits_decode(segment, out=size + 64)
  if len(plain) < size:
    raise Refusal("whose RLE segments are cut off")
  return np.frombuffer(plain, np.uint8, size)


def _jpeg(stream, layout):
  parsed = jpeg_file.parse(stream)
  header = parsed.frame
  _check(layout, header.height, header.width, len(header.components))
  if header.bits > layout.allocated:
    raise Refusal("whose JPEG has more bits than its header says")
  if header.kind == jpeg_file.LOSSLESS and layout.samples == 1:
    return jpeg_lossless.picture(parsed).astype(np.uint16), header.bits
  if header.bits != 8:
    raise Refusal(f"in lossy JPEG of {header.bits} bits, which is not read")
  # A stream that does not name its colours has those of the header.
  pixels = jpeg_file.picture(parsed, int(layout.photometric != "RGB"))
  return pixels.astype(np.uint16) if layout.samples == 1 else pixels, 8


def _jpeg_ls(stream, layout):
  header = jpeg_file.frame(stream)
  _check(layout, header.height, header.width, len(header.components))
  if header.kind != jpeg_file.JPEG_LS or header.bits > layout.allocated:
    raise Refusal("whose JPEG-LS stream is not what its header says")
  # Without an end CharLS would search for seconds.
  if stream.find(jpeg_file.EOI, stream.find(b"\xff\xda")) < 0:
    raise jpeg_file.CutOffError
  pixels = imagecodecs.jpegls_decode(stream)
  if pixels.shape == (layout.samples, layout.height, layout.width):
    pixels = pixels.transpose(1, 2, 0)
  return _coloured(_shaped(pixels, layout), layout), header.bits


def _jpeg_2000(stream, layout):
  at = stream[:4096].find(b"\xff\x4f\xff\x51")
  if at < 0 or len(stream) < at + 43:
    raise Refusal("whose JPEG 2000 stream has no header")
  right, bottom, left, top = struct.unpack(">4I", stream[at + 8 : at + 24])
  count, bits = struct.unpack(">HB", stream[at + 40 : at + 43])
  _check(layout, bottom - top, right - left, count)
  bits = (bits & 0x7F) + 1
  if bits > layout.allocated:
    raise Refusal("whose JPEG 2000 has more bits than its header says")
  _check_tiles(stream, at)
  pixels = _shaped(imagecodecs.jpeg2k_decode(stream[at:]), layout)
  # The codec has undone its own colour transform: RCT, ICT.
  return _coloured(pixels, layout), bits


def _check_tiles(stream, at):
  """Raises Refusal where a codestream ends within its tile-parts (T.800, A.4).

  The decoder takes a tail of zeros, of a download that never ended, for data.
  """
  at += 2
  while True:
    marker, size = struct.unpack(">HH", stream[at : at + 4].ljust(4, b"\0"))
    if marker == 0xFF90:  # SOT: the tile-part's length; 0: up to the end.
      length = struct.unpack(">I", stream[at + 6 : at + 10].ljust(4, b"\0"))[0]
      at = at + length if length else len(stream.rstrip(b"\0")) - 2
    elif marker == 0xFFD9:
      return
    elif marker >> 8 == 0xFF and size >= 2:
      at += 2 + size
    else:
      raise Refusal("whose JPEG 2000 stream is cut off")


def _check(layout, height, width, components):
  if (height, width, components) != layout[:3]:
    raise Refusal(
      f"of {layout.width} x {layout.height} pixels whose stream has {width} x"
      f" {height}"
      if components == layout.samples
      else f"of {layout.samples} samples a pixel whose stream has {components}"
    )


def _shaped(pixels, layout):
  want = layout[:2] if layout.samples == 1 else layout[:3]
  if pixels.shape != want:
    raise Refusal("whose stream is not what its header says")
  if pixels.dtype.itemsize > 2:
    raise Refusal("of more than 16 bits a pixel")
  return pixels.astype(np.uint16)


def _coloured(cells, layout):
  """Gray as it is; of colour, RGB of 8 bits."""
  if layout.samples == 1:
    return cells.astype(np.uint16, copy=False)
  cells = cells.astype(np.uint8)
  if layout.photometric in ("YBR_FULL", "YBR_FULL_422"):
    return convert_color_space(cells, "YBR_FULL", "RGB")
  return cells


_CODECS = (
  ((uid.RLELossless,), _rle),
  (JPEG + JPEG_LOSSLESS, _jpeg),
  (JPEG_LS, _jpeg_ls),
  (JPEG_2000, _jpeg_2000),
)

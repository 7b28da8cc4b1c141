"""JPEG streams: what a header says, and pixels that are whole or refused.

libjpeg fills what is missing of a cut or damaged picture with gray, says so in
a warning and goes on. Here every such warning refuses: simplejpeg, which is
libjpeg-turbo too, hands them on. What has no bearing on the pixels must not
warn, so the stream is written anew from the segments that do (tables, frame,
scans): broken EXIF, trailing bytes and odd version numbers are passed over.
"""

import io
import re
import struct
from typing import NamedTuple

import numpy as np
import simplejpeg

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
MAX_SEGMENTS = 10_000
MAX_SCANS = 100  # Progressive files have about ten; each costs a whole pass.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = (0xC2, 0xCA)
LOSSLESS, JPEG_LS = 0xC3, 0xF7
# A marker that has a length, or ends the picture.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]", re.DOTALL)
# The first marker after entropy-coded data: no stuffed zero, fill or restart.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


class DamagedError(ValueError):
  """A stream that is cut off or damaged, in words."""


class CutOffError(DamagedError):
  """A stream without its end marker."""

  def __init__(self):
    super().__init__("its end-of-image marker is missing")


class Frame(NamedTuple):
  """A frame header (T.81, B.2.2)."""

  kind: int  # The marker's second byte.
  bits: int
  height: int
  width: int
  components: tuple  # Their identifiers.


class Scan(NamedTuple):
  """A scan: its header (T.81, B.2.3) and its entropy-coded data."""

  components: tuple
  tables: tuple  # A byte each: of DC and of AC.
  start: int  # Of the spectrum, or the predictor.
  end: int
  high: int  # Bits known from the scan before (Ah).
  low: int  # Bits left to later scans (Al), or the point transform.
  data: bytes


class Stream(NamedTuple):
  """What of a JPEG stream makes its picture."""

  frame: Frame
  scans: list
  segments: list  # (marker, body) in order; a Scan stands for its body.
  adobe: int | None  # The colour transform that Adobe's marker names.
  jfif: bool
  notes: list  # Bodies of APP1: EXIF, XMP.


def frame(data: bytes) -> Frame:
  """The first frame header; raises DamagedError where there is none."""
  for marker, body, _ in _segments(data):
    if marker in FRAMES or marker == JPEG_LS:
      return _frame(marker, body)
    if marker in (0xDA, 0xD9):
      break
  raise DamagedError("a JPEG without a frame header")


def parse(data: bytes) -> Stream:
  """A stream's parts up to its end marker; raises DamagedError."""
  header, adobe, jfif = None, None, False
  scans, kept, notes = [], [], []
  for marker, body, after in _segments(data):
    if marker == 0xD9:
      break
    if marker in FRAMES:
      if header:
        raise DamagedError("a JPEG of several frames")
      header = _frame(marker, body)
      kept.append((marker, body))
    elif marker == 0xDA:
      scans.append(_scan(body, after))
      kept.append((marker, scans[-1]))
    elif marker in (0xC4, 0xCC, 0xDB, 0xDD):  # Tables, restart interval.
      kept.append((marker, body))
    elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
      adobe = body[11]
    elif marker == 0xE0 and body[:5] == b"JFIF\0":
      jfif = True
    elif marker == 0xE1:
      notes.append(body)
    if len(scans) > MAX_SCANS:
      raise DamagedError(f"a JPEG of more than {MAX_SCANS} scans")
  if header is None or not scans:
    raise DamagedError("a JPEG without a picture")
  return Stream(header, scans, kept, adobe, jfif, notes)


def picture(stream: Stream, transform: int | None = None) -> np.ndarray:
  """Pixels of 8 bits: (h, w), RGB (h, w, 3), or (h, w, 4) of ink as stored.

  Where the stream names no colour space, `transform` does, in Adobe's numbers:
  0 for RGB, 1 for YCbCr.
  """
  _check_complete(stream)
  colours = {1: "gray", 3: "rgb", 4: "cmyk"}
  count = len(stream.frame.components)
  if count not in colours:
    raise DamagedError(f"a JPEG of {count} components")
  try:
    pixels = simplejpeg.decode_jpeg(
      rewritten(stream, transform), colours[count], strict=True
    )
  except ValueError as error:
    raise DamagedError(str(error)) from error
  return pixels[..., 0] if count == 1 else pixels


def rewritten(stream: Stream, transform: int | None = None) -> bytes:
  """The stream's picture with nothing else in it.

  Headers get the values that the decoder takes odd ones for; a sequential scan
  has its whole spectrum, whatever it says.
  """
  out = io.BytesIO()
  out.write(SOI)
  if stream.jfif:
    _write(out, 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
  transform = transform if stream.adobe is None else stream.adobe
  if transform is not None and not (stream.adobe is None and stream.jfif):
    if transform > 2:  # As libjpeg takes an unknown one.
      transform = 2 if len(stream.frame.components) == 4 else 1
    _write(out, 0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
  whole = stream.frame.kind in (0xC0, 0xC1, 0xC9)
  for marker, body in stream.segments:
    if marker != 0xDA:
      _write(out, marker, body)
      continue
    pairs = zip(body.components, body.tables, strict=True)
    tail = (0, 63, 0) if whole else (*body[2:4], body.high << 4 | body.low)
    parts = [x for pair in pairs for x in pair]
    _write(out, 0xDA, bytes([len(body.components), *parts, *tail]))
    out.write(body.data)
  out.write(EOI)
  return out.getvalue()


def header(stream: Stream) -> bytes:
  """The stream's notes and frame, with nothing decoded or to skip over."""
  out = io.BytesIO()
  out.write(SOI)
  for note in stream.notes:
    _write(out, 0xE1, note)
  empty = [s for s in stream.segments if s[0] != 0xDA]
  empty.append((0xDA, stream.scans[0]._replace(data=b"")))
  out.write(rewritten(stream._replace(segments=empty))[2:])
  return out.getvalue()


def _write(out, marker, body):
  out.write(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)


def _segments(data):
  """Yields (marker, body, where what follows begins), up to the end marker.

  Stray bytes between segments are skipped, as libjpeg does; within a scan all
  up to the next marker is its data. A missing end marker is an error: a
  download whose tail was never written often ends in zeros.
  """
  at = 2
  for _ in range(MAX_SEGMENTS):
    match = _MARKER.search(data, at)
    if not match:
      raise CutOffError
    at = match.start()
    marker = data[at + 1]
    if marker == 0xD9:
      yield marker, b"", at + 2
      return
    if len(data) < at + 4:
      raise CutOffError
    size = struct.unpack(">H", data[at + 2 : at + 4])[0]
    at, body = at + 2 + size, data[at + 4 : at + 2 + size]
    if marker != 0xDA:
      yield marker, body, at
      continue
    match = _AFTER_SCAN.search(data, at)
    if not match:
      raise CutOffError
    yield marker, body, data[at : match.start()]
    at = match.start()
  raise DamagedError(f"a JPEG of more than {MAX_SEGMENTS} segments")


def _frame(marker, body):
  if len(body) < 6 or len(body) < 6 + 3 * body[5]:
    raise DamagedError("a JPEG whose frame header is too short")
  bits, height, width, count = struct.unpack(">BHHB", body[:6])
  return Frame(marker, bits, height, width, tuple(body[6 : 6 + 3 * count : 3]))


def _scan(body, data):
  count = body[0] if body else 0
  if not 1 <= count <= 4 or len(body) < 4 + 2 * count:
    raise DamagedError("a JPEG whose scan header is too short")
  start, end, bits = body[1 + 2 * count : 4 + 2 * count]
  of = body[1 : 1 + 2 * count]
  return Scan(
    tuple(of[::2]), tuple(of[1::2]), start, end, bits >> 4, bits & 15, data
  )


def _check_complete(stream):
  """Raises DamagedError where a scan is missing: all bits of all coefficients
  of all components must come. libjpeg takes the missing for zeros."""
  if stream.frame.kind not in PROGRESSIVE:
    seen = {c for scan in stream.scans for c in scan.components}
    if not seen >= set(stream.frame.components):
      raise DamagedError("a JPEG without the scan of a component")
    return
  left = {c: np.full(64, -1) for c in stream.frame.components}
  for scan in stream.scans:
    for component in scan.components:
      if component in left:
        left[component][scan.start : scan.end + 1] = scan.low
  if any(bits.any() for bits in left.values()):
    raise DamagedError("a progressive JPEG of which scans are missing")

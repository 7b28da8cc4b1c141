"""Lossless JPEG of 2 to 16 bits (T.81, annex H), whole or refused.

imagecodecs, which is libjpeg-turbo, decodes it and keeps its warnings to
itself, so the picture is held against its stream: its differences, coded again
by the stream's own Huffman table, must take as many bits as the stream has.
"""

import re
import struct

import imagecodecs
import numpy as np

from jaxfake.data import jpeg_file
from jaxfake.data.jpeg_file import DamagedError

_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")


def picture(stream: jpeg_file.Stream) -> np.ndarray:
  """Pixels (h, w) of one lossless scan of one component, 2 to 16 bits."""
  scan, header = stream.scans[0], stream.frame
  if len(stream.scans) != 1 or len(scan.components) != 1:
    raise DamagedError("a lossless JPEG of several scans")
  pixels = imagecodecs.jpeg8_decode(jpeg_file.rewritten(stream))
  if pixels.shape != (header.height, header.width):
    raise DamagedError("a lossless JPEG of another size than it says")
  _check_bits(stream, scan, pixels)
  return pixels


def _check_bits(stream, scan, pixels):
  """Raises DamagedError unless the pixels take the bits that the scan has."""
  interval, code = 0, None
  for marker, body in stream.segments:
    if marker == 0xDD:
      interval = struct.unpack(">H", body[:2])[0]
    if marker == 0xC4:
      code = _code_lengths(body, scan.tables[0] >> 4, code)
  height, width = pixels.shape
  rows = interval // width if interval else height
  if code is None or not rows or interval % width:
    raise DamagedError("a lossless JPEG whose tables are missing")
  parts = _RESTART.split(scan.data)
  if len(parts) != -(-height // rows):
    raise DamagedError("a lossless JPEG of which parts are missing")
  for part, at in zip(parts, range(0, height, rows), strict=True):
    bits = _coded_bits(stream, scan, pixels[at : at + rows], code)
    part = part.rstrip(b"\xff")  # Fill bytes, or a last byte of ones.
    have = len(part) - part.count(b"\xff\0")
    if not have <= -(-bits // 8) <= have + 1 or bits < 0:
      raise DamagedError(
        "a lossless JPEG of more or fewer bits than its pixels"
      )


def _code_lengths(body, wanted, code):
  """Bits of each category's code by a table segment, or `code`; 0: none."""
  at = 0
  while at + 17 <= len(body):
    counts, kind = body[at + 1 : at + 17], body[at]
    values = body[at + 17 : at + 17 + sum(counts)]
    if kind == wanted:
      code = np.zeros(17, int)
      sizes = [size for size, n in enumerate(counts, 1) for _ in range(n)]
      for value, size in zip(values, sizes, strict=False):
        if value <= 16:
          code[value] = size
    at += 17 + sum(counts)
  return code


def _coded_bits(stream, scan, pixels, code):
  """How many bits a restart interval's pixels take; -1: they have no code."""
  values = pixels >> scan.low
  counts, block = np.zeros(17, int), max(1, (1 << 20) // pixels.shape[1])
  for at in range(0, len(pixels), block):
    rows = values[max(at - 1, 0) : at + block].astype(np.int32)
    guess = np.empty_like(rows)
    guess[1:, 1:] = _guess(
      scan.start, rows[1:, :-1], rows[:-1, 1:], rows[:-1, :-1]
    )
    guess[1:, 0], guess[0, 1:] = rows[:-1, 0], rows[0, :-1]
    guess[0, 0] = 1 << stream.frame.bits - scan.low - 1
    # Modulo 2^16, from -32767 to 32768 (H.1.2.1).
    wrapped = ((rows - guess + 32767) & 0xFFFF) - 32767
    wrapped = wrapped[1:] if at else wrapped
    category = np.frexp(np.abs(wrapped).astype(np.float32))[1]
    counts += np.bincount(category.ravel(), minlength=17)
  if (code[counts > 0] == 0).any():
    return -1
  extra = np.arange(17) % 16  # A difference of 32768 has no further bits.
  return int(counts @ (code + extra))


def _guess(predictor, left, up, corner):
  """Table H.1."""
  return {
    1: lambda: left,
    2: lambda: up,
    3: lambda: corner,
    4: lambda: left + up - corner,
    5: lambda: left + (up - corner >> 1),
    6: lambda: up + (left - corner >> 1),
    7: lambda: left + up >> 1,
  }[predictor]()

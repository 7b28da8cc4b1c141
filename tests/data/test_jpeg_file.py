"""JPEG files: odd ones are read as Pillow does, damaged ones never half."""

import functools
import io
import shutil
import struct
import subprocess
import time

import imagecodecs
import numpy as np
from PIL import Image
import pytest

from jaxfake.data import image_error, image_file, jpeg_file, jpeg_lossless

RNG = np.random.default_rng(0)
PICTURE = np.clip(
  np.add.outer(np.arange(160), np.arange(200)) * 0.7
  + RNG.normal(0, 8, (160, 200)),
  0,
  255,
).astype(np.uint8)
COLOUR = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]], -1)


def jpeg(pixels=PICTURE, mode=None, **options):
  out = io.BytesIO()
  options = {"quality": 92, **options}
  Image.fromarray(pixels, mode).save(out, "JPEG", **options)
  return out.getvalue()


def by_pillow(data):
  with Image.open(io.BytesIO(data)) as image:
    return np.array(image.convert("L"))


def refused(data, words):
  with pytest.raises(image_error.ImageError, match=words):
    image_file.read(bytes(data))


def segment(marker, body):
  return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@functools.cache
def transformed(*options, colour=False):
  """By jpegtran: the same coefficients, otherwise coded."""
  if not shutil.which("jpegtran"):
    pytest.skip("jpegtran is not installed (Debian's libjpeg-turbo-progs)")
  data = jpeg(COLOUR if colour else PICTURE)
  done = subprocess.run(["jpegtran", *options], input=data, capture_output=True)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.parametrize(
  "options",
  [
    dict(),
    dict(progressive=True),
    dict(optimize=True),
    dict(restart_marker_blocks=3),
    dict(restart_marker_rows=1, progressive=True),
    dict(quality=5),
    dict(quality=100),
  ],
)
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_whole_files_are_read_as_by_pillow(options, subsampling):
  for data in (
    jpeg(**options),
    jpeg(COLOUR, subsampling=subsampling, **options),
  ):
    np.testing.assert_array_equal(image_file.read(data), by_pillow(data))


@pytest.mark.parametrize(
  "options",
  [("-arithmetic",), ("-arithmetic", "-progressive"), ("-restart", "2B")],
)
@pytest.mark.parametrize("colour", [False, True])
def test_other_codings_are_read_as_by_pillow(options, colour):
  data = transformed(*options, colour=colour)
  np.testing.assert_array_equal(image_file.read(data), by_pillow(data))


def test_scans_of_one_component_each(tmp_path):
  (tmp_path / "scans").write_text("0;\n1;\n2;\n")
  data = transformed("-scans", str(tmp_path / "scans"), colour=True)
  stream = jpeg_file.parse(data)
  assert len(stream.scans) == 3
  np.testing.assert_array_equal(image_file.read(data), by_pillow(data))
  for i in range(3):
    refused(without_scan(stream, i), "without the scan of a component")


def odd_files():
  """(name, bytes) of what cameras and converters write, and is no damage."""
  data = jpeg()
  head, tail = data[:2], data[2:]
  scan = data.index(b"\xff\xda")
  jfif = data.index(b"JFIF")
  yield "bytes after the end", data + b"\0\xff\xd8 and so on" * 99
  yield "a second picture after the end", data + data  # As of MPF.
  yield (
    "fill before markers",
    head + b"\xff" * 5 + tail[:-2] + b"\xff" * 4 + tail[-2:],
  )
  yield "junk between segments", data[:scan] + bytes(7) + data[scan:]
  yield "broken EXIF", head + segment(0xE1, b"Exif\0\0MM\0*\0\0") + tail
  thumbnail = segment(0xE1, b"Exif\0\0" + jpeg(PICTURE[:16, :16]))
  yield "a thumbnail", head + thumbnail + tail
  yield "a comment", head + segment(0xFE, b"\xff\xd9" * 9) + tail
  yield (
    "a broken ICC profile",
    head + segment(0xE2, b"ICC_PROFILE\0\7\2x") + tail,
  )
  yield "JFIF of a coming version", data[: jfif + 5] + b"\7" + data[jfif + 6 :]
  colour = jpeg(COLOUR)
  odd = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")
  yield "an unknown transform", colour[:2] + odd + colour[2:]
  yield "no JFIF", head + tail[struct.unpack(">H", tail[2:4])[0] + 2 :]
  start = scan + 7  # Of the spectrum, in a sequential scan.
  yield "an odd spectrum", data[:start] + b"\0\0\0" + data[start + 3 :]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of bad MPO.
@pytest.mark.parametrize(
  "name, data", list(odd_files()), ids=lambda x: str(x)[:24]
)
def test_odd_files_are_read(name, data):
  with Image.open(io.BytesIO(data)) as image:
    want = np.array(image.convert("L"))
  np.testing.assert_array_equal(image_file.read(data), want)


def test_12_bits_are_refused_by_name():
  wide = PICTURE.astype(np.uint16) << 4
  refused(imagecodecs.jpeg8_encode(wide, bitspersample=12), "JPEG of 12 bits")


def scans(data):
  """(where the first scan's data begin, where the last's end)."""
  stream = jpeg_file.parse(data)
  return data.index(stream.scans[0].data), len(data) - 2


CODINGS = [
  dict(),
  dict(progressive=True),
  dict(restart_marker_rows=1),
  dict(restart_marker_blocks=2),
  dict(quality=100),
]


@pytest.mark.parametrize("options", CODINGS)
@pytest.mark.parametrize("colour", [False, True])
def test_a_cut_file_that_ends_properly_is_refused(options, colour):
  data = jpeg(COLOUR if colour else PICTURE, **options)
  start, end = scans(data)
  for at in np.linspace(start, end - 8, 40).astype(int):
    at -= data[at - 1] == 0xFF
    refused(data[:at] + b"\xff\xd9", "is damaged|is cut off")


@pytest.mark.parametrize("options", CODINGS)
def test_a_file_with_a_hole_is_refused(options):
  """A block of 512 bytes lost, zero, or another's, as file systems do it."""
  data = jpeg(**options)
  other = jpeg(PICTURE[::-1].copy(), **options)
  start, end = scans(data)
  for at in np.linspace(start, end - 600, 12).astype(int):
    for block in (b"", bytes(512), other[at : at + 512][::-1]):
      holed = data[:at] + block + data[at + 512 :]
      if agreed(holed):
        refused(holed, "is damaged|is cut off")


def agreed(data):
  """Whether djpeg, where it is there, warns of a file as well; a decoder may
  by chance fall into step again. Of a code that no table has, libjpeg-turbo's
  faster path, which djpeg takes less often, says nothing."""
  if not shutil.which("djpeg"):
    return False
  done = subprocess.run(["djpeg"], input=data, capture_output=True, check=False)
  return bool(
    done.stderr.replace(b"Corrupt JPEG data: bad Huffman code", b"").strip()
  )


@pytest.mark.parametrize("options", [dict(), dict(progressive=True)])
def test_bits_that_flip_are_refused_when_djpeg_warns(options):
  if not shutil.which("djpeg"):
    pytest.skip("djpeg is not installed (Debian's libjpeg-turbo-progs)")
  data = jpeg(**options)
  start, end = scans(data)
  seen = 0
  for seed in range(60):
    rng = np.random.default_rng(seed)
    flipped = bytearray(data)
    flipped[rng.integers(start, end)] ^= 1 << rng.integers(8)
    if agreed(bytes(flipped)):
      seen += 1
      refused(flipped, "is damaged|is cut off")
  assert seen > 10


def without_scan(stream, i):
  gone = stream.scans[i]
  kept = [s for s in stream.segments if s[1] is not gone]
  return jpeg_file.rewritten(stream._replace(segments=kept))


@pytest.mark.parametrize("colour", [False, True])
def test_a_progressive_file_without_one_of_its_scans_is_refused(colour):
  stream = jpeg_file.parse(
    jpeg(COLOUR if colour else PICTURE, progressive=True)
  )
  assert len(stream.scans) > 4
  for i in range(len(stream.scans)):
    refused(without_scan(stream, i), "scans are missing|Inconsistent|without")


def test_restart_markers_out_of_order_are_refused():
  data = jpeg(restart_marker_rows=1)
  for swap in ((b"\xff\xd1", b"\xff\xd5"), (b"\xff\xd2", b"\xff\xd0")):
    at = data.index(swap[0], scans(data)[0])
    refused(data[:at] + swap[1] + data[at + 2 :], "is damaged")
  at = data.index(b"\xff\xd3", scans(data)[0])
  after = data.index(b"\xff\xd4", at)
  refused(data[:at] + data[after:], "is damaged")  # A row is gone.


@pytest.mark.parametrize(
  "filling",
  [b"\xff", b"\xff\xd0", segment(0xFE, b""), segment(0xFE, bytes(60000))],
  ids=["fill", "restarts", "comments", "long comments"],
)
def test_a_header_without_end_is_refused_soon(filling):
  data = jpeg()
  count = (48 << 20) // len(filling)
  start = time.process_time()
  try:
    image_file.read(data[:2] + filling * count + data[2:])
  except image_error.ImageError as error:
    assert "more than 10000 segments" in error.reason
  assert time.process_time() - start < 3


def test_scans_without_end_are_refused():
  stream = jpeg_file.parse(jpeg(progressive=True))
  scan = stream.segments[-1]
  many = stream._replace(segments=[*stream.segments, *[scan] * 200])
  refused(jpeg_file.rewritten(many), "more than 100 scans")


def lossless(bits, predictor, pixels=None):
  if pixels is None:
    pixels = PICTURE.astype(np.uint16) * 257 >> 16 - bits
    pixels = pixels.astype(np.uint8 if bits <= 8 else np.uint16)
  data = imagecodecs.jpeg8_encode(
    pixels, lossless=True, predictor=predictor, bitspersample=bits
  )
  return pixels, bytes(data)


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless(bits, predictor):
  pixels, data = lossless(bits, predictor)
  noise = RNG.integers(0, 1 << bits, (20, 30)).astype(pixels.dtype)
  for want, coded in ((pixels, data), lossless(bits, predictor, noise)):
    got = jpeg_lossless.picture(jpeg_file.parse(coded))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_lossless_cut_or_with_a_hole_is_refused(bits):
  _, data = lossless(bits, 1)
  start, end = scans(data)
  for at in np.linspace(start, end - 40, 20).astype(int):
    at -= data[at - 1] == 0xFF
    for rest in (b"", bytes(30), data[at + 30 : end]):
      with pytest.raises(jpeg_file.DamagedError):
        jpeg_lossless.picture(jpeg_file.parse(data[:at] + rest + b"\xff\xd9"))

"""Every way a radiograph may be stored, against known pixels; and bad files."""

import contextlib
import io
import os
import pathlib
import struct
import threading
import time
import tracemalloc
import zlib

import numpy as np
from PIL import Image, ImageOps
import pytest

from jaxfake.data import image_error, image_file

GRAY = np.array([[0, 1, 127], [128, 200, 255]], np.uint8)
WIDE = np.array([[0, 1, 128, 129], [257, 32768, 65406, 65535]], np.uint16)
NARROW = np.array([[0, 0, 0, 1], [1, 128, 254, 255]], np.uint8)  # v/257


def saved(image, format, **kw):
  out = io.BytesIO()
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  image.save(out, format, **kw)
  return out.getvalue()


def raw_png(width, height, bits, colour, rows, extra=b""):
  """A PNG written by hand, so that the reader is not tested with its kin."""
  header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
  body = zlib.compress(b"".join(b"\0" + row for row in rows))
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + extra
    + chunk(b"IDAT", body)
    + chunk(b"IEND", b"")
  )


def chunk(name, body):
  crc = struct.pack(">I", zlib.crc32(name + body))
  return struct.pack(">I", len(body)) + name + body + crc


def equal(data, expected):
  image = image_file.read(data)
  assert image.dtype == np.uint8 and image.flags.c_contiguous
  np.testing.assert_array_equal(image, expected)


def test_8_bit_gray():
  equal(saved(GRAY, "PNG"), GRAY)


def test_16_bit_gray_is_rounded_from_the_full_range():
  rows = [row.astype(">u2").tobytes() for row in WIDE]
  equal(raw_png(4, 2, 16, 0, rows), NARROW)


def wide_png(values):
  values = np.asarray(values)
  rows = [row.astype(">u2").tobytes() for row in values]
  return raw_png(values.shape[1], values.shape[0], 16, 0, rows)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_gray_is_as_deep_as_the_detector_that_its_values_tell_of(bits):
  white, black = (1 << bits) - 1, (1 << bits - 2) + 1  # Above the depth below.
  for top in white, black:
    got = image_file.read(wide_png([[0, 1, top // 2, top]]))
    want = np.array([[0, 1, top // 2, top]]) * 255 / white
    assert np.abs(got - want).max() <= 0.5


def test_16_bit_gray_is_never_stretched_to_its_own_range():
  dim = np.full((2, 2), 257 * 100, np.uint16)
  dim[0, 0] = 257 * 90
  equal(wide_png(dim), dim / 257)


def test_12_bits_in_16_are_the_same_picture():
  rng = np.random.default_rng(0)
  picture = np.sort(rng.integers(0, 4096, (8, 8)), axis=None).reshape(8, 8)
  whole = image_file.read(wide_png(picture * 65535 // 4095)).astype(int)
  narrow = image_file.read(wide_png(picture)).astype(int)
  assert np.abs(whole - narrow).max() <= 1


def test_16_bit_transparent_key_is_black():
  rows = [row.astype(">u2").tobytes() for row in WIDE]
  expected = NARROW.copy()
  expected[1, 3] = 0
  key = chunk(b"tRNS", struct.pack(">H", 65535))
  equal(raw_png(4, 2, 16, 0, rows, key), expected)


def test_16_bit_colour():
  rows = [np.repeat(row.astype(">u2"), 3).tobytes() for row in WIDE]
  equal(raw_png(4, 2, 16, 2, rows), NARROW)
  primaries = (np.eye(3) * 65535).astype(">u2")
  equal(raw_png(3, 1, 16, 2, [primaries.tobytes()]), [[76, 150, 29]])
  key = chunk(b"tRNS", struct.pack(">HHH", *[65535] * 3))
  gone = NARROW.copy()
  gone[1, 3] = 0
  equal(raw_png(4, 2, 16, 2, rows, key), gone)


def test_16_bit_gray_with_alpha_is_over_black():
  pairs = np.array([[[65535, 65535], [65535, 0], [32896, 65535]]], ">u2")
  equal(raw_png(3, 1, 16, 4, [pairs[0].tobytes()]), [[255, 0, 128]])


def test_12_bits_in_16_of_colour():
  values = np.array([0, 1000, 2048, 4095])
  want = np.rint(values * 255 / 4095)[None]
  colour = np.repeat(values.astype(">u2"), 3).tobytes()
  equal(raw_png(4, 1, 16, 2, [colour]), want)
  pairs = np.stack([values, np.full(4, 65535)], -1).astype(">u2")
  equal(raw_png(4, 1, 16, 4, [pairs.tobytes()]), want)
  four = np.stack([values] * 3 + [np.full(4, 65535)], -1).astype(">u2")
  equal(raw_png(4, 1, 16, 6, [four.tobytes()]), want)


@pytest.mark.parametrize(
  ("bits", "row", "expected"),
  [
    (1, 0b10110000, [255, 0, 255, 255]),
    (2, 0b00011011, [0, 85, 170, 255]),
    (4, 0x0F, [0, 255]),
    (4, 0x71, [7 * 17, 17]),
  ],
)
def test_few_bits_take_the_full_range(bits, row, expected):
  equal(raw_png(len(expected), 1, bits, 0, [bytes([row])]), [expected])


def test_rgb_holding_gray_is_exact():
  equal(saved(np.repeat(GRAY[..., None], 3, -1), "PNG"), GRAY)


def test_rgb_is_luma():
  primaries = np.eye(3, dtype=np.uint8)[None] * 255  # (1, 3, 3)
  equal(saved(primaries, "PNG"), [[76, 150, 29]])  # 0.299, 0.587, 0.114.


def test_palette():
  image = Image.new("P", (3, 1))
  image.putpalette([0, 0, 0, 90, 90, 90, 255, 255, 255])
  image.putdata([2, 1, 0])
  equal(saved(image, "PNG"), [[255, 90, 0]])
  equal(saved(image, "PNG", transparency=0), [[255, 90, 0]])
  equal(saved(image, "PNG", transparency=2), [[0, 90, 0]])


def test_alpha_is_over_black():
  rgba = np.zeros((1, 3, 4), np.uint8)
  rgba[0, :, :3], rgba[0, :, 3] = 200, (255, 0, 51)
  equal(saved(rgba, "PNG"), [[200, 0, 40]])
  la = Image.merge("LA", [Image.fromarray(rgba[..., i].copy()) for i in (0, 3)])
  equal(saved(la, "PNG"), [[200, 0, 40]])


def test_jpeg_gray_and_colour():
  ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
  for image in ramp, np.repeat(ramp[..., None], 3, -1):
    read = image_file.read(saved(image, "JPEG", quality=95))
    assert np.abs(read.astype(int) - ramp).max() <= 2


def test_cmyk_jpeg_is_not_a_negative():
  ink = np.zeros((8, 16, 4), np.uint8)
  ink[:, 8:, 3] = 255  # The right half is black ink.
  data = saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)
  read = image_file.read(data).astype(int)
  assert read[:, :8].min() > 250 and read[:, 8:].max() < 5
  at = data.index(b"\xff\xee")  # Adobe's segment.
  size = struct.unpack(">H", data[at + 2 : at + 4])[0]
  with pytest.raises(image_error.ImageError, match="CMYK JPEG without Adobe"):
    image_file.read(data[:at] + data[at + 2 + size :])


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, format):
  upright = np.zeros((16, 24), np.uint8)
  upright[:8, :8], upright[:8, 8:16] = 255, 128  # No symmetry.
  stored = {  # EXIF 2.3: where row 0 and column 0 of the stored image lie.
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.T,
    6: np.rot90(upright),
    7: upright[::-1, ::-1].T,
    8: np.rot90(upright, -1),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  image = Image.fromarray(np.ascontiguousarray(stored))
  read = image_file.read(saved(image, format, exif=exif, **QUALITY[format]))
  assert read.shape == upright.shape
  assert np.abs(read.astype(int) - upright).max() <= 6


QUALITY = {"PNG": {}, "JPEG": {"quality": 95}}


def refused(source, reason):
  with pytest.raises(image_error.ImageError, match=reason) as info:
    image_file.read(source)
  return info.value


def test_empty_and_other_files(tmp_path):
  path = tmp_path / "a.png"
  path.write_bytes(b"")
  error = refused(path, "is empty")
  assert str(path) in str(error) and error.path == str(path)
  path.write_text("patient,age\n1,70\n")
  refused(path, "no image that is known .it starts with 'patient,age")
  refused(tmp_path / "gone.png", "cannot be opened: No such file")
  refused(tmp_path, "is not a file")
  refused(saved(GRAY, "TIFF"), "is a TIFF file; PNG, JPEG and DICOM are read")
  refused(saved(GRAY, "BMP"), "is a BMP file")
  refused(saved(GRAY, "GIF"), "is a GIF file")


def test_a_suffix_makes_no_dicom(tmp_path):
  path = tmp_path / "a.dcm"
  path.write_bytes(b"x")
  refused(path, "no image that is known")
  refused(bytes(128) + b"DICM" + bytes(99), "is a damaged DICOM file|picture")


def test_a_pipe_does_not_hang(tmp_path):
  os.mkfifo(tmp_path / "pipe.png")
  refused(tmp_path / "pipe.png", "is not a file")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_truncated_anywhere(format):
  noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
  data = saved(noise, format)
  # A PNG's last four bytes are the checksum of its empty last chunk.
  whole = len(data) - (4 if format == "PNG" else 0)
  for end in [*range(1, 40), *range(40, whole, 97), whole - 1]:
    refused(data[:end], ".")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_tail_of_zeros_is_not_read(format):
  noise = np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8)
  data = saved(noise, format)
  half = len(data) // 2
  refused(data[:half] + bytes(len(data) - half), ".")


def test_damage_inside_a_png_is_seen():
  noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
  data = bytearray(saved(noise, "PNG", compress_level=0))
  data[len(data) // 2] ^= 1  # Inflates all the same: a wrong pixel.
  refused(bytes(data), "is damaged")


def test_any_damage_gives_an_image_or_an_image_error():
  rng = np.random.default_rng(0)
  ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
  for format in "PNG", "JPEG":
    whole = saved(np.repeat(ramp[..., None], 3, -1), format)
    for _ in range(300):
      data = bytearray(whole)
      for at in rng.integers(0, len(data), rng.integers(1, 5)):
        data[at] = rng.integers(256)
      with contextlib.suppress(image_error.ImageError):
        assert image_file.read(bytes(data)).dtype == np.uint8


def test_bombs_are_refused_before_decoding(monkeypatch):
  rows = [b"\0"]
  refused(
    raw_png(50_000, 50_000, 8, 0, rows), "50000 x 50000 pixels, more than"
  )
  refused(raw_png(0, 7, 8, 0, rows), "no pixels")
  jpeg = bytearray(saved(GRAY, "JPEG"))
  at = jpeg.index(b"\xff\xc0")
  jpeg[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
  refused(bytes(jpeg), "60000 x 60000 pixels, more than")
  monkeypatch.setattr(image_error, "MAX_PIXELS", 6)
  equal(saved(GRAY, "PNG"), GRAY)
  monkeypatch.setattr(image_error, "MAX_PIXELS", 5)
  refused(saved(GRAY, "PNG"), "3 x 2 pixels, more than the 5 allowed")


def test_a_png_is_refused_by_what_it_inflates_to():
  rows = [b"\0"]
  refused(raw_png(8000, 8000, 16, 6, rows), "inflates to more than 64 MB")
  refused(raw_png(8000, 8000, 8, 2, rows), "inflates to more than 64 MB")
  refused(raw_png(8000, 8000, 8, 0, rows), "is damaged")  # Small enough to try.


@pytest.mark.parametrize(
  "name, head, count",
  [
    (b"zTXt", b"a\0\0", 1),
    (b"iTXt", b"a\0\1\0\0\0", 1),
    (b"iCCP", b"a\0\0", 1),
    (b"iTXt", b"a\0\1\0\0\0", 100),  # Each is small.
  ],
)
def test_words_in_a_png_that_inflate_are_refused(name, head, count):
  size = (256 << 20) if count == 1 else (1 << 20) - 1
  squeezed = chunk(name, head + zlib.compress(bytes(size), 1))
  data = raw_png(1, 1, 8, 0, [b"\0"], squeezed * count)
  tracemalloc.start()
  refused(data, "is damaged: (Decompressed data too large|Too much memory)")
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 128 << 20


def test_a_huge_file_is_refused_unread(tmp_path):
  path = tmp_path / "a.png"
  with open(path, "wb") as file:
    file.truncate(1 << 40)  # Sparse: a terabyte of nothing.
  refused(path, "larger than 64 MB")


def test_threads_agree():
  data = [
    saved(np.full((64, 64), i, np.uint8), "JPEG", quality=95) for i in range(16)
  ]
  bad = []

  def work():
    for _ in range(10):
      for i, one in enumerate(data):
        if abs(int(image_file.read(one).mean()) - i) > 1:
          bad.append(i)

  threads = [threading.Thread(target=work) for _ in range(8)]
  [t.start() for t in threads]
  [t.join() for t in threads]
  assert not bad


# Of hostile_files/broken_images: what is read, with its height and width. All
# others are refused.
READ = {
  "apng__mode_16bit.png": (64, 128),
  "apng__syntax_num_frames_invalid.png": (64, 128),
  "broken_exif_dpi.jpg": (100, 100),
  "exif-200dpcm.jpg": (200, 200),
  "exif-72dpi-int.jpg": (450, 500),
  "exif-dpi-zerodivision.jpg": (200, 200),
  "exif-ifd-offset.jpg": (200, 200),
  "exif.png": (512, 512),
  "exif_gps.jpg": (8, 8),
  "exif_gps_typeerror.jpg": (531, 800),
  "exif_imagemagick.png": (512, 512),
  "exif_imagemagick_orientation.png": (512, 512),
  "exif_text.png": (512, 512),
  "exif_typeerror.jpg": (531, 800),
  "hopper.jpg": (128, 128),
  "hopper.png": (128, 128),
  "hopper_16bit_qtables.jpg": (128, 128),
  "hopper_bw_500.png": (500, 500),
  "hopper_gray.jpg": (128, 128),
  "invalid-exif-without-x-resolution.jpg": (200, 300),
  "invalid-exif.jpg": (200, 200),
  "iptc.jpg": (480, 640),
  "iptc_roundUp.jpg": (480, 640),
  "multiple_exif.jpg": (1, 1),
  "no-dpi-in-exif.jpg": (200, 200),
  "photoshop-200dpi-broken.jpg": (200, 200),
  "pil_sample_cmyk.jpg": (100, 100),
  "pil_sample_rgb.jpg": (100, 100),
  "sugarshack_bad_mpo_header.jpg": (480, 640),
  "tiff_16bit_RGB_target.png": (40, 100),
  "tiff_16bit_RGBa_target.png": (40, 100),
  "truncated_app14.jpg": (100, 100),
  "truncated_exif_dpi.jpg": (640, 480),
  "xmp_tags_orientation_exiftool.png": (10, 10),
}
REFUSED = {  # PNG and JPEG files, and why; the rest are other formats.
  "broken.png": "97293039 x 1048810005 pixels",
  "broken_data_stream.png": "is damaged",
  # Its EXIF is no harm; of its restart markers all but one are gone.
  "hopper_bad_exif.jpg": "is damaged: Corrupt JPEG data: 1214 extraneous bytes",
  "truncated_end_chunk.png": "is damaged",
  "truncated_image.png": "is damaged",
  "truncated_jpeg.jpg": "end-of-image marker is missing",
}
UPSIDE_DOWN = {  # Orientation 3.
  "exif_imagemagick_orientation.png",
  "xmp_tags_orientation_exiftool.png",
}


def broken_images():
  if "JAXFAKE_DATA" not in os.environ:
    pytest.skip("JAXFAKE_DATA is not set: no broken images to read")
  return pathlib.Path(os.environ["JAXFAKE_DATA"], "hostile_files/broken_images")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of bad MPO.
def test_broken_images_are_read_or_refused():
  files = sorted(broken_images().iterdir())
  assert len(files) == 84
  for path in files:
    start = time.monotonic()
    if path.name in READ:
      assert image_file.read(path).shape == READ[path.name], path
    else:
      reason = REFUSED.get(path.name, "file; PNG, JPEG and DICOM are read")
      refused(path, reason)
    assert time.monotonic() - start < 5, path


def unfiltered(body, height, stride, step):
  """Undoes PNG's row filters: (height, stride) bytes."""
  out = np.zeros((height + 1, stride + step), int)  # Zeros above and left.
  for y in range(height):
    kind, row = body[y * (stride + 1)], body[y * (stride + 1) + 1 :][:stride]
    for x in range(stride):
      left, up = out[y + 1, x], out[y, x + step]
      corner = out[y, x]
      near = left + up - corner
      paeth = min((left, up, corner), key=lambda v: abs(near - v))
      guess = (0, left, up, (left + up) // 2, paeth)[kind]
      out[y + 1, x + step] = (row[x] + guess) % 256
  return out[1:, step:]


def read_by_hand(data):
  """A PNG of 1, 8 or 16 bits as gray floats over black: no Pillow in it."""
  at, body, header = 8, b"", None
  while at < len(data):
    size, name = struct.unpack(">I4s", data[at : at + 8])
    part = data[at + 8 : at + 8 + size]
    header = struct.unpack(">IIBBBBB", part) if name == b"IHDR" else header
    body += part if name == b"IDAT" else b""
    at += 12 + size
  width, height, bits, colour, _, _, interlaced = header
  assert not interlaced
  channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
  stride = (width * channels * bits + 7) // 8
  rows = unfiltered(
    zlib.decompress(body), height, stride, max(1, channels * bits // 8)
  )
  if bits == 1:
    pixels = np.unpackbits(rows.astype(np.uint8), axis=1)[:, :width, None] * 255
  elif bits == 16:
    pixels = (rows[:, ::2] * 256 + rows[:, 1::2]).reshape(height, width, -1)
    pixels = pixels / 257
  else:
    pixels = rows.reshape(height, width, channels)
  if channels >= 3:
    gray = pixels[..., :3] @ (0.299, 0.587, 0.114)
  else:
    gray = pixels[..., 0]
  return gray * (pixels[..., -1] / 255 if channels in (2, 4) else 1)


@pytest.mark.parametrize(
  "name",
  [
    "apng__mode_16bit.png",
    "hopper.png",
    "hopper_bw_500.png",
    "tiff_16bit_RGB_target.png",
    "tiff_16bit_RGBa_target.png",
    "xmp_tags_orientation_exiftool.png",
  ],
)
def test_png_against_a_decoder_written_by_hand(name):
  path = broken_images() / name
  expected = read_by_hand(path.read_bytes())
  if name in UPSIDE_DOWN:
    expected = expected[::-1, ::-1]
  assert np.abs(image_file.read(path) - expected).max() < 1.6


def test_jpeg_against_the_same_picture_otherwise_stored():
  here = broken_images()

  def apart(a, b):
    a, b = (image_file.read(here / name).astype(int) for name in (a, b))
    return np.abs(a - b).mean()

  assert apart("hopper.jpg", "hopper.png") < 2
  assert apart("hopper_gray.jpg", "hopper.png") < 2
  assert apart("pil_sample_cmyk.jpg", "pil_sample_rgb.jpg") < 4
  assert apart("exif_imagemagick.png", "exif.png") == 0
  assert apart("exif_text.png", "exif.png") == 0
  turned = image_file.read(here / "exif_imagemagick_orientation.png")
  as_stored = image_file.read(here / "exif_imagemagick.png")
  assert np.array_equal(turned, as_stored[::-1, ::-1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_jpeg_against_its_luma_plane():
  for name in READ:
    if name.endswith("jpg") and name != "pil_sample_cmyk.jpg":
      path = broken_images() / name
      with Image.open(path, formats=["JPEG"]) as image:
        image.draft("L", None)  # libjpeg then gives Y, no colour undone.
        luma = np.asarray(image.convert("L")).astype(int)
        if image.getexif().get(0x0112, 1) != 1:
          luma = np.asarray(ImageOps.exif_transpose(image.convert("L")))
      read = image_file.read(path)
      assert np.abs(read - luma.astype(int)).mean() < 1.5, name

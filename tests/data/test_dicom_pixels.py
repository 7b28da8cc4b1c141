"""Pixel data of every syntax, whole, odd and damaged, against known pixels."""

import io
import shutil
import struct
import subprocess
import sys
import zlib

import dicom_cases
import imagecodecs
import numpy as np
from PIL import Image
import pydicom
from pydicom import uid
import pytest

from jaxfake.data import image_error, image_file

RNG = np.random.default_rng(0)
JPEG_2000 = imagecodecs.jpeg2k_encode


def picture(bits, height=40, width=48):
  """Smooth with noise, up to both ends of the bits."""
  ramp = np.add.outer(np.arange(height), np.arange(width)) / (height + width)
  values = ((1 << bits) - 1) * ramp + RNG.normal(0, 1 + bits / 4, ramp.shape)
  values = np.clip(np.rint(values), 0, (1 << bits) - 1).astype(int)
  values[0, 0], values[-1, -1] = 0, (1 << bits) - 1
  return values.astype(np.uint8 if bits <= 8 else np.uint16)


def jpeg_2000(cells, bits):
  return JPEG_2000(
    cells, level=0, reversible=True, codecformat="j2k", bitspersample=bits
  )


def lossless(cells, bits, predictor=1):
  return imagecodecs.jpeg8_encode(
    cells, lossless=True, predictor=predictor, bitspersample=bits
  )


CODECS = {
  uid.JPEGLosslessSV1: lossless,
  uid.JPEGLossless: lambda cells, bits: lossless(cells, bits, 6),
  uid.JPEGLSLossless: lambda cells, bits: imagecodecs.jpegls_encode(cells),
  uid.JPEG2000Lossless: jpeg_2000,
  uid.HTJ2KLossless: lambda cells, bits: imagecodecs.htj2k_encode(cells),
}


def refused(data, words):
  with pytest.raises(image_error.ImageError, match=words):
    image_file.read(data)


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("syntax", CODECS, ids=lambda s: s.name)
def test_codecs_give_what_native_gives(syntax, bits):
  cells = picture(bits)
  ds = dicom_cases.dataset(cells, bits)
  native = image_file.read(dicom_cases.file(ds))
  white = (1 << bits) - 1
  assert np.abs(native - cells * (255 / white)).max() <= 0.5 + 1e-9
  stream = bytes(CODECS[syntax](cells, bits))
  coded = dicom_cases.file(dicom_cases.wrapped(ds, stream, syntax))
  np.testing.assert_array_equal(image_file.read(coded), native)


def dcmtk(*command):
  if not shutil.which(command[0]):
    pytest.skip(f"{command[0]} is not installed (Debian's dcmtk)")
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  "command",
  [
    ("dcmconv", "+ti"),
    ("dcmconv", "+tb"),
    ("dcmconv", "+td"),
    ("dcmconv", "-F", "+ti"),
    ("dcmcrle",),
    ("dcmcjpeg", "+e1"),
    ("dcmcjpeg", "+el"),
    ("dcmcjpls",),
    ("dcmcjpls", "+fs", "1"),
  ],
  ids=" ".join,
)
@pytest.mark.parametrize("bits, signed", [(8, 0), (12, 0), (12, 1), (16, 1)])
def test_syntaxes_as_dcmtk_writes_them(command, bits, signed, tmp_path):
  cells = picture(bits)
  ds = dicom_cases.dataset(cells, bits, signed=bool(signed))
  ds.PatientName = "An^odd"  # Of odd length.
  plain = dicom_cases.write(ds, tmp_path / "plain.dcm")
  coded = tmp_path / "coded.dcm"
  dcmtk(*command, str(plain), str(coded))
  assert coded.read_bytes() != plain.read_bytes()
  np.testing.assert_array_equal(image_file.read(coded), image_file.read(plain))


@pytest.mark.parametrize("bits, high", [(12, 11), (12, 15), (10, 13)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [None, *CODECS])
def test_what_lies_in_other_bits_is_no_gray(bits, high, signed, syntax):
  values = picture(bits).astype(int) - (1 << bits - 1) * signed
  clean = dicom_cases.container(values, 16, bits, high)
  with_overlay = clean | dicom_cases.container(
    RNG.integers(0, 2, values.shape), 16, 1, 15 if high < 15 else 0
  )
  want = np.rint(255 * (values + (1 << bits - 1) * signed) / ((1 << bits) - 1))
  ds = dicom_cases.dataset(with_overlay, bits, high, signed)
  if syntax:
    stream = bytes(CODECS[syntax](with_overlay, 16))
    ds = dicom_cases.wrapped(ds, stream, syntax)
  np.testing.assert_array_equal(image_file.read(dicom_cases.file(ds)), want)


@pytest.mark.parametrize("syntax", CODECS)
def test_values_alone_lie_low_whatever_the_high_bit(syntax):
  cells = picture(12)
  want = image_file.read(dicom_cases.file(dicom_cases.dataset(cells, 12)))
  bits = 12
  if syntax in (uid.JPEGLSLossless, uid.HTJ2KLossless):
    cells, bits = picture(8), 8  # These encoders take the bits of the type.
    want = cells
  ds = dicom_cases.dataset(cells.astype(np.uint16), bits, 15)
  ds = dicom_cases.wrapped(ds, bytes(CODECS[syntax](cells, bits)), syntax)
  np.testing.assert_array_equal(image_file.read(dicom_cases.file(ds)), want)


def test_signed_jpeg_2000():
  values = picture(12).astype(np.int16) - 2048
  cells = dicom_cases.container(values, 16, 12, 11)
  ds = dicom_cases.dataset(cells, 12, signed=True)
  want = image_file.read(dicom_cases.file(ds))
  stream = bytes(jpeg_2000(values, 12))
  ds = dicom_cases.wrapped(ds, stream, uid.JPEG2000Lossless)
  np.testing.assert_array_equal(image_file.read(dicom_cases.file(ds)), want)


def test_rows_as_text():
  data = dicom_cases.file(dicom_cases.dataset(picture(8, 40, 48)))
  for size in (40, 48):
    tag = {40: b"\x28\0\x10\0", 48: b"\x28\0\x11\0"}[size]
    at = data.index(tag + b"US")
    text = tag + b"IS\2\0" + str(size).encode()
    data = data[:at] + text + data[at + 10 :]
  assert image_file.read(data).shape == (40, 48)


# --- Fragments and lengths ----------------------------------------------------


def item(data):
  return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(data)) + data


END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def encapsulated(body, ds=None, syntax=uid.JPEG2000Lossless):
  """A file whose pixel data are `body`, as it stands."""
  ds = ds or dicom_cases.dataset(CELLS, 12)
  data = dicom_cases.file(dicom_cases.wrapped(ds, b"mark", syntax))
  return data[: data.index(item(bytes(4)) + item(b"mark"))] + body


CELLS = picture(12)
STREAM = bytes(jpeg_2000(CELLS, 12))
STREAM += b"\0" * (len(STREAM) % 2)


@pytest.mark.parametrize(
  "body",
  [
    item(b"") + item(STREAM) + END,
    item(b"") + item(STREAM),  # No delimiter.
    item(b"") + item(STREAM) + END[:4],
    item(struct.pack("<I", 0)) + item(STREAM) + END,
    item(struct.pack("<I", 4711)) + item(STREAM) + END,  # A wrong table.
    item(bytes(40)) + item(STREAM) + END,
    item(STREAM) + END,  # No table.
    item(b"") + item(STREAM[:1000]) + item(STREAM[1000:]) + END,
    item(STREAM[:1000]) + item(STREAM[1000:]),
    item(b"") + item(STREAM) + END + b"\xfc\xff\xfc\xffOB\0\0\2\0\0\0\0\0",
  ],
)
def test_fragments(body):
  want = image_file.read(dicom_cases.file(dicom_cases.dataset(CELLS, 12)))
  np.testing.assert_array_equal(image_file.read(encapsulated(body)), want)


def test_a_delimiter_within_a_fragment_is_data():
  rle = struct.pack("<16I", 1, 64, *[0] * 14)
  row = b"\xfe\xff\xdd\xe0" * 4
  rle += bytes([15]) + row
  cells = np.frombuffer(row, np.uint8).reshape(4, 4)
  ds = dicom_cases.dataset(cells)
  data = encapsulated(item(b"") + item(rle + b"\0") + END, ds, uid.RLELossless)
  np.testing.assert_array_equal(image_file.read(data), cells)


@pytest.mark.parametrize("syntax", [*CODECS, uid.RLELossless])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9", "zeros"])
def test_a_stream_that_is_cut_off_is_refused(syntax, share, tail):
  ds = dicom_cases.dataset(CELLS, 12)
  if syntax == uid.RLELossless:
    ds.compress(uid.RLELossless, encoding_plugin="pydicom")
    stream = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
  else:
    stream = bytes(CODECS[syntax](CELLS, 12))
  keep = int(len(stream) * share)
  zeros = bytes(len(stream) - keep)
  if tail == "zeros" and syntax == uid.RLELossless:
    pytest.skip("zeros are runs of RLE")
  if tail == "zeros" and syntax == uid.HTJ2KLossless:
    zeros = zeros[:-2]
  body = stream[:keep] + (zeros if tail == "zeros" else tail)
  body += b"\0" * (len(body) % 2)
  refused(
    encapsulated(item(b"") + item(body) + END, syntax=syntax),
    "damaged|cut off|no header|header is too short|segments|whose stream has",
  )


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_tail_of_zeros_is_no_jpeg_2000(share):
  """The decoder makes a blurred picture of it."""
  cells = picture(12, 300, 300)
  stream = bytes(jpeg_2000(cells, 12))
  keep = int(len(stream) * share)
  body = stream[:keep] + bytes(len(stream) - keep)
  assert imagecodecs.jpeg2k_decode(body).shape == cells.shape
  ds = dicom_cases.dataset(cells, 12)
  body += b"\0" * (len(body) % 2)
  refused(encapsulated(item(b"") + item(body) + END, ds), "is cut off")


def test_a_cut_file_is_refused_wherever_it_is_cut():
  whole = dicom_cases.file(dicom_cases.dataset(CELLS, 12))
  for end in [*range(1, 600, 7), *range(600, len(whole), 199)]:
    refused(whole[:end], ".")


@pytest.mark.parametrize("syntax", CODECS, ids=lambda s: s.name)
@pytest.mark.parametrize(
  "changes",
  [
    dict(Rows=41),
    dict(Columns=47),
    dict(Rows=48, Columns=40),
    dict(BitsAllocated=8, BitsStored=8, HighBit=7),
    dict(
      SamplesPerPixel=3,
      PhotometricInterpretation="RGB",
      PlanarConfiguration=0,
      BitsAllocated=8,
      BitsStored=8,
      HighBit=7,
    ),
  ],
)
def test_a_header_that_its_stream_does_not_bear_out_is_refused(syntax, changes):
  ds = dicom_cases.dataset(CELLS, 12)
  ds = dicom_cases.wrapped(ds, bytes(CODECS[syntax](CELLS, 12)), syntax)
  for name, value in changes.items():
    setattr(ds, name, value)
  refused(dicom_cases.file(ds), "whose stream has|than its header|not what its")


def native(cells, **changes):
  ds = dicom_cases.dataset(cells)
  for name, value in changes.items():
    setattr(ds, name, value)
  return dicom_cases.file(ds)


def test_padding_after_the_pixels_is_passed_over():
  cells = picture(8, 5, 5)  # An odd number of bytes.
  for more in (b"", b"\0", b"\0" * 21):
    data = native(cells, PixelData=cells.tobytes() + more)
    np.testing.assert_array_equal(image_file.read(data), cells)
  refused(native(cells, PixelData=cells.tobytes()[:-3]), "cut off")


def test_one_bit():
  bits = RNG.integers(0, 2, (7, 9))
  packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
  ds = dicom_cases.dataset(np.zeros((7, 9), np.uint8))
  ds.BitsAllocated = ds.BitsStored = 1
  ds.HighBit, ds.PixelData = 0, packed
  got = image_file.read(dicom_cases.file(ds))
  np.testing.assert_array_equal(got, 255 * bits)


def test_eight_bits_in_words_of_big_endian():
  cells = picture(8, 6, 6)
  swapped = cells.reshape(-1, 2)[:, ::-1].tobytes()
  for vr, data in (("OB", cells.tobytes()), ("OW", swapped)):
    ds = dicom_cases.dataset(cells, syntax=uid.ExplicitVRBigEndian)
    ds.PixelData = data
    ds["PixelData"].VR = vr
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    np.testing.assert_array_equal(image_file.read(out.getvalue()), cells)


# --- Colour -------------------------------------------------------------------

RGB = np.stack([picture(8), picture(8)[::-1], picture(8)[:, ::-1]], -1)
LUMA = np.array(Image.fromarray(RGB).convert("L")).astype(int)


def colour(cells, photometric, planar=0, **changes):
  ds = dicom_cases.dataset(RGB[..., 0].copy())
  ds.SamplesPerPixel, ds.PlanarConfiguration = 3, planar
  ds.PhotometricInterpretation = photometric
  ds.PixelData = cells.tobytes()
  return ds


def test_colour_of_all_layouts():
  ycc = np.array(Image.fromarray(RGB).convert("YCbCr"))
  subsampled = ycc.reshape(-1, 2, 3).astype(int)
  pairs = np.concatenate(
    [subsampled[..., 0], subsampled[..., 1:].mean(1).round()], 1
  ).astype(np.uint8)
  for ds, apart in (
    (colour(RGB, "RGB"), 0),
    (colour(RGB.transpose(2, 0, 1), "RGB", 1), 0),
    (colour(ycc, "YBR_FULL"), 2),
    (colour(pairs, "YBR_FULL_422"), 60),  # Half of its colour is gone.
  ):
    got = image_file.read(dicom_cases.file(ds))
    assert np.abs(got - LUMA).max() <= apart, ds.PhotometricInterpretation


@pytest.mark.parametrize("named", [True, False])
def test_jpeg_in_colour_is_of_the_colours_that_are_named(named):
  out = io.BytesIO()
  Image.fromarray(RGB).save(out, "JPEG", quality=98, subsampling=0)
  data = out.getvalue()
  if not named:  # Without JFIF's marker nothing names them but DICOM.
    size = struct.unpack(">H", data[4:6])[0]
    data = data[:2] + data[4 + size :]
  ds = dicom_cases.wrapped(colour(RGB, "YBR_FULL"), data, uid.JPEGBaseline8Bit)
  got = image_file.read(dicom_cases.file(ds)).astype(int)
  assert np.abs(got - LUMA).max() <= 4
  if not named:
    ds.PhotometricInterpretation = "RGB"
    wrong = image_file.read(dicom_cases.file(ds)).astype(int)
    assert np.abs(wrong - LUMA).max() > 20  # Cb and Cr taken for colours.


@pytest.mark.parametrize(
  "command",
  [
    ("dcmcrle",),
    ("dcmcjpls", "+in"),  # Planes, lines, pixels.
    ("dcmcjpls", "+il"),
    ("dcmcjpls",),
    ("dcmcjpeg", "+e1"),
    ("dcmcjpeg", "+eb", "+cr"),  # Stays RGB.
    ("dcmcjpeg", "+eb", "+s4"),
  ],
  ids=" ".join,
)
def test_colour_as_dcmtk_writes_it(command, tmp_path):
  plain = dicom_cases.write(colour(RGB, "RGB"), tmp_path / "plain.dcm")
  dcmtk(*command, str(plain), str(tmp_path / "coded.dcm"))
  got = image_file.read(tmp_path / "coded.dcm").astype(int)
  assert np.abs(got - LUMA).max() <= 8 * ("+eb" in command)


def test_damaged_jpeg_within_dicom_is_refused():
  out = io.BytesIO()
  Image.fromarray(picture(8, 200, 200)).save(out, "JPEG", quality=90)
  data = out.getvalue()
  ds = dicom_cases.dataset(picture(8, 200, 200))
  cut = data[: len(data) // 2] + b"\xff\xd9"
  ds = dicom_cases.wrapped(ds, cut, uid.JPEGBaseline8Bit)
  refused(dicom_cases.file(ds), "picture is damaged: Corrupt JPEG data")


# --- What inflates ------------------------------------------------------------

MEASURE = """
import resource, sys
from jaxfake.data import dicom_file, image_file
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
try:
  image_file.read(sys.argv[1])
except image_file.ImageError as error:
  print(error.reason)
print(peak() - before)
"""


def inflated(data, tmp_path):
  """(why it is refused, MB that reading took) in a process of its own."""
  path = tmp_path / "bomb"
  path.write_bytes(data)
  done = subprocess.run(
    [sys.executable, "-c", MEASURE, path], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  *reason, megabytes = done.stdout.splitlines()
  return "".join(reason), int(megabytes)


def deflated_bomb(megabytes):
  squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
  element = struct.pack("<HH2sHI", 9, 1, b"UN", 0, megabytes << 20)
  body = [squeeze.compress(element)]
  zeros = bytes(1 << 20)
  body += [squeeze.compress(zeros) for _ in range(megabytes)]
  body.append(squeeze.flush())
  ds = dicom_cases.dataset(CELLS, 12)
  head = dicom_cases.file(ds)
  head = head[: head.index(b"\x08\0\x16\0UI")]
  plain = uid.ExplicitVRLittleEndian.encode() + b"\0"
  name = uid.DeflatedExplicitVRLittleEndian.encode()
  name += b"\0" * (len(name) % 2)
  size = struct.pack("<H", len(plain)) + plain
  return head.replace(size, struct.pack("<H", len(name)) + name) + b"".join(
    body
  )


def test_a_deflated_bomb_is_refused_before_memory_is_spent(tmp_path):
  data = deflated_bomb(256)
  assert len(data) < 1 << 20
  reason, megabytes = inflated(data, tmp_path)
  assert "inflates to more than 64 MB" in reason
  assert megabytes < 200


def test_a_run_length_bomb_is_refused_before_memory_is_spent(tmp_path):
  cells = np.zeros((16, 16), np.uint8)
  rle = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * (4 << 20)
  body = item(b"") + item(rle) + END
  ds = dicom_cases.dataset(cells)
  reason, megabytes = inflated(
    encapsulated(body, ds, uid.RLELossless), tmp_path
  )
  assert "damaged" in reason and megabytes < 100


def test_large_pixels_are_refused_by_what_they_inflate_to():
  ds = dicom_cases.dataset(CELLS, 12)
  ds = dicom_cases.wrapped(ds, STREAM, uid.JPEG2000Lossless)
  ds.Rows = ds.Columns = 6000  # 36 megapixels of 16 bits.
  refused(dicom_cases.file(ds), "of more than 64 MB of pixels")
  ds.Rows = ds.Columns = 60000
  refused(dicom_cases.file(ds), "60000 x 60000 pixels, more than")

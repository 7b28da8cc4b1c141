"""DICOM against known pixels; and what is refused, with which words."""

import io
import os
import pathlib

import numpy as np
from PIL import Image
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
import pytest

from jaxfake.data import dicom_file, image_error, image_file, marks

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def dataset(stored=RAMP, bits=8, syntax=uid.ExplicitVRLittleEndian, **changes):
  """A radiograph; stored integers (h, w) or (h, w, 3), or encoded bytes."""
  ds = Dataset()
  ds.file_meta = FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = syntax
  ds.SOPClassUID = uid.ComputedRadiographyImageStorage
  ds.SOPInstanceUID = "1.2.3"
  ds.Modality = "CR"
  ds.PhotometricInterpretation = "MONOCHROME2"
  ds.Rows, ds.Columns = (
    (16, 16) if isinstance(stored, bytes) else stored.shape[:2]
  )
  ds.SamplesPerPixel = 1 if isinstance(stored, bytes) else (*stored.shape, 1)[2]
  if ds.SamplesPerPixel == 3:
    ds.PlanarConfiguration = 0
  ds.BitsAllocated = 8 if bits <= 8 else 16
  ds.BitsStored, ds.HighBit = bits, bits - 1
  ds.PixelRepresentation = int(
    not isinstance(stored, bytes) and stored.dtype.kind == "i"
  )
  if isinstance(stored, bytes):
    ds.PixelData = encapsulate([stored])
    ds["PixelData"].VR = "OB"
  else:
    ds.PixelData = stored.tobytes()
  for name, value in changes.items():
    setattr(ds, name, value)
  return ds


def file(ds, **options):
  out = io.BytesIO()
  pydicom.dcmwrite(out, ds, enforce_file_format=True, **options)
  return out.getvalue()


def read(*args, **changes):
  return image_file.read(file(dataset(*args, **changes)))


def refused(data, words):
  with pytest.raises(image_error.ImageError, match=words):
    image_file.read(data)


def test_eight_bits_are_what_they_are():
  np.testing.assert_array_equal(read(), RAMP)


def test_monochrome1_is_inverted():
  got = read(PhotometricInterpretation="MONOCHROME1")
  np.testing.assert_array_equal(got, 255 - RAMP)


@pytest.mark.parametrize("bits", [9, 10, 12, 15, 16])
def test_bits_stored_are_the_range(bits):
  top = (1 << bits) - 1
  stored = np.array([[0, 1, top // 2, top]], np.uint16)
  want = np.round(255 * stored.astype(float) / top)
  np.testing.assert_array_equal(read(stored, bits), want)


def test_signed_values():
  stored = np.array([[-2048, 0, 2047]], np.int16)
  np.testing.assert_array_equal(read(stored, 12), [[0, 128, 255]])


def test_what_lies_beyond_bits_stored_is_clipped():
  stored = np.array([[0, 511, 1023, 1023]], np.uint16)
  ds = dataset(stored, 10)
  ds.PixelData = np.array([[0, 511, 1023, 4095]], np.uint16).tobytes()
  np.testing.assert_array_equal(image_file.read(file(ds)), [[0, 127, 255, 255]])


def test_a_falling_rescale_inverts():
  got = read(RescaleSlope=-1, RescaleIntercept=255)
  np.testing.assert_array_equal(got, 255 - RAMP)


def test_a_rising_rescale_changes_nothing():
  got = read(RescaleSlope=3.5, RescaleIntercept=-1000)
  np.testing.assert_array_equal(got, RAMP)


def test_the_first_window_is_taken():
  stored = np.array([[0, 1000, 1500, 2000, 4095]], np.uint16)
  window = dict(WindowCenter=[1500.5, 9], WindowWidth=[1001, 9])
  got = read(stored, 12, **window)
  np.testing.assert_array_equal(got, [[0, 0, 128, 255, 255]])


def test_the_voi_lut_is_taken():
  lut = Dataset()
  lut.LUTDescriptor = [256, 0, 12]
  lut.LUTData = (4095 - np.arange(256) * 16).astype(np.uint16).tobytes()
  lut["LUTData"].VR = "OW"
  got = read(VOILUTSequence=[lut])
  want = np.round(255 * (4095 - RAMP.astype(float) * 16) / 4095)
  np.testing.assert_array_equal(got, want)


def test_colour_becomes_luma():
  stored = np.zeros((2, 2, 3), np.uint8)
  stored[0, 0], stored[1, 1] = (255, 0, 0), (9, 9, 9)
  got = read(stored, PhotometricInterpretation="RGB")
  np.testing.assert_array_equal(got, [[76, 0], [0, 9]])


def encoded(format, **options):
  out = io.BytesIO()
  Image.fromarray(RAMP).save(out, format, **options)
  return out.getvalue()


def test_rle():
  ds = dataset()
  ds.compress(uid.RLELossless)
  np.testing.assert_array_equal(image_file.read(file(ds)), RAMP)


def test_deflated():
  got = read(syntax=uid.DeflatedExplicitVRLittleEndian)
  np.testing.assert_array_equal(got, RAMP)


def test_jpeg_2000():
  data = encoded("JPEG2000", irreversible=False, no_jp2=True)
  got = read(data, syntax=uid.JPEG2000Lossless)
  np.testing.assert_array_equal(got, RAMP)


def test_jpeg_baseline():
  data = encoded("JPEG", quality=95)
  want = np.array(Image.open(io.BytesIO(data))).astype(int)
  got = read(data, syntax=uid.JPEGBaseline8Bit)
  assert abs(got - want).max() <= 1  # Decoders round differently.


def headless(ds):
  """Without preamble, without file meta information."""
  out = io.BytesIO()
  pydicom.dcmwrite(out, ds, implicit_vr=True, little_endian=True)
  return out.getvalue()


def test_without_preamble_and_file_meta():
  ds = dataset()
  del ds.file_meta
  data = headless(ds)
  assert data[128:132] != b"DICM"
  np.testing.assert_array_equal(image_file.read(data), RAMP)


@pytest.mark.parametrize(
  "changes, words",
  [
    (dict(Modality="CT"), "of modality CT: expected a radiograph"),
    (dict(NumberOfFrames=2, PixelData=RAMP.tobytes() * 2), "of 2 frames"),
    (dict(Rows=60000, Columns=60000), "of 60000 x 60000 pixels"),
    (dict(Rows=0), "without pixels"),
    (dict(PhotometricInterpretation="BOGUS"), "unknown photometric"),
    (dict(PixelData=b"\0" * 10), "pixel data are cut off .10 of 256 bytes"),
    (dict(PixelData=bytes(512)), "of 512 bytes of pixel data where 256 make"),
    (dict(WindowWidth=0, WindowCenter=1), "whose window has no width"),
    (dict(BitsAllocated=32, BitsStored=32), "of 32 bits a pixel"),
  ],
)
def test_what_is_refused(changes, words):
  refused(file(dataset(**changes)), words)


def test_codecs_that_are_not_read_are_named():
  ds = dataset(b"\xff\xd8\xff\xd9", syntax=uid.MPEG2MPML)
  refused(file(ds), "in MPEG2 Main Profile / Main Level, which is not read")


def test_messages_hold_nothing_of_the_patient():
  secret = "ROE^JANE"
  ds = dataset(PatientName=secret, PatientID="4711", PixelData=b"\0" * 3)
  with pytest.raises(image_error.ImageError) as caught:
    image_file.read(file(ds))
  assert secret not in str(caught.value) and "4711" not in str(caught.value)


def test_synthetic_data_is_a_mark():
  plain = file(dataset())
  assert not marks.marked(plain)
  for value, is_marked in (("YES", True), ("NO", False)):
    ds = dataset()
    ds.add_new(dicom_file.SYNTHETIC, "CS", value)
    assert marks.marked(file(ds)) == is_marked


def test_real_files():
  if "JAXFAKE_DATA" not in os.environ:
    pytest.skip("JAXFAKE_DATA is not set: no real DICOM files to read")
  folder = pathlib.Path(os.environ["JAXFAKE_DATA"], "dicom")
  found = {x.name: image_file.read(x) for x in sorted(folder.iterdir())}
  assert found["CR-MONO1-10-chest.dcm"].shape == (440, 440)
  for image in found.values():
    assert 20 < image.mean() < 235 and image.std() > 20
  # The same pixels, one tagged MONOCHROME1.
  one, other = (v for k, v in found.items() if k.startswith("siim"))
  np.testing.assert_array_equal(one, 255 - other)

"""The grayscale pipeline against the standard's arithmetic and dcmtk."""

import itertools
import os
import random
import shutil
import subprocess

import dicom_cases
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pydicom
from pydicom import uid
import pytest

from jaxfake.data import image_error, image_file

WHOLE = os.environ.get("JAXFAKE_TESTS") == "whole"  # All of the grids; minutes.


def near(got, share, levels=0.5):
  """Whether uint8 is share of white, rounded."""
  apart = np.abs(got - 255 * share).max()
  assert apart <= levels + 1e-6, (apart, got.ravel()[:8], share.ravel()[:8])


@st.composite
def cases(draw):
  """(data set, the shares of white that it has)."""
  allocated = draw(st.sampled_from([8, 16]))
  stored = draw(st.integers(2, allocated))
  high = draw(st.integers(stored - 1, allocated - 1))
  signed = draw(st.booleans())
  least = -(1 << stored - 1) if signed else 0
  most = least + (1 << stored) - 1
  some = draw(st.lists(st.integers(least, most), min_size=4, max_size=12))
  values = np.array([[least, most, *some]])
  elements, how = {}, {}
  low, top = least, most
  kind = draw(st.sampled_from(["none", "rescale", "lut"]))
  if kind == "rescale":
    slope = draw(st.sampled_from([1, 2, 0.5, -1, -10, 3.25, -0.125]))
    intercept = draw(st.sampled_from([0, -1024, 4095, 17.5]))
    elements.update(RescaleSlope=slope, RescaleIntercept=intercept)
    how["rescale"] = slope, intercept
    low, top = sorted(slope * v + intercept for v in (least, most))
  if kind == "lut":
    how["modality"], item = draw_lut(draw, least, most, signed)
    elements["ModalityLUTSequence"] = [item]
    low, top = 0, (1 << how["modality"][2]) - 1
  kind = draw(st.sampled_from(["none", "window", "lut"]))
  if kind == "window":
    function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    center = draw(st.integers(int(low), int(top)))
    width = draw(st.integers(1 if function == "LINEAR" else 2, 70000))
    elements.update(WindowCenter=[center, 1], WindowWidth=[width, 1])
    elements["VOILUTFunction"] = function
    how.update(window=(center, width), function=function)
  if kind == "lut":
    how["voi"], item = draw_lut(draw, int(low), int(top), low < 0)
    elements["VOILUTSequence"] = [item]
    # The window is the alternative.
    elements.update(WindowCenter=5, WindowWidth=7)
  how["inverse"] = draw(st.booleans())
  photometric = "MONOCHROME1" if how["inverse"] else "MONOCHROME2"
  if shape := draw(st.sampled_from([None, "IDENTITY", "INVERSE"])):
    elements["PresentationLUTShape"] = shape
    how["inverse"] = shape == "INVERSE"
  elements["PhotometricInterpretation"] = photometric
  ds = dicom_cases.dataset(
    dicom_cases.container(
      values, allocated, stored, high, draw(st.integers(0, 65535))
    ),
    stored,
    high,
    signed,
    **elements,
  )
  # Padding may hide what shows that 16 bits are 16.
  hides = stored == 16 and not signed and not how.keys() & {"window", "voi"}
  if draw(st.booleans()) and not hides:
    ends = [some[0], *([some[1]] if draw(st.booleans()) else [])]
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    for name, end in zip(names, ends, strict=False):
      ds.add_new(name, "SS" if signed else "US", end)
    how["padding"] = ends
  return ds, dicom_cases.expected(values, stored, signed, **how)


def draw_lut(draw, low, top, signed):
  """A LUT for values from `low`, that reaches its bits: (table, item)."""
  bits = draw(st.sampled_from([8, 10, 12, 14, 16]))
  first = draw(st.integers(max(low, -(1 << 15)), min(top, (1 << 15) - 1)))
  seed = draw(st.integers(0, 99))
  count = draw(st.integers(2, 300))
  entries = np.random.default_rng(seed).integers(0, 1 << bits, count)
  entries[-1] = (1 << bits) - 1
  signed = signed or first < 0
  item = dicom_cases.lut(entries, first, bits, signed, narrow=bits == 8)
  return (entries, first, bits), item


@settings(max_examples=3000 if WHOLE else 150, deadline=None)
@given(cases())
def test_any_data_set_is_as_the_standard_says(case):
  ds, share = case
  got = image_file.read(dicom_cases.file(ds)).astype(int)
  # A value that rounds up or down by an error of the last bit.
  near(got, share, 0.5 + 1e-3)


# --- dcmtk -------------------------------------------------------------------

BITS = (  # allocated, stored, high
  (8, 8, 7),
  (8, 7, 6),
  (8, 5, 7),
  (16, 10, 9),
  (16, 12, 11),
  (16, 12, 15),
  (16, 15, 14),
  (16, 16, 15),
)
# Whole slopes: dcmtk keeps whole numbers after rescale.
MODALITY = ("none", "slope 2", "slope -1", "slope -3", "lut 12", "lut 16")
VOI = ("none", "LINEAR", "SIGMOID", "narrow", "lut 8", "lut 12", "lut 16")
SHAPES = (None, "IDENTITY", "INVERSE")
GRID = list(
  itertools.product(
    BITS, (False, True), MODALITY, VOI, ("MONOCHROME1", "MONOCHROME2"), SHAPES
  )
)


def grid_case(bits, signed, modality, voi, photometric, shape):
  """A data set of the grid: a ramp over all that the bits stored can hold."""
  allocated, stored, high = bits
  least = -(1 << stored - 1) if signed else 0
  values = np.linspace(least, least + (1 << stored) - 1, 16 * 16)
  values = np.rint(values).astype(int).reshape(16, 16)
  elements = {"PhotometricInterpretation": photometric}
  if shape:
    elements["PresentationLUTShape"] = shape
  low, top = least, least + (1 << stored) - 1
  kind, _, figure = modality.partition(" ")
  if kind == "slope":
    slope = float(figure)
    elements.update(RescaleSlope=slope, RescaleIntercept=100)
    elements["RescaleType"] = "US"
    low, top = sorted(slope * v + 100 for v in (low, top))
  if kind == "lut":
    white = (1 << int(figure)) - 1
    size = min(1 << stored, 1 << 12)
    entries = np.rint(white * np.linspace(0, 1, size) ** 0.5).astype(int)
    elements["ModalityLUTSequence"] = [
      dicom_cases.lut(entries, least, int(figure), signed)
    ]
    elements["ModalityLUTSequence"][0].ModalityLUTType = "US"
    low, top = 0, white
  kind, _, figure = voi.partition(" ")
  if kind in ("LINEAR", "SIGMOID", "narrow"):
    width = 2 if kind == "narrow" else round((top - low) * 0.6) + 1
    elements["WindowCenter"] = round(low + (top - low) * 0.45)
    elements["WindowWidth"] = width
    if kind == "SIGMOID":
      elements["VOILUTFunction"] = kind
  if kind == "lut":
    white = (1 << int(figure)) - 1
    size = min(int(top - low) + 1, 1 << 12)
    entries = np.rint(white * np.linspace(0, 1, size) ** 2).astype(int)
    elements["VOILUTSequence"] = [
      dicom_cases.lut(entries, max(int(low), -32768), int(figure), low < 0)
    ]
  cells = dicom_cases.container(values, allocated, stored, high)
  return dicom_cases.dataset(cells, stored, high, signed, **elements)


def dcmtk(name):
  found = shutil.which(name)
  if not found:
    pytest.skip(f"{name} is not installed (Debian's dcmtk): nothing to ask")
  return found


def by_dcm2pnm(path, *options):
  """16 bits of gray by dcmtk, as shares of white."""
  out = path.with_suffix(".pgm")
  done = subprocess.run(
    [dcmtk("dcm2pnm"), "-O", *options, "+opn", "16", path, out],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  words = out.read_text().split("\n", 2)
  body = [w for line in words for w in line.partition("#")[0].split()]
  width, height, white = (int(w) for w in body[1:4])
  return np.array(body[4:], int).reshape(height, width) / white


def compare(path, voi):
  """Holds a file of the grid against dcmtk."""
  kind, _, figure = voi.partition(" ")
  if kind == "none":
    got = image_file.read(path).astype(float)
    share = by_dcm2pnm(path)
    # dcmtk takes the range of a rescale otherwise: up to a linear change.
    line = np.polynomial.Polynomial.fit(share.ravel(), got.ravel(), 1)
    assert np.abs(got - line(share)).max() <= 1
    assert line.deriv()(0) > 0 and got.max() - got.min() >= 250
    return
  share = by_dcm2pnm(path, "+Wl" if kind == "lut" else "+Wi", "1")
  # It divides by 256 where 255 is white.
  near(image_file.read(path), share, 2 if figure == "8" else 1)


@pytest.mark.parametrize("part", range(5))
def test_the_grid_is_as_dcmtk_has_it(part, tmp_path):
  dcmtk("dcm2pnm")
  some = GRID if WHOLE else random.Random(0).sample(GRID, 250)
  for case in some[part::5]:
    path = dicom_cases.write(grid_case(*case), tmp_path / "a.dcm")
    try:
      compare(path, case[3])
    except AssertionError as error:
      raise AssertionError(case) from error


# --- What stands in headers ---------------------------------------------------

CELLS = np.arange(4096, dtype=np.uint16).reshape(64, 64)
WINDOWED = {"WindowCenter": "1400", "WindowWidth": "2785"}


def raw(words, **elements):
  """A file with elements of DS as bytes that no writer would let through."""
  ds = dicom_cases.dataset(CELLS, 12, **elements)
  marks = {}
  for name, word in words.items():
    mark = f"{len(marks)}".rjust(16, "7")  # A number of the same length.
    marks[mark.encode()] = word.ljust(16).encode("latin-1")
    setattr(ds, name, mark)
  data = dicom_cases.file(ds)
  for mark, word in marks.items():
    assert data.count(mark) == 1 and len(word) == 16
    data = data.replace(mark, word)
  return data


def read(*args, **elements):
  return image_file.read(
    dicom_cases.file(dicom_cases.dataset(*args, **elements))
  )


def refused(data, words):
  with pytest.raises(image_error.ImageError, match=words):
    image_file.read(data)


@pytest.mark.parametrize(
  "center, width",
  [
    ("1400,0", "2785,00"),
    (" 1400 ", "+2785."),
    ("1400\0\0", "2785\0"),
    ("1.4e3", "27.85E2"),
    ("1400\\50", "2785\\60"),
    ("\\1400", "\\2785"),
    ("1400\\", "2785"),
  ],
)
def test_numbers_as_sites_write_them(center, width):
  got = image_file.read(raw({"WindowCenter": center, "WindowWidth": width}))
  np.testing.assert_array_equal(got, read(CELLS, 12, **WINDOWED))


@pytest.mark.parametrize(
  "word", ["high", "1.2.3", "nan", "inf", "1 2", "1e999"]
)
def test_what_is_no_number_is_refused_and_not_told(word):
  data = raw({"WindowCenter": word, "WindowWidth": "9"})
  with pytest.raises(image_error.ImageError) as caught:
    image_file.read(data)
  assert (
    caught.value.reason == "is a DICOM file whose WindowCenter is not a number"
  )


EMPTY_LUT = pydicom.Dataset()
EMPTY_LUT.add_new("LUTDescriptor", "US", None)
EMPTY_LUT.add_new("LUTData", "OW", None)


@pytest.mark.parametrize(
  "elements",
  [
    dict(WindowCenter=None, WindowWidth=None),
    dict(WindowCenter=5, WindowWidth=None),
    dict(WindowCenter=None, WindowWidth=0),
    dict(RescaleSlope=None, RescaleIntercept=None),
    dict(RescaleSlope=1, RescaleIntercept=None),
    dict(VOILUTSequence=None),
    dict(VOILUTSequence=[]),
    dict(VOILUTSequence=[EMPTY_LUT]),
    dict(VOILUTSequence=[pydicom.Dataset()]),
    dict(ModalityLUTSequence=[EMPTY_LUT]),
    dict(VOILUTFunction=None, PresentationLUTShape=None),
    dict(PixelPaddingValue=None),
    dict(NumberOfFrames=None, PlanarConfiguration=None),
    dict(PixelRepresentation=None),
    dict(Modality=None),
    dict(BitsStored=None, HighBit=None, BitsAllocated=16),
  ],
)
def test_present_but_empty_is_absent(elements):
  ds = dicom_cases.dataset(CELLS, 12, **elements)
  if "PixelPaddingValue" in elements:
    ds["PixelPaddingValue"].VR = "US"
  got = image_file.read(dicom_cases.file(ds))
  np.testing.assert_array_equal(got, read(CELLS, 12))


def test_an_empty_lut_leaves_the_window():
  got = read(CELLS, 12, VOILUTSequence=[EMPTY_LUT], **WINDOWED)
  np.testing.assert_array_equal(got, read(CELLS, 12, **WINDOWED))


def test_the_first_whole_lut_is_taken_before_any_window():
  ramp = dicom_cases.lut(np.arange(4096)[::-1], 0, 12)
  other = dicom_cases.lut(np.zeros(4096), 0, 12)
  got = read(CELLS, 12, VOILUTSequence=[EMPTY_LUT, ramp, other], **WINDOWED)
  np.testing.assert_array_equal(got, 255 - read(CELLS, 12))


@pytest.mark.parametrize("top", [255, 1000, 4095, 16383])
@pytest.mark.parametrize("which", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_lut_said_to_have_16_bits_has_those_it_reaches(which, top):
  entries = np.rint(np.arange(4096) * (top / 4095))
  got = read(CELLS, 12, **{which: [dicom_cases.lut(entries, 0, 16)]})
  white = (1 << image_file.depth(top)) - 1
  near(got, entries.reshape(64, 64) / white)


def test_a_lut_that_goes_beyond_its_bits_has_those_it_reaches():
  entries = np.arange(4096)
  got = read(CELLS, 12, VOILUTSequence=[dicom_cases.lut(entries, 0, 8)])
  np.testing.assert_array_equal(got, read(CELLS, 12))


def test_65536_entries_are_written_as_none():
  cells = np.arange(65536, dtype=np.uint16).reshape(256, 256)
  item = dicom_cases.lut(np.arange(65536)[::-1], 0, 16)
  assert item.LUTDescriptor[0] == 0
  got = read(cells, VOILUTSequence=[item])
  np.testing.assert_array_equal(got, 255 - read(cells))


@pytest.mark.parametrize("syntax", ["little", "big", "implicit"])
@pytest.mark.parametrize("narrow", [False, True])
def test_lut_data_in_every_order_and_width(syntax, narrow):
  name = {
    "little": uid.ExplicitVRLittleEndian,
    "big": uid.ExplicitVRBigEndian,
    "implicit": uid.ImplicitVRLittleEndian,
  }[syntax]
  entries = np.arange(256)[::-1]
  item = dicom_cases.lut(entries, 0, 8, little=syntax != "big", narrow=narrow)
  if narrow and syntax == "big":
    pairs = np.frombuffer(item.LUTData, np.uint8).reshape(-1, 2)
    item.LUTData = pairs[:, ::-1].tobytes()
  cells = np.arange(256, dtype=np.uint8).reshape(16, 16)
  got = read(cells, syntax=name, VOILUTSequence=[item])
  np.testing.assert_array_equal(got, 255 - cells)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("wrong_vr", [False, True])
def test_a_first_value_below_zero(implicit, wrong_vr):
  item = dicom_cases.lut(np.arange(4096), -1024, 12, signed=True)
  if wrong_vr:  # Two's complement in US.
    item.LUTDescriptor = [4096, 65536 - 1024, 12]
    item["LUTDescriptor"].VR = "US"
  syntax = (
    uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
  )
  got = read(
    CELLS,
    12,
    syntax=syntax,
    RescaleSlope=1,
    RescaleIntercept=-1024,
    VOILUTSequence=[item],
  )
  np.testing.assert_array_equal(got, read(CELLS, 12))


def test_a_lut_that_is_cut_off_is_refused():
  item = dicom_cases.lut(np.arange(100), 0, 12)
  item.LUTDescriptor = [4096, 0, 12]
  ds = dicom_cases.dataset(CELLS, 12, VOILUTSequence=[item])
  refused(dicom_cases.file(ds), "whose LUT is cut off")


@pytest.mark.parametrize(
  "elements, words",
  [
    (dict(RescaleSlope=0, RescaleIntercept=1), "rescale slope is 0"),
    (dict(WindowCenter=1, WindowWidth=0), "window has no width"),
    (dict(WindowCenter=1, WindowWidth=-9), "window has no width"),
    (dict(WindowCenter=1, WindowWidth=0.5), "narrower than 1"),
    (
      dict(WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"),
      "unknown window function",
    ),
    (dict(HighBit=5), "of 12 bits that end at bit 5 of 16 allocated"),
    (dict(BitsStored=20, HighBit=19), "of 20 bits that end at bit 19"),
  ],
)
def test_what_the_pipeline_refuses(elements, words):
  refused(dicom_cases.file(dicom_cases.dataset(CELLS, 12, **elements)), words)


def test_a_window_narrower_than_1_is_exact():
  got = read(
    CELLS,
    12,
    RescaleSlope=1 / 4096,
    RescaleIntercept=0,
    WindowCenter=0.5,
    WindowWidth=0.5,
    VOILUTFunction="LINEAR_EXACT",
  )
  near(got, np.clip((CELLS / 4096 - 0.5) / 0.5 + 0.5, 0, 1))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, WINDOWED])
def test_padding_is_black(photometric, window):
  elements = dict(PhotometricInterpretation=photometric, **window)
  plain = read(CELLS, 12, **elements)
  for ends in ([0], [4095], [100, 200], [200, 100]):
    ds = dicom_cases.dataset(CELLS, 12, **elements)
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    for name, end in zip(names, ends, strict=False):
      ds.add_new(name, "US", end)
    inside = (min(ends) <= CELLS) & (max(ends) >= CELLS)
    got = image_file.read(dicom_cases.file(ds))
    np.testing.assert_array_equal(got, np.where(inside, 0, plain))


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_padding_beyond_the_bits_stored(vr):
  """As of CT: -2000 in 16 bits, of which 12 are stored."""
  values = np.array([[-2000, -1000, 0, 2047]])
  cells = (values & 0xFFFF).astype(np.uint16)
  ds = dicom_cases.dataset(cells, 11, signed=True)
  ds.PhotometricInterpretation = "MONOCHROME1"
  ds.add_new("PixelPaddingValue", vr, -2000 if vr == "SS" else 63536)
  got = image_file.read(dicom_cases.file(ds))
  assert got[0, 0] == 0


def test_12_bits_in_a_header_of_16_are_12():
  got = read(CELLS)
  np.testing.assert_array_equal(got, read(CELLS, 12))
  dim = read(CELLS, **{"WindowCenter": 32768, "WindowWidth": 65536})
  assert dim.max() == 16  # What a window says stands.


@pytest.mark.parametrize(
  "word", ["CR", "DX", "DR", "XR", "RG", "OT", "", "dx "]
)
def test_modalities_of_radiographs(word):
  np.testing.assert_array_equal(read(CELLS, 12, Modality=word), read(CELLS, 12))


@pytest.mark.parametrize(
  "word", ["CT", "MR", "US", "MG", "RF", "XA", "PX", "IO"]
)
def test_other_modalities_are_named(word):
  ds = dicom_cases.dataset(CELLS, 12, Modality=word)
  refused(dicom_cases.file(ds), f"of modality {word}: expected a radiograph")


# --- Cases after public bug reports -------------------------------------------


def test_every_case_of_the_field_is_right(real_data):
  pairs = [
    (path, path.with_suffix(".png"))
    for path in sorted((real_data / "field").glob("*/*.dcm"))
    if path.with_suffix(".png").exists()
  ]
  assert pairs
  for path, right in pairs:
    got = image_file.read(path).astype(float)
    want = np.asarray(Image.open(right)).astype(float)
    assert got.shape == want.shape, path
    line = np.polynomial.Polynomial.fit(got.ravel(), want.ravel(), 1)
    assert line.deriv()(0) > 0, path
    # JPEG baseline is not what it was made of: what dcmtk decodes is as far.
    within = 9 if path.stem == "jpegbl_no_delimiter" else 1
    assert np.abs(line(got) - want).max() <= within, path


def test_cases_of_the_field_that_are_no_picture(real_data):
  found = {}
  for path in sorted((real_data / "field").glob("*/*")):
    if (
      path.suffix in (".dcm", ".jpg") and not path.with_suffix(".png").exists()
    ):
      try:
        found[path.name] = image_file.read(path).shape
      except image_error.ImageError as error:
        found[path.name] = error.reason
  assert found.pop("jpegll_7_in_8.dcm") == (160, 160)
  words = {
    "deflate.dcm": "inflates to more than 64 MB",
    "jls_Rows161.dcm": "160 x 161 pixels whose stream has 160 x 160",
    "cut_half_eoi.jpg": "is damaged: Corrupt JPEG data: premature end",
    "block_missing.jpg": "is damaged: Corrupt JPEG data: premature end",
  }
  assert found.keys() == words.keys()
  for name, reason in found.items():
    assert words[name] in reason, (name, reason)

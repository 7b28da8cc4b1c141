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
import pytest

from jaxfake.data import image_file

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

"""What is certainly no radiograph is told, and no radiograph is."""

import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw
import pytest

from jaxfake.data import image_file, radiograph
from jaxfake.data.phantom import anatomy


def text_page(side=400):
  page = Image.new("L", (side, side), 255)
  for y in range(10, side - 10, 20):
    ImageDraw.Draw(page).text((10, y), "findings: none " * 4, 0)
  return np.array(page)


def code(side=300):
  cells = np.random.default_rng(0).integers(0, 2, (30, 30))
  return np.kron(cells, np.full((side // 30, side // 30), 255)).astype(np.uint8)


def marker(side=500):
  image = np.full((side, side), 60, np.uint8)
  image[20:60, 20:60] = np.arange(40) * 6
  return image


def gradient():
  y, x = np.mgrid[:300, :200]
  return (y * 0.4 + x * 0.5).astype(np.uint8)


def jpeg_noise():
  noise = np.random.default_rng(0).normal(128, 2, (300, 300))
  return noise.round().astype(np.uint8)


NONE = {
  "black": np.zeros((500, 400), np.uint8),
  "white": np.full((500, 400), 255, np.uint8),
  "pixel": np.full((1, 1), 9, np.uint8),
  "tiny": np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8),
  "strip": np.random.default_rng(0).integers(0, 256, (30, 600), np.uint8),
  "text": text_page(),
  "code": code(),
  "marker": marker(),
  "gradient": gradient(),
  "noise of a JPEG": jpeg_noise(),
}


@pytest.mark.parametrize("name", NONE)
def test_no_radiograph(name):
  reason = radiograph.no_radiograph(NONE[name])
  assert reason and reason.startswith("no radiograph: ")


def test_phantoms_pass():
  for i in range(8):
    image = anatomy.radiograph(0, i, size=128, nodules=False)["image"]
    assert radiograph.no_radiograph(image) is None


def test_radiographs_pass():
  if "JAXFAKE_DATA" not in os.environ:
    pytest.skip("JAXFAKE_DATA is not set: no radiographs to read")
  data = pathlib.Path(os.environ["JAXFAKE_DATA"])
  files = sorted((data / "many_sources" / "real").glob("*/*"))[::8]
  files += sorted((data / "chest_xray_224").glob("*/*/*"))[::60]
  assert len(files) > 150
  for file in files:
    assert radiograph.no_radiograph(image_file.read(file)) is None, file

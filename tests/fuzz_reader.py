"""Reads damaged files one by one, in a process that may die of it.

    python tests/fuzz_reader.py headers|bytes FIRST COUNT [FOLDER]

prints, for each, its number, "picture" or "error", and seconds. Number i is
a function of i and of the sample files alone: those made here and FOLDER's.
"""

import io
import pathlib
import resource
import struct
import sys
import time

import dicom_cases
import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid

from jaxfake.data import image_error, image_file

LIMIT = 4 << 30  # Bytes of address space: a file must not take more.


def samples(folder=None):
  """Whole files of many kinds."""
  rng = np.random.default_rng(0)
  ramp = np.add.outer(np.arange(64), np.arange(80)) * 28
  cells = (ramp + rng.integers(0, 90, ramp.shape)).astype(np.uint16) & 4095
  small = (cells >> 4).astype(np.uint8)
  rgb = np.stack([small, small[::-1], small[:, ::-1]], -1)
  made = []
  rich = dict(
    WindowCenter=[2000, 9],
    WindowWidth=[3000, 9],
    RescaleSlope=-2,
    RescaleIntercept=100,
    PresentationLUTShape="IDENTITY",
    VOILUTFunction="SIGMOID",
  )
  luts = dict(
    ModalityLUTSequence=[dicom_cases.lut(np.arange(4096)[::-1], 0, 12)],
    VOILUTSequence=[dicom_cases.lut(np.arange(4096), 0, 16)],
  )
  for syntax in (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
  ):
    for elements in (rich, luts):
      ds = dicom_cases.dataset(cells, 12, syntax=syntax, **elements)
      made.append(dicom_cases.file(ds))
  ds = dicom_cases.dataset(cells, 12, **rich)
  ds.compress(uid.RLELossless, encoding_plugin="pydicom")
  made.append(dicom_cases.file(ds))
  streams = {
    uid.JPEGLosslessSV1: imagecodecs.jpeg8_encode(
      cells, lossless=True, predictor=1, bitspersample=12
    ),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode(cells),
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_encode(
      cells, level=0, reversible=True, codecformat="j2k", bitspersample=12
    ),
    uid.HTJ2KLossless: imagecodecs.htj2k_encode(cells),
  }
  for syntax, stream in streams.items():
    ds = dicom_cases.wrapped(
      dicom_cases.dataset(cells, 12, **rich), bytes(stream), syntax
    )
    made.append(dicom_cases.file(ds))
  for picture, format, options in (
    (small, "PNG", {}),
    (rgb, "PNG", {}),
    (cells, "PNG", {}),
    (small, "JPEG", {}),
    (rgb, "JPEG", {"progressive": True}),
    (rgb, "JPEG", {"restart_marker_rows": 1}),
  ):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format, **options)
    made.append(out.getvalue())
  ds = dicom_cases.dataset(small, 8, **rich)
  made.append(
    dicom_cases.file(dicom_cases.wrapped(ds, made[-3], uid.JPEGBaseline8Bit))
  )
  if folder:
    kinds = {".dcm", ".png", ".jpg", ".jpeg"}
    made += [
      path.read_bytes()
      for path in sorted(pathlib.Path(folder).rglob("*"))
      if path.suffix in kinds and 0 < path.stat().st_size < 1 << 20
    ]
  return made


def changed(data, how, rng):
  """A sample with a few bytes changed, or a value of its header."""
  out = bytearray(data)
  if how == "bytes":
    if rng.random() < 0.2:
      return bytes(out[: rng.integers(1, len(out))])
    for at in rng.integers(0, len(out), rng.integers(1, 9)):
      out[at] = rng.integers(256)
    return bytes(out)
  # Headers: a word or a byte of the start, or of where a codestream starts.
  starts = [0, *(data.find(x) for x in (b"\xff\xd8\xff", b"\xff\x4f\xff\x51"))]
  start = max(int(rng.choice(starts)), 0)
  span = min(len(out) - 4, start + 700)
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(start, span))
    value = int(rng.choice([0, 1, 2, 7, 8, 12, 16, 255, 32767, 65535]))
    size = rng.choice([1, 2, 4])
    order = rng.choice(["<", ">"])
    code = {1: "B", 2: "H", 4: "I"}[int(size)]
    value = min(value, 255) if size == 1 else value
    out[at : at + size] = struct.pack(order + code, value)
  return bytes(out)


def main():
  how, first, count, *folder = sys.argv[1:]
  resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
  wholes = samples(*folder)
  for number in range(int(first), int(first) + int(count)):
    rng = np.random.default_rng([number, len(how)])
    data = changed(wholes[number % len(wholes)], how, rng)
    start = time.monotonic()
    try:
      picture = image_file.read(data)
      assert picture.dtype == np.uint8 and picture.ndim == 2
      end = "picture"
    except image_error.ImageError:
      end = "error"
    print(number, end, round(time.monotonic() - start, 2), flush=True)


if __name__ == "__main__":
  main()

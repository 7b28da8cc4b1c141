"""Regions altered in files: nothing else changes, and every file says so."""

import io
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import dicom_cases
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pydicom
from pydicom import uid
import pytest
from scipy import ndimage

from jaxfake import errors, tamper
from jaxfake.data import image_file, marks
from jaxfake.data.phantom import anatomy
from jaxfake.data.tampered import blending, files, noise, region, scene
from jaxfake.data.tampered.region import Box

ALL = [(kind, name) for kind, by in scene.METHODS.items() for name in by]
PHANTOM = anatomy.radiograph(0, 3, size=128)["image"]
BOX = "40,44,24,20"
INPAINTER = SimpleNamespace(size=32, fill=lambda image, mask, noise: -image)


def with_bits(bits, picture=PHANTOM):
  """A picture in so many bits, with noise in those below 8."""
  rng = np.random.default_rng(0)
  values = picture.astype(float) + rng.normal(0, 2, picture.shape)
  top = (1 << bits) - 1
  return np.clip(values / 255 * top, 0, top).astype(np.int32)


@settings(max_examples=40, deadline=None)
@given(
  st.sampled_from(ALL),
  st.sampled_from((8, 10, 12, 16)),
  st.booleans(),
  st.tuples(*[st.integers(0, 121)] * 2, *[st.integers(6, 60)] * 2),
)
def test_nothing_changes_outside_the_mask(how, bits, touch_up, numbers):
  values = with_bits(bits)
  x, y, w, h = numbers
  box = Box(min(x, 128 - w), min(y, 128 - h), w, h)
  other = scene.donor(with_bits(8)[:, ::-1])
  made, mask = scene.tampered(
    values, box, *how, 1, touch_up=touch_up, other=other, model=INPAINTER
  )
  inside = np.zeros(mask.shape, bool)
  inside[box.place] = True
  assert mask.any() and not (mask & ~inside).any()
  np.testing.assert_array_equal(made[~mask], values[~mask])
  assert made.dtype == values.dtype
  assert values.min() <= made.min() and made.max() <= values.max()


def test_nothing_leaves_the_range_of_the_picture():
  y, x = np.indices((64, 64)) - 31.5
  values = (1000 - x * x - y * y).clip(0, 700).astype(np.int32)
  box = Box(16, 16, 32, 32)
  made, mask = scene.tampered(values, box, "remove", "biharmonic", 0)
  assert values[mask].max() == made[mask].max() == 700  # A plate bulges.


def test_a_nodule_is_brighter_in_its_middle_and_larger_ones_more():
  flat = np.full((200, 200), 90, np.int32)
  flat[:, :8], flat[:, -8:] = 0, 255
  rise = []
  for side in (20, 40):
    for seed in range(5):
      box = Box(100 - side // 2, 100 - side // 2, side, side)
      made, mask = scene.tampered(flat, box, "inject", "nodule", seed, cm=0.1)
      assert (made >= flat).all() and mask[100, 100]
      change = ndimage.gaussian_filter((made - flat).astype(float), 1)
      assert change[100, 100] > 0.6 * change.max() > 0
      rise.append(change.max())
  assert np.mean(rise[5:]) > 1.3 * np.mean(rise[:5])


def test_fills_obey_their_equations():
  rng = np.random.default_rng(0)
  values, mask = rng.normal(size=(20, 24)), np.zeros((20, 24), bool)
  mask[4:15, 6:18] = region.ellipse(Box(0, 0, 12, 11))
  cross = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
  laplace = ndimage.correlate(blending.harmonic(values, mask), cross)
  assert abs(laplace[mask]).max() < 1e-9
  source = rng.normal(size=(20, 24))
  blended = blending.blend(values, source, mask)
  got, want = (ndimage.correlate(x, cross) for x in (blended, source))
  np.testing.assert_allclose(got[mask], want[mask], atol=1e-9)
  # A plate goes on with any plane or cubic; a membrane with planes alone.
  y, x = np.indices(mask.shape) / 10
  cubic = x**3 - 3 * x * y**2 + y
  holed = np.where(mask, 7.0, cubic)
  np.testing.assert_allclose(blending.biharmonic(holed, mask), cubic, atol=1e-6)


@pytest.mark.parametrize("name", ["harmonic", "median"])
def test_touch_up_gives_the_region_its_surroundings_noise(name):
  rng = np.random.default_rng(1)
  x = np.indices((160, 160))[1]
  gray = 2000 + 8 * x
  values = rng.normal(gray, np.sqrt(gray)).round().astype(np.int32)
  box = Box(60, 50, 40, 44)
  spread = {}
  for touch_up in (False, True):
    made, mask = scene.tampered(values, box, "remove", name, 0, 0, touch_up)
    core = ndimage.binary_erosion(mask, iterations=3)
    spread[touch_up] = noise.residual(made)[core].std() / 52.5
  assert spread[False] < 0.2 and 0.85 < spread[True] < 1.15, spread


def run(*argv):
  return tamper.main([str(x) for x in argv])


def rows(out):
  return [json.loads(x) for x in (out / "manifest.jsonl").open()]


def dicom(path, bits=12, high=None, syntax=uid.ExplicitVRLittleEndian, **more):
  """A file whose unused bits are not 0."""
  high = bits - 1 if high is None else high
  values = with_bits(bits)
  cells = dicom_cases.container(values, 16, bits, high, junk=0x5A5A)
  ds = dicom_cases.dataset(cells, bits, high, syntax=syntax, **more)
  dicom_cases.write(ds, path)
  return cells, high + 1 - bits


@pytest.mark.parametrize(
  ("bits", "high", "more"),
  [
    (12, None, {}),
    (10, 11, {"PhotometricInterpretation": "MONOCHROME1"}),
    (16, None, {"syntax": uid.ImplicitVRLittleEndian}),
    (12, None, {"PresentationLUTShape": "INVERSE"}),
  ],
)
def test_dicom_keeps_its_bits_and_carries_the_marks(bits, high, more, tmp_path):
  path, out = tmp_path / "a.dcm", tmp_path / "out.dcm"
  told = {"PatientID": "someone", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
  cells, shift = dicom(path, bits, high, **told, **more)
  box = Box(*map(int, BOX.split(",")))
  made = files.alter(files.Order(str(path), "inject", "nodule", box, 0, False))
  out.write_bytes(made.data)
  mask = np.asarray(Image.open(io.BytesIO(made.mask))) > 0
  ds = pydicom.dcmread(out)
  got = np.frombuffer(ds.PixelData, "<u2").reshape(cells.shape)
  np.testing.assert_array_equal(got[~mask], cells[~mask])
  unused = 0xFFFF & ~((1 << bits) - 1 << shift)
  np.testing.assert_array_equal(got & unused, cells & unused)
  assert (got[mask] != cells[mask]).any()
  # A nodule is shown bright whatever the polarity.
  before, after = (image_file.read(x) for x in (path, out))
  assert after[mask].mean() > before[mask].mean() + 1
  assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
  assert ds[0x0008001C].value == "YES"
  assert made.suffix == ".dcm" and marks.marked(made.data)
  assert ds.SOPInstanceUID != "1.2.3" and uid.UID(ds.SOPInstanceUID).is_valid
  assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
  assert ds.ImageType == ["DERIVED", "PRIMARY", "AXIAL"]
  assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3"
  assert "nodule" in ds.DerivationDescription
  (by,) = ds.ContributingEquipmentSequence
  assert by.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
  assert ds.PatientID == "someone" and "someone" not in json.dumps(made.facts)


@pytest.mark.parametrize(
  ("told", "want"),
  [
    ("ORIGINAL PRIMARY", ["DERIVED", "PRIMARY"]),
    ("ORIGINAL", ["DERIVED", "PRIMARY"]),
    (None, ["DERIVED", "PRIMARY"]),
  ],
)
def test_odd_headers_are_marked_too(told, want, tmp_path):
  more = {"ImageType": told} if told else {}
  dicom(tmp_path / "a.dcm", PixelSpacing=["0.25", "0.25"], **more)
  data = (tmp_path / "a.dcm").read_bytes()
  assert data.count(b"0.25\\0.25") == 1
  data = data.replace(b"0.25\\0.25", b"x.25\\0.25")  # No number.
  (tmp_path / "a.dcm").write_bytes(data)
  box = Box(40, 40, 20, 20)
  made = files.alter(
    files.Order(str(tmp_path / "a.dcm"), "remove", "harmonic", box, 0, False)
  )
  assert pydicom.dcmread(io.BytesIO(made.data)).ImageType == want


def save(values, path, mode=None, **options):
  Image.fromarray(values.astype(np.uint16 if mode else np.uint8)).save(
    path, **options
  )
  return path


def test_png_and_jpeg_keep_their_bits_and_carry_the_marks(tmp_path):
  folder, out = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  save(with_bits(8), folder / "gray.png")
  save(with_bits(16), folder / "deep.png", mode=16)
  save(np.repeat(with_bits(8)[..., None], 3, 2), folder / "rgb.png")
  alpha = np.stack([with_bits(8)] * 3 + [np.full((128, 128), 255)], -1)
  save(alpha, folder / "alpha.png")
  turned = Image.Exif()
  turned[0x0112] = 6
  save(PHANTOM[:120], folder / "turned.jpg", quality=95, exif=turned)
  assert run(folder, "--remove", "--box", BOX, "--out", out) == 0
  for row in rows(out):
    original = image_file.read(row["original"])
    mask = np.asarray(Image.open(out / row["mask"])) > 0
    assert mask.shape == original.shape
    with Image.open(out / row["file"]) as image:
      assert image.text["Comment"] == files.COMMENT
      assert "compositeSynthetic" in image.text["XML:com.adobe.xmp"]
      said = json.loads(image.text["jaxfake"])
      pixels = np.asarray(image)
    assert said.items() <= row.items() and said["synthetic"] is True
    assert marks.marked((out / row["file"]).read_bytes())
    if row["original"].endswith(".png"):
      before = np.asarray(Image.open(row["original"]))
      assert pixels.shape == before.shape and pixels.dtype == before.dtype
      np.testing.assert_array_equal(pixels[~mask], before[~mask])
      if pixels.shape[2:] == (3,):
        assert (pixels == pixels[..., :1]).all()
    else:
      np.testing.assert_array_equal(pixels[~mask], original[~mask])
    assert (
      pixels[mask] != original[mask].reshape(-1, *[1] * (pixels.ndim - 2))
    ).any()


def test_the_same_command_again_leaves_alone_what_is_done(tmp_path, capsys):
  first = save(with_bits(8), tmp_path / "a.png")
  flags = "--inject", "--box", BOX, "--out"
  assert run(first, *flags, tmp_path / "one") == 0
  second = save(with_bits(8)[:, ::-1], tmp_path / "b.png")
  (row,) = rows(tmp_path / "one")
  place = tmp_path / "one" / row["file"]
  time_before, bytes_before = place.stat().st_mtime_ns, place.read_bytes()
  # A kill in the middle of a line.
  with open(tmp_path / "one" / "manifest.jsonl", "a") as file:
    file.write('{"file": "b')
  assert run(first, second, *flags, tmp_path / "one") == 0
  assert "1 were before" in capsys.readouterr().out
  assert place.stat().st_mtime_ns == time_before
  assert run(second, first, *flags, tmp_path / "two") == 0
  by_name = {x["original"]: x for x in rows(tmp_path / "two")}
  assert by_name == {x["original"]: x for x in rows(tmp_path / "one")}
  again = tmp_path / "two" / row["file"]
  assert again.read_bytes() == bytes_before
  # Another seed draws another nodule, and is another folder's.
  assert run(first, *flags, tmp_path / "one", "--seed", 1) == 2
  assert "seed 0, now 1" in capsys.readouterr().err
  assert run(first, *flags, tmp_path / "three", "--seed", 1) == 0
  assert (tmp_path / "three" / row["file"]).read_bytes() != bytes_before


def test_a_dicom_file_is_made_anew_to_the_same_bytes(tmp_path):
  dicom(tmp_path / "a.dcm")
  order = files.Order(
    str(tmp_path / "a.dcm"), "remove", "harmonic", Box(40, 40, 20, 20), 3, True
  )
  assert files.alter(order) == files.alter(order)
  ids = [
    pydicom.dcmread(io.BytesIO(files.alter(x).data)).SOPInstanceUID
    for x in (order, order._replace(method="median"))
  ]
  assert ids[0] != ids[1]


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--inject", "--box", "1,2,3"), "--box 1,2,3: expected X,Y,W,H"),
    (("--inject", "--box", "1,2,30,5"), "is 30 x 5 pixels, expected 6 to 640"),
    (("--inject", "--box=-1,2,30,30"), "expected X and Y from 0"),
    (("--inject", "--box", BOX, "--method", "median"), "one of nodule, splice"),
    (("--remove", "--box", BOX, "--method", "medan"), "did you mean median?"),
    (("--inject", "--box", BOX, "--method", "splice"), "expected --donor FILE"),
    (("--inject", "--box", BOX, "--donor", "a.png"), "nodule needs none"),
    (
      ("--inject", "--box", BOX, "--method", "splice", "--donor", "no.png"),
      "--donor no.png: no such file",
    ),
    (
      ("--inject", "--box", BOX, "--method", "learnt"),
      "--method learnt: expected --model WORKDIR",
    ),
    (("--remove", "--box", BOX, "--model", "a"), "copy-move needs none, only"),
    (
      ("--remove", "--box", BOX, "--method", "learnt", "--model", "no"),
      "no is not a run's folder: cannot read config.json",
    ),
    (("--inject", "--box", BOX, "--seed", "-1"), "--seed -1: expected 0 to"),
  ],
)
def test_mistakes_are_one_line(flags, said, tmp_path, capsys):
  path = save(with_bits(8), tmp_path / "a.png")
  assert run(path, *flags, "--out", tmp_path / "out") == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert said in line and not (tmp_path / "out").exists()


def test_bad_files_are_listed_and_the_others_go_on(tmp_path, capsys):
  good = save(with_bits(8), tmp_path / "good.png")
  save(with_bits(8)[:50, :60], tmp_path / "small.png")
  (tmp_path / "broken.png").write_bytes(good.read_bytes()[:900])
  save(np.full((128, 128), 9), tmp_path / "blank.png")
  Image.fromarray(PHANTOM).convert("P").save(tmp_path / "palette.png")
  out = tmp_path / "out"
  assert run(tmp_path, "--remove", "--box", BOX, "--out", out) == 1
  err = capsys.readouterr().err
  assert "small.png: has 60 x 50 pixels: the box 40,44,24,20 reaches" in err
  assert "broken.png: is damaged" in err
  assert "blank.png: is no radiograph" in err
  assert "palette.png: is a PNG with a palette" in err
  assert [x["original"] for x in rows(out)] == [str(good)]
  # A folder of other things, and a donor that is none.
  argv = good, "--inject", "--box", BOX, "--out"
  assert run(*argv, tmp_path) == 2
  assert "holds other files" in capsys.readouterr().err
  donor = "--method", "splice", "--donor", tmp_path / "broken.png"
  assert run(*argv, tmp_path / "new", *donor) == 2
  assert "broken.png: is damaged" in capsys.readouterr().err


def test_help_names_every_method_and_imports_nothing():
  start = time.monotonic()
  code = (
    "import sys; from jaxfake import tamper; print(tamper.parser().format_help"
    "()); assert not {'jax', 'numpy', 'scipy'} & set(sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.returncode == 0, done.stderr
  assert time.monotonic() - start < 5
  assert all(name in done.stdout.decode() for _, name in ALL)


def test_choices_are_checked():
  with pytest.raises(errors.ConfigError, match="--method of --inject is 'x'"):
    scene.check("inject", "x")

"""The phantom: same number, same picture; and the picture is a chest."""

import dataclasses
import functools

import numpy as np
import pytest

from jaxfake.data.phantom import anatomy, organs, xray_physics

# Means over a 4 x 4 grid of blocks of radiograph(0, index, 64).
GOLDEN = {
  1: [
    [87.8, 131.2, 138.5, 92.5],
    [96.8, 123.7, 142.5, 109.5],
    [72.0, 129.8, 166.3, 95.6],
    [96.1, 161.5, 173.7, 125.3],
  ],
  6: [
    [105.1, 157.0, 162.0, 118.8],
    [103.4, 126.1, 167.1, 144.3],
    [72.9, 132.5, 203.2, 158.3],
    [127.2, 184.1, 200.3, 145.5],
  ],
}


@functools.cache
def shot(index, size=64, nodules=False, seed=1):
  return anatomy.radiograph(seed, index, size, nodules)


def blocks(image, k):
  n = len(image) // k
  return image.reshape(k, n, k, n).mean((1, 3))


def pose(index, size, seed=1):
  """The patient, view and grid behind radiograph(seed, index, size)."""
  number = index // anatomy.VIEWS_PER_PATIENT
  patient = anatomy.Patient.draw(organs.generator(seed, 0, number))
  view = anatomy.View.draw(organs.generator(seed, 1, index))
  return patient, view, xray_physics.Grid(patient, view, size)


def test_is_a_function_of_seed_and_index_alone():
  forward = [anatomy.radiograph(3, i, 32, True) for i in (0, 5, 9)]
  np.random.seed(0)
  np.random.random(7)
  again = [anatomy.radiograph(3, i, 32, True) for i in (9, 5, 0)][::-1]
  for a, b in zip(forward, again, strict=True):
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
  images = [a["image"].tobytes() for a in forward]
  images.append(anatomy.radiograph(4, 0, 32)["image"].tobytes())
  assert len(set(images)) == 4


@pytest.mark.parametrize("index", GOLDEN)
def test_golden(index):
  image = anatomy.radiograph(0, index, 64)["image"]
  np.testing.assert_allclose(
    blocks(image, 4),
    GOLDEN[index],
    atol=1.5,
    err_msg="The phantom changed. If that was meant, look at the pictures, "
    "then put the new block means into GOLDEN.",
  )


@pytest.mark.parametrize("size", [32, 50, 64, 128, 256])
def test_sizes(size):
  item = anatomy.radiograph(2, 6, size, nodules=True)
  for key in ("image", "mask"):
    assert item[key].dtype == np.uint8
    assert item[key].shape == (size, size)
  assert item["image"].std() > 40
  assert set(np.unique(item["mask"])) == {0, 255}
  assert (item["patient"], item["view"]) == ("phantom-000001", 2)


@pytest.mark.parametrize("index", [0, 8, 20])
def test_another_size_shows_the_same_patient(index):
  fine = shot(index, 256)["image"]
  for size in (32, 64):
    difference = blocks(fine, size) - shot(index, size)["image"]
    assert np.abs(difference).mean() < 1.6


def test_views_share_their_patient():
  views = anatomy.VIEWS_PER_PATIENT
  items = [shot(i) for i in range(6 * views)]
  patients = np.arange(len(items)) // views
  for i, item in zip(patients, items, strict=True):
    assert item["patient"] == items[i * views]["patient"]
    assert item["label"] == items[i * views]["label"]
  assert len({item["patient"] for item in items}) == 6
  flat = np.stack([np.float64(item["image"].ravel()) for item in items])
  alike = np.corrcoef(flat)
  same = patients[:, None] == patients
  assert len(np.unique(flat, axis=0)) == len(flat)
  off = ~np.eye(len(flat), dtype=bool)
  assert alike[same & off].mean() > alike[~same].mean() + 0.03


def test_half_of_the_patients_are_ill():
  draws = [anatomy.Patient.draw(organs.generator(0, 0, i)) for i in range(1000)]
  assert abs(np.mean([p.label for p in draws]) - 0.5) < 0.06


def test_lungs_are_dark_and_the_spine_is_bright():
  gaps = []
  for index in range(0, 60, 4):
    image = np.float64(shot(index)["image"])
    patient, view, g = pose(index, 64)
    lung = organs.lungs(patient, view, g)
    lung = lung > 0.7 * lung.max()
    _, middle = organs._spine(patient, view, g)
    chest = (g.v > 0.3 * patient.h) & (g.v < 0.9 * patient.h)
    spine = chest & (np.abs(g.x - middle) < 0.1 * patient.w)
    heart = np.hypot(g.x - 0.2 * patient.w, g.v - 0.8 * patient.h)
    heart = heart < 0.15 * patient.w
    dark, bright = image[lung].mean(), image[spine].mean()
    assert bright > dark + 40, index
    assert image[heart].mean() > dark + 15, index
    gaps.append(bright - dark)
  assert np.mean(gaps) > 75


@pytest.mark.parametrize("index", range(0, 60, 12))
def test_a_lung_is_crossed_by_ribs(index):
  patient, view, g = pose(index, 128)
  _, middle = organs._spine(patient, view, g)
  bone = organs._ribs(patient, view, g, middle)
  column = np.argmin(np.abs(g.x[64] + 0.45 * patient.w))
  behind = organs.lungs(patient, view, g)[:, column] > 1
  rib = (bone[:, column] > 0.05) & behind
  assert 8 <= np.sum(np.diff(np.int32(rib)) == 1) <= 16
  assert not bone[np.abs(g.x) > 1.3 * patient.w].any()


def test_pneumonia_brightens_lungs():
  brightness = {anatomy.NORMAL: [], anatomy.PNEUMONIA: []}
  for index in range(0, 240, 4):
    item = shot(index)
    lung = organs.lungs(*pose(index, 64))
    inside = lung > 0.6 * lung.max()
    brightness[item["label"]].append(item["image"][inside].mean())
  normal, ill = brightness.values()
  assert min(len(normal), len(ill)) > 15
  assert np.mean(ill) > np.mean(normal) + 4


def test_consolidation_adds_tissue_in_the_lungs_only():
  changed = []
  for index in range(0, 60, 4):
    patient, view, g = pose(index, 64)
    well, ill = (
      xray_physics.line_integral(
        organs.thickness(dataclasses.replace(patient, label=k), view, g)
      )
      for k in (anatomy.NORMAL, anatomy.PNEUMONIA)
    )
    lung = organs.lungs(patient, view, g) > 0
    assert np.abs(ill - well)[~lung].max() < 1e-4
    assert (ill - well).min() > -1e-4
    changed.append((ill - well)[lung].max())
  assert np.min(changed) > 0.05 and np.median(changed) > 0.3


def test_nodules_lie_in_lungs_and_brighten_them():
  changes = []
  for index in range(0, 40, 4):
    with_nodules, without = shot(index, 128, True), shot(index, 128)
    assert 1 <= with_nodules["nodule_count"] <= 3
    assert without["nodule_count"] == 0 and not without["mask"].any()
    mask = with_nodules["mask"] > 0
    lung = organs.lungs(*pose(index, 128)) > 0.5
    assert mask.any() and (mask & lung).sum() > 0.98 * mask.sum()
    change = np.float64(with_nodules["image"]) - without["image"]
    assert abs(change[~mask].mean()) < 2
    changes.append(change[mask].mean())
  # In consolidated lung a nodule may hide.
  assert min(changes) > 0 and np.median(changes) > 6


def test_nodule_has_the_thickness_of_a_ball():
  patient, _, g = pose(0, 128)
  _, chord = g.ball(0.5 * patient.w, 0.5 * patient.h, 1.5)
  assert chord.max() == pytest.approx(3.0, rel=0.01)
  volume = chord.sum() * g.pixel**2
  assert volume == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.01)


def test_pixels_undo_the_grid():
  for index in range(0, 40, 4):
    _, _, g = pose(index, 128)
    column, row = g.pixels(g.x, g.v)
    assert np.abs(column - np.arange(128)).max() < 0.3
    assert np.abs(row - np.arange(128)[:, None]).max() < 0.3


def test_splat_keeps_volume_and_place():
  _, _, g = pose(0, 128)
  x, v = np.array([0.0, 2.0]), np.array([3.0, 5.0])
  blood = g.splat(x, v, np.array([0.4, 0.6]), 0.3)
  assert blood.sum() * g.pixel**2 == pytest.approx(1.0, rel=1e-3)
  rows, columns = np.indices(blood.shape)
  column, row = g.pixels(x, v)
  share = blood / blood.sum()
  assert (share * columns).sum() == pytest.approx(column @ [0.4, 0.6], abs=0.05)
  assert (share * rows).sum() == pytest.approx(row @ [0.4, 0.6], abs=0.05)


def test_attenuation_follows_beer_and_lambert():
  line = xray_physics.line_integral({"soft": 10.0, "bone": 1.0})
  # NIST at 40 keV: muscle 0.2685 cm2/g x 1.05 g/cm3, bone 0.6655 x 1.92.
  assert line == pytest.approx(2.819 + 1.278, abs=0.001)


def test_exposure_noise_is_poisson():
  rng = np.random.default_rng(0)
  technique = xray_physics.Technique.draw(rng)
  line = np.full((64, 64), 2.0, np.float32)
  signal = xray_physics.expose(line, 0.1, 2, technique, rng)  # 2 mm pixels.
  mean = (1 + technique.scatter) * np.exp(-2.0)
  photons = mean * technique.dose * 4
  assert signal.mean() == pytest.approx(mean, rel=0.01)
  assert signal.std() / mean == pytest.approx(photons**-0.5, rel=0.1)


def test_denser_is_brighter():
  technique = xray_physics.Technique.draw(np.random.default_rng(1))
  line = np.linspace(0, 8, 64, dtype=np.float32) * np.ones((64, 1), np.float32)
  image = xray_physics.develop(np.exp(-line), 0.5, technique)
  assert image[32, 0] < 30 and image[32, -1] > 200
  assert (np.diff(np.int32(image[32])) >= 0).all()


def test_blur_is_gaussian_and_keeps_the_mean():
  image = np.zeros((65, 65), np.float32)
  image[32, 32] = 1
  soft = xray_physics.blur(image, 3.0)
  assert soft.sum() == pytest.approx(1, abs=1e-4)
  assert soft[32, 35] / soft[32, 32] == pytest.approx(np.exp(-0.5), rel=1e-3)

"""The leak audit refuses what was planted, and nothing else."""

import io

import numpy as np
from PIL import Image
import pytest

from jaxfake import errors
from jaxfake.experiments.study import leaks

SIDE = 64


def texture(n, seed):
  """Smooth noise like nothing in particular, uint8 (n, s, s)."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, SIDE, SIDE))
  for axis in (1, 2):
    x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / 3
  return np.uint8(np.clip(128 + 60 * x, 20, 235))


def png(image, **options):
  out = io.BytesIO()
  Image.fromarray(image).save(out, options.pop("format", "PNG"), **options)
  return out.getvalue()


def recompressed(image, quality=60):
  file = io.BytesIO(png(image, format="JPEG", quality=quality))
  return np.array(Image.open(file))


def audit(plant=lambda x: x, real_file=png, fake_file=png):
  """Of 150 + 150 train and 100 + 100 test images, the fakes planted with a
  trace; two images a patient."""
  sides, files = [], None
  for n, seed in ((150, 0), (100, 2)):
    real, fake = texture(n, seed), texture(n, seed + 1)
    fake = np.stack([plant(x) for x in fake])
    if files is None:
      files = (
        [real_file(x) for x in real[:9]],
        [fake_file(x) for x in fake[:9]],
      )
    images = np.concatenate([real, fake])[..., None]
    labels = np.repeat([0, 1], n)
    who = [f"{seed}-{i // 2}" for i in range(2 * n)]
    sides.append((images, labels, who))
  return leaks.audit(files, *sides)


def framed(image):
  image = image.copy()
  image[0] = image[:, -1] = 90
  return image


def test_equal_sources_pass():
  found = audit()
  assert found["leaks"] == []
  assert found["containers"]["identical"]
  for name in ("shuffled_labels", "real_against_real"):
    assert found[name]["low"] < 0.5 < found[name]["high"]


@pytest.mark.parametrize(
  "plant, worst",
  [
    (framed, "border"),
    (lambda x: np.where(x > 160, 255, x).astype(np.uint8), "histogram ends"),
    (lambda x: np.maximum(x, 60), "histogram ends"),
    (recompressed, "8x8 blocks"),
  ],
)
def test_a_planted_trace_is_refused(plant, worst):
  (said,) = audit(plant)["leaks"]
  assert "a shortcut probe" in said and f"most of it by the {worst}" in said


@pytest.mark.parametrize(
  "options, fact",
  [
    (dict(real_file=lambda x: png(x, format="JPEG")), "format"),
    (dict(fake_file=lambda x: png(x[:-1])), "size"),
    (dict(fake_file=lambda x: png(np.stack([x] * 3, -1))), "mode"),
    (dict(fake_file=lambda x: png(x, dpi=(72, 72))), "info dpi"),
  ],
)
def test_a_planted_container_is_refused(options, fact):
  found = audit(**options)
  assert not found["containers"]["identical"]
  assert any(f"the files differ in {fact}" in x for x in found["leaks"])


def test_another_jpeg_quality_is_refused():
  files = [
    [png(x, format="JPEG", quality=q) for x in texture(4, 0)] for q in (90, 80)
  ]
  assert leaks.compare_containers(*files)["differences"] == ["quantization"]


def test_a_varying_size_is_refused_even_on_both_sides():
  files = [png(texture(1, 0)[0][:n]) for n in (60, 64)]
  assert leaks.compare_containers(files, files)["differences"] == ["size"]


def test_patients_on_both_sides_are_found():
  """Each patient's train and test images are the same pictures."""
  images = texture(300, 0)[..., None]
  who = [str(i) for i in range(300)]
  of = lambda x: x[:, ::4, ::4, 0].reshape(len(x), -1).astype(np.float32)
  found = leaks.null_control((images, who), (images, who), of)
  assert found["low"] > 0.5
  others = [f"other {i}" for i in range(300)]
  found = leaks.null_control(
    (images, who), (texture(300, 1)[..., None], others), of
  )
  assert found["low"] < 0.5 < found["high"]


def test_blocks_are_told_from_a_generators_own_grid():
  """A grid of 4 pixels is no trace of JPEG."""
  step = np.zeros((1, SIDE, SIDE), np.uint8)
  step[:, :, ::8] += 40
  step[:, :, 4::8] += 40
  np.testing.assert_allclose(leaks.blockiness(step), 0, atol=1e-6)
  eight = np.kron(np.arange(8, dtype=np.uint8) * 20, np.ones(8, np.uint8))
  assert leaks.blockiness(np.tile(eight, (1, SIDE, 1)))[0, 1] > 3


def test_a_toss_that_gives_all_test_patients_one_side_is_left_out():
  images = np.arange(12.0)[:, None]
  of = lambda x: x
  train = images, [f"p{i}" for i in range(12)]
  found = leaks.null_control(train, (images[:2], ["a", "b"]), of)
  tosses = int(found["interval"].split()[0])
  assert 0 < tosses < leaks.REPEATS and 0 <= found["value"] <= 1
  with pytest.raises(errors.DataError, match="test has 1 patients: expected"):
    leaks.null_control(train, (images[:2], ["a", "a"]), of)

"""One size for all."""

import ml_collections
import numpy as np
from PIL import Image
import pytest

from jaxfake.data import pipeline


def test_crop_takes_the_centre_and_pad_keeps_all():
  image = np.zeros((4, 8), np.uint8)
  image[:, 2:6] = 100
  image[:, :2] = 200
  crop = pipeline.fit(image, 4, "crop", "box")
  assert (crop == 100).all()
  pad = pipeline.fit(image, 8, "pad", "box")
  np.testing.assert_array_equal(pad[2:6], image)
  assert not pad[:2].any() and not pad[6:].any()
  stretch = pipeline.fit(image, 4, "stretch", "box")
  np.testing.assert_array_equal(stretch[0], [200, 100, 100, 0])


@pytest.mark.parametrize("kernel", pipeline.KERNELS)
def test_shrinking_is_antialiased(kernel):
  # A checkerboard finer than the result must become gray, not a pattern.
  image = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
  small = pipeline.fit(image, 32, "crop", kernel)
  assert small.min() > 120 and small.max() < 136


def test_a_picture_of_the_right_size_is_untouched():
  image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
  np.testing.assert_array_equal(
    pipeline.fit(image, 32, "crop", "lanczos"), image
  )


def test_images_are_the_same_cached_or_not(monkeypatch):
  data = ml_collections.ConfigDict(dict(size=32, fit="pad", kernel="bicubic"))
  rng = np.random.default_rng(0)
  source = [
    {"image": rng.integers(0, 256, (50, 40, 1), np.uint8), "label": i}
    for i in range(3)
  ]
  cached = pipeline.Images(source, data)
  monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
  plain = pipeline.Images(source, data)
  for images in (cached, cached, plain):
    for i, example in enumerate(source):
      want = Image.fromarray(
        np.pad(example["image"][..., 0], ((0, 0), (5, 5)))
      ).resize((32, 32), Image.Resampling.BICUBIC)
      np.testing.assert_array_equal(images[i]["image"][..., 0], want)
      assert images[i]["label"] == i
    stacked = pipeline.arrays(images)
    assert stacked["label"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(stacked["image"][1], images[1]["image"])

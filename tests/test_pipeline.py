"""One size for all, and batches that are a function of the step."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import ml_collections
import numpy as np
from PIL import Image
import pytest

from jaxfake.data import pipeline


class Numbers:
  """A source whose item i says i."""

  def __init__(self, n):
    self.n = n

  def __len__(self):
    return self.n

  def __getitem__(self, i):
    return {"image": np.full((1, 1, 1), i, np.uint8), "label": np.int32(i)}


def labels(n, seed, batch_size, first, steps, **hosts):
  batches = pipeline.batches(Numbers(n), seed, batch_size, first, **hosts)
  return [b["label"].tolist() for b in itertools.islice(batches, steps)]


@settings(deadline=None, max_examples=15)
@given(
  n=st.integers(1, 40),
  seed=st.integers(0, 2**31 - 1),
  first=st.integers(0, 9),
  hosts=st.sampled_from([1, 2, 4]),
)
def test_a_batch_is_a_function_of_the_step(n, seed, first, hosts):
  straight = labels(n, seed, 4, 0, 12)
  by_host = [
    labels(n, seed, 4, first, 12 - first, host=h, hosts=hosts)
    for h in range(hosts)
  ]
  joined = [sum(rows, []) for rows in zip(*by_host, strict=True)]
  assert joined == straight[first:]


def test_each_epoch_holds_every_example_once_in_a_new_order():
  flat = sum(labels(12, 0, 4, 0, 6), [])
  assert sorted(flat[:12]) == sorted(flat[12:]) == list(range(12))
  assert flat[:12] != flat[12:]
  assert flat[:12] != sum(labels(12, 1, 4, 0, 3), [])


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

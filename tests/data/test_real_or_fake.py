"""Reals and fakes as one data set: one path, one mix, nothing else."""

from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from jaxfake import configuration, data, errors
from jaxfake.data import pipeline, real_or_fake

CONFIG = "configs/classifier.py:tiny"


def config(**changes):
  argv = [
    f"--config.data.{k.replace('__', '.')}={v}" for k, v in changes.items()
  ]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0].data


IMAGES = hnp.arrays(
  np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=8, max_side=40)
)


@settings(deadline=None, max_examples=50)
@given(IMAGES)
def test_equalised_images_have_one_histogram_and_keep_their_order(image):
  out = real_or_fake.equalised(image)
  want = np.arange(image.size) * 256 // image.size
  np.testing.assert_array_equal(np.sort(out, axis=None), want)
  a, b = image.ravel().astype(int), out.ravel().astype(int)
  for value in np.unique(a):
    if (a > value).any():
      assert b[a == value].max() <= b[a > value].min()


def test_equalised_breaks_ties_by_what_is_around():
  image = np.zeros((9, 9), np.uint8)
  image[:, 6:] = 200
  out = real_or_fake.equalised(image)
  assert out[:, 5].min() > out[:, 0].max()  # Beside the bright part.


@settings(deadline=None, max_examples=30)
@given(IMAGES)
def test_canonical_images_differ_in_the_picture_alone(image):
  c = config(size=32, real_or_fake__frame=0.125)
  out = real_or_fake.canonical(c)(image)
  assert out.shape == (32, 32) and out.dtype == np.uint8
  inside = out[4:-4, 4:-4]
  assert out.sum() == inside.sum()  # The frame is black.
  counts = np.bincount(inside.ravel(), minlength=256)
  assert counts.max() - counts.min() <= 1


def test_without_frame_and_equalising_it_is_the_fitted_image():
  c = config(real_or_fake__frame=0.0, real_or_fake__equalise=False)
  image = np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)
  want = pipeline.fit(image, c.size, c.fit, c.kernel)
  np.testing.assert_array_equal(real_or_fake.canonical(c)(image), want)


def test_every_image_passes_through_the_generators_size():
  """What a larger original has beyond that size would give it away."""
  c = config(size=36, real_or_fake__via=32, real_or_fake__equalise=False)
  image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
  small = pipeline.fit(image, 32, c.fit, c.kernel)
  want = real_or_fake.canonical(c)(small)
  np.testing.assert_array_equal(real_or_fake.canonical(c)(image), want)
  c.real_or_fake.via = 0
  assert (real_or_fake.canonical(c)(image) != want).any()


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(real_or_fake__fakes=""), "fakes is '': expected a folder made by"),
    (dict(real_or_fake__via=-1), "via is -1: expected pixels"),
    (dict(real_or_fake__frame=0.5), "frame is 0.5: expected 0 to below 0.5"),
    (dict(real_or_fake__real="generated"), "real_or_fake.real"),
    (dict(real_or_fake__fakes="nowhere"), "nowhere"),
  ],
)
def test_bad_values_are_refused_by_name(changes, message):
  with pytest.raises(errors.UserError, match=message):
    data.prepare(config(name="real_or_fake", **changes))

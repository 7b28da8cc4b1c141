"""What the classical programs see, against scikit-image and by definition."""

import functools

from flax import linen as nn
import jax
import numpy as np
import pytest
from skimage import feature

from jaxfake import errors, models
from jaxfake.classifiers import features
from jaxfake.evaluation import distances
from jaxfake.nn import conv, layers


def pictures(n, size, seed=0):
  """Smooth random pictures: noise at a quarter of the size, enlarged."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (n, size // 4, size // 4, 1), np.uint8)
  return small.repeat(4, 1).repeat(4, 2)


def noise(n, size, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, size, size, 1), np.uint8)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_hog_equals_scikit_images(size):
  images = np.concatenate([noise(2, size), pictures(2, size)])
  want = [
    feature.hog(
      image[..., 0],
      orientations=9,
      pixels_per_cell=(size // 8, size // 8),
      cells_per_block=(2, 2),
      block_norm="L2-Hys",
    )
    for image in images
  ]
  got = features.hog(images)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_hog_of_a_flat_picture_is_zero():
  flat = np.full((1, 32, 32, 1), 90, np.uint8)
  assert not features.hog(flat).any()


def test_pixels_are_area_means():
  images = noise(3, 96)
  want = images.reshape(3, 32, 3, 32, 3).mean((2, 4)).reshape(3, -1) / 255
  np.testing.assert_allclose(features.pixels(images), want, rtol=1e-5)


def test_pixels_of_a_size_that_does_not_divide():
  # Every original pixel weighs the same, whichever interval it falls into.
  images = noise(2, 75)
  got = features.pixels(images)
  assert got.shape == (2, 1024)
  want = images.mean((1, 2, 3)) / 255
  np.testing.assert_allclose(got.mean(1), want, rtol=1e-5)
  ramp = np.tile(np.arange(75, dtype=np.uint8), (75, 1))[None, ..., None]
  row = features.pixels(ramp).reshape(32, 32)[5] * 255
  np.testing.assert_allclose(np.diff(row)[1:-1], 75 / 32, atol=0.3)
  assert row.mean() == pytest.approx(37, rel=1e-5)


def test_small_pictures_keep_their_pixels():
  images = noise(2, 16)
  want = images.reshape(2, -1) / 255
  np.testing.assert_allclose(features.pixels(images), want, rtol=1e-6)


def test_spectra_of_single_images_average_to_the_set_s():
  images = noise(5, 32)
  each = features.spectrum(images)
  assert each.shape == (5, 16)
  want = distances.radial_spectrum(images[..., 0])
  np.testing.assert_allclose(each.mean(0), want, rtol=1e-5)
  alone = features.spectrum(images[3:4])
  np.testing.assert_array_equal(alone, each[3:4])


def test_joined_features_stand_side_by_side():
  images = noise(2, 32)
  joined = features.features("spectrum,pixels", images)
  assert joined.dtype == np.float32
  np.testing.assert_array_equal(joined[:, :16], features.spectrum(images))
  np.testing.assert_array_equal(joined[:, 16:], features.pixels(images))


def test_unknown_and_incomplete_names_are_refused():
  images = noise(1, 32)
  with pytest.raises(errors.ConfigError, match=r"'hogs'.*pixels, hog, spec"):
    features.features("pixels,hogs", images)
  with pytest.raises(errors.ConfigError, match="no network"):
    features.features("network", images)
  with pytest.raises(errors.ConfigError, match="16 px, not 8"):
    features.features("hog", noise(1, 8))


class Narrow(nn.Module):
  """Two convolutions with batch norm: all that these tests need of a model."""

  num_classes: int

  @nn.compact
  def __call__(self, x, *, train: bool, features: bool = False):
    for i in (1, 2):
      x = conv.Conv(4, (3, 3), use_bias=False, name=f"conv{i}")(x)
      x = nn.relu(layers.batch_norm(train, name=f"bn{i}")(x))
    x = x.mean((1, 2))
    return x if features else nn.Dense(self.num_classes)(x)


@pytest.fixture(scope="module")
def network():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.MODELS, "narrow", Narrow)
    images = pictures(40, 32)
    variables = features.random_network("narrow", 0, images)
    yield features.Network("narrow", variables)


def test_a_random_network_s_batch_norm_is_that_of_the_images(network):
  # The first one's, by hand: 32 of the 40 images make one full batch.
  images = pictures(40, 32)
  chosen = np.random.default_rng(0).permutation(40)[:32]
  x = images[chosen] / np.float32(127.5) - 1
  w = network.variables["params"]["conv1"]["kernel"]
  y = jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  stats = network.variables["batch_stats"]["bn1"]
  np.testing.assert_allclose(stats["mean"], y.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(stats["var"], y.var((0, 1, 2)), rtol=1e-3)
  # And the last features are of the size of ones, not of powers of ten.
  pooled = features.pooled(images, network)
  assert 0.01 < pooled.std() < 10


def test_random_networks_differ_by_seed_only(network):
  images = pictures(40, 32)
  again = features.random_network("narrow", 0, images)
  jax.tree.map(np.testing.assert_array_equal, again, network.variables)
  other = features.random_network("narrow", 1, images)
  a, b = (v["params"]["conv1"]["kernel"] for v in (again, other))
  assert not np.allclose(a, b)


def test_pooled_features_are_the_network_s_whatever_the_batch(network):
  images = pictures(features.BATCH + 3, 32, seed=1)
  got = features.features("network", images, network)
  model = models.MODELS["narrow"](num_classes=2)
  apply = jax.jit(functools.partial(model.apply, train=False, features=True))
  want = apply(network.variables, images / np.float32(127.5) - 1)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  alone = features.features("network", images[-1:], network)
  np.testing.assert_array_equal(alone, got[-1:])
  # Two sizes of set, one compiled program.
  assert features._forward("narrow")._cache_size() == 1

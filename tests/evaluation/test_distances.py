"""Distances against values known by other means."""

import jax
import numpy as np
import pytest

from jaxfake.evaluation import distances


def test_frechet_distance_of_known_gaussians():
  # Diagonal covariances: |m|^2 + sum (s_a - s_b)^2.
  rng = np.random.default_rng(0)
  white = rng.normal(size=(2000, 3))
  white = (white - white.mean(0)) @ np.linalg.inv(
    np.linalg.cholesky(np.cov(white, rowvar=False))
  ).T  # Mean 0, covariance exactly 1.
  a = white * [1, 2, 3]
  b = white * [2, 2, 1] + [3, 0, 4]
  want = 25 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2
  assert distances.frechet_distance(a, b) == pytest.approx(want, rel=1e-9)
  assert distances.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_correlated_gaussians():
  # Against the trace of the true matrix square root.
  import scipy.linalg

  rng = np.random.default_rng(1)
  a = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
  b = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 1
  ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  root = scipy.linalg.sqrtm(ca @ cb).real
  want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * root)
  assert distances.frechet_distance(a, b) == pytest.approx(want, rel=1e-6)


def test_kernel_distance_by_its_definition():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(6, 3)), rng.normal(size=(5, 3)) + 1
  k = lambda x, y: (x @ y / 3 + 1) ** 3
  aa = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
  bb = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
  ab = [k(x, y) for x in a for y in b]
  want = np.mean(aa) + np.mean(bb) - 2 * np.mean(ab)
  assert distances.kernel_distance(a, b) == pytest.approx(want)


# Of torch-fidelity 0.4.0: fid_statistics_to_metric, and kid_features_to_metric
# whose subsets are the whole sets. Fewer images than features, and more.
@pytest.mark.parametrize(
  ("shape", "fid", "kid"),
  [
    ((12, 20), 3.881321469958019, 1.2620165234260998),
    ((30, 4), 0.5524232198842992, 1.5738244035883022),
  ],
)
def test_distances_are_the_literatures(shape, fid, kid):
  i = np.arange(np.prod(shape))
  a = np.abs(np.cos(i**1.5)).reshape(shape)
  b = np.abs(np.sin(i**1.3)).reshape(shape) + 0.3
  assert distances.frechet_distance(a, b) == pytest.approx(fid, rel=1e-7)
  assert distances.kernel_distance(a, b) == pytest.approx(kid, rel=1e-9)


def test_subsets_have_the_kernel_distance_of_all_on_average():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) + 0.5
  drawn = lambda x: x[rng.choice(len(x), 20, replace=False)]
  each = [distances.kernel_distance(drawn(a), drawn(b)) for _ in range(1000)]
  error = np.std(each) / np.sqrt(len(each))
  assert abs(np.mean(each) - distances.kernel_distance(a, b)) < 4 * error


def test_kernel_distance_of_equal_laws_is_zero_on_average():
  rng = np.random.default_rng(0)
  draws = [
    distances.kernel_distance(
      rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    )
    for _ in range(200)
  ]
  error = np.std(draws) / np.sqrt(len(draws))
  assert abs(np.mean(draws)) < 4 * error


def test_radial_spectrum_peaks_at_the_frequency_of_a_wave():
  x = np.arange(64)
  wave = 127.5 + 100 * np.sin(2 * np.pi * 11 * x / 64)
  image = np.tile(wave.round().astype(np.uint8), (64, 1))
  for picture in (image, image.T):
    spectrum = distances.radial_spectrum(picture[None])
    assert spectrum.shape == (32,)
    assert spectrum[1:].argmax() + 1 == 11


def test_features_see_texture_and_layout():
  rng = np.random.default_rng(0)
  blocks = rng.integers(80, 170, (4, 8, 8, 1), np.uint8)
  smooth = blocks.repeat(8, 1).repeat(8, 2)
  noise = rng.integers(-40, 41, smooth.shape)
  noisy = (smooth + noise).astype(np.uint8)
  describe = jax.jit(distances.random_filter_features)
  a, b, c = (np.asarray(describe(x)) for x in (smooth, noisy, smooth[::-1]))
  assert a.shape == (4, 256)
  np.testing.assert_allclose(a[::-1], c, rtol=1e-6)
  layout, fine = slice(0, 64), slice(64, 64 + distances.FILTERS)
  np.testing.assert_allclose(a[:, layout], b[:, layout], atol=0.1)
  assert b[:, fine].mean() > 1.5 * a[:, fine].mean()


def test_standardise_leaves_a_constant_feature_finite():
  a = np.array([[1.0, 5.0], [3.0, 5.0]])
  reference, other = distances.standardise(a, a + 1)
  np.testing.assert_allclose(reference, [[-1, 0], [1, 0]])
  np.testing.assert_allclose(other, [[0, 1], [2, 1]])


def test_nearest_finds_itself_first():
  bank = np.random.default_rng(0).normal(size=(20, 4, 4)) * 50
  index, distance = distances.nearest(bank[[3, 7]] + 0.01, bank)
  assert index[:, 0].tolist() == [3, 7]
  np.testing.assert_allclose(distance[:, 0], 0.01, atol=0.02)
  assert (np.diff(distance, axis=1) >= 0).all()

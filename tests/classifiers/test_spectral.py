"""The numbers of a picture's blocks."""

import jax
import numpy as np
import pytest

from jaxfake.classifiers import spectral


def noise(h, w, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(128, 20, (h, w)).clip(0, 255).astype(np.uint8)


def test_log_spectra_against_numpy():
  block = noise(32, 32).astype(np.float32)
  window = np.hanning(34)[1:-1]
  window = np.outer(window, window)
  window /= np.sqrt((window**2).sum())
  power = np.abs(np.fft.rfft2((block - block.mean()) * window)) ** 2
  exact = np.log(power + 1).ravel()
  found = np.asarray(spectral.log_spectra(block))
  assert np.allclose(found, exact - exact.mean(), atol=1e-3)


@pytest.mark.parametrize("size", [(32, 32), (40, 100), (96, 96)])
def test_a_picture_has_the_numbers_of_its_blocks(size):
  image = noise(*size)
  blocks = spectral.cut(image).reshape(-1, 32, 32)
  exact = spectral.numbers(spectral.sums(blocks))
  assert np.allclose(spectral.of_picture(image), exact, atol=1e-4)


def test_crops_have_the_numbers_of_pictures():
  crops = np.stack([noise(96, 96, seed) for seed in range(3)])
  for crop, found in zip(crops, spectral.of_crops(crops), strict=True):
    assert np.allclose(found, spectral.of_picture(crop), atol=1e-4)


def test_contrast_and_exposure_drop_out():
  """Where power is far above what rounding leaves."""
  image = np.random.default_rng(0).normal(0, 1, (64, 64))
  a = (128 + 25 * image).clip(0, 255).astype(np.uint8)
  b = (100 + 12.5 * image).clip(0, 255).astype(np.uint8)
  n = spectral.FREQUENCIES
  a, b = (spectral.of_picture(x)[:n] for x in (a, b))
  assert np.abs(a - b).mean() < 0.05


def test_enlarging_shows():
  """Linear enlargement by two leaves nothing at high frequencies, and less fine
  structure between the pixels that were there."""
  plain = noise(128, 128)
  small = noise(65, 65).astype(float)
  twice = np.zeros((129, 129))
  twice[::2, ::2] = small
  twice[1::2] = (twice[:-2:2] + twice[2::2]) / 2
  twice[:, 1::2] = (twice[:, :-2:2] + twice[:, 2::2]) / 2
  twice = twice[:128, :128].astype(np.uint8)
  a, b = spectral.of_picture(plain), spectral.of_picture(twice)
  assert np.abs(a - b)[: spectral.FREQUENCIES].mean() > 0.5
  grid = slice(-spectral.PERIODS, None)
  assert b[grid].max() > a[grid].max() + 0.3


def test_flat_blocks_do_not_count():
  image = noise(96, 96)
  framed = np.zeros((192, 192), np.uint8)
  framed[:96, :96] = image
  inner = spectral.cut(framed).reshape(-1, 32, 32)
  telling = inner[inner.var((1, 2)) >= spectral.LEAST_VARIANCE]
  exact = spectral.numbers(spectral.sums(telling))
  assert np.allclose(spectral.of_picture(framed), exact, atol=1e-4)


def test_of_nothing_there_are_zeros():
  assert not spectral.of_picture(np.full((64, 64), 7, np.uint8)).any()


def test_large_pictures_are_read_in_several_pieces():
  image = noise(800, 900)
  blocks = spectral.cut(image)[::2, ::2].reshape(-1, 32, 32)
  parts = [spectral.sums(part) for part in np.array_split(blocks, 5)]
  exact = spectral.numbers(jax.tree.map(lambda *x: sum(x), *parts))
  assert len(blocks) > spectral.CHUNKS[0]
  assert np.allclose(spectral.of_picture(image), exact, atol=1e-3)


def test_surroundings():
  image = noise(112, 144)
  of = spectral.of_surroundings(image)
  found, blocks = np.stack(list(of.rows)), spectral.cut(image)
  assert of.stride == spectral.STRIDE and of.first == (47.5, 47.5)
  rows, columns = blocks.shape[:2]
  assert found.shape == (rows - 4, columns - 4, spectral.NUMBERS)
  around = blocks[1:6, 1:6].reshape(-1, 32, 32)  # Of the block at (3, 3).
  exact = spectral.numbers(spectral.sums(around))
  assert np.allclose(found[1, 1], exact, atol=1e-3)


def test_of_a_large_picture_fewer_places_are_looked_at(monkeypatch):
  monkeypatch.setattr(spectral, "MOST_PLACES", 12)
  of = spectral.of_surroundings(noise(256, 256))
  assert of.stride == 8 * spectral.STRIDE
  assert np.stack(list(of.rows)).shape == (1, 1, spectral.NUMBERS)

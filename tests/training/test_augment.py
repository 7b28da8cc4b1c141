"""Augmentations: of each image its own, with gradients, within their range."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.training import augment


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_augmentations_differ_by_image_and_have_gradients(name):
  x = jnp.tile(
    jax.random.normal(jax.random.key(1), (1, 32, 32, 1)), (6, 1, 1, 1)
  )
  fn = functools.partial(augment.AUGMENTATIONS[name], jax.random.key(0))
  y = jax.jit(fn)(x)
  assert y.shape == x.shape
  assert len({a.tobytes() for a in np.asarray(y)}) > 1
  assert jnp.abs(jax.jit(jax.grad(lambda x: fn(x).sum()))(x)).sum() > 0


def test_translation_moves_and_fills_with_zero():
  x = jnp.ones((64, 32, 32, 1))
  y = np.asarray(augment.translation(jax.random.key(0), x))
  assert set(np.unique(y)) == {0, 1}
  kept = y.sum((1, 2, 3)) / 32**2
  assert kept.min() >= (28 / 32) ** 2
  assert kept.max() == 1


def test_cutout_blanks_at_most_a_quarter():
  y = augment.cutout(jax.random.key(0), jnp.ones((64, 32, 32, 1)))
  blank = 1 - np.asarray(y).mean((1, 2, 3))
  assert blank.max() == 0.25
  assert blank.min() > 0.05


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_augmentations_change_images_within_their_range(name):
  x = jnp.tile(
    jax.random.uniform(jax.random.key(1), (1, 32, 32, 1), minval=-1),
    (8, 1, 1, 1),
  )
  y = jax.jit(augment.AUGMENTATIONS[name])(jax.random.key(0), x)
  assert jnp.abs(y).max() < 1.6
  assert not jnp.allclose(y, x)


def test_affine_keeps_flat_images_and_turns_about_the_centre():
  key = jax.random.key(3)
  flat = jnp.full((4, 33, 33, 1), 0.3)
  np.testing.assert_allclose(augment.affine(key, flat), flat, atol=1e-6)
  # A ramp stays a ramp: a bilinear warp of a plane is the plane, moved.
  ramp = jnp.broadcast_to(
    jnp.linspace(-1, 1, 33)[None, :, None, None], (4, 33, 33, 1)
  )
  middle = augment.affine(key, ramp)[:, 10:-10, 10:-10, 0]
  second = middle[:, 2:] - 2 * middle[:, 1:-1] + middle[:, :-2]
  np.testing.assert_allclose(second, 0, atol=1e-5)
  # 8 degrees, 10 % and 5 % of the side at most.
  slope = jnp.abs(middle[:, 1:] - middle[:, :-1]) * 16
  assert slope.min() > 0.88 and slope.max() < 1.11
  assert jnp.abs(middle - ramp[:, 10:-10, 10:-10, 0]).max() < 0.35


def test_flip_mirrors_left_and_right_only():
  x = jax.random.normal(jax.random.key(0), (32, 4, 6, 1))
  y = augment.flip(jax.random.key(1), x)
  kept = (y == x).all((1, 2, 3))
  mirrored = (y == x[:, :, ::-1]).all((1, 2, 3))
  assert (kept ^ mirrored).all() and 4 < mirrored.sum() < 28


def test_some_images_are_augmented_each_by_chance():
  names, x = ("brightness", "translation"), jnp.ones((400, 16, 16, 1))
  some = lambda p: np.asarray(
    augment.augment_some(names, p, jax.random.key(0), x)
  )
  np.testing.assert_array_equal(some(0.0), x)
  assert (some(1.0) != 1).any((1, 2, 3)).all()
  y = some(0.3)
  brighter = (y[:, 8, 8, 0] != 1) & (y[:, 8, 8, 0] != 0)
  moved = (y == 0).any((1, 2, 3))
  for found in brighter, moved:
    assert abs(found.mean() - 0.3) < 0.08
  # Each by itself; a shift of none is 1 of 25.
  assert abs((brighter & moved).mean() - 0.09) < 0.05


def test_turned_rows_take_all_eight_ways_and_masks_go_along():
  x = jnp.tile(jnp.arange(16.0).reshape(1, 4, 4, 1), (64, 1, 1, 1))
  y, mask = augment.turned(jax.random.key(0), x, 2 * x)
  np.testing.assert_array_equal(mask, 2 * y)
  square = np.arange(16).reshape(4, 4)
  ways = {
    np.rot90(flipped, k).tobytes()
    for flipped in (square, square.T)
    for k in range(4)
  }
  found = {np.asarray(row[..., 0], int).tobytes() for row in y}
  assert found == ways

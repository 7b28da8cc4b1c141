"""What happens to pictures on their way."""

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from jaxfake.data import deliveries

PICTURES = hnp.arrays(
  np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))
)


@pytest.mark.parametrize("name", deliveries.DELIVERIES)
@hypothesis.given(PICTURES)
@hypothesis.settings(max_examples=15, deadline=None)
def test_gray_pictures_of_any_size_stay_gray_pictures(name, image):
  before = image.copy()
  found = deliveries.DELIVERIES[name](image)
  assert found.dtype == np.uint8 and found.ndim == 2 and min(found.shape) >= 1
  assert np.array_equal(image, before)


@pytest.mark.parametrize("name", deliveries.DELIVERIES)
def test_views_are_read_as_pictures(name):
  image = np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8)
  view, copy = image.T[::-1], np.ascontiguousarray(image.T[::-1])
  deliver = deliveries.DELIVERIES[name]
  assert np.array_equal(deliver(view), deliver(copy))


def test_sizes():
  image = np.zeros((100, 60), np.uint8)
  shape = lambda name: deliveries.DELIVERIES[name](image).shape
  sizes = {shape(name) for name in deliveries.DELIVERIES}
  assert {(100, 60), (50, 30), (75, 45), (150, 90), (200, 120)} <= sizes


@hypothesis.given(st.integers(0, 2**32), st.integers(30, 80))
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_chain_respects_the_smallest_side_and_is_the_same_again(
  seed, smallest
):
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (80, 96), dtype=np.uint8)
  one, two = (
    deliveries.draw(np.random.default_rng(seed), smallest)(image)
    for _ in range(2)
  )
  assert one.dtype == np.uint8 and min(one.shape) >= smallest
  assert np.array_equal(one, two)


def test_a_chain_does_the_same_to_pictures_of_one_size():
  """Shown by where it puts a picture's halves."""
  halves = np.zeros((128, 128), np.uint8)
  halves[:, 64:] = 200
  for seed in range(40):
    deliver = deliveries.draw(np.random.default_rng(seed), 96)
    a, b = deliver(halves), deliver(halves[::-1].copy())
    assert a.shape == b.shape
    assert np.abs(a.astype(int).mean() - b.astype(int).mean()) < 3


def test_chains_differ():
  image = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
  found = [
    deliveries.draw(np.random.default_rng(seed), 96)(image)
    for seed in range(30)
  ]
  assert len({x.tobytes() for x in found}) > 20


def test_tones():
  ramp = np.arange(256, dtype=np.uint8)[None]
  assert (np.diff(deliveries.toned(ramp, gamma=0.7).astype(int)) >= 0).all()
  assert np.array_equal(deliveries.toned(ramp, inverted=True), 255 - ramp)
  found = deliveries.toned(ramp, window=(0.2, 0.8))
  assert found[0, 51] == 0 and found[0, 204] == 255

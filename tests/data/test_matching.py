"""As many of each class from two sets."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np

from jaxfake.data import matching

labels = st.lists(st.integers(0, 2), min_size=2, max_size=60).map(np.array)


@settings(deadline=None)
@given(train=labels, held=labels, limit=st.integers(2, 80))
def test_matched_sets_have_one_size_and_one_class_mix(train, held, limit):
  if not set(train) & set(held):
    return
  a, b = matching.matched(train, held, limit)
  assert len(set(a)) == len(a) == len(set(b)) == len(b)
  np.testing.assert_array_equal(np.sort(train[a]), np.sort(held[b]))
  assert len(a) <= limit + 3  # At least one of each class.


def test_matched_takes_as_many_as_it_may_in_trains_mix():
  train = np.repeat([0, 1], [100, 300])
  held = np.repeat([0, 1], [50, 60])
  a, _ = matching.matched(train, held, 1000)
  assert np.bincount(train[a]).tolist() == [20, 60]
  a, _ = matching.matched(train, held, 8)
  assert np.bincount(train[a]).tolist() == [2, 6]
  # Not the first ones, which may be alike: spread over all there are.
  assert a.max() > 300


@given(labels, labels)
def test_without_a_limit_all_that_both_have(first, second):
  a, b = matching.matched(first, second)
  counts = [np.bincount(x, minlength=3) for x in (first, second)]
  mix = [np.bincount(x[at], minlength=3) for x, at in ((first, a), (second, b))]
  np.testing.assert_array_equal(*mix)
  np.testing.assert_array_equal(mix[0], np.minimum(*counts))
  assert len(set(a)) == len(a) == len(set(b)) == len(b)

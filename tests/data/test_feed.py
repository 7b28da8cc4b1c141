"""Batches are a function of the step, wherever the images are."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import ml_collections
import numpy as np
import pytest

from jaxfake.data import feed
from jaxfake.runtime import devices, xla


class Numbers:
  """A source whose item i says i."""

  def __init__(self, n):
    self.n = n

  def __len__(self):
    return self.n

  def __getitem__(self, i):
    return {"image": np.full((2, 2, 1), i, np.uint8), "label": np.int32(i)}


def labels(n, seed, batch_size, first, steps, **options):
  batches = feed.batches(Numbers(n), seed, batch_size, first, **options)
  return [b["label"].tolist() for b in itertools.islice(batches, steps)]


@settings(deadline=None, max_examples=15)
@given(
  n=st.integers(1, 40),
  seed=st.integers(0, 2**32 - 1),
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
  looked_up = [
    [
      i
      for h in range(hosts)
      for i in feed.indices(n, seed, 4, batch, host=h, hosts=hosts).tolist()
    ]
    for batch in range(first, 12)
  ]
  assert looked_up == straight[first:]


def test_each_epoch_holds_every_example_once_in_a_new_order():
  flat = sum(labels(12, 0, 4, 0, 6), [])
  assert sorted(flat[:12]) == sorted(flat[12:]) == list(range(12))
  assert flat[:12] != flat[12:]
  assert flat[:12] != sum(labels(12, 1, 4, 0, 3), [])


def test_the_order_does_not_depend_on_the_version_of_numpy():
  assert feed.order(3, 1, 8).tolist() == [7, 3, 5, 6, 4, 0, 2, 1]


def test_worker_processes_read_the_same():
  assert labels(10, 5, 4, 3, 6, workers=2) == labels(10, 5, 4, 3, 6)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("where", ["device", "stream"])
def test_chunks_of_any_length_are_the_batches_in_order(
  where, most, monkeypatch
):
  monkeypatch.setattr(xla, "steps_per_dispatch", lambda: most)
  config = ml_collections.ConfigDict(
    dict(seed=7, batch_size=4, data=dict(size=2, feed=where))
  )
  mesh, _, _ = devices.mesh_and_shardings()
  source = feed.Feed(Numbers(10), config, 2, mesh)
  lookup = jax.jit(source.lookup)
  found = []
  for n in (most, 1, most, most):
    chunk = source.chunk(n)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), chunk) == jax.tree.map(
      lambda x: (x.shape, x.dtype), source.like
    )
    found += [lookup(chunk, i) for i in range(n)]
  want = labels(10, 7, 4, 2, len(found))
  for batch, row in zip(found, want, strict=True):
    assert batch["label"].tolist() == row
    assert batch["image"][:, 0, 1, 0].tolist() == row


def test_a_set_that_does_not_fit_is_streamed(monkeypatch):
  monkeypatch.setattr(xla, "resident_bytes", lambda: 10 * 2 * 2 - 1)
  config = ml_collections.ConfigDict(
    dict(seed=7, batch_size=4, data=dict(size=2, feed="auto"))
  )
  mesh, _, _ = devices.mesh_and_shardings()
  assert "streamed" in feed.Feed(Numbers(10), config, 0, mesh).about
  assert "on the device" in feed.Feed(Numbers(9), config, 0, mesh).about

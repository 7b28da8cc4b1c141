"""Crops to learn from."""

import numpy as np
import pytest

from jaxfake.data import crops


class Source:
  """Two reals, a fake of the second, a small picture."""

  def __init__(self):
    rng = np.random.default_rng(0)
    sizes = (300, 400), (160, 160), (160, 160), (64, 64)
    self._images = [
      rng.integers(0, 256, size, dtype=np.uint8)[..., None] for size in sizes
    ]
    self._columns = {
      "label": [0, 0, 1, 1],
      "id": ["a", "b", "c", "d"],
      "original": ["", "", "b", ""],
    }

  def __len__(self):
    return 4

  def __getitem__(self, i):
    return {"image": self._images[i]}

  def column(self, name):
    return self._columns[name]


def jobs(each=3):
  return list(crops.jobs(Source(), range(4), each, seed=0, delivered=each))


def test_each_picture_is_drawn_so_often_and_small_ones_are_left_out():
  rows = [row for job in jobs() for row in job.rows]
  # The second real comes three times for itself and three times with its fake.
  assert [rows.count(i) for i in range(4)] == [3, 6, 3, 0]


def test_crops_are_a_function_of_seed_and_place():
  a, b = ([crops.delivered(job)[1] for job in jobs()] for _ in range(2))
  assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
  assert not np.array_equal(a[0], a[1])


def test_a_fake_and_its_real_take_one_delivery_at_one_place():
  """Shown by a fake that is its real."""
  source = Source()
  source._images[2] = source._images[1]
  for job in crops.jobs(source, [2], 8, seed=0, delivered=8):
    real, fake = crops.delivered(job)[1]
    assert np.array_equal(real, fake)


def test_of_all_jobs_come_crops_of_one_size():
  for job in jobs(8):
    rest, found = crops.delivered(job)
    assert found.shape == (len(job.pieces), crops.SIDE, crops.SIDE)
    assert found.dtype == np.uint8
    assert rest.pieces == () and rest.rows == job.rows


def test_groups_are_of_one_picture_at_one_size():
  found = jobs(2 * crops.SAME_SIZE)
  for group in {job.group for job in found}:
    those = [job for job in found if job.group == group]
    assert len({job.rows[0] for job in those}) == 1
    if those[0].rows == (0,):
      assert len(those) == crops.SAME_SIZE
      assert len({job.pieces[0].shape for job in those}) == 1


def test_without_deliveries_crops_are_pieces_of_the_picture():
  (job,) = crops.jobs(Source(), [3, 2], 1, seed=0)
  _, (real, fake) = crops.delivered(job)
  picture = Source()[2]["image"][..., 0]
  windows = np.lib.stride_tricks.sliding_window_view(picture, fake.shape)
  turned = [np.rot90(fake, k) for k in range(4)]
  turned += [x[:, ::-1] for x in turned]
  assert any((windows == x).all((2, 3)).any() for x in turned)
  assert not np.array_equal(real, fake)


@pytest.mark.parametrize("size", [(100, 100), (120, 700), (3000, 500)])
def test_reals_come_at_many_sizes_and_are_not_enlarged(size):
  image = np.zeros(size, np.uint8)
  sides = set()
  for seed in range(60):
    found = crops.real_size(image, np.random.default_rng(seed))
    sides.add(min(found.shape))
    assert min(found.shape) >= min(crops.SIDE, min(size))
    assert abs(found.shape[0] / found.shape[1] - size[0] / size[1]) < 0.2
  assert max(sides) == min(size)
  assert len(sides) == 1 + sum(x < min(size) for x in crops.SIZES)

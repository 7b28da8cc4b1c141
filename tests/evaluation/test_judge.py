"""What is chosen comes from validation; what is counted, from test."""

import numpy as np
import pytest

from jaxfake import errors
from jaxfake.data import pipeline
from jaxfake.data.sources import Rows
from jaxfake.evaluation import judge


class Split(Rows):
  def __init__(self, label):
    super().__init__(
      image=np.zeros((len(label), 16, 16, 1), np.uint8), label=label
    )
    self._label = label

  def column(self, name):
    n = len(self._label)
    if name == "label":
      return list(map(int, self._label))
    return [f"{name}{i}" for i in range(n)]


def scored(seed, n=60, k=2, signal=2.0, scale=3.0):
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % k
  logits = scale * (rng.normal(size=(n, k)) + signal * np.eye(k)[labels])
  split = Split(labels)
  return judge.Scored.of(logits, split), split


def splits(test, val, k=2):
  names = ("NORMAL", "PNEUMONIA", "TB")[:k]
  return pipeline.Splits(names, val, val, test)


@pytest.mark.parametrize("k", [2, 3])
def test_conclusion_has_every_figure_with_an_interval(k):
  (val, v), (test, t) = (scored(i, n=400, k=k, signal=1.0) for i in (0, 1))
  made = judge.conclude(splits(t, v, k), val, test)
  for name, x in made["figures"].items():
    assert x["low"] <= x["value"] <= x["high"], name
  assert (made["calibration"]["threshold"] is None) == (k == 3)
  assert made["figures"]["auc"]["value"] > 0.8
  # Overconfident by `scale`: the temperature undoes it.
  before = made["uncalibrated"]["ece"]["value"]
  assert made["calibration"]["temperature"] > 1.2
  assert made["figures"]["ece"]["value"] < before
  assert len(made["predictions"]) == len(val.labels) + len(test.labels)
  for name in ("roc", "reliability", "confusion", "mistakes"):
    assert made[name].dtype == np.uint8


def test_test_images_choose_nothing():
  (val, v), (one, t), (other, u) = scored(0), scored(1), scored(2, signal=-1.0)
  made = judge.conclude(splits(t, v), val, one)
  also = judge.conclude(splits(u, v), val, other)
  assert made["calibration"] == also["calibration"]
  assert made["figures"]["accuracy"] != also["figures"]["accuracy"]


def test_threshold_comes_from_validation():
  """Logits shifted by 5 towards class 0: 0.5 would call nothing positive."""
  (val, v), (test, t) = scored(0), scored(1)
  shift = np.array([5.0, 0.0])
  val, test = (x._replace(logits=x.logits / 3 + shift) for x in (val, test))
  made = judge.conclude(splits(t, v), val, test)
  assert made["calibration"]["threshold"] < 0.45
  assert made["figures"]["balanced_accuracy"]["value"] > 0.7


def test_order_of_the_images_does_not_matter():
  (val, v), (test, t) = scored(0), scored(1)
  order = np.random.default_rng(3).permutation(len(test.labels))
  pick = lambda x: [x[i] for i in order]
  mixed = judge.Scored(
    test.logits[order], test.labels[order], pick(test.patients), pick(test.ids)
  )
  made = judge.conclude(splits(t, v), val, test)
  also = judge.conclude(splits(t, v), val, mixed)
  assert made["figures"] == also["figures"]


def test_validation_figures_by_hand():
  logits = np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
  got = judge.validation(logits, np.array([0, 1, 1]), np.array([1.0, 2.0]))
  loss = -(np.log(0.9) + 2 * np.log(0.8) + 2 * np.log(0.4)) / 5
  assert got == pytest.approx(
    {"loss": loss, "accuracy": 2 / 3, "balanced_accuracy": 0.75}
  )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_a_class_is_refused(split):
  whole, bad = Split(np.arange(6) % 2), Split(np.zeros(6, int))
  made = splits(whole, whole)._replace(**{split: bad})
  with pytest.raises(errors.DataError, match=f"no {split} image is PNEUMONIA"):
    judge.check(made)
  made = splits(whole, whole)._replace(**{split: ()})
  with pytest.raises(errors.DataError, match=f"no {split} image is NORMAL"):
    judge.check(made)


def test_unlabelled_images_are_refused():
  made = splits(Split(np.arange(4) % 2), Split(np.arange(4) % 2))
  with pytest.raises(errors.DataError, match="expected a class for each"):
    judge.check(made._replace(classes=()))

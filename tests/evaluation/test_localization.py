"""Figures of maps."""

import numpy as np
import pytest

from jaxfake.evaluation import localization


def test_figures_of_a_map_by_hand():
  evidence = np.array([[0.0, 1.0], [1.0, 3.1]])
  mask = np.array([[False, True], [False, True]])
  thresholds = np.array([0.0, 1.0, 3.0, 3.25])
  got = localization.measured(evidence, mask, thresholds)
  assert got["auc"] == pytest.approx(3.5 / 4)
  assert got["iou"] == pytest.approx([0.5, 2 / 3, 0.5, 0], abs=1e-4)
  assert (got["hit"], got["share"]) == (1.0, 0.5)
  assert localization.peak(evidence) == 3.1


def test_a_score_is_of_the_highest_half_percent():
  evidence = np.random.default_rng(0).permutation(1000).reshape(20, 50)
  assert localization.top(evidence) == np.mean([995, 996, 997, 998, 999])
  assert localization.top(evidence[:2, :2]) == evidence[:2, :2].max()


def test_intervals_are_over_patients():
  values, patients = np.arange(40) % 2, np.arange(40) % 2
  one = localization.interval(values, patients)
  many = localization.interval(values, np.arange(40))
  assert (one["low"], one["high"]) == (0, 1) and many["high"] < 0.7
  all_hit = localization.interval(np.ones(10), np.arange(10), share=True)
  assert all_hit["low"] == pytest.approx(0.025 ** (1 / 10))


def test_pictures_are_compared_with_what_is_not_altered():
  rng = np.random.default_rng(0)
  mask = np.zeros((20, 20), bool)
  mask[:5, :5] = True

  def rows(gain):
    for k in range(12):
      evidence = rng.normal(size=mask.shape) + gain * mask
      figures = localization.measured(evidence, mask, np.arange(8.0))
      yield figures | {"patient": k, "score": localization.peak(evidence)}

  reals, altered = list(rows(0)), list(rows(9))
  chosen = localization.best(altered)
  got = localization.summary(altered, chosen, reals)
  assert got["picture_auc"]["value"] == got["hit"]["value"] == 1
  assert got["iou"]["value"] > 0.9 and got["chance"] == 1 / 16
  assert localization.summary(reals, chosen, [])["picture_auc"] is None

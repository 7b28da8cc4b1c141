"""Temperatures and thresholds against searching for them, and at the ends."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.special

from jaxfake import errors
from jaxfake.evaluation import calibration, metrics


def sample(n, k, seed=0):
  """Logits (n, k), and labels drawn with exactly their probabilities."""
  rng = np.random.default_rng(seed)
  logits = 2 * rng.normal(size=(n, k))
  p = scipy.special.softmax(logits, axis=1)
  return logits, (rng.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)


def loss(logits, labels, temperature):
  log_p = scipy.special.log_softmax(logits / temperature, axis=1)
  return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("true", [0.3, 1, 5])
def test_temperature_recovers_what_made_the_labels(k, true):
  logits, labels = sample(4000, k)
  got = calibration.fit_temperature(true * logits, labels)
  assert got == pytest.approx(true, rel=0.08)
  grid = [
    *np.geomspace(*calibration.TEMPERATURES, 60),
    0.999 * got,
    1.001 * got,
  ]
  losses = [loss(true * logits, labels, t) for t in grid]
  assert loss(true * logits, labels, got) < min(losses)


def test_temperature_mends_ece_and_keeps_calls_and_ranks():
  logits, labels = sample(3000, 2)
  fitted = calibration.fit_temperature(4 * logits[:1500], labels[:1500])
  before, after = (
    metrics.figures(
      labels[1500:],
      calibration.softmax(4 * logits[1500:], t),
      range(1500),
      classes=["a", "b"],
      resamples=50,
    )
    for t in (1, fitted)
  )
  assert after["ece"]["value"] < before["ece"]["value"] / 2
  assert after["brier"]["value"] < before["brier"]["value"]
  for name in ("accuracy", "auc", "eer", "tpr_at_1_percent_fpr"):
    assert after[name] == before[name]


def test_temperature_stops_at_the_ends():
  low, high = calibration.TEMPERATURES
  logits = np.array([[3.0, 1.0], [0.0, 0.5], [900.0, -900.0]])
  assert calibration.fit_temperature(logits, [0, 1, 0]) == low
  assert calibration.fit_temperature(logits, [1, 0, 1]) == high
  assert calibration.fit_temperature(logits[:2], [1, 0]) == high
  assert calibration.fit_temperature(np.full((3, 2), 7.0), [0, 1, 0]) == 1


def test_a_constant_added_to_a_row_changes_nothing():
  logits, labels = sample(200, 3)
  got = calibration.fit_temperature(logits + 1e4, labels)
  assert got == pytest.approx(calibration.fit_temperature(logits, labels))
  order = np.random.default_rng(0).permutation(200)
  again = calibration.fit_temperature(logits[order], labels[order])
  assert again == pytest.approx(calibration.fit_temperature(logits, labels))


def test_temperature_refuses_what_it_cannot_fit():
  fit = calibration.fit_temperature
  with pytest.raises(errors.DataError, match="no validation images"):
    fit(np.zeros((0, 2)), np.zeros(0, int))
  for logits, labels in (
    ([[0, np.nan]], [0]),
    ([0.0, 1.0], [0, 1]),
    ([[0.0], [1.0]], [0, 0]),
  ):
    with pytest.raises(ValueError, match="logits have shape"):
      fit(logits, labels)
  for labels in ([0], [0, 2], [-1, 0], [0.0, 1.0]):
    with pytest.raises(ValueError, match="labels"):
      fit([[0.0, 1.0], [1.0, 0.0]], labels)


def test_softmax():
  logits = np.array([[1000.0, 0.0], [np.log(3), 0.0]], np.float32)
  p = calibration.softmax(logits)
  assert p.dtype == np.float64
  np.testing.assert_allclose(p, [[1, 0], [0.75, 0.25]], rtol=1e-6)
  p = calibration.softmax([[np.log(9), 0.0]], temperature=2)
  np.testing.assert_allclose(p, [[0.75, 0.25]])
  for temperature in (0, -1, np.inf, np.nan):
    with pytest.raises(ValueError, match="temperature"):
      calibration.softmax(logits, temperature)


def test_logits_of_probabilities_and_back():
  p = np.array([[0.2, 0.3, 0.5], [1e-5, 0.1, 0.89999], [0, 0, 1]])
  back = calibration.softmax(calibration.logits_of(p))
  np.testing.assert_allclose(back[:2], p[:2])
  assert back[2, 0] == pytest.approx(calibration.EPSILON, rel=1e-4)
  # A forest sure of a wrong class: still a finite temperature.
  certain = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0, 1]])
  labels = [0, 1, 0, 1, 0]
  t = calibration.fit_temperature(calibration.logits_of(certain), labels)
  soft = calibration.softmax(calibration.logits_of(certain), t)
  assert soft[0, 0] == pytest.approx(4 / 5)  # As often as it was right.
  for bad in (-0.1, 1.1, np.nan):
    with pytest.raises(ValueError, match="between 0 and 1"):
      calibration.logits_of([[bad, 0.5]])


def test_threshold_by_hand():
  choose = calibration.choose_threshold
  assert choose([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
  # (.1, .3] and (.4, .9] are as good: the wider is taken.
  assert choose([0, 1, 0, 1], [0.1, 0.3, 0.4, 0.9]) == pytest.approx(0.65)
  # Half of 4 sick and none of 2 healthy, or all sick and half the healthy.
  assert choose(
    [0, 1, 1, 0, 1, 1], [0.0, 0.5, 0.5, 0.6, 0.7, 0.7]
  ) == pytest.approx(0.25)
  # Balanced accuracy, not accuracy, which would call nothing.
  labels, score = [0] * 20 + [1], [0.1] * 17 + [0.8] * 3 + [0.8]
  assert choose(labels, score) == pytest.approx(0.45)


def test_threshold_of_scores_that_tell_nothing_calls_everything():
  assert calibration.choose_threshold([0, 1], [0.3, 0.3]) == 0.3
  assert calibration.choose_threshold([1, 1, 0, 0], [0.1, 0.2, 0.7, 0.9]) == 0.1
  with pytest.raises(errors.DataError, match="label 0"):
    calibration.choose_threshold([1, 1], [0.1, 0.2])


def test_threshold_between_neighbouring_floats():
  a = 0.5
  b = np.nextafter(a, 1)
  assert calibration.choose_threshold([0, 1], [a, b]) == b


@settings(max_examples=60, deadline=None)
@given(
  st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=20)
)
def test_no_threshold_is_better(pairs):
  labels = np.array([label for label, _ in pairs], int)
  score = np.array([s for _, s in pairs]) / 8
  if len(set(labels)) < 2:
    return
  recall = lambda t, c: ((score >= t) == c)[labels == c].mean()
  accuracy = lambda t: recall(t, 0) + recall(t, 1)
  got = calibration.choose_threshold(labels, score)
  candidates = np.arange(-1, 19) / 16
  assert accuracy(got) >= max(map(accuracy, candidates)) - 1e-12
  order = np.random.default_rng(0).permutation(len(labels))
  assert got == calibration.choose_threshold(labels[order], score[order])


def test_between_the_thresholds_is_what_neither_class_reaches():
  labels = np.repeat([0, 1], 100)
  score = np.concatenate([np.linspace(0, 0.3, 100), np.linspace(0.6, 1, 100)])
  low, high = calibration.choose_uncertain(labels, score)
  assert 0.29 < low <= 0.3 and 0.6 <= high < 0.61


def test_between_the_thresholds_is_what_both_classes_reach():
  labels = np.repeat([0, 1], 1000)
  score = np.concatenate([np.linspace(0, 0.7, 1000), np.linspace(0.4, 1, 1000)])
  low, high = calibration.choose_uncertain(labels, score)
  # At most 1 % of a class lie beyond the far end.
  assert (score[labels == 1] <= low).mean() <= 0.011
  assert (score[labels == 0] >= high).mean() <= 0.011
  assert low == pytest.approx(0.406, abs=2e-3)
  assert high == pytest.approx(0.693, abs=2e-3)

"""Figures against scikit-learn, by hand, and under reordering."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from sklearn.preprocessing import label_binarize

from jaxfake import errors
from jaxfake.evaluation import metrics

NAMES = ["NORMAL", "PNEUMONIA", "COVID", "TB"]
slow = settings(max_examples=30, deadline=None)


def case(n, k, seed=0, step=0.0, images=1):
  """Labels, probabilities and patients; scores tie at multiples of step."""
  rng = np.random.default_rng(seed)
  labels = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
  logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  if step:
    p = np.floor(p / step) * step
    p[:, 0] += 1 - p.sum(1)
  return labels, np.abs(p), [f"p{i // images}" for i in range(n)]


def binary(labels, scores, patients=None, **kwargs):
  """Figures of two classes from the score of the second, by name."""
  p = np.asarray(scores, float)
  patients = range(len(p)) if patients is None else patients
  kwargs = dict(resamples=20, classes=NAMES[:2]) | kwargs
  return metrics.figures(labels, np.stack([1 - p, p], 1), patients, **kwargs)


def values(result):
  return {name: figure["value"] for name, figure in result.items()}


@pytest.mark.parametrize("step", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_two_classes_agree_with_scikit_learn(step, threshold):
  labels, p, patients = case(150, 2, step=step)
  got = values(
    metrics.figures(
      labels,
      p,
      patients,
      classes=NAMES[:2],
      threshold=threshold,
      resamples=2,
    )
  )
  score = p[:, 1]
  called = (score >= threshold).astype(int)
  want = {
    "accuracy": sk.accuracy_score(labels, called),
    "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
    "macro_f1": sk.f1_score(labels, called, average="macro"),
    "auc": sk.roc_auc_score(labels, score),
    "average_precision": sk.average_precision_score(labels, score),
    "brier": 2 * sk.brier_score_loss(labels, score),
  }
  of_class = sk.precision_recall_fscore_support(labels, called)
  for kind, row in zip(
    ("precision", "recall", "f1"), of_class[:3], strict=True
  ):
    for name, value in zip(NAMES, row, strict=False):
      want[f"{kind}/{name}"] = value
  assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-12)
  others = {"eer", "tpr_at_1_percent_fpr", "tpr_at_5_percent_fpr", "ece"}
  assert set(got) == set(want) | others


@pytest.mark.parametrize("step", [0.0, 0.1])
def test_more_classes_agree_with_scikit_learn(step):
  labels, p, patients = case(150, 4, step=step)
  got = metrics.figures(labels, p, patients, classes=NAMES, resamples=2)
  got = values(got)
  called = p.argmax(1)
  one_hot = label_binarize(labels, classes=range(4))
  want = {
    "accuracy": sk.accuracy_score(labels, called),
    "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
    "macro_f1": sk.f1_score(labels, called, average="macro"),
    "auc": sk.roc_auc_score(one_hot, p, average="macro"),
    "average_precision": sk.average_precision_score(one_hot, p),
    "brier": sk.brier_score_loss(labels, p, labels=range(4)),
  }
  for i, value in enumerate(sk.recall_score(labels, called, average=None)):
    want[f"recall/{NAMES[i]}"] = value
  assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-12)
  assert "eer" not in got and "tpr_at_1_percent_fpr" not in got


def test_means_over_classes_leave_out_a_class_without_images():
  labels, p, patients = case(80, 3)
  p = np.insert(0.9 * p, 2, 0.1, axis=1)  # COVID: no image, sometimes called.
  p[:3] = [[0.1, 0.1, 0.7, 0.1]]
  labels = np.array([0, 1, 3])[labels]
  got = metrics.figures(labels, p, patients, classes=NAMES, resamples=20)
  here = [0, 1, 3]
  auc = [sk.roc_auc_score(labels == c, p[:, c]) for c in here]
  ap = [sk.average_precision_score(labels == c, p[:, c]) for c in here]
  f1 = sk.f1_score(labels, p.argmax(1), labels=here, average="macro")
  assert got["auc"]["value"] == pytest.approx(np.mean(auc))
  assert got["average_precision"]["value"] == pytest.approx(np.mean(ap))
  assert got["macro_f1"]["value"] == pytest.approx(f1)
  for kind in ("recall", "f1"):
    assert got[f"{kind}/COVID"] == {
      "value": None,
      "low": None,
      "high": None,
      "interval": None,
      "reason": "no image is COVID",
    }
  assert got["precision/COVID"]["value"] == 0  # Three calls, all wrong.
  assert got["precision/COVID"]["high"] == pytest.approx(1 - 0.025 ** (1 / 3))


def test_precision_of_a_class_never_called_is_absent_and_its_f1_0():
  got = binary([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])
  assert got["precision/PNEUMONIA"]["value"] is None
  assert got["precision/PNEUMONIA"]["reason"] == "no image was called PNEUMONIA"
  assert got["recall/PNEUMONIA"]["value"] == 0
  assert got["f1/PNEUMONIA"]["value"] == 0
  assert got["precision/NORMAL"]["value"] == 0.5
  json.dumps(got, allow_nan=False)


@slow
@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.booleans())
def test_a_weight_counts_as_so_many_rows(seed, k, ties):
  labels, p, _ = case(25, k, seed, 0.1 if ties else 0)
  times = np.random.default_rng(seed).integers(0, 3, len(labels))
  called = metrics.decide(p, 0.4)
  measure = lambda w, rows: metrics._measure(
    w, labels[rows], p[rows], called[rows], NAMES[:k]
  )
  weighed = measure(times[None].astype(float), np.arange(len(labels)))
  rows = np.repeat(np.arange(len(labels)), times)
  if len(np.unique(labels[rows])) < k:
    assert np.isnan(weighed["auc"]) and np.isnan(weighed["macro_f1"])
    return
  repeated = measure(np.ones((1, len(rows))), rows)
  assert {name: value[0] for name, value in weighed.items()} == pytest.approx(
    {name: value[0] for name, value in repeated.items()}, nan_ok=True
  )


@slow
@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.integers(1, 4))
def test_the_order_of_rows_changes_nothing(seed, k, images):
  labels, p, patients = case(40, k, seed, images=images)
  order = np.random.default_rng(seed).permutation(len(labels))
  options = dict(classes=NAMES[:k], resamples=50)
  a = metrics.figures(labels, p, patients, **options)
  b = metrics.figures(
    labels[order], p[order], [patients[i] for i in order], **options
  )
  assert a == b  # To the last bit, the bootstrap too.
  for name, figure in a.items():
    if figure["value"] is not None:
      assert figure["low"] <= figure["value"] <= figure["high"], name
      assert figure["low"] < figure["high"], name


def test_parts_and_seeds_of_the_bootstrap(monkeypatch):
  labels, p, patients = case(60, 2, images=2)
  options = dict(classes=NAMES[:2], resamples=100)
  a = metrics.figures(labels, p, patients, **options)
  other = metrics.figures(labels, p, patients, seed=1, **options)
  assert a["auc"]["value"] == other["auc"]["value"]
  assert a["auc"]["low"] != other["auc"]["low"]
  monkeypatch.setattr(metrics, "PART", 7 * 60)
  b = metrics.figures(labels, p, patients, **options)
  for name, figure in a.items():
    for key in ("low", "high"):
      assert b[name][key] == pytest.approx(figure[key], abs=1e-12)


def test_roc_agrees_with_scikit_learn():
  for step in (0, 0.1):
    labels, p, _ = case(100, 2, step=step)
    got = metrics.roc(labels, p[:, 1])
    want = sk.roc_curve(labels, p[:, 1], drop_intermediate=False)
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b)
  with pytest.raises(errors.DataError, match="no image has label 1"):
    metrics.roc([0, 0], [0.1, 0.2])
  with pytest.raises(ValueError, match="all finite"):
    metrics.roc([0, 1], [0.1, np.nan])


def test_confusion_agrees_with_scikit_learn():
  labels, p, _ = case(50, 3)
  got = metrics.confusion(labels, p.argmax(1), 4)
  want = sk.confusion_matrix(labels, p.argmax(1), labels=range(4))
  np.testing.assert_array_equal(got, want)


def test_tpr_at_fpr_takes_the_best_threshold_allowed():
  # Of 20 negatives one scores .85: 5 % allows it, 1 % does not.
  negatives = [0.85] + [0.1] * 19
  got = binary([0] * 20 + [1] * 4, [*negatives, 0.9, 0.85, 0.8, 0.1])
  assert got["tpr_at_1_percent_fpr"]["value"] == 1 / 4  # The tie comes along.
  assert got["tpr_at_5_percent_fpr"]["value"] == 3 / 4
  # A second negative at .85 and nothing above it is free: no interpolation.
  negatives[1] = 0.85
  got = binary([0] * 20 + [1] * 3, [*negatives, 0.9, 0.85, 0.8])
  assert got["tpr_at_5_percent_fpr"]["value"] == 1 / 3
  # The best score is a negative's: no threshold is allowed but that of no call.
  got = binary([0] * 10 + [1] * 2, [0.99] + [0.1] * 9 + [0.9, 0.9])
  assert got["tpr_at_5_percent_fpr"]["value"] == 0
  # Exactly 7 false of 700.
  negatives = [0.9] * 7 + [0.1] * 693
  got = binary([0] * 700 + [1] * 2, [*negatives, 0.9, 0.05])
  assert got["tpr_at_1_percent_fpr"]["value"] == 0.5


def test_equal_error_rate_by_hand():
  eer = lambda *a: binary(*a)["eer"]["value"]
  assert eer([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == 0
  assert eer([0, 0, 1, 1], [0.8, 0.9, 0.1, 0.2]) == 1
  assert eer([0, 0, 1, 1], [0.5] * 4) == 0.5
  # At .6 one of four negatives is called and one of four positives missed.
  assert (
    eer([0] * 4 + [1] * 4, [0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9]) == 0.25
  )
  # From (fpr, tpr) = (0, 1/2) straight to (1/2, 1): meets 1 - tpr at 1/4.
  assert eer([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9]) == 0.25


def test_equal_error_rate_lies_on_the_roc():
  for seed in range(5):
    labels, p, _ = case(70, 2, seed, step=0.05)
    fpr, tpr, _ = metrics.roc(labels, p[:, 1])
    eer = binary(labels, p[:, 1])["eer"]["value"]
    x = np.linspace(0, 1, 100_001)
    want = x[np.abs(np.interp(x, fpr, tpr) - (1 - x)).argmin()]
    assert eer == pytest.approx(want, abs=2e-5)


def test_ece_and_reliability_by_hand():
  # Confidence .95 (right, right, wrong) and .65 (right).
  scores, labels = [0.95, 0.05, 0.95, 0.65], [1, 0, 0, 1]
  want = (3 * (0.95 - 2 / 3) + (1 - 0.65)) / 4
  got = binary(labels, scores)
  assert got["ece"]["value"] == pytest.approx(want)
  assert binary(labels, scores, threshold=0.7)["ece"] == got["ece"]
  p = np.stack([1 - np.array(scores), scores], 1)
  mean, accuracy, count = metrics.reliability(labels, p, 10)
  assert count.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 3]
  np.testing.assert_allclose(mean[[6, 9]], [0.65, 0.95])
  np.testing.assert_allclose(accuracy[[6, 9]], [1, 2 / 3])
  assert np.isnan(mean[:6]).all()
  # A bin holds its upper end; certainty has a bin.
  edge = np.array([[0.25, 0.75], [0.0, 1.0]])
  assert metrics.reliability([1, 1], edge, 4)[2].tolist() == [0, 0, 1, 1]


def test_ece_and_reliability_agree():
  labels, p, patients = case(200, 3)
  mean, accuracy, count = metrics.reliability(labels, p)
  want = np.nansum(count * np.abs(mean - accuracy)) / 200
  got = metrics.figures(labels, p, patients, classes=NAMES[:3], resamples=2)
  assert got["ece"]["value"] == pytest.approx(want)


def test_sharpening_does_not_change_the_ranks():
  # Beyond logits of 37 the probability of the likelier class is 1.
  labels, p, patients = case(60, 2)
  sharp = p**60 / (p**60).sum(1, keepdims=True)
  assert (sharp[:, 1] == 1).sum() > 10
  a, b = (
    metrics.figures(labels, q, patients, classes=NAMES[:2], resamples=50)
    for q in (p, sharp)
  )
  for name in ("auc", "average_precision", "eer", "tpr_at_5_percent_fpr"):
    assert a[name] == b[name]


def test_the_interval_of_ece_leans_towards_0():
  # Draws of a calibrated model's images have more of ece's bias, so a plain
  # interval would lie above the value for the most part.
  rng = np.random.default_rng(0)
  p = rng.random(300)
  got = binary((rng.random(300) < p).astype(int), p, resamples=500)["ece"]
  assert got["low"] < 0.01 < got["value"] <= got["high"]
  assert got["value"] - got["low"] > got["high"] - got["value"]


def test_clopper_pearson():
  for x, n, level in (
    (0, 10, 0.95),
    (3, 10, 0.9),
    (250, 500, 0.95),
    (7, 7, 0.5),
  ):
    want = scipy.stats.binomtest(x, n).proportion_ci(level, "exact")
    assert metrics.clopper_pearson(x, n, level) == pytest.approx(tuple(want))
  assert metrics.clopper_pearson(20, 20) == (pytest.approx(0.8316, abs=1e-4), 1)
  for x, n in ((0, 0), (3, 2), (-1, 2), (np.nan, 2)):
    with pytest.raises(ValueError, match="successes"):
      metrics.clopper_pearson(x, n)


def test_proportions_of_lone_images_have_exact_intervals():
  labels = [0] * 10 + [1] * 10
  scores = [0.1] * 8 + [0.9] * 2 + [0.9] * 7 + [0.2] * 3
  got = binary(labels, scores, resamples=200)
  for name, (x, n) in {
    "accuracy": (15, 20),
    "recall/NORMAL": (8, 10),
    "recall/PNEUMONIA": (7, 10),
    "precision/NORMAL": (8, 11),
    "precision/PNEUMONIA": (7, 9),
  }.items():
    assert got[name]["interval"] == "exact binomial"
    interval = got[name]["low"], got[name]["high"]
    assert interval == pytest.approx(metrics.clopper_pearson(x, n)), name
  # Their threshold is of the same images, so not a plain proportion.
  assert got["tpr_at_5_percent_fpr"]["interval"] == "patient bootstrap"
  assert got["auc"]["interval"] == "patient bootstrap"
  pairs = binary(labels, scores, [i // 2 for i in range(20)], resamples=200)
  assert pairs["accuracy"]["interval"] == "patient bootstrap"


def test_the_bootstrap_draws_patients_not_images():
  labels, p, patients = case(100, 2)
  once = metrics.figures(labels, p, patients, classes=NAMES[:2])
  ten = metrics.figures(
    np.repeat(labels, 10),
    np.repeat(p, 10, axis=0),
    np.repeat(patients, 10),
    classes=NAMES[:2],
  )
  # Ten copies of every image tell nothing new.
  for name in ("auc", "macro_f1", "brier", "eer", "ece"):
    assert ten[name] == pytest.approx(once[name]), name
  share = once["accuracy"]["value"]
  half = 1.96 * np.sqrt(share * (1 - share) / 100)
  width = ten["accuracy"]["high"] - ten["accuracy"]["low"]
  assert width == pytest.approx(2 * half, rel=0.1)


def test_the_bootstrap_against_drawing_rows():
  # Patients of one to six images, some with both labels.
  rng = np.random.default_rng(3)
  patients = rng.integers(30, size=75)
  labels, p, _ = case(75, 2, 3)
  options = dict(classes=NAMES[:2], resamples=2000)
  got = metrics.figures(labels, p, patients, **options)
  beaten = np.sign(p[:, None, 1] - p[:, 1]) / 2 + 0.5  # Row i beats column j.
  ids = np.unique(patients)
  drawn = []
  for _ in range(1000):
    rows = np.concatenate(
      [np.flatnonzero(patients == i) for i in rng.choice(ids, len(ids))]
    )
    sick, well = rows[labels[rows] == 1], rows[labels[rows] == 0]
    accuracy = np.mean(p[rows].argmax(1) == labels[rows])
    drawn.append((beaten[np.ix_(sick, well)].mean(), accuracy))
  ends = np.percentile(drawn, [2.5, 97.5], axis=0)
  sd = np.std(drawn, 0)
  for i, name in enumerate(("auc", "accuracy")):
    assert got[name]["low"] == pytest.approx(ends[0, i], abs=0.3 * sd[i])
    assert got[name]["high"] == pytest.approx(ends[1, i], abs=0.3 * sd[i])


def test_no_error_at_all_is_not_certainty():
  # 20 patients with 3 images each, 8 of them sick.
  labels = np.repeat([0] * 12 + [1] * 8, 3)
  patients = np.repeat(np.arange(20), 3)
  got = binary(labels, labels.astype(float), patients, resamples=100)
  low = lambda n: 0.025 ** (1 / n)
  for name, n in {
    "accuracy": 20,
    "recall/NORMAL": 12,
    "recall/PNEUMONIA": 8,
    "precision/PNEUMONIA": 8,
    "f1/NORMAL": 12,
    "auc": 8,
    "tpr_at_1_percent_fpr": 8,
    "balanced_accuracy": 8,
  }.items():
    figure = got[name]
    assert figure["interval"] == "exact binomial"
    assert (figure["value"], figure["high"]) == (1, 1)
    assert figure["low"] == pytest.approx(low(n)), name
  assert (got["eer"]["low"], got["brier"]["low"]) == (0, 0)
  assert got["eer"]["high"] == pytest.approx(1 - low(8))
  assert got["brier"]["high"] == pytest.approx(2 * (1 - low(20)))
  # All wrong, with rows that sum to a little above 1.
  p = np.eye(2)[1 - labels] * 1.00005
  got = metrics.figures(labels, p, patients, classes=NAMES[:2], resamples=9)
  assert got["accuracy"]["value"] == got["accuracy"]["low"] == 0
  assert got["brier"]["high"] >= got["brier"]["value"] > 2


def test_draws_without_a_class_are_left_out_where_they_must_be():
  # Recall of the one sick patient's class is unknown in a third of the draws,
  # which count for accuracy all the same.
  labels = np.array([0, 0, 0, 0, 1, 1])
  patients = ["a", "a", "b", "b", "c", "c"]
  got = binary(labels, [0.1, 0.2, 0.1, 0.8, 0.4, 0.9], patients, resamples=400)
  assert got["accuracy"]["interval"] == "patient bootstrap"
  assert (got["accuracy"]["low"], got["accuracy"]["high"]) == (0.5, 1)
  sick = got["recall/PNEUMONIA"]  # One of two in every draw that has any.
  assert sick["interval"] == "exact binomial"
  assert sick["low"] < 0.1 and sick["high"] > 0.9
  assert got["auc"]["interval"] == "patient bootstrap"


@pytest.mark.parametrize("lacking", [0, 1])
def test_what_a_draw_without_a_class_cannot_define(lacking):
  labels, p, _ = case(20, 2)
  weights = (labels != lacking).astype(float)[None]
  got = metrics._measure(weights, labels, p, metrics.decide(p), NAMES[:2])
  undefined = {name for name, (value,) in got.items() if np.isnan(value)}
  undefined -= {f"precision/{name}" for name in NAMES}  # As the calls fall.
  assert undefined == {
    "balanced_accuracy",
    "macro_f1",
    "auc",
    "average_precision",
    "eer",
    "tpr_at_1_percent_fpr",
    "tpr_at_5_percent_fpr",
    f"recall/{NAMES[lacking]}",
    f"f1/{NAMES[lacking]}",
  }


def test_most_draws_lack_a_class():
  # All eight classes with one patient each are in about 1 of 100 draws.
  k = 9
  labels = np.append(np.arange(k), [8] * 7)
  p = np.full((16, k), 0.05) + 0.55 * np.eye(k)[labels]
  p[-3:] = p[0]
  names = [str(i) for i in range(k)]
  got = metrics.figures(labels, p, range(16), classes=names, resamples=2000)
  mean = got["balanced_accuracy"]
  assert mean["interval"] == "exact binomial"
  want = metrics.clopper_pearson(
    mean["value"], 1
  )  # Of the rarest: one patient.
  assert (mean["low"], mean["high"]) == pytest.approx(want)


def test_too_little_to_score_is_refused():
  p = np.full((4, 2), 0.5)
  score = lambda labels, patients, n=4: metrics.figures(
    np.array(labels, int), p[:n], patients, classes=NAMES[:2]
  )
  for labels, patients, message in (
    ([0, 0, 0, 0], "abcd", "are NORMAL, none is PNEUMONIA"),
    ([1, 1, 1, 1], "abcd", "are PNEUMONIA, none is NORMAL"),
    ([0, 1, 0, 1], "aaaa", "one patient"),
    ([1], "a", "1 image.* at least 2"),
    ([], "", "0 image.* at least 2"),
  ):
    with pytest.raises(errors.DataError, match=message):
      score(labels, patients, len(labels))


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(labels=[0, 1, 2]), "labels run from 0 to 2: expected 0 to 1"),
    (dict(labels=[0, -1, 1]), "labels run from -1"),
    (dict(labels=[0.0, 1.0, 1.0]), "whole numbers"),
    (dict(labels=[0, 1]), "2 labels but 3 rows"),
    (dict(labels=[[0], [1], [1]]), "whole numbers"),
    (dict(probabilities=[0.5, 0.5, 0.5]), "shape"),
    (dict(probabilities=[[1.0]] * 3), "k >= 2"),
    (dict(probabilities=[[1, 0], [np.nan, 1], [0, 1]]), r"\[1\] is \[nan"),
    (dict(probabilities=[[1, 0], [0, 1], [np.inf, 0]]), r"\[2\] is \[inf"),
    (dict(probabilities=[[1.5, -0.5], [0, 1], [0, 1]]), "none negative"),
    (dict(probabilities=[[0.5, 0.4], [0, 1], [0, 1]]), "sum 1"),
    (dict(patients=["a", "b"]), "for each of 3 images"),
    (dict(patients=["a", "b", None]), "string or whole number"),
    (dict(patients=[0.5, 1.0, 2.0]), "string or whole number"),
    (dict(classes=["a"]), "2 different names"),
    (dict(classes=["a", "a"]), "2 different names"),
    (dict(threshold=np.nan), "threshold"),
    (dict(resamples=0), "resamples"),
  ],
)
def test_wrong_arrays_are_refused(change, message):
  right = dict(
    labels=[0, 1, 1],
    probabilities=[[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]],
    patients=["a", "b", "c"],
    classes=["x", "y"],
    resamples=5,
  )
  metrics.figures(**right)
  with pytest.raises(ValueError, match=message):
    metrics.figures(**right | change)


def test_across_seeds():
  a = {"auc": dict(value=0.8, low=0.7, high=0.9, interval="patient bootstrap")}
  b = {"auc": dict(value=1.0, low=0.9, high=1.0, interval="exact binomial")}
  assert metrics.across_seeds([a, b])["auc"] == pytest.approx(
    {
      "value": 0.9,
      "low": 0.8,
      "high": 0.95,
      "interval": "exact binomial, patient bootstrap",
      "sd": np.sqrt(0.02),
      "seeds": 2,
    }
  )
  alone = metrics.across_seeds([a])["auc"]
  assert alone == a["auc"] | {"sd": None, "seeds": 1}
  none = {"auc": dict.fromkeys(a["auc"]) | {"reason": "no image is X"}}
  mean = metrics.across_seeds([a, none])["auc"]
  assert mean["value"] is None and mean["sd"] is None and mean["seeds"] == 2
  assert mean["reason"] == "no image is X in 1 of 2 runs"
  for bad in ([], [a, {"eer": a["auc"]}]):
    with pytest.raises(ValueError, match="same figures"):
      metrics.across_seeds(bad)

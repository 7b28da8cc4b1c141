"""scikit-learn's programs: what they give, and that their files are safe."""

import json
import zipfile

import numpy as np
import pytest
from sklearn import linear_model, metrics, pipeline, preprocessing
import skops.io

from jaxfake import errors
from jaxfake.classifiers import classical

OPTIONS = {
  "svm": {"c": 1.0, "gamma": 1.0},
  "random_forest": {"trees": 8, "leaf": 1},
  "decision_tree": {"depth": 5, "leaf": 3},
}
programs = pytest.mark.parametrize("name", classical.PROGRAMS)


def examples(k, n=90, d=6, seed=0):
  """k classes apart by their means; every feature on a scale of its own."""
  rng = np.random.default_rng(seed)
  y = np.arange(n) % k
  means = np.random.default_rng(99).normal(size=(k, d)) * 1.5
  x = (rng.normal(size=(n, d)) + means[y]) * 10.0 ** np.arange(d)
  return x.astype(np.float32), y


def fitted(name, k=3, seed=0):
  return classical.fit(name, OPTIONS[name], *examples(k), seed)


@programs
@pytest.mark.parametrize("k", [2, 3])
def test_programs_learn(name, k):
  model = fitted(name, k)
  x, y = examples(k, seed=1)
  scores = classical.logits(model, x)
  assert scores.shape == (90, k) and scores.dtype == np.float64
  assert np.isfinite(scores).all()
  assert (scores.argmax(1) == y).mean() > 0.8


def test_binary_svm_logits_are_its_decision_values():
  x, y = examples(2)
  scores = classical.logits(fitted("svm", 2), x)
  assert not scores[:, 0].any()
  assert metrics.roc_auc_score(y, scores[:, 1]) > 0.95


@programs
def test_tree_logits_are_log_probabilities(name):
  if name == "svm":
    pytest.skip("an SVM has decision values")
  model = fitted(name)
  x, _ = examples(3, seed=1)
  p = np.exp(classical.logits(model, x))
  want = np.maximum(model.predict_proba(x), 1e-6)
  np.testing.assert_allclose(p, want, rtol=1e-12)


@programs
def test_classes_weigh_the_same(name):
  # Of 100 against 1,900 that overlap, an unweighted program would give most of
  # the few to the many; the best rule for equal classes keeps 76 %.
  rng = np.random.default_rng(0)
  y = np.repeat([0, 1], [100, 1900])
  x = (rng.normal(size=(2000, 2)) + y[:, None]).astype(np.float32)
  options = {
    "svm": OPTIONS["svm"],
    "random_forest": {"trees": 20, "leaf": 30},
    "decision_tree": {"depth": 3, "leaf": 30},
  }
  model = classical.fit(name, options[name], x, y, 0)
  few = rng.normal(size=(500, 2)).astype(np.float32)
  assert (classical.logits(model, few).argmax(1) == 0).mean() > 0.6


def test_the_seed_moves_forests_only():
  x, _ = examples(3, seed=1)
  score = lambda name, seed: classical.logits(fitted(name, seed=seed), x)
  np.testing.assert_array_equal(score("svm", 0), score("svm", 1))
  forest = score("random_forest", 0)
  np.testing.assert_array_equal(forest, score("random_forest", 0))
  assert not np.array_equal(forest, score("random_forest", 1))


@programs
def test_a_model_read_back_is_the_same(name, tmp_path):
  model = fitted(name)
  path = tmp_path / "model.skops"
  classical.save(model, path)
  again = classical.load(path)
  x, _ = examples(3, seed=1)
  np.testing.assert_array_equal(
    classical.logits(again, x), classical.logits(model, x)
  )
  assert classical.parameters(again) == classical.parameters(model)


def test_parameters_by_hand():
  # A stump: one split (4), two leaves of 2 classes. A line cut in two.
  x = np.arange(20, dtype=np.float32)[:, None]
  y = (x[:, 0] > 9).astype(int)
  stump = classical.fit("decision_tree", {"depth": 1, "leaf": 1}, x, y, 0)
  assert classical.parameters(stump) == 4 + 2 * 2
  forest = classical.fit("random_forest", {"trees": 3, "leaf": 1}, x, y, 0)
  assert classical.parameters(forest) == 3 * (4 + 2 * 2)
  svm = classical.fit("svm", OPTIONS["svm"], x, y, 0)
  vectors = svm[-1].n_support_.sum()
  assert classical.parameters(svm) == vectors * (1 + 1) + 1 + 2


def test_unknown_programs_and_missing_classes_are_refused():
  x, y = examples(3)
  with pytest.raises(errors.ConfigError, match=r"'boosting'.*random_forest"):
    classical.fit("boosting", {}, x, y, 0)
  with pytest.raises(errors.DataError, match=r"\[30, 0, 60\]"):
    classical.fit("svm", OPTIONS["svm"], x, np.where(y == 1, 2, y), 0)
  with pytest.raises(errors.DataError, match="two classes"):
    classical.fit("svm", OPTIONS["svm"], x, np.zeros_like(y), 0)


def test_foreign_types_are_refused(tmp_path):
  path = tmp_path / "model.skops"
  x, y = examples(2)
  # Trusted by skops itself, but no program of ours.
  line = pipeline.make_pipeline(
    preprocessing.StandardScaler(), linear_model.LogisticRegression()
  ).fit(x, y)
  skops.io.dump(line, path)
  with pytest.raises(errors.ConfigError, match="LogisticRegression"):
    classical.load(path)
  skops.io.dump({"run": zipfile.ZipFile, "x": x}, path)
  with pytest.raises(errors.ConfigError, match=r"type .*ZipFile"):
    classical.load(path)
  skops.io.dump({"x": x}, path)  # Known types, but no model.
  with pytest.raises(errors.ConfigError, match="not a model"):
    classical.load(path)


def test_broken_files_are_refused(tmp_path):
  path = tmp_path / "model.skops"
  for content in (b"", b"not a zip"):
    path.write_bytes(content)
    with pytest.raises(errors.ConfigError, match=r"model\.skops: not a model"):
      classical.load(path)
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("schema.json", json.dumps({"__class__": "x"}))
  with pytest.raises(errors.ConfigError, match="not a model"):
    classical.load(path)


@pytest.mark.parametrize(
  "damage",
  [
    dict(children="children_left", to=10**6),
    dict(children="children_left", to=0),  # A path without an end.
    dict(children="children_right", to=0),
    dict(children="feature", to=6),
    dict(children="value", to=np.nan),
  ],
  ids=lambda d: d["children"],
)
def test_trees_that_would_be_followed_astray_are_refused(damage, tmp_path):
  path = tmp_path / "model.skops"
  model = fitted("decision_tree")
  array = getattr(model.tree_, damage["children"])  # A view: it can be written.
  array.flat[0] = damage["to"]
  classical.save(model, path)
  with pytest.raises(errors.ConfigError, match="damaged"):
    classical.load(path)


def test_support_vectors_that_do_not_fit_are_refused(tmp_path):
  path = tmp_path / "model.skops"
  model = fitted("svm")
  model[-1]._n_support[0] += 1
  classical.save(model, path)
  with pytest.raises(errors.ConfigError, match="damaged"):
    classical.load(path)

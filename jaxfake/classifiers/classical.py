"""scikit-learn's programs over features (n, d), saved without pickle."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any
import zipfile

import numpy as np
from sklearn import ensemble, pipeline, preprocessing, svm, tree

from jaxfake import errors

PROGRAMS = ("svm", "random_forest", "decision_tree")
LEAST = 1e-6  # Probability of a class that no tree has met.
# skops trusts all of scikit-learn and numpy; a model needs only these.
TYPES = frozenset(
  {
    "builtins.dict",
    "builtins.list",
    "builtins.str",
    "builtins.tuple",
    "numpy.float64",
    "numpy.int64",
    "numpy.ndarray",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.svm._classes.SVC",
    "sklearn.tree._classes.DecisionTreeClassifier",
    "sklearn.tree._tree.Tree",
  }
)
Model = (
  pipeline.Pipeline
  | ensemble.RandomForestClassifier
  | tree.DecisionTreeClassifier
)


def fit(
  name: str, options: Mapping, x: np.ndarray, y: np.ndarray, seed: int
) -> Model:
  """A program fitted to features x (n, d) and labels y (n,) from 0 to k - 1.

  Classes weigh the same, however many examples each has. `options`: of "svm"
  c and gamma, the latter in units of 1 / d, for features of variance 1; of
  "random_forest" trees and leaf, the fewest examples in one; of
  "decision_tree" depth at most, and leaf. The seed draws the forest's samples
  and the order in which trees try features; an SVM has no use for it.

  Raises ConfigError for an unknown name and DataError for a class without
  examples.
  """
  errors.check_choice("classical.program", name, PROGRAMS)
  counts = np.bincount(y)
  if len(counts) < 2 or not counts.all():
    raise errors.DataError(
      f"{name}: {counts.tolist()} training examples of classes 0, 1, ...:"
      " expected two classes or more, and some of each"
    )
  if name == "svm":
    model = pipeline.make_pipeline(
      preprocessing.StandardScaler(),
      svm.SVC(
        C=options["c"],
        gamma=options["gamma"] / x.shape[1],
        class_weight="balanced",
      ),
    )
    return model.fit(x, y)
  if name == "random_forest":
    model = ensemble.RandomForestClassifier(
      options["trees"],
      min_samples_leaf=options["leaf"],
      class_weight="balanced",
      random_state=seed,
      n_jobs=-1,
    )
    # Threads that predict add up trees in any order, so in the last digits.
    return model.fit(x, y).set_params(n_jobs=None)
  model = tree.DecisionTreeClassifier(
    max_depth=options["depth"],
    min_samples_leaf=options["leaf"],
    class_weight="balanced",
    random_state=seed,
  )
  return model.fit(x, y)


def logits(model: Model, x: np.ndarray) -> np.ndarray:
  """float64 (n, k) for features (n, d).

  Of an SVM its decision values, 0 standing for the first of two classes; of
  trees the logarithm of probabilities, cut at 1e-6.
  """
  if isinstance(model, pipeline.Pipeline):
    values = model.decision_function(x)
    if values.ndim == 1:
      values = np.stack([np.zeros_like(values), values], 1)
    return values
  return np.log(np.maximum(model.predict_proba(x), LEAST))


def parameters(model: Model) -> int:
  """How many fitted numbers a prediction reads.

  Of an SVM its support vectors, their coefficients, the intercepts, and the
  features' means and deviations. Of a tree four for each split (feature,
  threshold, two children) and k for each leaf.
  """
  if isinstance(model, pipeline.Pipeline):
    scaler, machine = _svm_parts(model)
    arrays = (
      machine.support_vectors_,
      machine.dual_coef_,
      machine.intercept_,
      scaler.mean_,
      scaler.scale_,
    )
    return sum(a.size for a in arrays)
  return sum(
    4 * (t.node_count - t.n_leaves) + t.n_leaves * t.value[0].size
    for t in _trees(model)
  )


def save(model: Model, path: str | pathlib.Path) -> None:
  """Writes a fitted model as a skops file."""
  import skops.io  # It imports PyTorch, where that is: 1.5 s, 200 MB.

  skops.io.dump(model, path)


def load(path: str | pathlib.Path) -> Model:
  """Reads what `save` wrote; runs nothing that the file holds.

  Raises ConfigError for a file that is not one, has other types in it, or is
  not sound: scikit-learn follows a tree's indices without checking them.
  """
  import skops.io

  try:
    with zipfile.ZipFile(path) as file:
      schema = json.loads(file.read("schema.json"))
    if foreign := _types(schema) - TYPES:
      names = ", ".join(sorted(foreign))
      raise errors.ConfigError(f"{path}: refused, has objects of type {names}")
    model = skops.io.load(path, trusted=["sklearn.tree._tree.Tree"])
    sound = _sound(model)
  except errors.ConfigError:
    raise
  except Exception as error:  # skops meets a broken file in many ways.
    raise errors.ConfigError(
      f"{path}: not a model of a classical program ({error})"
    ) from error
  if not sound:
    raise errors.ConfigError(f"{path}: the model in it is damaged")
  return model


def _types(node) -> set[str]:
  """The types that a skops schema names, at any depth."""
  if isinstance(node, list):
    return set().union(*map(_types, node))
  if not isinstance(node, dict):
    return set()
  types = set().union(*map(_types, node.values()))
  if "__class__" in node:
    types.add(f"{node['__module__']}.{node['__class__']}")
  return types


def _svm_parts(model) -> tuple[Any, Any]:
  """Its scaler and its SVC."""
  (_, scaler), (_, machine) = model.steps
  return scaler, machine


def _trees(model) -> list:
  forest = isinstance(model, ensemble.RandomForestClassifier)
  members = model.estimators_ if forest else [model]
  return [t.tree_ for t in members]


def _sound(model) -> bool:
  """Whether all that a prediction indexes lies where it should."""
  k, d = len(model.classes_), model.n_features_in_
  if isinstance(model, pipeline.Pipeline):
    scaler, machine = _svm_parts(model)
    n = len(machine.support_vectors_)
    arrays = {
      (d,): (scaler.mean_, scaler.scale_),
      (n, d): (machine.support_vectors_,),
      (k - 1, n): (machine.dual_coef_, machine._dual_coef_),
      (k * (k - 1) // 2,): (machine.intercept_, machine._intercept_),
    }
    return (
      type(machine) is svm.SVC
      and machine.kernel == "rbf"
      and machine._n_support.shape == (k,)
      and machine._n_support.sum() == n
      and machine._n_support.min() >= 0
      and all(
        a.shape == shape and np.isfinite(a).all()
        for shape, some in arrays.items()
        for a in some
      )
    )
  return type(model) in (
    ensemble.RandomForestClassifier,
    tree.DecisionTreeClassifier,
  ) and all(_sound_tree(t, k, d) for t in _trees(model))


def _sound_tree(t, k: int, d: int) -> bool:
  """Whether a tree's paths all end: every child stands after its parent."""
  here = np.arange(t.node_count)
  left, right = t.children_left, t.children_right
  leaf = left == tree._tree.TREE_LEAF  # pyright: ignore[reportAttributeAccessIssue]
  inner = (
    (here < left)
    & (left < t.node_count)
    & (here < right)
    & (right < t.node_count)
    & (t.feature >= 0)
    & (t.feature < d)
    & np.isfinite(t.threshold)
  )
  return (
    t.n_features == d
    and t.node_count > 0
    and t.value.shape == (t.node_count, 1, k)
    and bool((leaf | inner).all() and np.isfinite(t.value).all())
  )

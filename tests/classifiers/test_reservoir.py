"""The reservoir's mathematics, its readout and its file."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

from jaxfake import errors
from jaxfake.classifiers import reservoir, ridge

OPTIONS = dict(
  kernels=(3, 4),
  strides=(1, 2),
  width=3,
  map=4,
  units=20,
  leak=0.4,
  radius=0.8,
  density=0.2,
  gain=1.0,
  bias=0.2,
)
SMALL = reservoir.Reservoir(size=16, seed=0, **OPTIONS)


def pictures(n, seed=0):
  """Noisy stripes, upright where the label is 1 and lying where it is 0."""
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % 2
  wave = 127 + 60 * np.sin(
    np.arange(16)[None, :] * 1.2 + rng.uniform(0, 6, (n, 1))
  )
  images = np.where(
    labels[:, None, None] == 1, wave[:, None, :], wave[:, :, None]
  )
  images = images + rng.normal(0, 20, (n, 16, 16))
  return images.clip(0, 255).astype(np.uint8)[..., None], labels


@pytest.mark.parametrize("radius", [0.3, 0.95, 1.4])
def test_the_spectral_radius_is_true(radius):
  weights = dataclasses.replace(SMALL, radius=radius).weights()
  for w in weights["recurrent"]:
    modulus = np.abs(np.linalg.eigvals(w.astype(np.float64)))
    assert modulus.max() == pytest.approx(radius, rel=1e-4)
    assert 0.1 < np.count_nonzero(w) / w.size < 0.3


def test_frozen_weights_follow_from_the_seed_and_differ_among_banks():
  a, b = SMALL.weights(), SMALL.weights()
  other = dataclasses.replace(SMALL, seed=1).weights()
  for name in ("inputs", "recurrent", "bias"):
    np.testing.assert_array_equal(a[name], b[name])
    assert a[name].shape[0] == 4
    for i in range(4):
      assert not np.array_equal(a[name][i], other[name][i])
      assert not np.array_equal(a[name][i], a[name][i - 1])
  for k, w in zip((3, 4), a["filters"], strict=True):
    assert w.shape == (k, k, 1, 3)
    np.testing.assert_allclose(w.sum((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose((w**2).sum((0, 1)), 1, rtol=1e-5)
  twins = dataclasses.replace(SMALL, kernels=(3, 3)).weights()["filters"]
  assert not np.array_equal(*twins)


def test_a_sparse_matrix_without_cycles_is_drawn_again():
  for seed in range(20):  # At 3 units and this density most draws have none.
    w = reservoir.unit_radius(seed, 3, 0.2)
    assert np.abs(np.linalg.eigvals(w)).max() == pytest.approx(1)


def run(weights, u, start, leak=0.4):
  states = reservoir.echo_states(
    weights["inputs"], weights["recurrent"], weights["bias"], leak, u, start
  )
  return np.asarray(states)


def test_the_scan_equals_a_loop():
  weights = SMALL.weights()
  rng = np.random.default_rng(0)
  u = rng.normal(size=(7, 4, 5, 12)).astype(np.float32)
  start = rng.uniform(-1, 1, (4, 5, 20)).astype(np.float32)
  got = run(weights, u, start)
  for r in range(4):
    for b in range(5):
      x = start[r, b]
      for t in range(7):
        drive = weights["inputs"][r].T @ u[t, r, b]
        drive = drive + weights["recurrent"][r].T @ x + weights["bias"][r]
        x = 0.6 * x + 0.4 * np.tanh(drive)
        np.testing.assert_allclose(got[t, r, b], x, rtol=1e-4, atol=1e-5)


def test_states_forget_where_they_started():
  # Echo-state property: the same input, two starts. Beyond radius 1, and with
  # nothing fed, they may stay apart.
  rng = np.random.default_rng(0)
  u = rng.normal(size=(100, 4, 1, 12)).astype(np.float32)
  starts = rng.uniform(-1, 1, (2, 4, 1, 20)).astype(np.float32)
  a, b = (run(SMALL.weights(), u, x) for x in starts)
  apart = np.abs(a - b).max((1, 2, 3))
  assert apart[0] > 0.1
  assert apart[-1] < 1e-5
  wild = dataclasses.replace(SMALL, radius=3.0, bias=0.0).weights()
  a, b = (run(wild, 0 * u, x, leak=1.0) for x in starts)
  assert np.abs(a - b)[-1].max() > 0.1


def test_gain_is_the_deviation_of_what_is_fed():
  big = dataclasses.replace(SMALL, width=16, units=50, gain=0.7)
  u = np.random.default_rng(0).normal(size=(400, 64))
  fed = u @ big.weights()["inputs"]
  np.testing.assert_allclose(fed.std((1, 2)), 0.7, rtol=0.05)


def test_states_by_hand():
  # Convolve, rectify, average, standardise, read rows and columns.
  images, _ = pictures(3)
  moments = reservoir.filter_moments(SMALL, images)
  got = reservoir.states(SMALL, moments, images).reshape(3, 2, 2, 2, 20)
  weights = SMALL.weights()
  x = images[..., 0] / 127.5 - 1
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))  # For 3x3, "SAME".
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
  y = np.einsum("bhwij,ijc->bhwc", windows, weights["filters"][0][:, :, 0])
  y = np.maximum(y, 0).reshape(3, 4, 4, 4, 4, 3).mean((2, 4))
  np.testing.assert_allclose(moments[0, 0], y.mean((0, 1, 2)), rtol=1e-4)
  np.testing.assert_allclose(moments[1, 0], y.std((0, 1, 2)), rtol=1e-4)
  u = (y - moments[0, 0]) / moments[1, 0]
  for direction, lines in enumerate((u, u.swapaxes(1, 2))):
    fed = lines.reshape(3, 4, 12).transpose(1, 0, 2)  # (t, b, d)
    only = {
      k: weights[k][direction, None] for k in ("inputs", "recurrent", "bias")
    }
    states = run(only, jnp.asarray(fed[:, None]), jnp.zeros((1, 3, 20)))[:, 0]
    want = np.stack([states.mean(0), states[-1]], 1)
    np.testing.assert_allclose(got[:, 0, direction], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n, d", [(40, 7), (20, 60)])
def test_ridge_equals_scikit_learn_s(n, d):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, d)) + 2
  y = np.eye(3)[np.arange(n) % 3]
  y[:, 0] += x[:, 0]
  weight = rng.uniform(0.2, 3, n)
  for penalty in (0.1, 30.0):
    coef, intercept, _ = ridge.fit(x, y, weight, np.array([penalty]))
    want = linear_model.Ridge(penalty).fit(x, y, weight)
    np.testing.assert_allclose(coef.T, want.coef_, atol=1e-9)
    np.testing.assert_allclose(intercept, want.intercept_, atol=1e-9)


def test_ridge_s_penalty_has_the_least_leave_one_out_error():
  # By leaving out, among penalties so close that a slip moves the choice.
  rng = np.random.default_rng(0)
  n, penalties = 12, np.geomspace(0.1, 1000, 60)
  x = rng.normal(size=(n, 5))
  y = x[:, :2] + rng.normal(0, 1, (n, 2))
  weight = rng.uniform(0.2, 3, n)
  _, _, best = ridge.fit(x, y, weight, penalties)
  error = np.zeros(len(penalties))
  for i in range(n):
    rest = np.arange(n) != i
    for j in range(len(penalties)):
      coef, intercept, _ = ridge.fit(
        x[rest], y[rest], weight[rest], penalties[j : j + 1]
      )
      error[j] += weight[i] * ((x[i] @ coef + intercept - y[i]) ** 2).sum()
  assert penalties[0] < best < penalties[-1]
  assert best == penalties[error.argmin()]


@pytest.fixture(scope="module")
def model():
  return reservoir.fit(OPTIONS, *pictures(40), 0)


def test_it_learns_stripes(model):
  images, labels = pictures(100, seed=1)
  scores = reservoir.logits(model, images)
  assert scores.shape == (100, 2) and scores.dtype == np.float64
  assert (scores.argmax(1) == labels).mean() > 0.95
  alone = reservoir.logits(model, images[70:71])  # As in a batch of 100.
  np.testing.assert_allclose(alone, scores[70:71], atol=1e-5)


def test_images_of_another_size_are_refused(model):
  images, _ = pictures(2)
  with pytest.raises(ValueError, match=r"\(8, 8, 1\): expected \(16, 16, 1\)"):
    reservoir.logits(model, images[:, ::2, ::2])


def test_rare_classes_weigh_as_much():
  # 4 against 40 that nothing tells apart: halfway, not at one in eleven.
  images, _ = pictures(44)
  labels = (np.arange(44) >= 4).astype(int)
  scores = reservoir.logits(reservoir.fit(OPTIONS, images, labels, 0), images)
  means = [scores[labels == c, 0].mean() for c in (0, 1)]
  assert np.mean(means) == pytest.approx(0.5, abs=1e-4)


def test_parameters(model):
  assert reservoir.parameters(model) == (2 * 2 * 2 * 20 + 1) * 2
  fixed = 3 * (9 + 16) + 4 * 12 * 20 + 4 * 20 + 2 * 2 * 3
  sparse = np.count_nonzero(model.reservoir.weights()["recurrent"])
  assert reservoir.frozen(model) == fixed + sparse
  assert sparse < 0.3 * 4 * 400


def test_a_model_read_back_is_the_same(model, tmp_path):
  path = tmp_path / "reservoir.npz"
  reservoir.save(model, path)
  again = reservoir.load(path)
  assert again.reservoir == model.reservoir
  assert again.penalty == model.penalty
  images, _ = pictures(10, seed=1)
  np.testing.assert_array_equal(
    reservoir.logits(again, images), reservoir.logits(model, images)
  )


def test_bad_files_are_refused(model, tmp_path):
  path = tmp_path / "reservoir.npz"
  refused = lambda match: pytest.raises(errors.ConfigError, match=match)
  for content in (b"", b"not a zip"):
    path.write_bytes(content)
    with refused(r"reservoir\.npz: not a reservoir"):
      reservoir.load(path)
  with open(path, "wb") as file:
    np.save(file, np.zeros(3))
  with refused("not a reservoir"):
    reservoir.load(path)
  reservoir.save(model, path)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with refused("not a reservoir"):
    reservoir.load(path)
  path.write_bytes(whole)
  with np.load(path) as file:
    arrays = dict(file)
  damaged = {
    "coef": (arrays["coef"][1:], "coef is"),
    "intercept": (arrays["intercept"] * np.nan, "not finite"),
    "moments": (arrays["moments"].astype(int), "moments is int"),
    "norms": (arrays["norms"] * 1.01, "draws other frozen weights"),
    "options": (np.array("{}"), "not a reservoir"),
    "penalty": (np.array([None]), "not a reservoir"),  # Would need pickle.
  }
  for name, (array, match) in damaged.items():
    np.savez(path, **{**arrays, name: array})
    with refused(match):
      reservoir.load(path)
  del arrays["coef"]
  np.savez(path, **arrays)
  with refused("not a reservoir.*coef"):
    reservoir.load(path)


@pytest.mark.parametrize(
  "change",
  [
    dict(kernels=()),
    dict(strides=(1,)),
    dict(units=0),
    dict(map=9),
    dict(leak=0.0),
    dict(leak=1.1),
    dict(density=0.04),
    dict(radius=-1.0),
    dict(gain=float("nan")),
  ],
  ids=str,
)
def test_options_of_no_use_are_refused(change):
  (field,) = change
  with pytest.raises(errors.ConfigError, match=f"reservoir.{field} is"):
    dataclasses.replace(SMALL, **change)


def test_missing_classes_are_refused():
  images, labels = pictures(6)
  with pytest.raises(errors.DataError, match=r"\[3, 0, 3\]"):
    reservoir.fit(OPTIONS, images, labels * 2, 0)

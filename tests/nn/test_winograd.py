"""Convolutions of fewer multiplications are the same maps, where they pay."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from places import CONFIGS
import pytest
from test_conv import (
  ONES,
  QUICK,
  SAME,
  VALID,
  compare,
  inputs,
  maps,
  pads,
  pair,
  penalty,
)

from jaxfake import configuration
from jaxfake.classifiers import neural
from jaxfake.nn import conv, windows, winograd
from jaxfake.runtime import xla

LIMITS = {name: getattr(winograd, name) for name in ("MOVED", "LEAST")}


@pytest.fixture(scope="module", autouse=True)
def wherever_it_can():
  """Not only where it pays, so that small arrays do for tests."""
  with pytest.MonkeyPatch.context() as patch:
    for name in LIMITS:
      patch.setattr(winograd, name, -np.inf)
    yield


def convolves(f, *args):
  return "conv_general_dilated" in str(jax.make_jaxpr(f)(*args))


# size, kernel, strides, padding.
CASES = {
  "3x3": (8, (3, 3), ONES, SAME),
  "odd size": ((7, 5), (3, 3), ONES, SAME),
  "smaller than a tile": ((1, 2), (3, 3), ONES, SAME),
  "2x2": (6, (2, 2), ONES, VALID),
  "2x3": ((6, 9), (2, 3), ONES, SAME),
  "4x4/2": (8, (4, 4), (2, 2), SAME),
  "4x4/2, odd size": (9, (4, 4), (2, 2), SAME),
  "4x4/2, unseen edge": (9, (4, 4), (2, 2), VALID),
  "6x6/2": (8, (6, 6), (2, 2), SAME),
  "6x3/(3, 1)": (9, (6, 3), (3, 1), SAME),
  "asymmetric": (6, (3, 3), ONES, ((2, 0), (0, 3))),
  "cropped": (9, (4, 4), (2, 2), ((-2, 2), (1, -1))),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, transposed):
  size, kernel, strides, padding = CASES[name]
  f = pair(transposed, strides, padding)
  x, w = inputs(size, kernel, (12, 20))
  assert convolves(maps(f[1]), x, w)
  assert not convolves(maps(f[0]), x, w)
  compare(maps, *f, x, w, 1e-5, QUICK | xla.compiler_options())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["odd size", "2x3", "4x4/2, odd size"])
@pytest.mark.parametrize("evaluate", [maps, penalty])
def test_float64(name, transposed, evaluate):
  size, kernel, strides, padding = CASES[name]
  f = pair(transposed, strides, padding)
  with jax.enable_x64(True):
    x, w = inputs(size, kernel, (12, 20), np.float64)
  compare(evaluate, *f, x, w, 1e-10)


@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(
  transposed=st.booleans(),
  batch=st.integers(1, 3),
  size=st.tuples(*[st.integers(1, 9)] * 2),
  taps=st.tuples(*[st.integers(2, 3)] * 2),
  strides=st.tuples(*[st.integers(1, 3)] * 2),
  padding=st.one_of(st.sampled_from((SAME, VALID)), pads),
)
def test_any_geometry(transposed, batch, size, taps, strides, padding):
  kernel = tuple(np.multiply(taps, strides).tolist())
  f = pair(transposed, strides, padding)
  x, w = inputs(size, kernel, (9, 17), batch=batch)
  try:
    y = jax.eval_shape(f[1], x, w)
  except ValueError:  # A crop of more than there is.
    hypothesis.reject()
  hypothesis.assume(y.size)
  compare(maps, *f, x, w, 1e-5)


def test_vmap():
  f = pair(False, (2, 2), SAME)
  x, w = inputs(6, (4, 4), (9, 12))
  over_inputs = lambda g: jax.vmap(maps(g), (0, None))
  compare(over_inputs, *f, jnp.stack([x, x[::-1]]), w, 1e-5)


def test_as_exact_as_a_sum_of_products():
  """The largest error of float32, against lax's own."""
  x, w = inputs(14, (3, 3), (256, 256))
  ours, plain = pair(False, ONES, SAME)
  with jax.enable_x64(True):
    exact = np.asarray(plain(x.astype(np.float64), w.astype(np.float64)))
  errors = [np.abs(np.asarray(f(x, w)) - exact).max() for f in (ours, plain)]
  assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks(axis):
  a = np.arange(6**4).reshape(6, 6, 6, 6)
  b = windows.blocks(a, (2, 3), axis)
  np.testing.assert_array_equal(windows.unblocked(b, (2, 3), axis), a)
  if axis:
    a, b = a[0], b[0]
  # Pixel (3, 4) is pixel (1, 1) of block (1, 1).
  np.testing.assert_array_equal(b[1, 1, 24:30], a[3, 4])


def test_devices_send_no_transforms(monkeypatch):
  f, _ = pair(False, ONES, SAME)
  x, w = inputs(8, (3, 3), (12, 20))
  by_kernel = lambda: jax.grad(lambda w: f(x, w).sum())  # Not traced yet.
  assert not convolves(by_kernel(), w)
  monkeypatch.setattr(jax, "device_count", lambda: 2)
  assert convolves(by_kernel(), w)
  assert not convolves(lambda x, w: f(x, w), x, w)


@pytest.fixture
def where_it_pays(monkeypatch):
  for name, limit in LIMITS.items():
    monkeypatch.setattr(winograd, name, limit)


@pytest.mark.parametrize(
  "size, kernel, channels, strides, batch",
  [
    (16, (4, 4), (128, 256), (2, 2), 64),  # DCGAN.
    (14, (3, 3), (256, 256), ONES, 16),  # ResNet-50.
    (56, (3, 3), (256, 256), ONES, 8),  # VGG-16.
  ],
)
def test_pays_where_channels_are_many(
  where_it_pays, size, kernel, channels, strides, batch
):
  f, _ = pair(False, strides, SAME)
  shape = lambda *s, dtype=np.float32: jax.ShapeDtypeStruct(s, dtype)
  x, w = (batch, size, size, channels[0]), (*kernel, *channels)
  assert not convolves(maps(f), shape(*x), shape(*w))
  # Transforms would round.
  half = shape(*x, dtype=jnp.bfloat16), shape(*w, dtype=jnp.bfloat16)
  assert convolves(maps(f), *half)
  few = shape(*x[:3], 16), shape(*kernel, 16, 16)
  assert convolves(maps(f), *few)
  small = shape(1, 8, 8, channels[0]), shape(*w)
  assert convolves(maps(f), *small)


def flops(f, *args):
  return jax.jit(f).lower(*args).cost_analysis()["flops"]


def test_operations_are_counted_as_a_network_is_defined():
  x, w = inputs(8, (3, 3), (40, 50), batch=2)
  ours = lambda x, w: conv.conv(x, w, padding=VALID)
  defined = 2 * 2 * 6 * 6 * 9 * 40 * 50
  assert flops(ours, x, w) < 0.8 * defined
  with winograd.spared_none():
    assert flops(lambda *args: ours(*args), x, w) == defined


def test_cost_of_a_classifier_does_not_tell_how_it_was_convolved(monkeypatch):
  file = CONFIGS / "classifier.py:tiny"
  config, _ = configuration.parse(
    ["", f"--config={file}", "--config.model.name=vgg16"]
  )
  variables = neural.abstract_variables(config, 2)
  spared = neural.gflop_per_image(config, 2, variables)
  monkeypatch.setattr(winograd, "MOVED", np.inf)
  assert neural.gflop_per_image(config, 2, variables) == spared

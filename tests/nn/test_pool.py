"""Pooling agrees with Flax's, in values, gradients and ties."""

from flax import linen as nn
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.nn import pool

QUICK = {"xla_backend_optimization_level": 0}
KINDS = ["max", "avg", "avg of pixels"]

# size, window, strides, padding.
POOLS = {
  "vgg": (8, (2, 2), (2, 2), "VALID"),
  "resnet": (8, (3, 3), (2, 2), ((1, 1), (1, 1))),
  "inception": (7, (3, 3), (1, 1), "SAME"),
  "odd size": (9, (2, 2), (2, 2), "VALID"),
  "unequal axes": ((9, 11), (2, 5), (1, 3), ((1, 0), (2, 3))),
  "window under stride": (8, (2, 1), (3, 2), "SAME"),
  "large window": (14, (12, 12), (1, 1), "VALID"),
}


def pair(kind, *geometry):
  """Our function of x, and Flax's."""
  both = (pool.max_pool, nn.max_pool)
  if kind != "max":
    geometry = (*geometry, kind == "avg")  # count_include_pad
    both = (pool.avg_pool, nn.avg_pool)
  return [lambda x, f=f: f(x, *geometry) for f in both]


def maps(f):
  """x -> f(x) and its gradient for a cotangent of many values."""

  def evaluate(x):
    y, gradient = jax.vjp(f, x)
    g = jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return y, *gradient(g)

  return evaluate


def penalty(f):
  """x -> the gradient of the cosine of the gradient."""
  slope = jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))
  return lambda x: (jax.grad(lambda x: jnp.sum(jnp.cos(slope(x))))(x),)


def images(size, batch=2, channels=3, dtype="f4", values=None):
  """Of few different `values`, there are ties."""
  size = (size, size) if isinstance(size, int) else size
  rng = np.random.default_rng(0)
  shape = (batch, *size, channels)
  x = rng.integers(values, size=shape) if values else rng.normal(size=shape)
  return jnp.asarray(x, dtype)


def compare(evaluate, ours, plain, x, tolerance):
  """Ours in the type of x against Flax's in float64."""
  with jax.enable_x64(True):
    both = jax.jit(
      lambda x, wide: (evaluate(ours)(x), evaluate(plain)(wide)),
      compiler_options=QUICK,
    )
    for a, b in zip(*both(x, x.astype(jnp.float64)), strict=True):
      assert a.shape == b.shape
      assert a.dtype == x.dtype
      np.testing.assert_allclose(
        a.astype(np.float64), b, tolerance, tolerance * np.max(abs(b))
      )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", POOLS)
def test_values_and_gradients(kind, name):
  size, *geometry = POOLS[name]
  compare(maps, *pair(kind, *geometry), images(size), 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("evaluate", [maps, penalty])
def test_float64(kind, evaluate):
  size, *geometry = POOLS["resnet"]
  with jax.enable_x64(True):
    x = images(size, dtype="f8")
  compare(evaluate, *pair(kind, *geometry), x, 1e-10)


@pytest.mark.parametrize("name", ["vgg", "resnet", "inception", "unequal axes"])
def test_the_first_of_equals_has_the_gradient(name):
  size, *geometry = POOLS[name]
  compare(maps, *pair("max", *geometry), images(size, values=2), 1e-5)


@hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
@hypothesis.given(
  kind=st.sampled_from(KINDS),
  size=st.tuples(*[st.integers(1, 9)] * 2),
  window=st.tuples(*[st.integers(1, 4)] * 2),
  strides=st.tuples(*[st.integers(1, 4)] * 2),
  padding=st.one_of(
    st.sampled_from(("SAME", "VALID")),
    st.tuples(*[st.tuples(*[st.integers(0, 3)] * 2)] * 2),
  ),
)
def test_any_geometry(kind, size, window, strides, padding):
  if not isinstance(padding, str):  # No window lies in padding alone.
    hypothesis.assume(
      all(max(p) < k for p, k in zip(padding, window, strict=True))
    )
  ours, plain = pair(kind, window, strides, padding)
  x = images(size, values=4)
  hypothesis.assume(jax.eval_shape(plain, x).size)
  compare(maps, ours, plain, x, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_rounds_once(kind):
  size, *geometry = POOLS["resnet"]
  compare(maps, *pair(kind, *geometry), images(size, dtype=jnp.bfloat16), 2**-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_no_window_is_searched_on_cpu(kind, name):
  size, *geometry = POOLS[name]
  ours, plain = (
    str(jax.make_jaxpr(maps(f))(images(size))) for f in pair(kind, *geometry)
  )
  assert "reduce_window" in plain
  assert "reduce_window" not in ours
  assert "select_and" not in ours


@pytest.mark.parametrize("kind", KINDS)
def test_flax_elsewhere_and_for_whole_numbers(monkeypatch, kind):
  size, *geometry = POOLS["resnet"]
  ours, plain = pair(kind, *geometry)
  whole = images(size, values=9, dtype="i4")
  assert str(jax.make_jaxpr(ours)(whole)) == str(jax.make_jaxpr(plain)(whole))
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  a, b = (str(jax.make_jaxpr(maps(f))(images(size))) for f in (ours, plain))
  assert a == b

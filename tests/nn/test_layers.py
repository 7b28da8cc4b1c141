"""Batch norm is Flax's: tree, statistics, values, gradients."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.nn import layers


def run(norm, x, variables):
  """y, new statistics, gradients by parameters and by x, and the tree."""

  def f(params, x):
    return norm.apply(variables | {"params": params}, x, mutable="batch_stats")

  def evaluate(params, x):
    y, back, new = jax.vjp(f, params, x, has_aux=True)
    g = jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return y, new, back(g)

  return jax.jit(evaluate)(variables["params"], x)


def both(x, scale=True, dtype=None, train=True):
  ours = layers.batch_norm(train, 1e-3, scale, dtype)
  plain = nn.BatchNorm(
    use_running_average=not train,
    momentum=layers.MOMENTUM,
    epsilon=1e-3,
    use_scale=scale,
    dtype=dtype,
  )
  trees = [n.init(jax.random.key(0), x) for n in (ours, plain)]
  assert jax.tree.map(jnp.shape, trees[0]) == jax.tree.map(jnp.shape, trees[1])
  keys = iter(jax.random.split(jax.random.key(1), 9))
  variables = jax.tree.map(
    lambda a: jax.random.uniform(next(keys), a.shape, a.dtype, 0.5, 2),
    trees[1],
  )
  return [run(n, x, variables) for n in (ours, plain)]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_batch_norm_is_flax_s(train, scale):
  x = 3 + 2 * jax.random.normal(jax.random.key(2), (4, 5, 6, 7))
  ours, plain = both(x, scale, train=train)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), ours, plain
  )


def test_batch_norm_in_float64():
  with jax.enable_x64(True):
    x = 3 + jax.random.normal(jax.random.key(2), (4, 5, 6, 7), jnp.float64)
    (y, _, slopes), (z, _, expected) = both(x)
    assert y.dtype == z.dtype == jnp.float64
    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-10)
    close(y, z)
    close(slopes[1], expected[1])


def test_statistics_of_bfloat16_are_float32():
  x = 3 + jax.random.normal(jax.random.key(2), (4, 5, 6, 7), jnp.bfloat16)
  ours, plain = both(x, dtype=jnp.bfloat16)
  dtypes = lambda tree: jax.tree.map(lambda a: a.dtype, tree)
  assert dtypes(ours) == dtypes(plain)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a.astype(np.float32), b.astype(np.float32), 2e-2, 2e-2
    ),
    ours,
    plain,
  )
  np.testing.assert_allclose(
    ours[1]["batch_stats"]["mean"], plain[1]["batch_stats"]["mean"], 1e-6
  )

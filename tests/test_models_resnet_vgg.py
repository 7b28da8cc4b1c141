"""ResNet in bfloat16, VGG's dropout; parity stands in test_models_torch.py."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import models


def test_resnet_in_bfloat16_is_near_float32():
  x = np.random.default_rng(0).standard_normal((2, 32, 32, 1), np.float32)

  @jax.jit
  def run():
    network = models.MODELS["resnet18"](num_classes=3)
    variables = network.init(jax.random.key(0), x, train=False)
    logits = network.apply(variables, x, train=False)
    half = models.MODELS["resnet18"](num_classes=3, dtype=jnp.bfloat16)
    return logits, half.apply(variables, x, train=False)

  logits, half = map(np.asarray, run())
  difference = np.abs(half - logits).max() / np.abs(logits).max()
  assert 0 < difference < 0.03


def test_vgg_drops_in_both_hidden_layers():
  x = jnp.ones((1, 32, 32, 1))
  network = models.MODELS["vgg16"](num_classes=3, dropout=0.5)

  @jax.jit
  def run(variables, key, other):
    apply = lambda **kwargs: network.apply(variables, x, **kwargs)
    train = lambda key, **kwargs: apply(
      train=True, rngs={"dropout": key}, **kwargs
    )
    return (
      apply(train=False, features=True),
      train(key, features=True),
      train(other, features=True),
      train(key),
      train(other),
    )

  shapes = jax.eval_shape(
    lambda: network.init(jax.random.key(0), x, train=False)
  )
  # Constants that keep each layer's values the same: every sum is a mean.
  mean = lambda a: jnp.full(a.shape, 1 / max(1, np.prod(a.shape[:-1])))
  variables = jax.tree.map(mean, shapes)
  still, first, second, *logits = run(
    variables, *jax.random.split(jax.random.key(0))
  )
  assert still.shape == (1, 4096)
  assert np.ptp(still) < 1e-3 * still.max()  # Nothing dropped before the head,
  assert np.ptp(first) < 1e-3 * first.max()  # and after it once,
  assert not np.allclose(first, second, rtol=1e-4)  # of fc1,
  assert not np.allclose(*logits, rtol=1e-4)

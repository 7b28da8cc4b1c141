"""ResNet in bfloat16, VGG's dropout; parity stands in test_models_torch.py."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import models


def shapes_of(network, x):
  init = lambda: network.init(jax.random.key(0), x, train=False)
  return jax.eval_shape(init)


def test_resnet_in_bfloat16_is_near_float32():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 32, 32, 1), np.float32)
  network = models.MODELS["resnet18"](num_classes=3)
  half = models.MODELS["resnet18"](num_classes=3, dtype=jnp.bfloat16)

  def draw(a):
    if a.ndim == 1:
      return rng.uniform(0.5, 1.5, a.shape).astype(np.float32)
    scale = np.float32(np.sqrt(2 / np.prod(a.shape[:-1])))
    return scale * rng.standard_normal(a.shape, np.float32)

  @jax.jit
  def run(v):
    return network.apply(v, x, train=False), half.apply(v, x, train=False)

  logits, halved = run(jax.tree.map(draw, shapes_of(network, x)))
  assert halved.dtype == jnp.float32
  difference = np.abs(halved - logits).max() / np.abs(logits).max()
  assert 0 < difference < 0.03


def test_vgg_drops_in_its_first_hidden_layer_too():
  x = jnp.ones((1, 32, 32, 1))
  network = models.MODELS["vgg16"](num_classes=3, dropout=0.5)

  @jax.jit
  def run(variables, *keys):
    features = lambda **kwargs: network.apply(
      variables, x, features=True, **kwargs
    )
    trained = [features(train=True, rngs={"dropout": key}) for key in keys]
    return features(train=False), *trained

  # Every sum is a mean, so that values neither vanish nor grow.
  mean = lambda a: jnp.full(a.shape, 1 / max(1, np.prod(a.shape[:-1])))
  variables = jax.tree.map(mean, shapes_of(network, x))
  keys = jax.random.split(jax.random.key(0))
  still, first, second = map(np.asarray, run(variables, *keys))
  assert still.shape == (1, 4096)
  assert not np.allclose(first, second, rtol=1e-4)
  # The 4096 of fc2 differ only where they were dropped: never before the head.
  for x in (still, first, second):
    assert np.ptp(x) < 1e-3 * x.max()

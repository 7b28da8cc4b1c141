"""keras.applications as an independent oracle of our networks."""

import functools
import os
from unittest import mock

os.environ["KERAS_BACKEND"] = "jax"  # Before Keras is imported.

import jax
import jax.numpy as jnp
import keras
import numpy as np

from jaxfake import models

# Our names of a batch norm, in the order of Keras's `layer.weights`.
ORDER_NORM = ("scale", "bias", "mean", "var")


# One size, or height and width: one odd and one even test both paddings.
Size = int | tuple[int, int]


def image_shape(size: Size, channels: int = 3) -> tuple[int, int, int]:
  height, width = (size, size) if isinstance(size, int) else size
  return height, width, channels


def images(size: Size) -> np.ndarray:
  """Two images of noise."""
  shape = (2, *image_shape(size))
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def random_variables(network, size: Size, channels: int = 3, seed: int = 0):
  """Random weights and batch statistics that keep activations near one."""
  x = jnp.zeros((1, *image_shape(size, channels)))
  shapes = jax.eval_shape(
    lambda: network.init(jax.random.key(0), x, train=False)
  )
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name, shape = path[-1].key, leaf.shape
    if name == "kernel":
      fan_in = np.prod(shape[:-1])
      return rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def build(application, size: Size, classes: int = 10) -> keras.Model:
  """A network of keras.applications, to logits, all weights zeros or ones.

  Drawing random ones would compile a program for each shape. Keras's numbers of
  layers without a name begin anew.
  """
  keras.utils.clear_session()
  zeros = lambda shape, *_, dtype=None, **__: np.zeros(shape, dtype)
  with mock.patch.multiple(
    keras.src.backend.random, truncated_normal=zeros, uniform=zeros
  ):
    return application(
      weights=None,
      classes=classes,
      input_shape=image_shape(size),
      classifier_activation=None,
    )


def give(model: keras.Model, variables, rename=lambda layer: layer) -> None:
  """Sets all weights of a Keras model from ours, layer by layer.

  Ours is {layer: {"kernel": ...}} in params and batch_stats; rename(layer) is
  the Keras layer's name. Ours named NAME_depthwise and NAME_pointwise are the
  two kernels of a separable convolution NAME, where Keras has such a one.
  Every variable on either side must be used.
  """
  layers = {}
  for collection in variables.values():
    for name, arrays in collection.items():
      layers.setdefault(name, {}).update(arrays)
  theirs = {layer.name: layer for layer in model.layers}
  given = set()
  for name, arrays in layers.items():
    keras_name = rename(name)
    if keras_name == "head":
      keras_name = "predictions"
    if keras_name in theirs:
      targets = theirs[keras_name].weights
    else:
      stem, part = keras_name.rsplit("_", 1)
      targets = [getattr(theirs[stem], f"{part}_kernel")]
    order = ORDER_NORM if "mean" in arrays else ("kernel", "bias")
    values = [arrays[k] for k in order if k in arrays]
    for target, value in zip(targets, values, strict=True):
      # A depthwise kernel is (kh, kw, channels, 1) there, (kh, kw, 1, channels)
      # here; a head may be a 1x1 convolution.
      assert [n for n in target.shape if n > 1] == [
        n for n in value.shape if n > 1
      ], f"{name}: {value.shape} for {target.path} {target.shape}"
      target.assign(np.reshape(value, target.shape))
      given.add(target.path)
  left = {x.path for x in model.weights} - given
  assert not left, f"Keras variables that ours lacks: {sorted(left)}"


def logits_of(model: keras.Model, x) -> np.ndarray:
  """A model built with classifier_activation=None, in inference."""
  state = [
    [x.value for x in variables]
    for variables in (model.trainable_variables, model.non_trainable_variables)
  ]
  call = jax.jit(functools.partial(model.stateless_call, training=False))
  return np.asarray(call(*state, jnp.asarray(x))[0])


def require_same_logits(
  name: str,
  model: keras.Model,
  size: Size,
  rename=lambda layer: layer,
  tolerance: float = 1e-4,
  **options,
) -> np.ndarray:
  """Our `models.MODELS[name]` equals the Keras model, relative to the
  largest logit, with random weights and batch statistics.

  Returns the logits.
  """
  network = models.MODELS[name](num_classes=model.output_shape[-1], **options)
  variables = random_variables(network, size)
  give(model, variables, rename)
  x = images(size)
  ours = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)
  theirs = logits_of(model, x)
  spread = np.abs(theirs - theirs.mean(0)).max()
  assert spread > 1e-3, "the logits hardly depend on the image"
  np.testing.assert_allclose(
    np.asarray(ours), theirs, rtol=0, atol=tolerance * np.abs(theirs).max()
  )
  return theirs

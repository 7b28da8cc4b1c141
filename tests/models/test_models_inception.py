"""Inceptions and NASNet: equal to Keras's, and as published.

One trace or compilation of such a network takes seconds, so tests share them.
"""

import types

import flax
from flax import linen as nn
import jax
import jax.numpy as jnp
import keras_oracle
import numpy as np
import pytest

from jaxfake import models
from jaxfake.nn import conv

applications = keras_oracle.keras.applications

# Trainable parameters at 1,000 classes and three channels, the first
# convolution, and the length of what the head reads.
PUBLISHED = dict(
  inception_v3=(23_817_352, "stem_a_1_conv", 2048),
  inception_resnet_v2=(55_813_192, "stem_a_1_conv", 1536),
  nasnet_mobile=(5_289_978, "stem_conv1", 1056),
)
KERAS = dict(
  inception_v3=applications.InceptionV3,
  inception_resnet_v2=applications.InceptionResNetV2,
  nasnet_mobile=applications.NASNetMobile,
)

# From 107 px the Inceptions end with maps of 2 x 2, which show every element of
# a kernel. NASNet halves 16, 8, 4, 2 and 31, 16, 8, 4.
SIZES = dict(
  inception_v3=(107, 110),
  inception_resnet_v2=(107, 110),
  nasnet_mobile=(33, 64),
)


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


def note_layers(notes: list):
  """While it lasts, calling a layer adds (layer, output) to `notes`."""

  def note(call, args, kwargs, context):
    y = call(*args, **kwargs)
    layer = isinstance(context.module, conv.Conv | nn.BatchNorm)
    if layer and context.method_name == "__call__":
      notes.append((context.module, y))
    return y

  return nn.intercept_methods(note)


# Of the module, so that pytest runs one network's tests together.
@pytest.fixture(scope="module", params=PUBLISHED)
def case(request):
  """A network, what initialising it for gray images in bfloat16 showed, and
  what it gives for images of three channels."""
  name = request.param
  network = models.MODELS[name](num_classes=1000)
  half = network.clone(dtype=jnp.bfloat16)
  notes = []
  with note_layers(notes):
    gray = keras_oracle.random_variables(half, SIZES[name], channels=1)
  first = PUBLISHED[name][1]
  assert gray["params"][first]["kernel"].shape == (3, 3, 1, 32)
  rng = np.random.default_rng(1)
  kernel = rng.normal(0, 0.3, (3, 3, 3, 32)).astype(np.float32)
  params = dict(gray["params"]) | {first: {"kernel": kernel}}
  variables = dict(gray, params=params)
  shape = (2, *keras_oracle.image_shape(SIZES[name]))
  x = rng.normal(size=shape).astype(np.float32)
  features = jax.jit(
    lambda v, x: network.apply(v, x, train=False, features=True)
  )(variables, x)
  assert features.shape == (2, PUBLISHED[name][2])
  head = params["head"]
  return types.SimpleNamespace(
    name=name,
    network=network,
    half=half,
    notes=notes,
    gray=gray,
    variables=variables,
    x=x,
    logits=np.asarray(features) @ head["kernel"] + head["bias"],
  )


def names_in_keras(order, model) -> dict[str, str]:
  """Our layers that Keras only numbers, to conv2d_17 and the like."""
  theirs = [layer.name for layer in model.layers if layer.weights]
  ours = [name for name in order if name not in theirs]
  renamed = {}
  for suffix, kind in (("_conv", "conv2d"), ("_bn", "batch_normalization")):
    numbered = {  # conv2d is the first of all, or conv2d_94 is.
      int(name.removeprefix(kind).removeprefix("_") or 0): name
      for name in theirs
      if name.removeprefix(kind).removeprefix("_").isdigit() or name == kind
    }
    names = [name for name in ours if name.endswith(suffix)]
    renamed |= zip(names, [numbered[i] for i in sorted(numbered)], strict=True)
  return renamed


def test_equals_keras(case):
  model = keras_oracle.build(KERAS[case.name], SIZES[case.name], classes=1000)
  # Of creation; batch norm in evaluation calls Flax's, which is noted too.
  order = list(dict.fromkeys(layer.name for layer, _ in case.notes))
  renamed = names_in_keras(order, model)
  keras_oracle.give(model, case.variables, lambda x: renamed.get(x, x))
  theirs = keras_oracle.logits_of(model, case.x)
  spread = np.abs(theirs - theirs.mean(0)).max()
  error = np.abs(case.logits - theirs).max()
  # Relative to what the image changes, which is less than the logits.
  assert error <= 1e-4 * spread


def test_parameters(case):
  published, first, _ = PUBLISHED[case.name]
  params = case.variables["params"]
  assert count(params) == published
  assert first in params
  # Flat, for weights are loaded by the name of a layer.
  assert {len(p) for p in flax.traverse_util.flatten_dict(params)} == {2}


def test_bfloat16_everywhere(case):
  for layer, y in case.notes:
    assert y.dtype == jnp.bfloat16, layer.name


# These two compile for longest, so one network stands for all.
one = pytest.mark.parametrize("case", ["inception_v3"], indirect=True)


@one
def test_bfloat16_is_near_float32(case):
  call = jax.jit(lambda v, x: case.half.apply(v, x, train=False))
  logits = call(case.variables, case.x)
  assert logits.dtype == jnp.float32
  error = np.abs(logits - case.logits).max() / np.abs(case.logits).max()
  assert 1e-4 < error < 0.1


@one
def test_training_moves_every_statistic(case):
  network = case.network.clone(dropout=0.5)

  @jax.jit
  def train(v, x, key):
    return network.apply(
      v, x, train=True, mutable="batch_stats", rngs={"dropout": key}
    )

  x = case.x[..., :1]
  logits, changed = train(case.gray, x, jax.random.key(0))
  assert logits.shape == (2, 1000) and logits.dtype == jnp.float32
  assert np.isfinite(logits).all()
  old = flax.traverse_util.flatten_dict(case.gray["batch_stats"])
  new = flax.traverse_util.flatten_dict(changed["batch_stats"])
  assert old.keys() == new.keys()
  for path, value in new.items():
    assert value.dtype == jnp.float32
    assert np.isfinite(value).all()
    assert not np.allclose(value, old[path]), path
  # Dropout before the head is another with another key.
  other, _ = train(case.gray, x, jax.random.key(1))
  assert not np.allclose(other, logits)

"""What all classifiers have in common; parity with others' stands in
test_models_*.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake import models

# Trainable, at 1,000 classes and 3 channels: torchvision's for ResNet,
# DenseNet and VGG, keras.applications' for the others.
PARAMETERS = {
  "resnet18": 11_689_512,
  "resnet34": 21_797_672,
  "resnet50": 25_557_032,
  "resnet101": 44_549_160,
  "resnet152": 60_192_808,
  "densenet121": 7_978_856,
  "densenet169": 14_149_480,
  "densenet201": 20_013_928,
  "vgg16": 138_357_544,
  "vgg19": 143_667_240,
  "inception_v3": 23_817_352,
  "xception": 22_855_952,
  "inception_resnet_v2": 55_813_192,
  "mobilenet_v1": 4_231_976,
  "mobilenet_v2": 3_504_872,
  "efficientnet_b0": 5_288_548,
  "nasnet_mobile": 5_289_978,
}


@pytest.mark.parametrize("name", models.MODELS)
def test_parameters_are_the_published_ones(name):
  """One trace of each network: tracing the larger ones takes seconds."""
  network = models.MODELS[name](num_classes=1000)
  size = models.smallest(name)
  x = jnp.zeros((1, size, size, 3))
  init = functools.partial(network.init, jax.random.key(0), train=False)
  variables = jax.eval_shape(init, x)
  trainable = sum(a.size for a in jax.tree.leaves(variables["params"]))
  assert trainable == PARAMETERS.get(name, trainable)
  # One level, and the leaves' names are those that loaders rely on.
  for collection in variables.values():
    for arrays in collection.values():
      assert arrays.keys() <= {"kernel", "bias", "scale", "mean", "var"}
  assert variables["params"]["head"]["kernel"].shape[1] == 1000


def test_every_network_of_the_literature_is_here():
  assert models.MODELS.keys() == {"cnn", *PARAMETERS}


@pytest.mark.parametrize(
  "name", ["cnn", "resnet18", "vgg16", "mobilenet_v1", "mobilenet_v2"]
)
def test_gray_images_logits_and_features(name):
  network = models.MODELS[name](num_classes=2)
  x = jnp.zeros((2, 32, 32, 1))

  def run():
    variables = network.init(jax.random.key(0), x, train=False)
    apply = functools.partial(network.apply, variables, x, train=False)
    return variables["params"]["head"], apply(), apply(features=True)

  head, logits, features = jax.eval_shape(run)
  assert logits.shape == (2, 2) and logits.dtype == jnp.float32
  assert features.dtype == jnp.float32
  assert head["kernel"].shape == (features.shape[1], 2)


@pytest.mark.parametrize("name", models.MODELS)
def test_smaller_images_are_refused_by_name(name):
  network = models.MODELS[name](num_classes=2)
  smallest = models.smallest(name)
  assert smallest in (32, 75)
  x = jnp.zeros((1, smallest - 1, smallest + 9, 3))
  with pytest.raises(ValueError, match=f"images from {smallest} px, not"):
    jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=False))


def test_bfloat16_keeps_parameters_and_statistics_in_float32():
  """The policy is the layers', so a small network stands for all; the
  families' own tests compare values."""
  network = models.MODELS["cnn"](num_classes=2, dtype=jnp.bfloat16)
  x = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
  init = jax.jit(functools.partial(network.init, train=False))
  variables = init(jax.random.key(0), x)
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  logits, changed = jax.jit(
    functools.partial(network.apply, train=True, mutable=["batch_stats"])
  )(variables, x)
  assert logits.dtype == jnp.float32
  assert {a.dtype for a in jax.tree.leaves(changed)} == {jnp.dtype("float32")}

"""The networks: shapes, the published parameter counts, initialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from jaxfake.models import dcgan


def networks(size, num_classes=0, **changes):
  model = dict(
    width=64,
    max_width=1024,
    channels=1,
    conditional=False,
    upsample="transpose",
  )
  config = ml_collections.ConfigDict(model | changes)
  return dcgan.make(config, num_classes, size)


def variables(generator, discriminator, size, channels=1):
  """Shapes alone: nothing is computed."""
  z, label = jnp.zeros((2, 100)), jnp.zeros(2, jnp.int32)
  x = jnp.zeros((2, size, size, channels))
  key = jax.random.key(0)
  return tuple(
    jax.eval_shape(lambda n=n, v=v: n.init(key, v, label, train=True))
    for n, v in ((generator, z), (discriminator, x))
  )


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def test_parameters_of_the_64_px_form():
  # The form everyone benchmarks (PyTorch's DCGAN example, three channels) has
  # 3,576,704 and 2,765,568 without biases. The paper's layers without batch
  # norm have biases: 3 at the generator's end, 64 and 1 at the
  # discriminator's.
  generator, discriminator = networks(64, channels=3)
  g, d = variables(generator, discriminator, 64, 3)
  assert list(generator.widths) == [512, 256, 128, 64]
  assert count(g["params"]) == 3_576_704 + 3
  assert count(d["params"]) == 2_765_568 + 64 + 1


@pytest.mark.parametrize("size", dcgan.SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_shapes(size, channels, conditional):
  generator, discriminator = networks(
    size, 2, width=2, channels=channels, conditional=conditional
  )
  z, label = jnp.zeros((2, 100)), jnp.array([0, 1])

  def both(key):
    v = generator.init(key, z, label, train=True)
    x = generator.apply(v, z, label, train=False)
    w = discriminator.init(key, x, label, train=True)
    return x, discriminator.apply(w, x, label, train=False)

  x, logits = jax.eval_shape(both, jax.random.key(0))
  assert x.shape == (2, size, size, channels)
  assert logits.shape == (2,)


def test_initialisation_is_the_papers():
  generator, _ = networks(32, width=16)
  v = generator.init(jax.random.key(0), jnp.zeros((1, 100)), train=True)
  kernel = np.asarray(v["params"]["ConvTranspose_1"]["kernel"])
  assert kernel.std() == pytest.approx(0.02, rel=0.05)
  scale = np.asarray(v["params"]["BatchNorm_0"]["scale"])
  assert scale.mean() == pytest.approx(1, abs=0.02)
  assert 0.01 < scale.std() < 0.03


def test_the_class_reaches_both_networks_only_when_conditional():
  key = jax.random.key(0)
  z = jax.random.normal(key, (1, 100))
  x = jax.random.normal(key, (1, 32, 32, 1))
  for conditional in (False, True):
    generator, discriminator = networks(32, 2, width=4, conditional=conditional)
    for network, value in ((generator, z), (discriminator, x)):
      v = network.init(key, value, jnp.array([0]), train=True)
      a, b = (
        network.apply(v, value, jnp.array([c]), train=False) for c in (0, 1)
      )
      assert bool((a != b).any()) == conditional


def test_resizing_repeats_pixels_and_convolves():
  generator, _ = networks(32, width=2, upsample="resize")
  v = generator.init(
    jax.random.key(0), jnp.zeros((2, 100)), jnp.zeros(2, jnp.int32), train=True
  )
  kernels = {
    name: x["kernel"].shape for name, x in v["params"].items() if "kernel" in x
  }
  assert sorted(kernels) == [
    "ConvTranspose_0",
    "Conv_0",
    "Conv_1",
    "Conv_2",
  ] and {kernels[f"Conv_{i}"][:2] for i in range(3)} == {(3, 3)}

  class Doubled(dcgan.Generator):
    @nn.compact
    def __call__(self, x):
      return self.doubled(x, 5)

  layer = Doubled([], upsample="resize")
  x = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
  variables = layer.init(jax.random.key(2), x)
  got = layer.apply(variables, x)
  twice = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
  want = jax.lax.conv_general_dilated(
    twice,
    variables["params"]["Conv_0"]["kernel"],
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)

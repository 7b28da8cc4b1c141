"""The growing GAN's networks against what the paper says of them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.models import pggan, stylegan2

WIDTHS, LATENTS, CLASSES = (4, 3, 2), 5, 2  # At 4, 8, 16 px.


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shapes(net, *shape):
  """Of what a network returns, and how many parameters it has."""
  init = lambda x: net.init_with_output(jax.random.key(0), x, train=True)
  y, v = jax.eval_shape(init, jax.ShapeDtypeStruct(shape, jnp.float32))
  return y, sum(math.prod(x.shape) for x in jax.tree.leaves(v["params"]))


def test_networks_are_the_paper_s():
  """At 1024 px 23.1 million parameters each: table 2. Each resolution has its
  own layer to or from an image; the paper counts the last one's."""
  widths = stylegan2.widths(1024, 16, 512)
  assert widths == [512, 512, 512, 512, 256, 128, 64, 32, 16]
  y, count = shapes(pggan.Generator(widths, 3), 2, 512)
  assert y.shape == (2, 1024, 1024, 3)
  assert round(count / 1e6, 1) == 23.1
  y, count = shapes(pggan.Discriminator(widths), 2, 1024, 1024, 3)
  assert y.shape == (2,)
  assert round(count / 1e6, 1) == 23.1


def test_results_are_float32_whatever_the_arithmetic():
  low = dict(dtype=jnp.bfloat16)
  image, _ = shapes(pggan.Generator(WIDTHS, **low), 2, LATENTS)
  score, _ = shapes(pggan.Discriminator(WIDTHS, **low), 2, 16, 16, 1)
  assert image.dtype == score.dtype == jnp.float32


def test_pixels_are_normalised_each_by_itself():
  x = draw(0, 2, 3, 3, 7)
  want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)
  np.testing.assert_allclose(pggan.normalised(x), want, rtol=1e-5)


def test_sides_double_and_halve():
  x = draw(0, 2, 4, 4, 3)
  big = np.asarray(pggan.doubled(x))
  assert all((big[:, i::2, j::2] == x).all() for i, j in np.ndindex(2, 2))
  np.testing.assert_allclose(pggan.halved(big), x, rtol=1e-6)
  want = x.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))
  np.testing.assert_allclose(pggan.halved(x), want, atol=1e-6)


@functools.cache
def applied(network, sides=0):
  """`apply(params, level, x, label)` of a network, compiled."""
  net = network(WIDTHS, num_classes=CLASSES, sides=sides)

  @jax.jit
  def apply(params, level, *inputs):
    v = {"params": params, "growth": {"level": level}}
    return net.apply(v, *inputs, train=True)

  return apply


@functools.cache
def params(network, *shape):
  net = network(WIDTHS, num_classes=CLASSES)
  init = jax.jit(lambda *x: net.init(jax.random.key(0), *x, train=True))
  v = init(draw(0, *shape), np.zeros(shape[0], np.int32))
  assert float(v["growth"]["level"]) == len(WIDTHS)  # Whole, if nobody says.
  return v["params"]


LABEL = np.arange(4, dtype=np.int32) % 2


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_generator_fades_a_resolution_in(share):
  """Figure 2: between the image of the resolution before, doubled, and its
  own; and what samples, the whole network, shows that at the full size."""
  given, z = params(pggan.Generator, 4, LATENTS), draw(1, 4, LATENTS)
  image = lambda sides, level: applied(pggan.Generator, sides)(
    given, level, z, LABEL
  )
  old, new = image(1, 1.0), image(2, 2.0)
  assert old.shape == (4, 4, 4, 1) and new.shape == (4, 8, 8, 1)
  want = (1 - share) * np.kron(old, np.ones((1, 2, 2, 1))) + share * new
  found = image(2, 1 + share)
  np.testing.assert_allclose(found, want, atol=1e-5)
  whole = np.asarray(image(0, 1 + share))
  np.testing.assert_allclose(whole, pggan.doubled(found), atol=1e-5)
  assert np.abs(np.asarray(new) - pggan.doubled(old)).max() > 0.01


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_discriminator_fades_a_resolution_in(share):
  """Nothing of it is the discriminator of the image halved."""
  given, x = params(pggan.Discriminator, 4, 16, 16, 1), draw(1, 4, 16, 16, 1)
  score = lambda sides, level, x: applied(pggan.Discriminator, sides)(
    given, level, x, LABEL
  )
  found = score(3, 2 + share, x)
  before = score(2, 2.0, pggan.halved(x))
  assert found.shape == (4,)
  if share:
    assert np.abs(found - before).min() > 1e-4
  else:
    np.testing.assert_allclose(found, before, atol=1e-5)
  np.testing.assert_allclose(score(0, 2 + share, x), found, atol=1e-5)


def test_latents_count_by_direction_and_classes_differ():
  given, z = params(pggan.Generator, 4, LATENTS), draw(1, 4, LATENTS)
  apply = functools.partial(applied(pggan.Generator), given, 3.0)
  first = apply(z, LABEL)
  np.testing.assert_allclose(apply(3 * z, LABEL), first, atol=1e-4)
  assert (apply(z, 1 - LABEL) != first).any((1, 2, 3)).all()
  given, x = params(pggan.Discriminator, 4, 16, 16, 1), draw(1, 4, 16, 16, 1)
  apply = functools.partial(applied(pggan.Discriminator), given, 3.0, x)
  assert (apply(LABEL) != apply(1 - LABEL)).all()

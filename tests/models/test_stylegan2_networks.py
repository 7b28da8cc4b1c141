"""StyleGAN2's layers against what the papers write out, and its networks."""

import functools
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.models import stylegan2
from jaxfake.nn import conv

SIZE, WIDTHS, LATENTS, CLASSES = 16, (6, 4, 2), 5, 2


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(x, w, strides=(1, 1), padding="SAME", transposed=False):
  convolve = lax.conv_transpose if transposed else lax.conv_general_dilated
  return convolve(x, w, strides, padding, dimension_numbers=conv.NHWC)


@pytest.mark.parametrize("transposed", [False, True])
def test_modulation_is_a_kernel_of_each_image_s_own(transposed):
  """Equations 1 and 3, each image by itself."""
  x, w, style = draw(0, 3, 5, 5, 4), draw(1, 3, 3, 4, 6), draw(2, 3, 4)
  up = lambda x, w: conv.conv_transpose(x, w, (2, 2), "VALID")
  convolve = up if transposed else conv.conv
  found = stylegan2.modulated(convolve, x, w, style)
  for image, s, y in zip(x, style, found, strict=True):
    own = w * s[None, None, :, None]
    own /= np.sqrt((own**2).sum((0, 1, 2)) + 1e-8)
    options = dict(strides=(2, 2), padding="VALID") if transposed else {}
    want = plain(image[None], own, transposed=transposed, **options)[0]
    np.testing.assert_allclose(y, want, atol=2e-5)


def test_the_filter_written_out():
  taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
  x = draw(0, 2, 6, 6, 3)

  def want(x, pads, up=1, down=1):
    n = (x.shape[1] - 1) * up + 1
    spread = np.zeros((2, n, n, 3))
    spread[:, ::up, ::up] = x
    y = np.pad(spread, ((0, 0), pads, pads, (0, 0)))
    m = y.shape[1] - 3
    parts = [
      taps[i, j] * y[:, i : i + m, j : j + m] for i, j in np.ndindex(4, 4)
    ]
    return sum(parts)[:, ::down, ::down]

  for options in dict(pads=(2, 2)), dict(pads=(1, 1), down=2):
    found = stylegan2.filtered(x, **options)
    np.testing.assert_allclose(found, want(x, **options), atol=1e-6)
  found = stylegan2.doubled(x)
  assert found.shape == (2, 12, 12, 3)
  np.testing.assert_allclose(found, 4 * want(x, (2, 2), up=2), atol=1e-6)
  flat = stylegan2.doubled(np.ones((1, 6, 6, 1), np.float32))[:, 1:-1, 1:-1]
  np.testing.assert_allclose(flat, 1, atol=1e-6)


def test_deviation_is_that_of_neighbours():
  x = draw(0, 6, 4, 4, 3)
  found = np.asarray(stylegan2.with_deviation(x, 2))
  np.testing.assert_array_equal(found[..., :3], x)
  for i in range(6):
    pair = x[i // 2 * 2 : i // 2 * 2 + 2]
    np.testing.assert_allclose(
      found[i, ..., 3], pair.std(0).mean(), rtol=1e-4, atol=1e-6
    )


def shapes(net, *shape):
  """Of what a network returns, and how many parameters it has."""
  init = lambda x: net.init_with_output(jax.random.key(0), x, train=True)
  y, v = jax.eval_shape(init, jax.ShapeDtypeStruct(shape, jnp.float32))
  return y, sum(math.prod(x.shape) for x in jax.tree.leaves(v))


def test_networks_are_the_paper_s():
  """Configuration F at 1024 px, whose parameters the authors' code counts."""
  widths = stylegan2.widths(1024, 32, 512)
  deviates = 512 + sum(s**2 for s in stylegan2.noise_sides(1024))
  y, count = shapes(stylegan2.Generator(widths, 512, 3), 2, deviates)
  assert (y.shape, count) == ((2, 1024, 1024, 3), 30_370_060)
  y, count = shapes(stylegan2.Discriminator(widths), 2, 1024, 1024, 3)
  assert (y.shape, count) == ((2,), 29_012_513)


def test_results_are_float32_whatever_the_arithmetic():
  low = dict(dtype=jnp.bfloat16)
  n = LATENTS + sum(s**2 for s in stylegan2.noise_sides(SIZE))
  image, _ = shapes(stylegan2.Generator(WIDTHS, LATENTS, **low), 2, n)
  logit, _ = shapes(stylegan2.Discriminator(WIDTHS, **low), 2, SIZE, SIZE, 1)
  assert image.dtype == logit.dtype == jnp.float32


@functools.cache
def generator():
  net = stylegan2.Generator(WIDTHS, LATENTS, 1, CLASSES, mapping_layers=2)
  deviates = draw(0, 4, LATENTS + sum(s**2 for s in (4, 8, 8, 16, 16)))
  label = np.arange(4, dtype=np.int32) % 2
  init = jax.jit(lambda *x: net.init(jax.random.key(0), *x, train=True))
  apply = jax.jit(lambda v, *x: net.apply(v, *x, train=False))
  return init(deviates, label), apply, deviates, label


def noisy(variables):
  """With strengths that are not 0, as at first."""
  change = lambda path, x: x + 0.5 * ("strength" in jax.tree_util.keystr(path))
  return jax.tree_util.tree_map_with_path(change, variables)


def test_an_image_is_of_its_latents_noise_and_class():
  v, apply, deviates, label = generator()
  first = apply(v, deviates, label)
  assert first.shape == (4, SIZE, SIZE, 1) and first.dtype == jnp.float32
  assert 0.1 < np.std(first) < 10
  # Noise counts as soon as its strength is learnt, each map of it.
  other = deviates.copy()
  other[:, LATENTS:] = draw(1, *other[:, LATENTS:].shape)
  np.testing.assert_array_equal(apply(v, other, label), first)
  v = noisy(v)
  first = apply(v, deviates, label)
  start = LATENTS
  for side in stylegan2.noise_sides(SIZE):
    other = deviates.copy()
    other[:, start : start + side**2] += 1
    start += side**2
    assert (apply(v, other, label) != first).any((1, 2, 3)).all()
  assert start == deviates.shape[1]
  assert (apply(v, deviates, 1 - label) != first).any((1, 2, 3)).all()
  # z counts by its direction alone, and row by row.
  z = deviates.copy()
  z[0, :LATENTS] *= 3
  z[1, 0] += 1
  found = apply(v, z, label)
  np.testing.assert_allclose(found[0], first[0], atol=1e-3)
  np.testing.assert_allclose(found[2:], first[2:], atol=1e-5)
  assert (found[1] != first[1]).any()


def test_an_image_is_the_sum_of_those_of_each_side():
  """Without the last side's contribution it is the one before, doubled."""
  v, apply, deviates, label = generator()
  params = dict(v["params"]["synthesis"])
  whole = apply(v, deviates, label)
  off = jax.tree.map(jnp.zeros_like, params["ToImage_2"])
  less = {"params": v["params"] | {"synthesis": params | {"ToImage_2": off}}}
  image = apply(less, deviates, label)
  small = stylegan2.Synthesis(WIDTHS[:2])
  kept = params.keys() - {"ToImage_2", "StyledConv_3", "StyledConv_4"}
  net = stylegan2.Generator(WIDTHS, LATENTS, 1, CLASSES, mapping_layers=2)
  style = net.apply(v, deviates, label, method="style")
  noise = [jnp.zeros((4, s, s, 1)) for s in stylegan2.noise_sides(SIZE // 2)]
  before = small.apply({"params": {k: params[k] for k in kept}}, style, noise)
  np.testing.assert_allclose(image, stylegan2.doubled(before), atol=1e-4)
  assert np.abs(whole - image).max() > 0.01


def test_learning_is_equalised():
  """Weights have unit variance; by a constant they keep that of what comes."""
  x = draw(0, 64, 8, 8, 32)
  layer = stylegan2.Conv(48)
  v = layer.init(jax.random.key(0), x)
  assert np.std(v["params"]["kernel"]) == pytest.approx(1, rel=0.02)
  inner = layer.apply(v, x)[:, 1:-1, 1:-1]
  assert np.std(inner) == pytest.approx(1, rel=0.05)
  layer = stylegan2.Dense(300, bias=1.0, rate=0.01)
  v = layer.init(jax.random.key(0), x[:, 0, 0])
  assert np.std(v["params"]["kernel"]) == pytest.approx(100, rel=0.02)
  y = layer.apply(v, x[:, 0, 0])
  assert np.mean(y) == pytest.approx(1, abs=0.1)
  assert np.std(y) == pytest.approx(1, rel=0.1)


def test_discriminator_sees_the_class_and_its_group():
  net = stylegan2.Discriminator(WIDTHS, CLASSES, group=2)
  x, label = draw(0, 4, SIZE, SIZE, 1), np.arange(4, dtype=np.int32) % 2
  init = jax.jit(lambda *x: net.init(jax.random.key(0), *x, train=True))
  apply = jax.jit(lambda v, *x: net.apply(v, *x, train=True))
  v = init(x[:1], label[:1])
  logits = apply(v, x, label)
  assert logits.shape == (4,) and logits.dtype == jnp.float32
  assert (apply(v, x, 1 - label) != logits).all()
  other = x.copy()
  other[0] += draw(1, SIZE, SIZE, 1)
  found = apply(v, other, label)
  assert (found[:2] != logits[:2]).all()
  np.testing.assert_allclose(found[2:], logits[2:], atol=1e-5)

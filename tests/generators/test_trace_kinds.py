"""What leaves traces in real pictures: networks, and one way without any."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage

from jaxfake.generators import (
  trace_diffusion,
  trace_pieces,
  trace_upsampling,
  traces,
)
from jaxfake.models import trace_denoiser

CONFIG = ml_collections.ConfigDict(
  {"seed": 0, "steps": 5, "batch_size": 2, "crop": 16}
)


def pieces(n=3, side=112):
  rng = np.random.default_rng(0)
  found = []
  for _ in range(n):
    x = ndimage.gaussian_filter(rng.standard_normal((side, side)), 5)
    image = np.clip(128 + 40 * x / x.std(), 0, 255).astype(np.uint8)
    found.append(trace_pieces.Piece(image, "", "", "", ""))
  return found


@pytest.mark.parametrize("kind", traces.KINDS)
def test_a_kind_repeats_pieces_the_same_each_time_and_late_not_as_early(kind):
  index = traces.KINDS.index(kind)
  maker, spec = traces.maker(kind), traces.specs(len(traces.KINDS), 0)[index]
  assert spec.kind == kind
  real = pieces()
  found, errors = maker.train(CONFIG, index, spec, real)
  early, late = (maker.repeat(spec, params, real) for params in found)
  assert len(errors) == 2 and np.isfinite(errors).all()
  assert [x.shape for x in early] == [x.image.shape for x in real]
  assert all(x.dtype == np.uint8 for x in early)
  again = maker.repeat(spec, found[0], real)
  assert all(np.array_equal(a, b) for a, b in zip(early, again, strict=True))
  assert not any(np.array_equal(a, b) for a, b in zip(early, late, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_simulated_enlargement_keeps_what_is_shown(seed):
  """Whatever kernel is drawn: neither brightness nor shapes are lost."""
  image = pieces(1)[0].image
  found = trace_upsampling.enlarged_again(image, np.random.default_rng(seed))
  a, b = image.astype(float), found.astype(float)
  assert abs(a.mean() - b.mean()) < 4
  assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.985
  # The border is as good as the middle.
  assert np.abs(a - b)[[0, 1, -2, -1]].mean() < 7
  assert not np.array_equal(image, found)


def test_a_denoiser_is_preconditioned():
  """A picture without noise stays, and of one with noise the network that says
  nothing leaves the part that is likely the picture's: 0.25 / (0.25 + 1)."""
  net = trace_denoiser.TraceDenoiser(depth=1, width=4)
  x = jax.random.normal(jax.random.key(0), (2, 16, 16, 1)) / 2
  sigma = jnp.array([1e-4, 1.0])
  params = net.init(jax.random.key(1), x, sigma)
  clean, _ = net.apply(params, x, sigma)
  assert np.abs(np.asarray(clean - x[0])).mean() < 1e-3
  silent = jax.tree.map(jnp.zeros_like, params)
  assert np.allclose(net.apply(silent, x, sigma)[1], 0.2 * x[1], atol=1e-6)


def test_what_is_denoised_begins_with_noise_and_ends_near_the_picture():
  """By a network that knows the answer, ancestral or not."""
  image = jnp.full((4, 16, 16, 1), 0.25)

  class Knows(trace_diffusion.Spec):
    def network(self):
      return self

    def apply(self, params, x, sigma):
      del params, sigma
      assert float(jnp.abs(x - image).max()) > 1e-3
      return image

  for ancestral in (False, True):
    spec = Knows("diffusion", "nearest", 1, 4, ancestral)
    found = trace_diffusion.sampled(spec, None, image, jax.random.key(0))
    assert np.allclose(found, image, atol=1e-5)

"""The diffusion model's own: its preconditioning, its sampler, its network."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration
from jaxfake.data import pipeline
from jaxfake.generators import edm
from jaxfake.models import unet

CONFIG = CONFIGS / "edm.py:tiny"
SIGMAS = np.geomspace(0.002, 80, 25).astype(np.float32)


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


@pytest.mark.parametrize("sigma_data", [0.5, 0.2])
def test_edm_makes_unit_variance_of_inputs_and_targets(sigma_data):
  """Appendix B.6, of clean images y and noise n that are independent."""
  p, s = edm.edm(sigma_data, -1.2, 1.2), SIGMAS
  seen = p.scale(s) ** 2 * (sigma_data**2 + s**2)
  # target = (y - skip * (y + sigma * n)) / out
  y = (1 - p.skip(s)) ** 2 * sigma_data**2
  target = (y + (p.skip(s) * s) ** 2) / p.out(s) ** 2
  for found in (seen, target, p.weight(s) * p.out(s) ** 2):
    np.testing.assert_allclose(found, 1, rtol=2e-3)
  np.testing.assert_allclose(p.level(s), np.log(s) / 4, rtol=1e-5)
  drawn = np.log(p.draw(jax.random.key(0), 100_000))
  assert (drawn.mean(), drawn.std()) == pytest.approx((-1.2, 1.2), abs=0.02)


def test_ddpm_predicts_the_noise():
  p, s = edm.ddpm(), SIGMAS
  rng = np.random.default_rng(0)
  y, n = (rng.normal(size=s.shape).astype(np.float32) for _ in "yn")
  target = (y - p.skip(s) * (y + s * n)) / p.out(s)
  np.testing.assert_allclose(target, n, atol=2e-3)
  np.testing.assert_allclose(p.weight(s) * p.out(s) ** 2, 1, rtol=1e-5)
  np.testing.assert_allclose(p.scale(s) ** 2 * (1 + s**2), 1, rtol=1e-5)


def test_ddpm_has_the_levels_of_a_thousand_steps():
  """Ho et al., section 4: beta rises evenly from 1e-4 to 0.02."""
  p = edm.ddpm()
  kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
  s = np.sqrt((1 - kept) / kept).astype(np.float32)
  level = p.level(s)
  np.testing.assert_allclose(level[99:], np.arange(99, 1000), atol=4)
  drawn = p.level(p.draw(jax.random.key(0), 10_000))
  quarters = np.quantile(drawn, [0.25, 0.5, 0.75])
  np.testing.assert_allclose(quarters, [250, 500, 750], atol=20)


def sampler_config(steps, **changes):
  fields = dict(steps=steps, sigma_min=0.002, sigma_max=80.0, rho=7.0)
  return ml_collections.ConfigDict(fields | changes)


def test_levels_are_those_of_equation_5():
  found = edm.sigmas(sampler_config(3))
  middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
  np.testing.assert_allclose(found, [80, middle, 0.002, 0], rtol=1e-9)
  even = edm.sigmas(sampler_config(5, rho=1.0, sigma_min=16.0))
  np.testing.assert_allclose(even, [80, 64, 48, 32, 16, 0])


def test_heun_turns_noise_into_the_data_of_an_exact_denoiser():
  """Images are independent normal pixels: the best denoiser is known, and so
  is where the flow takes each x."""
  mean, deviation = 0.3, 0.5

  def slope(x, sigma):
    share = deviation**2 / (deviation**2 + sigma**2)
    return (x - (share * x + (1 - share) * mean)) / sigma

  x = 80 * jax.random.normal(jax.random.key(0), (50_000,))
  shrunk = deviation / np.sqrt(deviation**2 + 80**2)
  exact = mean * (1 - shrunk) + x * shrunk
  errors = []
  for steps in (36, 72):
    found = edm.heun(slope, x, edm.sigmas(sampler_config(steps)))
    errors.append(float(jnp.abs(found - exact).mean()))
    assert float(found.mean()) == pytest.approx(mean, abs=0.02)
    assert float(found.std()) == pytest.approx(deviation, rel=0.02)
  assert errors[0] < 0.01
  assert errors[1] < errors[0] / 3.5  # Of second order.


@pytest.mark.parametrize("size", unet.SIZES)
@pytest.mark.parametrize("patch", unet.PATCHES)
def test_shapes(size, patch):
  c = config(data__size=size, model__patch=patch, model__channels=3)
  c.model.smallest, c.model.attention = 8, 16
  edm.check(c)
  net, x = edm.network(c, ()), jnp.zeros((2, size, size, 3))
  made = lambda key: net.init_with_output(key, x, jnp.ones(2), train=False)[0]
  assert jax.eval_shape(made, jax.random.key(0)).shape == x.shape


def random(params):
  """Parameters that are not 0 where a new network has them so."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  draw = lambda k, x: x + 0.1 * jax.random.normal(k, x.shape)
  return jax.tree.unflatten(tree, map(draw, keys, leaves))


@pytest.fixture(scope="module")
def told():
  """A config with classes and random parameters."""
  c = config(model__conditional=True)
  state = jax.jit(edm.initial(c, ("a", "b")))(jax.random.key(0))
  return c, state, random(state.params)


def test_a_new_network_answers_0(told):
  c, state, _ = told
  precondition = edm.preconditioning(c)
  denoise = edm.denoiser(precondition, edm.network(c, ("a", "b")), train=False)
  x = jax.random.normal(jax.random.key(0), (2, 32, 32, 1))
  sigma = jnp.array([0.1, 3.0])
  found = jax.jit(denoise)(state.params, x, sigma, jnp.arange(2))
  skip = precondition.skip(sigma)[:, None, None, None]
  np.testing.assert_allclose(found, skip * x, rtol=1e-5)


def test_guidance_0_forgets_the_class(told):
  _, _, params = told
  index, label = np.arange(4, dtype=np.int32), np.arange(4) % 2

  def made(guidance, label):
    changed = config(model__conditional=True, sampler__guidance=guidance)
    sample = edm.sampler(changed, ("a", "b"))
    return np.asarray(sample(params, np.uint32(0), index, label), float)

  np.testing.assert_array_equal(made(0, label), made(0, 1 - label))
  plain, strong = made(1, label), made(2, label)
  assert (plain != made(1, 1 - label)).any()
  # Further the same way from what images of no class are.
  without = made(0, label)
  a, b = plain - without, strong - without
  assert np.abs(b).mean() > 1.2 * np.abs(a).mean() > 0
  assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("parametrisation", edm.PARAMETRISATIONS)
def test_it_learns_a_brightness(parametrisation):
  """All images are one bright gray. The first loss is that of a new network,
  which answers 0."""
  fast = dict(opt__lr=5e-3, ema=0.8, sampler__steps=12)
  c = config(parametrisation=parametrisation, **fast)
  task = edm.make(c, pipeline.Splits((), (), (), ()))
  state = jax.jit(task.init)(jax.random.key(0))
  step, losses = jax.jit(task.step), []
  image = np.full((4, 32, 32, 1), 230, np.uint8)
  batch = {"image": image, "label": np.zeros(4, np.int32)}
  for _ in range(120):
    state, seen = step(state, batch)
    losses.append(float(seen["loss"]))

  key = jax.random.fold_in(jax.random.key(0), 0)
  k_sigma, k_noise, *_ = jax.random.split(key, 4)
  p, y = edm.preconditioning(c), 230 / 127.5 - 1
  sigma = p.draw(k_sigma, 4)[:, None, None, None]
  noisy = y + sigma * jax.random.normal(k_noise, image.shape)
  error = p.weight(sigma) * (p.skip(sigma) * noisy - y) ** 2
  assert losses[0] == pytest.approx(float(error.mean()), rel=1e-4)
  assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
  if parametrisation == "edm":  # The other needs to learn for longer.
    index = np.arange(4, dtype=np.int32)
    made = edm.sampler(c, ())(state.ema, np.uint32(0), index, index)
    assert abs(float(made.mean()) - 230) < 40  # New ones: 127, of noise.

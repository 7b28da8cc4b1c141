"""The diffusion inpainter's own: its denoiser, its loss, what it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration
from jaxfake.generators import common, diffusion_inpainter, filling

CONFIG = CONFIGS / "diffusion_inpainter.py:tiny"
SIZE, N = 32, 4


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def masks():
  mask = np.zeros((N, SIZE, SIZE, 1), np.uint8)
  for i in range(N):
    mask[i, 8 : 18 + i, 10:20] = 255
  return mask


def batch(seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (N, SIZE, SIZE, 1)).astype(np.uint8)
  return {"image": image, "mask": masks(), "label": np.zeros(N, np.int32)}


@pytest.fixture(scope="module")
def state():
  """Of parameters that are not 0 where a new network has them so."""
  init = diffusion_inpainter.initial(config(), ())
  state = jax.jit(init)(jax.random.key(0))
  leaves, tree = jax.tree.flatten(state.params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  draw = lambda k, x: x + 0.1 * jax.random.normal(k, x.shape)
  return state.replace(params=tree.unflatten(map(draw, keys, leaves)))


SIGMA = np.array([0.02, 0.3, 2.0, 60.0], np.float32)


def test_the_denoiser_is_equation_7_in_the_region(state):
  c = config()
  denoise = jax.jit(diffusion_inpainter.denoiser(c, train=False))
  image, mask = filling.to_float(batch()["image"], masks())
  s = SIGMA[:, None, None, None]
  x = image + s * np.random.default_rng(1).normal(size=image.shape)
  x = x.astype(np.float32)
  found = denoise(state.params, x, SIGMA, image, mask)

  both = s**2 + c.sigma_data**2
  net = diffusion_inpainter.network(c)
  answer = jax.jit(functools.partial(net.apply, train=False))(
    {"params": state.params},
    mask * x / np.sqrt(both),
    np.log(SIGMA) / 4,
    beside=np.concatenate([(1 - mask) * image, mask], -1),
  )
  clean = c.sigma_data**2 / both * x
  clean += s * c.sigma_data / np.sqrt(both) * answer
  np.testing.assert_allclose(found, mask * clean, rtol=1e-3, atol=1e-4)
  # What is beneath the region and the noise beside it change nothing.
  inside = mask > 0
  beneath = np.where(inside, -image, image)
  same = denoise(state.params, np.where(inside, x, 7), SIGMA, beneath, mask)
  np.testing.assert_array_equal(same, found)
  other = denoise(state.params, x, SIGMA, -image, mask)
  assert jnp.abs(other - found).max((1, 2, 3)).min() > 1e-4


def test_the_loss_counts_the_region_alone(state, monkeypatch):
  """Equation 8 written out, row by row."""
  monkeypatch.setattr(
    diffusion_inpainter.augment, "turned", lambda key, *x: list(x)
  )
  c = config()
  after, seen = jax.jit(diffusion_inpainter.stepper(c))(state, batch())
  assert int(after.step) == 1
  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  _, k_sigma, k_noise, _ = jax.random.split(key, 4)
  image, mask = filling.to_float(batch()["image"], masks())
  normal = jax.random.normal(k_sigma, (N,))
  sigma = np.exp(c.noise.mean + c.noise.deviation * normal)
  noise = jax.random.normal(k_noise, image.shape)
  noisy = image + sigma[:, None, None, None] * noise
  denoise = jax.jit(diffusion_inpainter.denoiser(c, train=False))
  error = denoise(state.params, noisy, sigma, image, mask) - image
  rows = []
  for e, m, s in zip(np.asarray(error), masks(), sigma, strict=True):
    weight = (s**2 + c.sigma_data**2) / (s * c.sigma_data) ** 2
    rows.append(weight * (e[m > 0] ** 2).mean())
  assert float(seen["loss"]) == pytest.approx(np.mean(rows), rel=1e-3)


def test_it_copies_surroundings_that_tell_the_region():
  """Each window is one gray, its own: what is outside says what is inside."""
  c = config(opt__lr=5e-3, ema=0.8, noise__mean=0.0, sampler__steps=6)
  init = diffusion_inpainter.initial(c, ())
  state = jax.jit(init)(jax.random.key(0))
  step = jax.jit(diffusion_inpainter.stepper(c))
  rng = np.random.default_rng(0)

  def flat(grays):
    image = np.zeros((N, SIZE, SIZE, 1)) + grays[:, None, None, None]
    return {"image": image.astype(np.uint8), "mask": masks()}

  for _ in range(150):
    state, _ = step(state, flat(rng.integers(40, 216, N)))

  grays = np.array([60, 110, 150, 200])
  draw = filling.drawing(diffusion_inpainter.filler(c))
  index = np.arange(N, dtype=np.int32)
  made = draw(state.ema, np.uint32(0), index, *flat(grays).values())
  inside = masks() > 0
  means = [x[m].mean() for x, m in zip(np.asarray(made), inside, strict=True)]
  np.testing.assert_allclose(means, grays, atol=25)


def test_a_fill_follows_the_flow_of_an_exact_denoiser(monkeypatch):
  """Regions of independent normal pixels about the mean of the surroundings:
  the flow's end is known, for each pixel of the noise."""
  deviation = 0.2

  def denoiser(config, **_):
    def denoise(params, x, sigma, image, mask):
      s = sigma[:, None, None, None]
      outside = ((1 - mask) * image).sum((1, 2, 3)) / (1 - mask).sum((1, 2, 3))
      mean = outside[:, None, None, None]
      share = deviation**2 / (deviation**2 + s**2)
      return mask * (share * x + (1 - share) * mean)

    return denoise

  monkeypatch.setattr(diffusion_inpainter, "denoiser", denoiser)
  fill = diffusion_inpainter.filler(config(sampler__steps=48))
  image, mask = filling.to_float(batch()["image"], masks())
  level = jnp.array([-0.2, 0, 0.1, 0.3])[:, None, None, None]
  image = image * 0.1 + level
  noise = common.latents(0, jnp.arange(N), *image.shape[1:])
  made = fill({}, image, mask, noise)
  for x, y, m, n in zip(made, image, mask > 0, noise, strict=True):
    np.testing.assert_array_equal(x[~m], y[~m])
    want = float(y[~m].mean()) + deviation * n[m]
    np.testing.assert_allclose(x[m], np.clip(want, -1, 1), atol=0.02)

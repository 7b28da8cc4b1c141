"""The autoencoder's own: its losses, its shapes, its reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration
from jaxfake.data import pipeline
from jaxfake.data.sources import Rows
from jaxfake.generators import vae
from jaxfake.models import autoencoder
from jaxfake.runtime import devices, xla

CONFIG = CONFIGS / "vae.py:tiny"
CLASSES = "dark", "bright"
GRAYS = 60, 200


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def jitted(fn):
  return jax.jit(fn, compiler_options=xla.run_once_options())


def images(count: int, size: int = 32) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, size, size, 1), np.uint8)


def power(x) -> np.ndarray:
  """By NumPy's FFT, in float64."""
  whole = np.fft.fft2(np.asarray(x, float), axes=(1, 2), norm="ortho")
  return np.abs(whole) ** 2


def distance(x, y) -> float:
  half = [power(z)[:, : x.shape[1] // 2 + 1] for z in (x, y)]
  a, b = (np.log(z + (2 / 255) ** 2 / 12) for z in half)
  return np.abs(a - b).mean()


def test_spectrum_is_the_fft_s():
  x = images(3).astype(np.float32) / 127.5 - 1
  found = vae.spectrum(x)
  np.testing.assert_allclose(found, power(x)[:, :17], rtol=1e-3, atol=1e-5)


def test_spectral_distance_sees_power_and_no_phase():
  x = images(4).astype(np.float32) / 127.5 - 1
  assert float(vae.spectral_distance(x, x)) == 0
  moved = np.roll(x, (3, 5), (1, 2))
  assert float(vae.spectral_distance(x, moved)) < 1e-3
  twice = float(vae.spectral_distance(x, 2 * x))
  assert twice == pytest.approx(np.log(4), rel=1e-2)
  # What rounding to 8 bits would drown is as good as nothing.
  faint = 1e-5 * x
  assert float(vae.spectral_distance(faint, 0 * x)) < 0.01


def test_draws_and_their_divergence_are_of_the_same_normal():
  """KL by its definition, the mean of log q(z) - log p(z) over draws."""
  mean = np.full((1, 100, 100, 10), 0.7, np.float32)
  log_variance = np.full_like(mean, -1.2)
  z = np.asarray(vae.drawn(jax.random.key(0), mean, log_variance), float)
  deviation = np.exp(-0.6)
  assert z.mean() == pytest.approx(0.7, abs=0.01)
  assert z.std() == pytest.approx(deviation, rel=0.01)
  log_q = -(((z - 0.7) / deviation) ** 2) / 2 - np.log(deviation)
  defined = (log_q + z**2 / 2).sum()
  found = float(vae.divergence(mean, log_variance)[0])
  assert found == pytest.approx(defined, rel=0.02)
  assert float(vae.divergence(0 * mean, 0 * mean)[0]) == 0


@pytest.mark.parametrize("size", autoencoder.SIZES)
@pytest.mark.parametrize("halvings", [1, 3])
def test_shapes(size, halvings):
  c = config(data__size=size, model__halvings=halvings, model__channels=3)
  vae.check(c)
  side, image = size >> halvings, np.zeros((2, size, size, 1), np.uint8)
  assert vae.latent_shape(c) == (side, side, c.model.latents)

  def run(key):
    params = vae.initial(c, ())(key).params
    mean, log_variance = vae.encoder(c, ())(params, image, image[:, 0, 0, 0])
    return mean, log_variance, vae.decoder(c, ())(params, mean, None)

  *latents, again = jax.eval_shape(run, jax.random.key(0))
  assert {x.shape for x in latents} == {(2, *vae.latent_shape(c))}
  assert again.shape == (2, size, size, 3)
  assert again.dtype == jnp.float32


@pytest.mark.parametrize("reconstruction", vae.ERRORS)
def test_the_loss_is_that_of_its_definition(reconstruction):
  c = config(reconstruction=reconstruction, spectral=0.3, kl=0.7)
  image, label = images(4), np.zeros(4, np.int32)
  state = jitted(vae.initial(c, ()))(jax.random.key(0))
  encode, decode = vae.encoder(c, ()), vae.decoder(c, ())
  mean, log_variance = jitted(encode)(state.params, image, label)
  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  z = mean + np.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
  y = jitted(decode)(state.params, z, label)

  x = image / 127.5 - 1
  error = np.abs(y - x) if reconstruction == "l1" else (y - x) ** 2
  variance = np.exp(log_variance)
  kl = (mean**2 + variance - 1 - log_variance).sum() / 2 / x.size
  want = error.mean() + 0.3 * distance(x, y) + 0.7 * kl
  step = jitted(vae.stepper(c, ()))
  _, seen = step(state, {"image": image, "label": label})
  assert float(seen["loss"]) == pytest.approx(float(want), rel=1e-3)
  assert float(seen["kl"]) == pytest.approx(float(kl), rel=1e-3)


def test_it_learns_the_classes_it_is_told():
  """All images of a class are of one gray, and so is what is drawn for it."""
  c = config(model__conditional=True, opt__lr=5e-3, ema=0.8, spectral=0)
  state = jitted(vae.initial(c, CLASSES))(jax.random.key(0))
  step = jitted(vae.stepper(c, CLASSES))
  label = np.array([0, 1, 1, 0], np.int32)
  image = np.zeros((4, 32, 32, 1)) + np.array(GRAYS)[label, None, None, None]
  batch = {"image": image.astype(np.uint8), "label": label}
  for _ in range(150):
    state, seen = step(state, batch)
  assert float(seen["reconstruction"]) < 0.1
  index = np.arange(4, dtype=np.int32)
  drawn = vae.sampler(c, CLASSES)(state.ema, np.uint32(0), index, label)
  means = np.asarray(drawn, float).mean((1, 2, 3))
  np.testing.assert_allclose(means, np.array(GRAYS)[label], atol=25)


def test_reconstruction_is_measured_on_held_out_images():
  c = config(eval__images=3)
  test = Rows(image=images(6), label=np.zeros(6, np.int32))
  dataset = pipeline.Splits((), test, (), test)
  params = jitted(vae.initial(c, ()))(jax.random.key(0)).ema
  _, by_batch, _ = devices.mesh_and_shardings()
  gather = devices.gather_over(by_batch, c.batch_size)
  found = vae.repeating(c, dataset)(params, gather)

  image = images(6)[[0, 2, 4]]  # Spread over the set.
  both = lambda x: vae.network(c, ()).apply({"params": params}, x, None)
  y = np.asarray(jitted(both)(image.astype(np.float32) / 127.5 - 1))
  y = np.clip(np.round((y + 1) * 127.5), 0, 255)
  error = np.abs(image - y).mean()
  assert found["reconstruction_error"] == pytest.approx(error, abs=0.02)
  assert found["reconstruction_spectrum_gap_db"] > 0
  assert found["reconstructions"].ndim == 2

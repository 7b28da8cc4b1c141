"""Diffusion in latents: how they are scaled, whose autoencoder it is."""

import json
import shutil

import jax
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration, errors, main, sample
from jaxfake.data.sources import Rows
from jaxfake.generators import common, edm, latent_diffusion, vae
from jaxfake.runtime import devices, xla
from jaxfake.training import checkpoint, workdir

CONFIG = CONFIGS / "latent_diffusion.py:tiny"
VAE = CONFIGS / "vae.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def jitted(fn):
  return jax.jit(fn, compiler_options=xla.run_once_options())


def gather():
  _, by_batch, _ = devices.mesh_and_shardings()
  return devices.gather_over(by_batch, 4)


def test_moments_are_those_of_draws():
  rng = np.random.default_rng(0)
  mean = rng.normal([1, -2], [0.5, 2], (9, 4, 4, 2)).astype(np.float32)
  log_variance = rng.normal(-1, 1, mean.shape).astype(np.float32)
  encode = lambda params, image, label: (image, label)
  source = Rows(image=mean, label=log_variance)
  found = latent_diffusion.moments(encode, (), source, gather())
  noise = rng.normal(size=(4000, *mean.shape))
  z = mean + np.exp(log_variance / 2) * noise
  np.testing.assert_allclose(found[0], z.mean((0, 1, 2, 3)), atol=0.02)
  np.testing.assert_allclose(found[1], z.std((0, 1, 2, 3)), rtol=0.01)


def test_sampling_undoes_what_the_step_does_to_latents(monkeypatch):
  """The step hands on latents of mean 0 and deviation `sigma_data`; where the
  flow ends in them, sampling shows what the autoencoder makes of the images."""
  c = config(sigma_data=0.3)
  made = c, (), latent_diffusion.own(c)
  net, encode = vae.network(made[2], ()), vae.encoder(made[2], ())
  label = np.zeros(8, np.int32)
  image = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 1), np.uint8)
  params = jitted(vae.initial(made[2], ()))(jax.random.key(0)).params
  source = Rows(image=image, label=label)
  moments = latent_diffusion.moments(encode, params, source, gather())
  variables = latent_diffusion.Sampled((), params, *moments)

  learn = lambda state, x, label, key: (state, {"x": x})
  monkeypatch.setattr(edm, "learner", lambda *_: learn)
  monkeypatch.setattr(vae, "drawn", lambda key, mean, log_variance: mean)
  state = common.State(np.int32(0), (), (), variables)
  step = jitted(latent_diffusion.stepper(*made))
  x = np.asarray(step(state, {"image": image, "label": label})[1]["x"])
  np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-4)
  # With what draws would add to it.
  _, log_variance = jitted(encode)(params, image, label)
  variance = np.exp(log_variance).mean((0, 1, 2))
  whole = x.var((0, 1, 2)) / 0.3**2 + variance / variables.deviation**2
  np.testing.assert_allclose(whole, 1, rtol=1e-3)

  monkeypatch.setattr(edm, "flow", lambda *_: lambda *_: x)
  drawn = latent_diffusion.sampler(*made)(variables, 0, label, label)
  again = jitted(net.apply)(
    {"params": params}, image / np.float32(127.5) - 1, 0
  )
  want = np.clip((again + 1) * 127.5, 0, 255)
  np.testing.assert_allclose(drawn, want, atol=0.51)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
  """The folder of a finished run of a vae: as CONFIG trains its own, so that
  what is compiled for other tests serves."""
  path = tmp_path_factory.mktemp("vae") / "run"
  argv = [f"--config={VAE}", f"--workdir={path}", "--config.total_steps=2"]
  argv += ["--config.model.latents=4", "--config.kl=1e-6"]
  assert main.main(["", *argv]) == 0
  return path


def test_a_run_keeps_the_autoencoder_that_it_was_given(autoencoder, tmp_path):
  path, given = tmp_path / "run", tmp_path / "given"
  shutil.copytree(autoencoder, given)
  flags = [f"--config={CONFIG}", f"--config.autoencoder={given}"]
  flags += [f"--workdir={path}", "--config.total_steps=2"]
  flags += ["--config.model.conditional=True"]
  assert main.main(["", *flags]) == 0
  shutil.rmtree(given)
  assert main.main(["", *flags, "--config.total_steps=4"]) == 0
  made = latent_diffusion.load(path)
  assert made.step == 4
  result = json.loads((path / "result.json").read_text())
  assert made.sha256 == result["state_sha256"]
  ours = made._ema.autoencoder
  theirs = vae.load(autoencoder)._ema
  assert checkpoint.sha256(ours) == checkpoint.sha256(theirs)
  argv = f"--workdir={path} --out={tmp_path}/fakes --count=2 --batch=2"
  assert sample.main(argv.split()) == 0


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"data__size": 64}, "data.size is 64, and 32 in the run"),
    ({"data__phantom__seed": 1}, "data.phantom.seed is 1, and 0 in the run"),
    ({"model__channels": 3}, "model.channels is 3, and 1 in the run"),
    ({"model__smallest": 16}, "model.smallest is 16: expected one of 4, 8"),
  ],
)
def test_an_autoencoder_that_does_not_fit_is_refused(
  autoencoder, changes, named
):
  c = config(autoencoder=autoencoder, **changes)
  with pytest.raises(errors.ConfigError, match=named):
    latent_diffusion.check_given(c)


def test_an_autoencoder_of_other_images_is_refused(tmp_path):
  given = tmp_path / "given"
  given.mkdir()
  (given / "dataset.json").write_text('{"content_sha256": "of others"}')
  run = workdir.Workdir(tmp_path / "run")
  run.dataset = {"content_sha256": "ours"}
  c, path = config(autoencoder=given), tmp_path / "run/copy"
  with pytest.raises(errors.ConfigError, match="expected one on this data set"):
    latent_diffusion.copy(c, run, path)
  assert not path.exists()
  run.dataset = {"content_sha256": "of others"}
  latent_diffusion.copy(c, run, path)
  assert (path / "dataset.json").exists()


def test_what_is_no_finished_autoencoder_is_refused(tmp_path, autoencoder):
  c = config(autoencoder=tmp_path)
  with pytest.raises(errors.ConfigError, match=r"--config configs/vae\.py"):
    latent_diffusion.check_given(c)
  told = json.loads((autoencoder / "config.json").read_text())
  (tmp_path / "result.json").touch()
  for task, conditional, named in (
    ("gan", False, r"configs/vae\.py"),
    ("vae", True, "model.conditional is False and the autoencoder's True"),
  ):
    told["task"], told["model"]["conditional"] = task, conditional
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(errors.ConfigError, match=named):
      latent_diffusion.check_given(c)

r"""Diffusion in an autoencoder's latents at 64 px (Rombach et al. 2022), on the
phantom unless told otherwise.

    python -m jaxfake.main --config configs/latent_diffusion.py:quick
    python -m jaxfake.main --config configs/latent_diffusion.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.model.conditional=True --config.sampler.guidance=1.5

It trains its autoencoder first. To use one for several runs, train it by
configs/vae.py with the fields of `vae` below, and give its folder as
`autoencoder`.

`:quick` is for people with two CPU cores; `:tiny` is for tests: seconds.
The whole one is for a GPU or TPU. Neither `:quick` nor the whole one was run.

Measured: docs/train.md, Compare generators.
"""

import pathlib
import runpy

HERE = pathlib.Path(__file__).parent


def sibling(name, arg):
  return runpy.run_path(str(HERE / name))["get_config"](arg)


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = sibling("edm.py", arg)  # Of the diffusion, all but what follows.
  c.task = "latent_diffusion"
  c.model.patch = 1
  c.model.smallest = 4 if tiny else 8  # Latents a side, at the bottom.
  c.sigma_data = 0.5  # The deviation that latents are given.
  c.noise = dict(mean=-0.4, deviation=1.0)  # Karras et al., 2024.

  c.autoencoder = ""  # The folder of a finished run of vae.py; or of its own,
  c.vae = sibling("vae.py", arg)  # by these fields and those above.
  for name in ("task", "seed", "dtype", "only_class", "data", "tensorboard"):
    del c.vae[name]
  del c.vae.model.channels
  c.vae.total_steps = 2 if tiny else 1000 if quick else 50_000
  c.vae.model.halvings = 2  # 64 px become 16.
  c.vae.model.latents = 4
  c.vae.kl = 1e-6  # As in the paper, appendix G.
  return c


def sweep():
  yield {}
  for halvings in (2, 3):
    yield {"vae.model.halvings": halvings}
  for latents in (2, 4, 8):
    yield {"vae.model.latents": latents}
  for kl in (1e-6, 1e-3, 1e-1):
    yield {"vae.kl": kl}
  for spectral in (0.0, 0.01, 0.1):
    yield {"vae.spectral": spectral}
  for mean in (-1.2, -0.4, 0.4):
    yield {"noise.mean": mean}

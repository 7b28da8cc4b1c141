r"""A variational autoencoder at 64 px (Kingma and Welling 2014), on the phantom
unless told otherwise.

    python -m jaxfake.main --config configs/vae.py:quick
    python -m jaxfake.main --config configs/vae.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.model.conditional=True

`:quick` is for people with two CPU cores; `:tiny` is for tests: seconds.
The whole one is for a GPU or TPU. Neither `:quick` nor the whole one was run.

Measured: docs/train.md, Compare generators.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  small = quick or tiny
  c = ml_collections.ConfigDict()
  c.task = "vae"
  c.seed = 0
  c.batch_size = 4 if tiny else 32 if quick else 64  # Over all devices.
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 1000 if quick else 50_000
  c.only_class = ""  # Learn from the images of this class alone.

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data

  c.model = ml_collections.ConfigDict()
  c.model.width = 8 if tiny else 16 if quick else 64  # At the largest map.
  c.model.max_width = 8 if tiny else 64 if quick else 256
  # Of the sides, down to those of the latents: 64 px become 4.
  c.model.halvings = 2 if tiny else 4
  c.model.latents = 16  # Channels.
  c.model.channels = 1
  c.model.conditional = False  # Both networks on the class.

  c.reconstruction = "l1"  # Or l2: the error of a pixel in [-1, 1].
  # Weights beside it: of the distance of logarithmic spectra, and of the
  # latents' divergence from the prior in nats for each pixel.
  c.spectral = 0.01
  c.kl = 0.1

  c.opt = dict(lr=1e-3 if small else 2e-4, b1=0.9, b2=0.999)
  # Decay of the averaged network, which sampling uses.
  c.ema = 0.99 if small else 0.999

  c.eval = dict(images=8 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 20,
    preview=3 if tiny else 200 if quick else 5000,
    evaluate=3 if tiny else 500 if quick else 10_000,
    checkpoint=2 if tiny else 200 if quick else 2000,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for kl in (0.001, 0.01, 0.1, 1.0):
    yield {"kl": kl}
  for spectral in (0.0, 0.01, 0.1):
    yield {"spectral": spectral}
  for reconstruction in ("l1", "l2"):
    yield {"reconstruction": reconstruction}
  for halvings in (1, 2, 3):
    yield {"model.halvings": halvings}
  for latents in (4, 16, 64):
    yield {"model.latents": latents}

r"""A diffusion model at 64 px (Karras et al. 2022), on the phantom unless told
otherwise.

    python -m jaxfake.main --config configs/edm.py:quick
    python -m jaxfake.main --config configs/edm.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.model.conditional=True --config.sampler.guidance=1.5

`:quick` is for people: minutes on two CPU cores. `:tiny` is for tests: seconds.
The whole one is for a GPU or TPU; it was not run.

Measured: `:quick`, conditional, on real radiographs (Kermany et al., 2018), to
step 177 of 1,000 alone: the loss fell from 0.92 (first 20 steps) to 0.30, and
samples showed the outline of a chest under much noise. No distance was taken.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  small = quick or tiny
  c = ml_collections.ConfigDict()
  c.task = "edm"
  c.seed = 0
  c.batch_size = 4 if tiny else 32 if quick else 128  # Over all devices.
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 1000 if quick else 100_000
  c.only_class = ""  # Learn from the images of this class alone.

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data

  c.model = ml_collections.ConfigDict()
  c.model.width = 8 if tiny else 32 if quick else 64  # At the largest map.
  c.model.max_width = 8 if tiny else 64 if quick else 256
  c.model.blocks = 1 if small else 2  # At each side, on the way down.
  c.model.smallest = 16 if tiny else 8  # Pixels a side, at the bottom.
  # At sides of at most so many pixels.
  c.model.attention = 0 if tiny else 8 if quick else 16
  c.model.patch = 2 if small else 1  # Pixels a side that are channels of one.
  c.model.dropout = 0.0 if small else 0.1
  c.model.channels = 1
  c.model.conditional = False  # On the class.
  c.unlabelled = 0.1  # Of the images, when conditional; what guidance needs.

  c.parametrisation = "edm"  # Or ddpm: the network predicts the noise.
  c.sigma_data = 0.5  # Deviation of images in [-1, 1].
  c.noise = dict(mean=-1.2, deviation=1.2)  # Of ln(sigma) in training; of edm.
  c.sampler = dict(
    steps=3 if tiny else 12 if quick else 18,  # Two passes each, but the last.
    sigma_min=0.002,
    sigma_max=80.0,
    rho=7.0,
    guidance=1.0,  # Above 1: further from images of no class.
  )

  c.opt = dict(
    lr=1e-3 if small else 2e-4,
    b1=0.9,
    b2=0.999,
    warmup=2 if tiny else 100 if quick else 2000,  # Steps.
  )
  # Decay of the averaged network, which sampling uses.
  c.ema = 0.99 if small else 0.9995

  c.eval = dict(images=8 if tiny else 256 if quick else 2048)
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
  for parametrisation in ("edm", "ddpm"):
    yield {"parametrisation": parametrisation}
  for steps in (4, 8, 18, 32):
    yield {"sampler.steps": steps}
  for mean in (-1.8, -1.2, -0.6):
    yield {"noise.mean": mean}
  for patch in (1, 2):
    yield {"model.patch": patch}
  for lr in (2e-4, 5e-4, 1e-3):
    yield {"opt.lr": lr}

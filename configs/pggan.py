r"""A progressively grown GAN at 64 px (Karras et al. 2018), on the phantom
unless told otherwise.

    python -m jaxfake.main --config configs/pggan.py:quick
    python -m jaxfake.main --config configs/pggan.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.data.split=patient --config.model.conditional=True

`:quick` is for people: two CPU cores. `:tiny` is for tests: seconds. Neither
`:quick` nor the whole one was run through.

Measured once: a step of `:quick` takes 0.04, 0.15, 0.46, 0.77, 1.30 s of
processor time at 4, 8, 16, 32, 64 px (jaxlib 0.10.2, two Xeon cores shared with
others), and its program 12 to 23 s to compile. By that its 1,000 steps take 11
minutes of processor time, and 22 with grow.first=64.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "pggan"
  c.seed = 0
  c.critic_steps = 1  # To one of the generator's.
  # Over all devices, and over the critic's steps: each takes its part.
  c.batch_size = 8 if tiny else 16
  c.dtype = "float32"  # Of the convolutions; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 1000 if quick else 50_000
  c.only_class = ""  # Learn from the images of this class alone.

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data

  c.model = ml_collections.ConfigDict()
  c.model.name = "pggan"
  c.model.latents = 8 if tiny else 128 if quick else 256
  c.model.width = 2 if tiny else 16 if quick else 32  # At the largest map.
  c.model.max_width = 4 if tiny else 128 if quick else 512
  c.model.group = 2 if tiny else 4  # Images whose deviation is looked at.
  c.model.channels = 1
  c.model.conditional = False  # On the class.

  # Pixels a side that it begins with, data.size: it does not grow. Steps in
  # which the next resolution fades in, and steps between.
  c.grow = dict(
    first=16 if tiny else 4,
    fade=2 if tiny else 100 if quick else 5000,
    hold=1 if tiny else 100 if quick else 5000,
  )
  c.opt = dict(lr=1e-3, b1=0.0, b2=0.99)
  c.penalty = 10.0  # The gradient penalty's weight.
  c.drift = 1e-3  # Of the mean square of the reals' scores.
  c.augment = ""  # As of dcgan.py; at the resolution of the step.
  # Decay of the averaged generator, which sampling uses.
  c.ema = 0.98 if quick else 0.999

  c.eval = dict(images=32 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 10,
    preview=3 if tiny else 100 if quick else 1000,
    evaluate=3 if tiny else 500 if quick else 5000,
    checkpoint=2 if tiny else 100 if quick else 1000,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for first in (8, 16, 32):
    yield {"grow.first": first}
  for fade in (0, 100):
    yield {"grow.fade": fade}
  for drift in (0.0, 1e-3, 1e-2):
    yield {"drift": drift}
  for lr in (5e-4, 1e-3, 2e-3):
    yield {"opt.lr": lr}
  for width in (8, 16, 32):
    yield {"model.width": width}

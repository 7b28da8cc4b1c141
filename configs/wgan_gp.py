r"""WGAN-GP at 64 px (Gulrajani et al. 2017), on the phantom unless told
otherwise.

    python -m jaxfake.main --config configs/wgan_gp.py:quick
    python -m jaxfake.main --config configs/wgan_gp.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.only_class=NORMAL

`:quick` is for people: minutes on two CPU cores. `:tiny` is for tests: seconds.
The whole one has the paper's numbers; it was not run through.

Measured once: `:quick` at 32 px, lr 3e-4, 600 steps, seed 0, on 4,101 train
images of Kermany et al. (2018), on two EPYC cores shared with other work.
Fréchet distance in random filters 53, 22, 18 after 200, 400, 600 steps; of
held-out reals 6.2 (511 images each). `:quick` at 64 px was not run to its end.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "wgan_gp"
  c.seed = 0
  c.critic_steps = 2 if tiny else 5  # To one of the generator's.
  # Over all devices, and over the critic's steps: each takes its part.
  c.batch_size = 8 if tiny else 5 * 16 if quick else 5 * 64
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 400 if quick else 20_000  # The generator's.
  c.only_class = ""  # Learn from the images of this class alone.

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data

  c.model = ml_collections.ConfigDict()
  c.model.name = "wgan"
  c.model.latents = 128
  c.model.width = 4 if tiny else 32 if quick else 64  # At the largest map.
  c.model.max_width = 1024
  c.model.upsample = "transpose"  # Or resize.
  c.model.norm = "layer"  # Of the critic; or none.
  c.model.channels = 1
  c.model.conditional = False  # On the class.

  # Algorithm 1; a higher rate where steps are few.
  c.opt = dict(lr=3e-4 if quick else 1e-4, b1=0.0, b2=0.9)
  c.penalty = 10.0  # The gradient penalty's weight.
  c.augment = ""  # Of brightness,contrast,translation,cutout (DiffAugment),
  # affine,exposure,noise,flip.
  # Decay of the averaged generator, which sampling uses.
  c.ema = 0.98 if quick else 0.999

  c.eval = dict(images=32 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 10,
    preview=3 if tiny else 50 if quick else 500,
    evaluate=3 if tiny else 200 if quick else 2000,
    checkpoint=2 if tiny else 50 if quick else 500,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for penalty in (1.0, 10.0, 100.0):
    yield {"penalty": penalty}
  for critic_steps in (1, 2, 4):
    yield {"critic_steps": critic_steps}
  for norm in ("layer", "none"):
    yield {"model.norm": norm}
  for lr in (5e-5, 1e-4, 2e-4, 4e-4):
    yield {"opt.lr": lr}
  for width in (16, 32, 64):
    yield {"model.width": width}

r"""A small StyleGAN2 at 64 px (Karras et al. 2020) with adaptive augmentation,
on the phantom unless told otherwise.

    python -m jaxfake.main --config configs/stylegan2.py:quick
    python -m jaxfake.main --config configs/stylegan2.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.data.split=patient --config.model.conditional=True

`:quick` is for people: two CPU cores. `:tiny` is for tests: seconds. The whole
one was not run through.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "stylegan2"
  c.seed = 0
  c.batch_size = 8 if tiny else 16 if quick else 32  # Over all devices.
  c.dtype = "float32"  # Of the convolutions; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 1000 if quick else 50_000
  c.only_class = ""  # Learn from the images of this class alone.

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data

  c.model = ml_collections.ConfigDict()
  c.model.name = "stylegan2"
  c.model.latents = 8 if tiny else 128 if quick else 256
  c.model.width = 2 if tiny else 16 if quick else 32  # At the largest map.
  c.model.max_width = 4 if tiny else 128 if quick else 512
  c.model.mapping_layers = 2 if tiny else 4 if quick else 8
  c.model.group = 2 if tiny else 4  # Images whose deviation is looked at.
  c.model.channels = 1
  c.model.conditional = False  # On the class.

  c.opt = dict(lr=2e-3, b1=0.0, b2=0.99)
  # R1, half the paper's gamma, one step in so many. A CPU would compute it at
  # the other steps too (see xla.cond), so `:quick` has it at all of them.
  c.r1 = dict(weight=0.05, every=2 if tiny else 1 if quick else 16)
  # Path length regularisation, 2 in the authors' code; 0: none.
  c.path = dict(weight=0.0, every=8, decay=0.99)
  # What the discriminator sees with probability p, of dcgan.py's; "": nothing.
  c.augment = "brightness" if tiny else "affine,brightness,contrast"
  # ADA: every so many steps p rises where the mean sign of the real images'
  # logits is above the target, else it falls; 0 to 1 takes so many images.
  c.ada = dict(target=0.6, every=4, images=500_000)
  # Decay of the averaged generator, which sampling uses.
  c.ema = 0.99 if quick else 0.998

  c.eval = dict(images=32 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 16,  # Of r1.every, a multiple.
    preview=3 if tiny else 100 if quick else 1000,
    evaluate=3 if tiny else 500 if quick else 5000,
    checkpoint=2 if tiny else 100 if quick else 1000,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for weight in (0.0, 0.5, 5.0):
    yield {"r1.weight": weight}
  yield {"path.weight": 2.0}
  for augment in ("", "affine", "brightness,contrast"):
    yield {"augment": augment}
  for lr in (1e-3, 2e-3, 4e-3):
    yield {"opt.lr": lr}
  for width in (8, 16, 32):
    yield {"model.width": width}

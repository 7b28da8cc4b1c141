r"""CycleGAN at 64 px (Zhu et al. 2017), on the phantom unless told otherwise.

    python -m jaxfake.main --config configs/cyclegan.py:quick
    python -m jaxfake.main --config configs/cyclegan.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER \
      --config.data.split=patient

`:quick` is for people: minutes on two CPU cores. `:tiny` is for tests: seconds.
The whole one has the paper's numbers but for `ema`; it was not run through.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "cyclegan"
  c.seed = 0
  # Of each class, over all devices. The paper has 1.
  c.batch_size = 4 if tiny or quick else 1
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  # The rate falls evenly to 0 in the second half.
  c.total_steps = 6 if tiny else 400 if quick else 200_000
  # Both ways are learnt: from one class to the other and back.
  c.from_class = "NORMAL"
  c.to_class = "PNEUMONIA"

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  if tiny:
    c.data.phantom.seed = 6  # Both classes are among its two test patients.

  c.model = ml_collections.ConfigDict()
  c.model.width = 4 if tiny else 32 if quick else 64  # At the largest map.
  c.model.blocks = 1 if tiny else 3 if quick else 6  # Residual, at a quarter.
  # Pixels a side that a discriminator judges by themselves: 16, 34 or 70.
  c.model.patch = 16 if tiny else 34 if quick else 70
  c.model.channels = 1

  c.opt = dict(lr=2e-4, b1=0.5, b2=0.999)
  c.cycle = 10.0  # Weight of the error of there and back.
  c.identity = 5.0  # Of what a generator changes in images of its own class.
  c.history = 8 if tiny else 50  # Fakes kept for the discriminators.
  # Decay of the averaged generators, which sampling uses; 0 is the paper's.
  c.ema = 0.98 if quick else 0.999

  c.eval = dict(images=32 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 10 if quick else 100,
    preview=3 if tiny else 100 if quick else 5000,
    evaluate=3 if tiny else 200 if quick else 10_000,
    checkpoint=2 if tiny else 100 if quick else 5000,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for cycle in (1.0, 10.0, 30.0):
    yield {"cycle": cycle}
  for identity in (0.0, 5.0):
    yield {"identity": identity}
  for history in (1, 50):
    yield {"history": history}
  for patch in (16, 34, 70):
    yield {"model.patch": patch}
  for lr in (1e-4, 2e-4, 4e-4):
    yield {"opt.lr": lr}

r"""An inpainter at 64 px (Isola et al. 2017), on the phantom unless told
otherwise: it puts nodules in, or takes out what is in a region.

    python -m jaxfake.main --config configs/inpainter.py:quick
    python -m jaxfake.main --config configs/inpainter.py \
      --config.data.inpainting.fill=plain \
      --config.data.inpainting.real=chest_xray --config.data.dir=FOLDER

`:quick` is for people: minutes on two CPU cores. `:tiny` is for tests: seconds.
The whole one was not run through.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("dcgan.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "inpainter"
  c.seed = 0
  c.batch_size = 4 if tiny else 16 if quick else 64  # Over all devices.
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 600 if quick else 20_000

  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.name = "inpainting"  # Of which data.size are a window's pixels.
  c.data.split = "patient"
  if quick:
    c.data.phantom.images = 600
  # The kind of the originals, which `dir` holds; the size of the phantom's,
  # others are read as they are; nodule or plain: what regions are filled with;
  # sizes of their box.
  c.data.inpainting = dict(
    real="phantom",
    original_size=64 if tiny else 256,
    fill="nodule",
    least_mm=8.0,
    most_mm=40.0,
    seed=0,
  )

  c.model = ml_collections.ConfigDict()
  c.model.width = 4 if tiny else 16 if quick else 64  # At the largest map.
  # Pixels a side that the discriminator judges by themselves: 16, 34 or 70.
  c.model.patch = 16 if tiny else 34

  c.opt = dict(lr=2e-4, b1=0.5, b2=0.999)
  c.l1 = 100.0  # Weight of the error in the region.
  # Decay of the averaged generator, which fills.
  c.ema = 0.98 if quick else 0.999

  c.eval = dict(images=32 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 10 if quick else 100,
    preview=3 if tiny else 100 if quick else 2000,
    evaluate=3 if tiny else 300 if quick else 5000,
    checkpoint=2 if tiny else 100 if quick else 2000,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for fill in ("nodule", "plain"):
    yield {"data.inpainting.fill": fill}
  for weight in (1.0, 10.0, 100.0):
    yield {"l1": weight}
  for patch in (16, 34, 70):
    yield {"model.patch": patch}
  for lr in (1e-4, 2e-4, 4e-4):
    yield {"opt.lr": lr}

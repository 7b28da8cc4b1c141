r"""Where a radiograph was altered: a map, learnt from masks.

    python -m jaxfake.main --config configs/localizer.py:quick
    python -m jaxfake.main --config configs/localizer.py \
      --config.data.tampered.real=chest_xray --config.data.dir=FOLDER

`:quick` takes a few minutes on two cores; `:tiny` is for tests.

Measured: see docs/tampering.md, Localizers measured.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "localizer"
  c.seed = 0
  # Pairs, over all devices: a piece of a picture as it is, and altered.
  c.batch_size = 2 if tiny else 8
  c.total_steps = 4 if tiny else 300 if quick else 6000
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  # Pixels a side of the pieces, at the picture's own resolution, and the share
  # of pairs that are JPEGs.
  c.window = 32 if tiny else 128
  c.compressed = 0.5
  # Whole pictures that are mapped at the end, half of them altered, at most: of
  # test, and of validation, which gives the thresholds.
  c.most = 12 if tiny else 60 if quick else 1000
  c.most_val = 8 if tiny else 40 if quick else 400
  # Channels at the first of three sizes; doubled at each after it.
  c.model = dict(width=4 if tiny else 16)
  c.opt = dict(lr=2e-3, weight_decay=1e-2, warmup=0.1, clip=1.0)
  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.name = "tampered"
  c.data.fit = "native"
  # Of the phantom; others are read as they are.
  c.data.size = 64 if tiny else 192 if quick else 256
  c.data.phantom.images = 48 if tiny else 240 if quick else 1000
  c.data.tampered.binary = True
  c.data.tampered.draws = 1 if tiny else 2 if quick else 8
  often = 2 if tiny else 100 if quick else 500
  c.every = dict(
    log=2 if tiny else 50, preview=often, evaluate=often, checkpoint=often
  )
  c.tensorboard = False
  return c


def sweep():
  yield {}
  for share in (0.0, 1.0):
    yield {"compressed": share}
  for width in (8, 32):
    yield {"model.width": width}

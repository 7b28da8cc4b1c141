r"""Where a radiograph is unlike what its surroundings say: a map, learnt from
originals alone.

    python -m jaxfake.main --config configs/reconstruction.py:quick
    python -m jaxfake.main --config configs/reconstruction.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER

`:quick` takes a few minutes on two cores; `:tiny` is for tests.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "reconstruction"
  c.seed = 0
  c.batch_size = 4 if tiny else 16  # Windows, over all devices.
  c.total_steps = 4 if tiny else 400 if quick else 6000
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  # Pixels a side of the windows, at the picture's own resolution, how many
  # there are of each original, and the share of them that are JPEGs.
  c.window = 32 if tiny else 128
  c.draws = 1 if tiny else 4
  c.compressed = 0.5
  # Pixels a side of the squares that are hidden: every second along either axis
  # with a period of 2, so that a picture is looked at 4 times; or of 3, or 4.
  c.square = 4 if tiny else 8
  c.period = 2
  # Whole originals that are mapped at the end, at most: of test, and of
  # validation, which gives the thresholds.
  c.most = 4 if tiny else 40 if quick else 300
  c.most_val = 4 if tiny else 100 if quick else 400
  # Channels at the first of three sizes; doubled at each after it.
  c.model = dict(width=4 if tiny else 16)
  c.opt = dict(lr=2e-3, weight_decay=1e-2, warmup=0.1, clip=1.0)
  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.fit = "native"
  # Of the phantom; others are read as they are.
  c.data.size = 64 if tiny else 192 if quick else 256
  c.data.phantom.images = 48 if tiny else 1000
  often = 2 if tiny else 100 if quick else 500
  c.every = dict(
    log=2 if tiny else 50, preview=often, evaluate=often, checkpoint=often
  )
  c.tensorboard = False
  return c


def sweep():
  yield {}
  for square in (4, 16):
    yield {"square": square}
  yield {"period": 3}
  for share in (0.0, 1.0):
    yield {"compressed": share}

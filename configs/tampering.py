r"""Regions altered by plain methods, and which maps find them: that of missing
noise, that of a network that learnt from originals alone, and those of
localizers that learnt the method or only the others.

    python -m jaxfake.main --config configs/tampering.py:quick
    python -m jaxfake.main --config configs/tampering.py \
      --config.data.tampered.real=chest_xray --config.data.dir=FOLDER

`:quick` trains two localizers and takes some minutes on two cores; the whole
one trains eight. --config.left_out= trains none, and without
--config.reconstruct nothing is learnt. `:tiny` is for tests.

Measured: see docs/tampering.md, Measured.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")
LOCALIZER = SIBLING.with_name("localizer.py")
RECONSTRUCTION = SIBLING.with_name("reconstruction.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "tampering"
  c.seed = 0
  # Originals that are altered, at most: test, and validation, which gives the
  # threshold.
  c.most = 6 if tiny else 40 if quick else 150
  c.most_val = 3 if tiny else 15 if quick else 60
  c.sizes_mm = (16.0, 40.0) if tiny else (10.0, 20.0, 40.0)  # In turn.
  # As deliveries.DELIVERIES names them, by commas. What is touched up takes the
  # first alone.
  c.deliveries = "as it is,JPEG 90,JPEG 75,resize 0.5"
  if not tiny:
    c.deliveries += ",window"
  # A localizer is trained for each of these, by commas: without that method,
  # such as `inject nodule`, and `none` on all. "": no localizer.
  c.left_out = "none,remove harmonic"
  if not (quick or tiny):
    c.left_out = (
      "none,inject nodule,inject splice,inject copy-move,remove median,"
      "remove copy-move,remove harmonic,remove biharmonic"
    )
  # Of these its fields; its data are the experiment's.
  c.localizer = runpy.run_path(str(LOCALIZER))["get_config"](arg)
  del c.localizer.data, c.localizer.seed
  # Whether a network learns from the train originals alone; its fields alike.
  c.reconstruct = True
  c.reconstruction = runpy.run_path(str(RECONSTRUCTION))["get_config"](arg)
  del c.reconstruction.data, c.reconstruction.seed
  # A folder of pictures that others altered, such as CT, with labels.csv (file,
  # type, patient, x, y: the middle); and how near in pixels a peak has to be.
  c.centres = ""
  c.centres_px = 20.0
  # Two localizers learn half of their patients each, in so many steps, and are
  # measured on the other half; 0: none. They begin as the one of `none` in
  # left_out, where there is one.
  c.centres_steps = 4 if tiny else 120
  c.block = 5  # Pixels a side, over which the noise is measured.
  c.audited = 12 if tiny else 60 if quick else 150  # Originals of the audit.
  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.name = "tampered"
  # Of the phantom, and of the audit's pictures; others are altered as they are.
  c.data.size = 64 if tiny else 192 if quick else 256
  c.data.phantom.images = 120 if tiny else 240 if quick else 1000
  c.data.tampered.binary = True
  c.data.tampered.draws = 1 if tiny else 2 if quick else 8
  c.tensorboard = False
  return c

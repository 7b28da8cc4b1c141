r"""Regions altered by plain methods, and where their noise gives them away.

    python -m jaxfake.main --config configs/tampering.py:quick
    python -m jaxfake.main --config configs/tampering.py \
      --config.data.tampered.real=chest_xray --config.data.dir=FOLDER

`:quick` takes a few minutes on two cores; `:tiny` is for tests.

Measured: see docs/tampering.md, Measured.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


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
  c.block = 5  # Pixels a side, over which the noise is measured.
  c.audited = 12 if tiny else 60 if quick else 150  # Originals of the audit.
  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.name = "tampered"
  # Of the phantom, and of the audit's pictures; others are altered as they are.
  c.data.size = 64 if tiny else 192 if quick else 256
  c.data.phantom.images = 120 if tiny else 240 if quick else 1000
  c.data.tampered.binary = True
  c.tensorboard = False
  return c

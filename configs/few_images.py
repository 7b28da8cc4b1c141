r"""Fewer than 100 train images: reservoir, linear probes, HOG.

    python -m jaxfake.main --config configs/few_images.py:quick
    python -m jaxfake.main --config configs/few_images.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER

Measured: see docs/results.md, Fewer than 100 images.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  classifier = runpy.run_path(str(SIBLING))["get_config"](arg).lock()
  c = ml_collections.ConfigDict()
  c.task = "few_images"
  c.seed = 0
  c.programs = "reservoir,cnn_random,cnn_phantom,hog,pixels"
  c.sizes = (4, 8) if tiny else (10, 20, 50, 90)  # Images, of both classes.
  c.resamples = 3 if tiny else 5 if quick else 20
  c.data = classifier.data
  c.reservoir = classifier.reservoir
  c.phantom_run = classifier.copy_and_resolve_references().lock()
  c.phantom_run.data.phantom.seed = 1  # Other patients, where data is phantom.
  if not tiny:
    c.phantom_run.epochs = 5.0
    c.phantom_run.data.phantom.images = 2000
  c.tensorboard = False
  return c

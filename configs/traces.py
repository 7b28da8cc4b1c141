r"""Aligned fakes: real pictures, repeated by many small networks.

    python -m jaxfake.main --config configs/traces.py:quick
    python -m jaxfake.main --config configs/traces.py \
      --config.data.name=many_sources --config.data.dir=FOLDER

The run's folder is a data set of its own, of real pieces and their repetitions
(data.name=many_sources), for configs/forensic.py. `:tiny` is for tests.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "traces"
  c.seed = 0
  # Of eleven kinds in turn; each repeats pictures as it is after 2/5 of its
  # steps and at their end.
  c.networks = 2 if tiny else 11 if quick else 33
  c.validation = 2 if tiny else 5  # Every so many repeat validation and test.
  c.steps = 4 if tiny else 150 if quick else 500
  c.batch_size = 4 if tiny else 12
  c.crop = 16 if tiny else 48  # Pixels a side, of what a network learns from.
  c.pictures = 20 if tiny else 200 if quick else 600  # Of a source, at most.
  c.learn_from = ""  # Sources that networks learn from, by commas; all.
  c.repetitions = 6 if tiny else 40 if quick else 180  # By a network.
  # The reals: of many_sources, or all images of another set.
  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.size = 128
  c.data.phantom.images = 80 if tiny else 400
  c.data.phantom.nodules = False
  c.tensorboard = False
  return c

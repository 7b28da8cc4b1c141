r"""A detector that reads pictures at their own resolution. Needs many sources.

    python -m jaxfake.main --config configs/forensic.py \
      --config.data.dir=FOLDER,TRACES

FOLDER holds {real,fake}/SOURCE/ or is given as HOSPITAL=FOLDER of reals; TRACES
is the folder of a run of configs/traces.py on them. `:quick` and `:tiny` draw
fewer crops.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "forensic"
  c.seed = 0
  c.pictures = 12 if tiny else 200 if quick else 800  # Of a source, at most.
  c.each = 4  # Crops of a picture.
  # Of these, behind random deliveries. None: they lowered the mean AUC on what
  # is unseen, even after deliveries (docs/many_sources.md).
  c.delivered = 0
  # Of the scatter of pictures about the mean of reals, beside that of crops.
  c.picture_scatter = 30.0
  # Share of the fakes' weight, where there are aligned ones (traces), of those
  # that are not. They always help to settle the thresholds.
  c.unaligned = 0.0
  c.ridge = 0.1  # Added to each number's variance, which is 1.
  c.rank = 20 if tiny else 60  # Directions in which reals scatter.
  # On sources left out: at most so many beyond the thresholds.
  c.held = 12 if tiny else 60 if quick else 120  # Pictures of a source.
  c.reals_called_fake = 0.01  # Of any hospital.
  c.fakes_called_real = 0.1  # Of any kind.
  c.data = runpy.run_path(str(SIBLING))["get_config"](arg).data
  c.data.name = "many_sources"
  c.data.fit = "native"
  c.tensorboard = False
  return c

r"""The detector that comes with the program, made anew, with its model card.

    python -m jaxfake.main --config configs/ship.py --workdir runs/ship \
      --config.data.dir=FOLDER,HOSPITAL=FOLDER2 \
      --config.data.many_sources.licences="CC BY,MIT"

Traces of the reals (configs/traces.py), a detector (configs/forensic.py), what
it does on sources left out (configs/protocol.py), and of these a folder,
WORKDIR/shipped, for jaxfake/shipped. `:quick` and `:tiny` are smaller.
"""

import pathlib
import runpy

import ml_collections

HERE = pathlib.Path(__file__).parent


def get_config(arg=""):
  of = lambda name: runpy.run_path(str(HERE / f"{name}.py"))["get_config"](arg)
  c = ml_collections.ConfigDict()
  c.task = "ship"
  # Of these, `data` is not looked at: all have the one below.
  c.traces, c.detector, c.protocol = (
    of("traces"),
    of("forensic"),
    of("protocol"),
  )
  c.data = of("forensic").data
  c.fakes = ""  # More for data.dir, of fakes alone: no traces are made of them.
  c.leave_out = True  # False: no protocol, most of the time it takes.
  c.tensorboard = False
  return c

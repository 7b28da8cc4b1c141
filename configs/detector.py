r"""A detector: real or fake. Needs fakes that jaxfake.sample made.

    python -m jaxfake.main --config configs/detector.py:quick \
      --config.data.real_or_fake.fakes=samples
    python -m jaxfake.main --config configs/detector.py \
      --config.data.real_or_fake.real=chest_xray --config.data.dir=FOLDER \
      --config.data.real_or_fake.fakes=samples

The fakes' generator must have been split by patient as this is. All fields are
configs/classifier.py's. `:tiny` is for tests.

launch/sweep.py trains it with and without the canonical path, and without each
of its steps, and tests it on images that took the same path. A higher figure
without it is a leak, not a better detector.
"""

import pathlib
import runpy

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  c = runpy.run_path(str(SIBLING))["get_config"](arg).lock()
  c.data.name = "real_or_fake"
  # The fakes' size, and off its grids.
  c.data.real_or_fake.via = 32 if arg == "tiny" else 64
  c.data.size = c.data.real_or_fake.via * 9 // 8
  if arg == "tiny":  # A frame of 2 pixels would be too narrow.
    c.data.real_or_fake.frame = 1 / 8
  return c


def sweep():
  own = "data.real_or_fake."
  yield {}
  yield {own + "via": 0, own + "frame": 0.0, own + "equalise": False}
  for step, off in (("via", 0), ("frame", 0.0), ("equalise", False)):
    yield {own + step: off}

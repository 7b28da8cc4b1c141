r"""A detector on generators and hospitals that it never saw.

    python -m jaxfake.main --config configs/protocol.py:quick \
      --config.data.dir=FOLDER,TRACES

Data and detector are configs/forensic.py's. `:quick` has one seed and fewer
pictures; `:tiny` is for tests.
"""

import pathlib
import runpy

SIBLING = pathlib.Path(__file__).with_name("forensic.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = runpy.run_path(str(SIBLING))["get_config"](arg)
  c.task = "protocol"
  c.seeds = 1 if quick or tiny else 3  # Of the crops that are drawn.
  c.most = 12 if tiny else 60 if quick else 150  # Whole pictures of a source.
  # Of the networks that it is set beside; 0: it is set beside none.
  c.peer_steps = 4 if tiny else 150 if quick else 1200
  c.most_delivered = 4 if tiny else 12 if quick else 30  # After each delivery.
  return c

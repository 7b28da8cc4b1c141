"""What desktops leave in folders is known by name."""

import pytest

from jaxfake.runtime import litter

LITTER = """
.DS_Store ._a.png ._.DS_Store __MACOSX Thumbs.db THUMBS.DB ehthumbs.db
Desktop.ini $RECYCLE.BIN @eaDir .Spotlight-V100 .Trash-1000 .directory
.nfs000000000000a1b2 .~lock.a.csv# ~$a.xlsx lost+found
"""
DATA = """
a.png .a.png _a.png desktop.png thumbs.png NORMAL 1.2.826.0.1 IM0001 ._ ~
Thumbs.db.png x.DS_Store
"""


@pytest.mark.parametrize(
  "name", [*LITTER.split(), "System Volume Information", "Icon\r"]
)
def test_litter(name):
  assert litter.is_litter(name)


@pytest.mark.parametrize("name", [*DATA.split(), "\udcff.png", ""])
def test_no_litter(name):
  assert not litter.is_litter(name)

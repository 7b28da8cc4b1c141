"""What desktops leave in folders is known by name."""

import pytest

from jaxfake.data import litter


@pytest.mark.parametrize(
  "name",
  ".DS_Store ._a.png ._.DS_Store __MACOSX Thumbs.db THUMBS.DB ehthumbs.db"
  " Desktop.ini $RECYCLE.BIN @eaDir .Spotlight-V100 .Trash-1000 .directory"
  " .nfs000000000000a1b2 .~lock.a.csv# ~$a.xlsx lost+found".split()
  + ["System Volume Information", "Icon\r"],
)
def test_litter(name):
  assert litter.is_litter(name)


@pytest.mark.parametrize(
  "name",
  "a.png .a.png _a.png desktop.png thumbs.png NORMAL 1.2.826.0.1 IM0001 ._ ~"
  " Thumbs.db.png x.DS_Store \udcff.png".split(),
)
def test_no_litter(name):
  assert not litter.is_litter(name)

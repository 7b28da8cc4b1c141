"""Names that desktops and file servers leave in folders, never a user's data.

One rule for all that walk a folder: what it names is passed over and counted.
"""

import re

# Whole names, in lower case.
_NAMES = frozenset(
  {
    # macOS.
    ".ds_store",
    "__macosx",
    ".appledouble",
    ".appledb",
    ".appledesktop",
    ".apdisk",
    ".documentrevisions-v100",
    ".fseventsd",
    ".localized",
    ".lsoverride",
    ".spotlight-v100",
    ".temporaryitems",
    ".trash",
    ".trashes",
    ".volumeicon.icns",
    "icon\r",
    "network trash folder",
    "temporary items",
    # Windows.
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    # Linux.
    ".directory",
    ".thumbnails",
    "lost+found",
    # File servers.
    "@eadir",
    "@recycle",
    "#recycle",
    "#snapshot",
  }
)
_PATTERNS = re.compile(
  r"\._."  # AppleDouble: what macOS keeps of a file elsewhere.
  r"|\.trash-\d+$"
  r"|\.nfs[0-9a-f]{8,}$"
  r"|\.fuse_hidden[0-9a-f]+$"
  r"|\.~lock\..*#$"  # LibreOffice has the file open; Office, below.
  r"|~\$.",
  re.IGNORECASE | re.DOTALL,
)


def is_litter(name: str) -> bool:
  """Whether a file's or folder's own name (no path) is a system's, not data."""
  return name.lower() in _NAMES or bool(_PATTERNS.match(name))

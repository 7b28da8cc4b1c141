"""What desktops leave in folders, which nobody put there on purpose."""

_NAMES = {".ds_store", "thumbs.db", "desktop.ini", ".localized"}


def is_litter(name: str) -> bool:
  """Whether a file of this name is a desktop's own: macOS's or Windows'."""
  return name.lower() in _NAMES or name.startswith("._")

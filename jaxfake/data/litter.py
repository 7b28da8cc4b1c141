"""What desktops leave in folders: no file of the user's."""

_NAMES = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}


def is_litter(name: str) -> bool:
  """Of a file's or folder's own name. AppleDouble files start with `._`."""
  return name.lower() in _NAMES or name.startswith("._")

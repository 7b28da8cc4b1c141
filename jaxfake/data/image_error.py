"""Why a file is no image that is read."""

import pathlib

MAX_PIXELS = 64_000_000  # The largest detectors have about 18 million.


class ImageError(ValueError):
  """A file that cannot be read as an image: `path`, and `reason` in words."""

  def __init__(self, path: str | pathlib.Path, reason: str):
    super().__init__(f"{path}: {reason}")
    self.path, self.reason = str(path), reason

  def __reduce__(self):  # So that it crosses a process pool whole.
    return ImageError, (self.path, self.reason)

"""One entry of a folder -> its record. Light: decoding workers import it."""

import dataclasses
import hashlib
import io

import numpy as np
from PIL import Image

from jaxfake.data import folders, image_error, image_file


@dataclasses.dataclass(frozen=True)
class Png:
  """An image made ready: PNG bytes, (h, w), and its source's sha256."""

  data: bytes
  shape: tuple[int, int]
  sha256: bytes


def png(image: np.ndarray) -> bytes:
  """uint8 (h, w) -> PNG bytes, weakly compressed: it is read every epoch."""
  out = io.BytesIO()
  Image.fromarray(image).save(out, "PNG", compress_level=1)
  return out.getvalue()


def place(entry: folders.Entry) -> str:
  """Where an entry is, for messages."""
  record = "" if entry.record is None else f"[{entry.record}]"
  return f"{entry.path}{record}"


def read_entry(entry: folders.Entry) -> dict | image_error.ImageError:
  """Returns an entry's record, or the ImageError, for the builder to list."""
  try:
    if entry.record is None:
      data = image_file.read_bytes(entry.path)
    else:
      from jaxfake.data import generated  # With ArrayRecord's reader.

      data = generated.read_bytes(entry)
    image = image_file.read(data)
  except image_error.ImageError as error:
    return image_error.ImageError(place(entry), error.reason)
  digest = hashlib.sha256(data).digest()
  return {
    "image": Png(png(image), image.shape, digest),
    "label": entry.label,
    "patient": entry.patient,
    "id": entry.id,
    **entry.extra,
  }

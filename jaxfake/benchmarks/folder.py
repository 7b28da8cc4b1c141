"""A folder of JPEG files, for the cases that read some."""

import io
import pathlib

SIZE = 224  # Pixels a side, as in the common copy of Kermany's set.


def make(folder: pathlib.Path, count: int) -> None:
  """Draws so many phantoms, in a folder for each class."""
  from jaxfake.data import work

  with work.processes() as pool:
    for i, (name, data) in enumerate(work.in_order(pool, jpeg, range(count))):
      place = folder / name / f"person{i}_phantom.jpeg"
      place.parent.mkdir(parents=True, exist_ok=True)
      place.write_bytes(data)


def jpeg(index: int) -> tuple[str, bytes]:
  """A phantom's class and its file."""
  from PIL import Image

  from jaxfake.data.phantom import anatomy

  drawn = anatomy.radiograph(0, index, size=SIZE, nodules=False)
  out = io.BytesIO()
  Image.fromarray(drawn["image"]).save(out, "JPEG", quality=92)
  return ("NORMAL", "PNEUMONIA")[int(drawn["label"])], out.getvalue()

"""Pictures people look at: grids, neighbours, curves; uint8 arrays and PNG."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

GAP, CAPTION = 2, 14  # Pixels.


def to_gray(images: np.ndarray) -> np.ndarray:
  """(n, h, w, c) uint8 to (n, h, w): the mean of the channels."""
  return images.mean(-1).round().astype(np.uint8)


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
  """Images (n, h, w) side by side, row by row, as one white-gapped picture."""
  n, h, w = images.shape
  rows = -(-n // columns)
  page = np.full(
    (rows * (h + GAP) - GAP, columns * (w + GAP) - GAP), 255, np.uint8
  )
  for i, image in enumerate(images):
    y, x = divmod(i, columns)
    y, x = y * (h + GAP), x * (w + GAP)
    page[y : y + h, x : x + w] = image
  return page


def captioned(blocks: list[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
  """Captioned pictures (h, w) in rows of `columns`, each cell as its largest.

  Used for real beside fake (columns), one row of blocks for each class.
  """
  h = max(b.shape[0] for _, b in blocks) + CAPTION
  w = max(b.shape[1] for _, b in blocks)
  rows = -(-len(blocks) // columns)
  margin = 4 * GAP
  page = Image.new(
    "L", (columns * (w + margin) + margin, rows * (h + margin) + margin), 255
  )
  draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
  for i, (caption, block) in enumerate(blocks):
    row, column = divmod(i, columns)
    x, y = margin + column * (w + margin), margin + row * (h + margin)
    draw.text((x, y - 2), caption, fill=0, font=font)
    page.paste(Image.fromarray(block), (x, y + CAPTION))
  return np.asarray(page)


def neighbours(
  queries: np.ndarray, found: np.ndarray, distances: np.ndarray
) -> np.ndarray:
  """Each fake (n, h, w) over its nearest real ones (n, k, h, w), with their
  root-mean-square distances in gray levels (n, k)."""
  n, k = found.shape[:2]
  cells = []
  for i in range(n):
    cells.append(("fake", queries[i]))
  for j in range(k):
    for i in range(n):
      cells.append((f"rms {distances[i, j]:.1f}", found[i, j]))
  return captioned(cells, n)


def curves(
  x: np.ndarray, lines: dict[str, np.ndarray], xlabel: str, ylabel: str
) -> np.ndarray:
  """A line plot as RGB (h, w, 3)."""
  # Half a second to import, needed only when a run evaluates.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
  canvas = backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots()
  for name, y in lines.items():
    axes.plot(x, y, label=name)
  axes.set(xlabel=xlabel, ylabel=ylabel)
  axes.grid(alpha=0.3)
  axes.legend()
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(
  path: pathlib.Path, picture: np.ndarray, text: dict[str, str] | None = None
) -> None:
  """Writes (h, w) or (h, w, 3) uint8 as PNG, with text chunks, atomically."""
  info = PngImagePlugin.PngInfo()
  for key, value in (text or {}).items():
    info.add_text(key, value)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + ".part")
  Image.fromarray(picture).save(part, "PNG", pnginfo=info)
  part.replace(path)

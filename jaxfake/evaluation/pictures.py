"""Pictures people look at: grids, neighbours, curves; uint8 arrays and PNG."""

from collections.abc import Sequence
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

GAP, CAPTION = 2, 14  # Pixels.


def to_gray(images: np.ndarray) -> np.ndarray:
  """(n, h, w, c) uint8 to (n, h, w): the mean of the channels."""
  return images.mean(-1).round().astype(np.uint8)


def enlarged(image: np.ndarray, least: int) -> np.ndarray:
  """An image (h, w) repeated to at least so many pixels a side."""
  times = -(-least // min(image.shape))
  return image.repeat(times, 0).repeat(times, 1)


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
  queries: np.ndarray, nearest: np.ndarray, distances: np.ndarray
) -> np.ndarray:
  """Each fake (n, h, w) over its nearest real ones (n, k, h, w), with their
  root-mean-square distances in gray levels (n, k)."""
  n, k = nearest.shape[:2]
  cells = []
  for i in range(n):
    cells.append(("fake", queries[i]))
  for j in range(k):
    for i in range(n):
      cells.append((f"rms {distances[i, j]:.1f}", nearest[i, j]))
  return captioned(cells, n)


def _figure(width: float, height: float, **subplots):
  """A Matplotlib figure in inches, its axes, and how to get its pixels."""
  # Half a second to import, needed only when a run evaluates.
  import matplotlib
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  matplotlib.rcParams["text.parse_math"] = False  # A name may have dollars.
  figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
  canvas = backend_agg.FigureCanvasAgg(figure)

  def pixels() -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()

  return figure.subplots(**subplots), pixels


def curves(
  x: np.ndarray, lines: dict[str, np.ndarray], xlabel: str, ylabel: str
) -> np.ndarray:
  """A line plot as RGB (h, w, 3)."""
  axes, pixels = _figure(6, 4)
  for name, y in lines.items():
    axes.plot(x, y, label=name)
  axes.set(xlabel=xlabel, ylabel=ylabel)
  axes.grid(alpha=0.3)
  axes.legend()
  return pixels()


def bands(lines: dict[str, list], xlabel: str, ylabel: str) -> np.ndarray:
  """Lines {name: (x, mean, low, high)} in bands, as RGB (h, w, 3)."""
  axes, pixels = _figure(6, 4)
  for name, (x, mean, low, high) in lines.items():
    (line,) = axes.plot(x, mean, marker="o", markersize=3, label=name)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.12)
  axes.set(xlabel=xlabel, ylabel=ylabel)
  axes.grid(alpha=0.3)
  axes.legend()
  return pixels()


def roc(lines: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """ROC curves {name: (fpr, tpr)} as RGB (h, w, 3)."""
  axes, pixels = _figure(4.5, 4.5)
  axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
  for name, (fpr, tpr) in lines.items():
    axes.plot(fpr, tpr, label=name)
  axes.set(xlabel="false positive rate", ylabel="true positive rate")
  axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
  axes.grid(alpha=0.3)
  axes.legend(loc="lower right")
  return pixels()


def reliability(lines: dict[str, tuple]) -> np.ndarray:
  """Accuracy over confidence, {name: (confidence, accuracy, count)} of bins,
  as RGB (h, w, 3); a point's area tells how many images its bin holds."""
  axes, pixels = _figure(4.5, 4.5)
  axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
  for name, (confidence, accuracy, count) in lines.items():
    (line,) = axes.plot(confidence, accuracy, label=name, alpha=0.7)
    area = 10 + 190 * count / max(count.sum(), 1)
    axes.scatter(confidence, accuracy, s=area, color=line.get_color())
  axes.set(xlabel="confidence", ylabel="accuracy")
  axes.set(xlim=(0, 1.02), ylim=(0, 1.05), aspect="equal")
  axes.grid(alpha=0.3)
  axes.legend(loc="upper left")
  return pixels()


def intervals(groups: dict[str, list[tuple]], xlabel: str) -> np.ndarray:
  """Figures {group: [(name, value, low, high)]}, each name's groups side by
  side, with their intervals, as RGB (h, w, 3)."""
  names = [name for name, *_ in next(iter(groups.values()))]
  axes, pixels = _figure(7, 1.2 + 0.45 * len(names))
  for i, (group, points) in enumerate(groups.items()):
    _, value, low, high = zip(*points, strict=True)
    value = np.array(value)
    y = np.arange(len(names)) + 0.16 * (i - (len(groups) - 1) / 2)
    error = np.maximum([value - low, high - value], 0)
    axes.errorbar(value, y, xerr=error, fmt="o", capsize=3, label=group)
  axes.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
  axes.set_yticks(range(len(names)), names)
  axes.grid(alpha=0.3)
  axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(groups))
  return pixels()


def confusion(table: np.ndarray, classes: Sequence[str]) -> np.ndarray:
  """Counts (k, k), rows the true class, as RGB (h, w, 3)."""
  side = 2.2 + 0.8 * len(classes)
  axes, pixels = _figure(side, side)
  share = table / np.maximum(table.sum(1, keepdims=True), 1)
  axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
  for i, j in np.ndindex(*table.shape):
    color = "white" if share[i, j] > 0.6 else "black"
    text = f"{table[i, j]}\n{share[i, j]:.1%}"
    axes.text(j, i, text, ha="center", va="center", color=color)
  axes.set(xlabel="called", ylabel="true")
  axes.set_xticks(range(len(classes)), classes)
  axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
  return pixels()


def matrix(
  values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str
) -> np.ndarray:
  """Values (r, c) from 0 to 1 with their rows' and columns' names, as RGB
  (h, w, 3); none where a value is NaN."""
  axes, pixels = _figure(2.5 + 1.1 * len(columns), 1.8 + 0.5 * len(rows))
  axes.imshow(values, cmap="RdYlGn", vmin=0.4, vmax=1, aspect="auto")
  for i, j in np.ndindex(*values.shape):
    if np.isfinite(values[i, j]):
      axes.text(j, i, f"{values[i, j]:.3f}", ha="center", va="center")
  axes.set_xticks(range(len(columns)), columns, rotation=20, ha="right")
  axes.set_yticks(range(len(rows)), rows)
  axes.set(xlabel="reals", ylabel="fakes", title=title)
  return pixels()


def scatter(
  groups: dict[str, list[tuple]], xlabel: str, ylabel: str
) -> np.ndarray:
  """Named points {group: [(name, x, y, low, high)]}, x on a log scale, as RGB
  (h, w, 3)."""
  from adjustText import adjust_text
  from matplotlib import ticker

  axes, pixels = _figure(9, 5.5)
  labels = []
  for group, points in groups.items():
    if not points:
      continue
    names, x, y, low, high = zip(*points, strict=True)
    x, y = np.array(x), np.array(y)
    error = np.maximum([y - low, high - y], 0)
    axes.errorbar(x, y, error, fmt="o", capsize=2, alpha=0.8, label=group)
    for name, at_x, at_y in zip(names, x, y, strict=True):
      labels.append(axes.text(at_x, at_y, name, fontsize=7))
  axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  axes.margins(x=0.12)  # Room for the names.
  axes.grid(alpha=0.3)
  lines = dict(arrowstyle="-", color="gray", lw=0.5)
  adjust_text(labels, ax=axes, arrowprops=lines)
  if any(groups.values()):
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.1), ncols=len(groups))
  return pixels()


class Panel(NamedTuple):
  """Values of several seeds at each setting, {setting: values}."""

  xlabel: str
  ylabel: str
  points: dict[str, list[float]]
  floors: list[float]  # What could be reached at each setting; or none.
  ordered: bool  # Whether the settings are numbers in order: joined by a line.


def panels(rows: list[list[Panel]]) -> np.ndarray:
  """Panels as RGB (h, w, 3): means with their sd, beside them each seed."""
  grid, pixels = _figure(
    4.5 * len(rows[0]),
    3.4 * len(rows),
    nrows=len(rows),
    ncols=len(rows[0]),
    squeeze=False,
  )
  for axes, panel in zip(grid.flat, sum(rows, []), strict=True):
    beside = 0.03 * len(panel.points)
    for i, values in enumerate(panel.points.values()):
      axes.plot([i + beside] * len(values), values, ".", color="0.5")
    of = {i: x for i, x in enumerate(panel.points.values()) if x}
    axes.errorbar(
      list(of),
      [np.mean(x) for x in of.values()],
      [np.std(x, ddof=1) if len(x) > 1 else 0 for x in of.values()],
      fmt="o-" if panel.ordered else "o",
      capsize=3,
    )
    if panel.floors:
      axes.plot(panel.floors, ":", color="0.5", label="held-out real")
      axes.legend()
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    axes.set(xlim=(-0.5, len(panel.points) - 0.5))
    widest = max(len(y) for x in panel.points for y in x.split("\n"))
    long = widest * len(panel.points) > 60
    turned = dict(rotation=20, ha="right") if long else {}
    axes.set_xticks(range(len(panel.points)), list(panel.points), **turned)
    axes.grid(alpha=0.3)
  return pixels()


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

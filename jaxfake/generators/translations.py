"""How good translations of one class into the other are: by held-out images,
there and back."""

from collections.abc import Callable

import numpy as np

from jaxfake import contracts
from jaxfake.data import matching, pipeline, sources
from jaxfake.evaluation import pictures
from jaxfake.generators import common, measure
from jaxfake.runtime import xla

BOTH = range(2)
SHOWN_IMAGES = 8  # Of each class in a preview.


class Measures(measure.Measures):
  """A task's `evaluate` and `preview`, by held-out images."""

  def __init__(
    self,
    config: contracts.Config,
    dataset: pipeline.Splits,
    translate: Callable,
  ):
    """`dataset` are pipeline.Splits of two classes; `translate(params, x,
    label)` makes images (b, s, s, c) in [-1, 1] of these labels."""
    labels = np.asarray(dataset.held_out.column("label"))
    self._held = [np.flatnonzero(labels == k) for k in BOTH]
    self._held_out, self._names = dataset.held_out, dataset.classes

    @xla.jit
    def draw(params, batch):
      x = common.to_float(config, batch["image"])
      y = translate(params, x, 1 - batch["label"])
      return common.to_gray(common.to_uint8(y))

    @xla.jit
    def there_and_back(params, batch):
      x, label = common.to_float(config, batch["image"]), batch["label"]
      there = translate(params, x, 1 - label)
      back = translate(params, there, label)
      return [common.to_gray(common.to_uint8(y)) for y in (x, there, back)]

    # The class mix is that of train images. As many as there are originals for,
    # so that none is translated twice.
    train = dataset.train.column("label")
    share = min(len(self._held[1 - k]) / train.count(k) for k in BOTH)
    limit = min(config.eval.images, int(share * len(train)))
    drawer = lambda state: lambda batch: draw(state.ema, batch)
    super().__init__(dataset, limit, (), drawer, self._originals)
    self._there_and_back = lambda state: (
      lambda batch: there_and_back(state.ema, batch)
    )

  def _originals(self, label) -> sources.Subset:
    """Held-out images to make images of these classes of."""
    rows = np.zeros(len(label), np.intp)
    for k in BOTH:
      here = np.flatnonzero(label == k)
      rows[here] = matching.evenly(self._held[1 - k], len(here))
    return sources.Subset(self._held_out, rows)

  def _cycles(self, state, gather, count: int) -> list[tuple]:
    """Originals, translated, and back, of so many of each class."""
    return [
      gather(
        self._there_and_back(state),
        sources.Subset(
          self._held_out, matching.evenly(held, min(count, len(held)))
        ),
      )
      for held in self._held
    ]

  def evaluate(self, state: contracts.Tree, gather: Callable) -> dict:
    """Those of measure.Measures, and mean absolute differences in gray levels:
    `cycle_error` from an image to itself there and back, `change` to itself
    translated."""
    values = super().evaluate(state, gather)
    cycles = self._cycles(state, gather, max(1, self._limit // 2))
    apart = lambda x, y: np.abs(x.astype(np.float32) - y).mean()
    return values | {
      "cycle_error": np.mean([apart(x, back) for x, _, back in cycles]),
      "change": np.mean([apart(x, there) for x, there, _ in cycles]),
    }

  def preview(
    self, state: contracts.Tree, gather: Callable
  ) -> dict[str, np.ndarray]:
    """Originals, translated, and back, a row each."""
    cells = []
    cycles = self._cycles(state, gather, SHOWN_IMAGES)
    for k, rows in enumerate(cycles):
      names = self._names[k], f"made {self._names[1 - k]}", "made back"
      for name, x in zip(names, rows, strict=True):
        cells.append((name, pictures.sheet(x[..., 0], SHOWN_IMAGES)))
    return {"preview": pictures.captioned(cells, 1)}

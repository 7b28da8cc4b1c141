"""What inpainters share: what they learn from, how they are measured, and what
a trained one does. contracts.Inpainter says what that is.

Each family has a `fill(params, image, mask, noise)`: float32 pictures
(n, s, s, 1) in [-1, 1] whose region alone, where the mask is 1, is the
network's. It may call compiled programs in turn. A fill is a function of its
noise, one picture of normal deviates.

What is measured and sampled is made of held-out windows, never of train images.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
import operator
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import contracts, errors
from jaxfake.data import feed, inpainting, matching, pipeline, sources
from jaxfake.data.tampered import blending
from jaxfake.evaluation import pictures
from jaxfake.generators import common, measure, translator
from jaxfake.training import loop, workdir
from jaxfake.training.task import Task

SHOWN_IMAGES = 8  # In a preview.


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values of what all inpainters have."""
  if config.data.name != "inpainting":
    raise errors.ConfigError(
      f"data.name is {config.data.name!r}: task {config.task} learns from the"
      " windows of inpainting"
    )
  inpainting.check(config.data.inpainting)
  common.check_learning(config)


def to_float(image: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """uint8 pictures to [-1, 1], and their masks to 0 and 1."""
  return image.astype(jnp.float32) / 127.5 - 1, (mask > 0).astype(jnp.float32)


@jax.jit
def _asked(seed, index, image, mask):
  """What `fill` is given of uint8 pictures and masks (n, s, s, 1)."""
  x, mask = to_float(image, mask)
  return x, mask, common.latents(seed, index, *x.shape[1:])


_to_uint8 = jax.jit(common.to_uint8)


def drawing(fill: Callable) -> Callable:
  """`draw(params, seed, index, image, mask)`: uint8 (n, s, s, 1) of pictures
  and masks alike; the noise of each is a function of (seed, index)."""
  return lambda params, *of: _to_uint8(fill(params, *_asked(*of)))


class Measures(measure.Measures):
  """A task's `evaluate` and `preview`, by held-out windows."""

  def __init__(
    self, config: contracts.Config, dataset: pipeline.Splits, fill: Callable
  ):
    """`dataset` are pipeline.Splits of windows."""
    draw, seed = drawing(fill), np.uint32(config.seed)
    rows = operator.itemgetter("index", "image", "mask")
    drawer = lambda state: lambda batch: draw(state.ema, seed, *rows(batch))
    limit = min(config.eval.images, len(dataset.held_out))
    super().__init__(dataset, limit, (), drawer, self._windows)
    self._fill = drawer

  @functools.cached_property
  def _held(self) -> sources.Rows:
    """Held-out windows and their places, read once."""
    index = np.arange(len(self._dataset.held_out), dtype=np.int32)
    return sources.Rows(index=index, **pipeline.arrays(self._dataset.held_out))

  def _windows(self, label) -> sources.Subset:
    """Held-out windows of pictures of these classes."""
    held = np.asarray(self._dataset.held_out.column("label"))
    rows = np.zeros(len(label), np.intp)
    for k in np.unique(label):
      here = np.flatnonzero(label == k)
      rows[here] = matching.evenly(np.flatnonzero(held == k), len(here))
    return sources.Subset(self._held, rows)

  @functools.cached_property
  def _error_harmonic(self) -> float:
    """Of the smoothest membrane, which learns nothing."""
    some = sources.spread(self._held, self._limit)
    items = [some[i] for i in range(self._limit)]
    return apart(
      (blending.harmonic(x["image"][..., 0], x["mask"][..., 0] > 0), x)
      for x in items
    )

  def evaluate(self, state: contracts.Tree, gather: Callable) -> dict:
    """Those of measure.Measures, and `region_error`, the mean absolute
    difference in gray levels in held-out regions, beside a harmonic fill's."""
    values = super().evaluate(state, gather)
    some = sources.spread(self._held, self._limit)
    fakes = gather(self._fill(state), some)
    pairs = ((fakes[i, ..., 0], some[i]) for i in range(len(some)))
    return values | {
      "region_error": apart(pairs),
      "region_error_harmonic": self._error_harmonic,
    }

  def preview(
    self, state: contracts.Tree, gather: Callable
  ) -> dict[str, np.ndarray]:
    """Held-out windows, what is seen of them, and filled, a row each."""
    some = sources.spread(self._held, SHOWN_IMAGES)
    fakes = gather(self._fill(state), some)[..., 0]
    items = [some[i] for i in range(len(some))]
    real, mask = (
      np.stack([x[name][..., 0] for x in items]) for name in ("image", "mask")
    )
    rows = {"real": real, "seen": np.where(mask > 0, 0, real), "filled": fakes}
    cells = [(k, pictures.sheet(x, SHOWN_IMAGES)) for k, x in rows.items()]
    return {"preview": pictures.captioned(cells, 1)}


def apart(pairs: Iterable) -> float:
  """The mean over (gray (s, s), item) of how far the gray levels are from the
  item's image in its region."""
  return float(
    np.mean(
      [
        np.abs(gray - item["image"][..., 0].astype(np.float64))[
          item["mask"][..., 0] > 0
        ].mean()
        for gray, item in pairs
      ]
    )
  )


def task(
  config: contracts.Config,
  dataset: pipeline.Splits,
  init: Callable,
  step: Callable,
  fill: Callable,
) -> Task:
  """The task of a first state, a step, and what fills by its average."""
  measures = Measures(config, dataset, fill)
  return Task(init, step, measures.evaluate, measures.preview)


def prepare(
  make: Callable,
  config: contracts.Config,
  splits: pipeline.Splits,
  run: workdir.Workdir,
) -> Callable[[], int]:
  """What trains `make(config, splits)`, a Task, and returns an exit code, ready
  to be called."""
  splits = splits.reading("image", "mask", "label")
  made = make(config, splits)
  run.keep(translator.FILE, translator.packed(splits.held_out))
  return lambda: loop.train(config, made, splits.train, run)


class Inpainter(common.Trained):
  """A trained inpainter: contracts.Inpainter. Image i is a held-out window that
  its run keeps, filled; no window comes again before all have come."""

  conditional = False

  def __init__(
    self,
    fill: Callable,
    config: contracts.Config,
    classes: Sequence[str],
    state: Any,
    windows: contracts.Items,
  ):
    super().__init__(drawing(fill), config.task, config, classes, state)
    self.kind = inpainting.FILLS[config.data.inpainting.fill]
    self._fill, self._windows = fill, windows

  def _chosen(self, seed: int, index: np.ndarray) -> np.ndarray:
    n = len(self._windows)
    return feed.order(seed, 0, n)[index % n]

  def sample(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> jax.Array:
    del label
    items = [self._windows[int(i)] for i in self._chosen(seed, index)]
    image, mask = (np.stack([x[k] for x in items]) for k in ("image", "mask"))
    return self.drawn((np.uint32(seed),), index, image, mask)

  def origins(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> list[dict]:
    del label
    ids, patients = map(self._windows.column, translator.FACTS)
    chosen = self._chosen(seed, index)
    return [{"original": ids[i], "patient": patients[i]} for i in chosen]

  def fill(
    self, image: np.ndarray, mask: np.ndarray, noise: np.ndarray
  ) -> np.ndarray:
    """See contracts.Inpainter."""
    x = image, mask.astype(np.float32), noise
    rows = (part[None, ..., None] for part in x)
    return np.asarray(self._fill(self._ema, *rows))[0, ..., 0]


def load(
  initial: Callable, filler: Callable, path: pathlib.Path, step: int | None
) -> Inpainter:
  """The inpainter of a run's folder, by its family's `initial(config, classes)`
  and `filler(config)`. Raises ConfigError: see common.restored."""
  config, classes, state = common.restored(path, initial, step)
  windows = translator.Originals(path)
  return Inpainter(filler(config), config, classes, state, windows)

"""The family `inpainter`: a region of a radiograph filled given its
surroundings (data.name=inpainting).

A conditional GAN (Isola et al., 2017, "Image-to-Image Translation with
Conditional Adversarial Networks", arXiv:1611.07004), whose equations and
sections are named below. CT-GAN (Mirsky et al., 2019, arXiv:1901.03597) puts
nodules into CT scans and takes them out by two such networks.

The paper's noise is dropout. Here it is a picture of normal deviates, so that a
fill is a function of it.

What is measured and sampled is made of held-out windows, never of train images.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfake import contracts, errors
from jaxfake.data import feed, inpainting, matching, pipeline, sources
from jaxfake.data.tampered import blending
from jaxfake.evaluation import pictures
from jaxfake.generators import common, gan, measure, translator
from jaxfake.models import inpainter
from jaxfake.nn import layers
from jaxfake.runtime import devices, xla
from jaxfake.training import augment, loop, workdir
from jaxfake.training.task import Task

CONFIG = "inpainter.py"
SHOWN = ("region_error", "frechet_random_filters", "kernel_random_filters")
SHOWN_IMAGES = 8  # In a preview.
summary = common.summary


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  if config.data.name != "inpainting":
    raise errors.ConfigError(
      f"data.name is {config.data.name!r}: task inpainter learns from the"
      " windows of inpainting"
    )
  inpainting.check(config.data.inpainting)
  errors.check_choice("data.size", config.data.size, inpainter.SIZES)
  inpainter.check(config.model)
  common.check_learning(config)
  common.require_at_least(config, "l1", 0)


def networks(
  config: contracts.Config,
) -> tuple[inpainter.Generator, inpainter.Discriminator]:
  """The generator and discriminator modules of a config."""
  return inpainter.networks(config.model, layers.DTYPES[config.dtype])


def initial(config: contracts.Config, classes: Sequence[str]) -> Callable:
  """`init(key) -> gan.State`."""
  del classes  # It is told none.
  adam = common.optimiser(config)
  x = jnp.zeros((1, config.data.size, config.data.size, 1))

  def init(key) -> gan.State:
    def network(net, key):
      params = net.init(key, x, x, x)["params"]
      return gan.Network({"params": params}, adam.init(params))

    g, d = map(network, networks(config), jax.random.split(key))
    # Donated to the step, so it must not share buffers with the parameters.
    ema = jax.tree.map(jnp.copy, g.params)
    return gan.State(jnp.zeros((), jnp.int32), g, d, ema)

  return init


def to_float(image: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """uint8 pictures to [-1, 1], and their masks to 0 and 1."""
  return image.astype(jnp.float32) / 127.5 - 1, (mask > 0).astype(jnp.float32)


def applied(net: nn.Module, params: contracts.Tree, *inputs: jax.Array) -> Any:
  return net.apply({"params": params}, *inputs)


def filled(
  net: nn.Module,
  params: contracts.Tree,
  image: jax.Array,
  mask: jax.Array,
  noise: jax.Array,
) -> jax.Array:
  """Pictures (b, s, s, 1) whose region alone is the network's."""
  return jnp.where(mask > 0, applied(net, params, image, mask, noise), image)


def region_error(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean absolute difference in the regions of a batch: equation 3, which
  the paper takes over whole pictures."""
  return (jnp.abs(x - y) * mask).sum() / mask.sum()


def stepper(config: contracts.Config) -> Callable:
  """`step(state, batch) -> (state, metrics)`: the discriminator's update,
  equation 1, halved as in section 3.3, then the generator's through the new
  discriminator, equation 4."""
  generator, discriminator = networks(config)
  adam = common.optimiser(config)
  _, by_batch, _ = devices.mesh_and_shardings()

  def step(state: gan.State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_turn, k_noise = jax.random.split(key)
    real, mask = to_float(
      *augment.turned(k_turn, batch["image"], batch["mask"])
    )
    # XLA by itself has every device fill the whole batch.
    noise = jax.lax.with_sharding_constraint(
      jax.random.normal(k_noise, real.shape), by_batch
    )
    g, d = state.generator, state.discriminator

    score = lambda params, x: applied(discriminator, params, real, mask, x)

    def d_loss(params):
      on_real, on_fake = score(params, real), score(params, fake)
      loss = jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean()
      return loss / 2, {
        "d_real": jax.nn.sigmoid(on_real).mean(),
        "d_fake": jax.nn.sigmoid(on_fake).mean(),
      }

    def g_loss(fake):
      terms = {
        "adversarial": jax.nn.softplus(-score(d.params, fake)).mean(),
        "l1": config.l1 * region_error(fake, real, mask),
      }
      return sum(terms.values()), terms

    # One forward pass of the generator serves both networks' updates.
    fake, pull_back = jax.vjp(
      lambda params: filled(generator, params, real, mask, noise), g.params
    )
    (loss, seen), gradient = jax.value_and_grad(d_loss, has_aux=True)(d.params)
    # Norms, so that a NaN is seen in the step whose update it would spoil.
    seen |= {"d_loss": loss, "d_gradient": optax.tree.norm(gradient)}
    d = gan.updated(adam, d, gradient, {})
    gradient, terms = jax.grad(g_loss, has_aux=True)(fake)
    (gradient,) = pull_back(gradient)
    seen |= {f"g_loss_{name}": value for name, value in terms.items()}
    seen["g_gradient"] = optax.tree.norm(gradient)
    g = gan.updated(adam, g, gradient, {})
    ema = common.averaged(config.ema, state.step, state.ema, g.params)
    return gan.State(state.step + 1, g, d, ema), seen

  return step


def filling(config: contracts.Config) -> Callable:
  """`fill(params, seed, index, image, mask)`: uint8 (n, s, s, 1) of pictures
  and masks alike; the noise of each is a function of (seed, index)."""
  generator, _ = networks(config)

  def fill(params, seed, index, image, mask):
    x, mask = to_float(image, mask)
    noise = common.latents(seed, index, *x.shape[1:])
    return common.to_uint8(filled(generator, params, x, mask, noise))

  return fill


class Measures(measure.Measures):
  """A task's `evaluate` and `preview`, by held-out windows."""

  def __init__(self, config: contracts.Config, dataset: pipeline.Splits):
    """`dataset` are pipeline.Splits of windows."""
    fill = filling(config)

    @xla.jit
    def draw(params, batch):
      index, image, mask = batch["index"], batch["image"], batch["mask"]
      return fill(params, np.uint32(config.seed), index, image, mask)

    drawer = lambda state: lambda batch: draw(state.ema, batch)
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

  def _some(self, most: int) -> sources.Subset:
    every = np.arange(len(self._held))
    some = matching.evenly(every, min(most, len(every)))
    return sources.Subset(self._held, some)

  @functools.cached_property
  def _error_harmonic(self) -> float:
    """Of the smoothest membrane, which learns nothing."""
    items = [self._some(self._limit)[i] for i in range(self._limit)]
    return apart(
      (blending.harmonic(x["image"][..., 0], x["mask"][..., 0] > 0), x)
      for x in items
    )

  def evaluate(self, state: gan.State, gather: Callable) -> dict:
    """Those of measure.Measures, and `region_error`, the mean absolute
    difference in gray levels in held-out regions, beside a harmonic fill's."""
    values = super().evaluate(state, gather)
    some = self._some(self._limit)
    fakes = gather(self._fill(state), some)
    pairs = ((fakes[i, ..., 0], some[i]) for i in range(len(some)))
    return values | {
      "region_error": apart(pairs),
      "region_error_harmonic": self._error_harmonic,
    }

  def preview(
    self, state: gan.State, gather: Callable
  ) -> dict[str, np.ndarray]:
    """Held-out windows, what is seen of them, and filled, a row each."""
    some = self._some(SHOWN_IMAGES)
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


def make(config: contracts.Config, dataset: pipeline.Splits) -> Task:
  """The task of learning to fill the windows of a data set.

  `dataset` are pipeline.Splits that read image, mask and label.
  """
  measures = Measures(config, dataset)
  return Task(
    initial(config, dataset.classes),
    stepper(config),
    measures.evaluate,
    measures.preview,
  )


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the networks and returns an exit code, ready to be called."""
  splits = splits.reading("image", "mask", "label")
  task = make(config, splits)
  run.keep(translator.FILE, translator.packed(splits.held_out))
  return lambda: loop.train(config, task, splits.train, run)


class Inpainter(common.Trained):
  """A trained inpainter: contracts.Inpainter. Image i is a held-out window that
  its run keeps, filled; no window comes again before all have come."""

  conditional = False

  def __init__(
    self,
    config: contracts.Config,
    classes: Sequence[str],
    state: gan.State,
    windows: contracts.Items,
  ):
    super().__init__(
      xla.jit(filling(config)), config.task, config, classes, state
    )
    self.kind = inpainting.FILLS[config.data.inpainting.fill]
    self._windows = windows
    self._fill = xla.jit(functools.partial(filled, networks(config)[0]))

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


def load(path: pathlib.Path, step: int | None = None) -> Inpainter:
  """The inpainter of a run's folder. Raises ConfigError: see
  common.restored."""
  config, classes, state = common.restored(path, initial, step)
  return Inpainter(config, classes, state, translator.Originals(path))


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return {
    "fill": config.data.inpainting.fill,
    "width": config.model.width,
    "patch": config.model.patch,
    "l1": config.l1,
  }

"""Our side of each case: the programs that a user runs, called in a loop.

`make(case, folder)` returns `run(n)`, which does n batches (of `detect`: the
folder, whatever n), waits for their end and returns the number of images.
"""

from collections.abc import Callable
import functools
import itertools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import contracts, data
from jaxfake.benchmarks import cases
from jaxfake.benchmarks.cases import Case
from jaxfake.classifiers import detector, features, neural
from jaxfake.classifiers import registry as programs
from jaxfake.data import feed, pipeline, sources, work
from jaxfake.evaluation.verdicts import VERDICTS
from jaxfake.generators import (
  common,
  edm,
  gan,
  registry,
  stylegan2,
  wgan_gp,
)
from jaxfake.runtime import devices, provenance, xla
from jaxfake.training import loop

STEPS = 10_000  # Of the learning rate's schedule.
GENERATORS = {
  "gan": gan,
  "wgan_gp": wgan_gp,
  "stylegan2": stylegan2,
  "edm": edm,
}


def about(_: object) -> dict:
  """What there is to run on."""
  device = jax.devices()[0]
  return {
    "platform": device.platform,
    "device": device.device_kind,
    "version": jax.__version__,
    "environment": provenance.environment(),
  }


def peak_mb() -> float | None:
  """The most device memory held so far; None where that is the host's."""
  stats = jax.devices()[0].memory_stats() or {}
  peak = stats.get("peak_bytes_in_use")
  return peak and peak / 1e6


def config(case: Case, **changes: Any) -> contracts.Config:
  return cases.config(case, jax.default_backend(), **changes)


def make(case: Case, folder: pathlib.Path) -> Callable[[int], int]:
  return KINDS[case.kind](case, folder)


class Labelled(sources.Rows):
  """As many labels as classes, which look like a prepared split."""

  @property
  def features(self) -> dict[str, str]:
    return {"label": "integer"}

  def column(self, name: str) -> list[int]:
    return list(range(len(self)))


def images(case: Case, n: int) -> np.ndarray:
  """Smooth noise, uint8 (n, s, s, 1)."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (n, case.size // 8, case.size // 8, 1))
  return coarse.astype(np.uint8).repeat(8, 1).repeat(8, 2)


def training(case: Case, _: object) -> Callable[[int], int]:
  c = config(case)
  n, none = c.batch_size, sources.NOTHING
  if case.family:
    family = GENERATORS[case.family]
    learn = family.make(c, pipeline.Splits(("a", "b"), none, none, none))
  else:
    labels = Labelled(label=np.arange(case.classes))
    classes = tuple(map(str, range(case.classes)))
    learn = neural.make(c, pipeline.Splits(classes, labels, none, none), STEPS)
  labels = np.arange(n, dtype=np.int32) % case.classes
  rows = sources.Rows(image=images(case, n), label=labels)
  mesh, _, everywhere = devices.mesh_and_shardings()
  fed = feed.Feed(rows, c, 0, mesh)
  many, _, _ = loop.compile_steps(learn, c, fed, everywhere)
  many = loop.dispatcher(many, fed)
  state = loop.begin(learn, c, everywhere)

  def run(steps: int) -> int:
    nonlocal state
    for first in range(0, steps, fed.most):
      state, metrics = many(state, min(fed.most, steps - first))
    jax.block_until_ready((state, metrics))
    return steps * n

  return run


def scoring(case: Case, _: object) -> Callable[[int], int]:
  c = config(case)
  image = jax.device_put(images(case, c.batch_size))
  variables = random_variables(c, case.classes)
  score = xla.jit(neural.scorer(c, case.classes))

  def run(batches: int) -> int:
    for _ in range(batches):
      logits = np.asarray(score(variables, image))
    return batches * len(logits)

  return run


def random_variables(c: contracts.Config, num_classes: int) -> Any:
  shape = 1, c.data.size, c.data.size, c.model.channels
  net = neural.network(c, num_classes)
  return jax.jit(
    lambda: net.init(jax.random.key(0), jnp.zeros(shape), train=False),
    compiler_options=xla.run_once_options(),
  )()


def sampling(case: Case, _: object) -> Callable[[int], int]:
  c = config(case)
  init = jax.jit(gan.initial(c, ()))
  generator = gan.generator(c, (), init(jax.random.key(c.seed)))
  endless = np.broadcast_to(np.int32(0), 2**31)  # Takes no memory.
  starts = itertools.count(0, c.batch_size)
  drawn = registry.images(generator, 0, endless, starts, c.batch_size)
  return lambda batches: sum(len(next(drawn)) for _ in range(batches))


def denoising(case: Case, _: object) -> Callable[[int], int]:
  c = config(case)
  first = jax.jit(edm.initial(c, ()), compiler_options=xla.run_once_options())
  state = first(jax.random.key(c.seed))
  generator = common.Generator(edm.sampler(c, ()), "edm", c, (), state)
  index = np.arange(c.batch_size, dtype=np.int32)
  label = np.zeros(c.batch_size, np.int32)

  def run(batches: int) -> int:
    for seed in range(batches):  # None is computed ahead: each takes seconds.
      np.asarray(generator.sample(seed, index, label))
    return batches * c.batch_size

  return run


def reading(case: Case, folder: pathlib.Path) -> Callable[[int], int]:
  changes = {"data.name": "chest_xray", "data.dir": folder / "images"}
  c = config(case, **changes)
  source = data.prepare(c.data).source("train")
  source = pipeline.Images(source, c.data)
  workers = work.cores()
  read = feed.batches(source, c.seed, c.batch_size, 0, workers=workers)
  return lambda batches: sum(len(next(read)["image"]) for _ in range(batches))


def detecting(case: Case, folder: pathlib.Path) -> Callable[[int], int]:
  c = config(case, **{"data.name": "real_or_fake"})
  classes = VERDICTS[::2]
  score = xla.jit(neural.scorer(c, len(classes)))
  score = functools.partial(score, random_variables(c, len(classes)))
  logits = lambda x: features.in_batches(score, x, programs.BATCH)
  program = programs.Classifier(c, classes, logits, 1.0, 0.5, (0.1, 0.9))
  files, _ = detector.listed([str(folder / "images")])

  def run(_: int) -> int:
    rows = list(detector.score(program, files))
    return sum(row["verdict"] is not None for row in rows)

  return run


KINDS = {
  "gan_train": training,
  "gan_sample": sampling,
  "edm_train": training,
  "edm_sample": denoising,
  "wgan_gp_train": training,
  "stylegan2_train": training,
  "train": training,
  "score": scoring,
  "input": reading,
  "detect": detecting,
}


def multiply(precision: str, n: int) -> float:
  """The best FLOP/s of some products of two (n, n) matrices."""
  dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
  a = jnp.ones((n, n), dtype)
  product = xla.jit(jnp.matmul)
  product(a, a).block_until_ready()
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    product(a, a).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * n**3 / min(seconds)

"""A family of generators: the mean image of a class, and noise."""

import pathlib

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import errors
from jaxfake.runtime import disk
from jaxfake.training import checkpoint, loop, workdir
from jaxfake.training.task import Task

CONFIG = "average_config.py"
SHOWN = ("images",)


class State(struct.PyTreeNode):
  step: jax.Array
  count: jax.Array  # (classes,)
  image: jax.Array  # (classes, s, s, 1): sums.
  mask: jax.Array  # Alike, of where the mask is.
  patients: jax.Array  # The largest code that was seen.


def check(config) -> None:
  if config.noise < 0:
    raise errors.ConfigError(f"noise is {config.noise}: expected at least 0")


def initial(config, classes: int):
  shape = classes, config.data.size, config.data.size, 1

  def init(key):
    zero = jnp.zeros((), jnp.int32)
    sums = jnp.zeros(shape), jnp.zeros(shape)
    return State(zero, jnp.zeros(classes), *sums, zero)

  return init


def step(state, batch):
  which = jax.nn.one_hot(batch["label"], len(state.count))  # (b, classes)
  add = lambda x: jnp.einsum("bk,bhwc->khwc", which, x.astype(jnp.float32))
  new = State(
    state.step + 1,
    state.count + which.sum(0),
    state.image + add(batch["image"]),
    state.mask + add(batch["mask"] > 0),
    jnp.maximum(state.patients, batch["patient"].max()),
  )
  return new, {"seen": new.count.sum()}


def prepare(config, splits, run):
  splits = splits.reading("image", "label", "mask", "patient")
  n = len(splits.classes)
  task = Task(
    initial(config, n),
    step,
    evaluate=lambda state, gather: {"images": float(state.count.sum())},
    preview=lambda state, gather: {"mean": np.zeros((64, 64), np.uint8)},
  )
  return lambda: loop.train(config, task, splits.train, run)


class Generator:
  name, conditional = "average", True

  def __init__(self, config, classes, state):
    self.classes, self.size = classes, config.data.size
    self.step, self.sha256 = int(state.step), checkpoint.sha256(state)
    mean = state.image / jnp.maximum(state.count, 1)[:, None, None, None]

    @jax.jit
    def draw(seed, index, label):
      keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(seed), index
      )
      noise = jax.vmap(lambda k: jax.random.normal(k, mean.shape[1:]))(keys)
      x = mean[label] + config.noise * noise
      return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)

    self.sample = draw


def restored(path: pathlib.Path):
  config = workdir.read_config(path)
  classes = tuple(disk.read_json(path / "dataset.json")["classes"])
  like = loop.abstract_state(initial(config, len(classes)))
  with checkpoint.Checkpoints(path / "checkpoints", read_only=True) as saved:
    return config, classes, saved.restore_last(like, "train again")[1]


def load(path: pathlib.Path, step: int | None = None) -> Generator:
  del step
  return Generator(*restored(path))


def describe(config) -> dict:
  return {"noise": config.noise}


def summary(path: pathlib.Path, result: dict) -> str:
  return f"the mean of {result['metrics']['eval/images']:.0f} images in {path}"

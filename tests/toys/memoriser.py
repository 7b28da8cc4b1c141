"""A family of generators: the mean of some train images, and a little noise. Of
one image it is a copy."""

import hashlib
import pathlib

import numpy as np

from jaxfake import configuration, errors
from jaxfake.data import pipeline
from jaxfake.runtime import disk
from jaxfake.training import workdir

CONFIG = "memoriser.py"
SHOWN = ("images",)


def get_config(arg=""):
  c = configuration.load(f"{configuration.shipped()}/dcgan.py:tiny")
  return configuration.of(
    {
      "task": "toys.memoriser",
      "seed": 0,
      "mixed": 1,
      "data": c.data.to_dict(),
      "tensorboard": False,
    }
  )


def check(config) -> None:
  if config.mixed < 1:
    raise errors.ConfigError(f"mixed is {config.mixed}: expected at least 1")


def prepare(config, splits, run):
  def train():
    run.begin(0)
    images = pipeline.arrays(splits.train)["image"]
    np.save(run.path / "images.npy", images)
    run.finish(0, {}, {"images": len(images)})
    return 0

  return train


def summary(path: pathlib.Path, result: dict) -> str:
  return f"{result['images']} images in {path}"


def describe(config) -> dict:
  return {"mixed": config.mixed}


def load(path: pathlib.Path, step: int | None = None):
  return Generator(path)


class Generator:
  name, conditional, step = "memoriser", False, 0

  def __init__(self, path):
    config = workdir.read_config(path)
    self.classes = tuple(disk.read_json(path / "dataset.json")["classes"])
    self.size, self.mixed = config.data.size, config.mixed
    self.images = np.load(path / "images.npy")
    digest = hashlib.sha256((path / "images.npy").read_bytes())
    digest.update(bytes([self.mixed]))
    self.sha256 = digest.hexdigest()

  def sample(self, seed, index, label):
    return np.stack([self._image(int(seed), int(i)) for i in index])

  def _image(self, seed, i):
    rng = np.random.default_rng((seed, i))
    chosen = rng.integers(len(self.images), size=self.mixed)
    x = self.images[chosen].mean(0)
    return (x + rng.normal(size=x.shape) * 3).clip(0, 255).astype(np.uint8)

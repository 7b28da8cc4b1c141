"""Generators that make an image of another: of held-out images that a run
keeps, or of images they are given. None is made of a train image."""

from collections.abc import Callable, Sequence
import json
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jaxfake import contracts
from jaxfake.data import feed, pipeline
from jaxfake.generators import common

FILE = "originals.safetensors"
FACTS = ("id", "patient")  # Of each of them, in the file's header.


def packed(items: contracts.Items) -> bytes:
  """Images with their labels, ids and patients, as `Originals` reads them."""
  facts = {name: json.dumps(items.column(name)) for name in FACTS}
  return safetensors.numpy.save(pipeline.arrays(items), facts)


class Originals:
  """The held-out images that a run keeps in its folder."""

  def __init__(self, path: pathlib.Path):
    with safetensors.safe_open(path / FILE, "np") as file:
      names = file.keys()  # It cannot be iterated over itself.
      self._arrays = {name: file.get_tensor(name) for name in names}
      self._columns = {"label": self._arrays.pop("label").tolist()}
      for name in FACTS:
        self._columns[name] = json.loads(file.metadata()[name])
    labels = np.array(self._columns["label"])
    self._places = [np.flatnonzero(labels != k) for k in range(2)]

  @property
  def features(self) -> dict[str, str]:
    """See contracts.Items."""
    images = dict.fromkeys(self._arrays, "image")
    return images | {"label": "integer"} | dict.fromkeys(FACTS, "text")

  def __len__(self) -> int:
    return len(self._columns["label"])

  def __getitem__(self, i: int) -> dict[str, Any]:
    return {name: x[i] for name, x in self._arrays.items()}

  def column(self, name: str) -> list:
    return self._columns[name]

  def chosen(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> np.ndarray:
    """Which of them images are made of, (n,), all of the other class: each
    once before any comes again, whether all labels are one or take turns."""
    rows = np.zeros(len(index), np.intp)
    for k, places in enumerate(self._places):
      order = feed.order(seed, 0, n := len(places))
      # Every second index meets each place of an odd number; of an even one if
      # the next round begins a place later.
      turn = index + index // n * (n % 2 == 0)
      rows = np.where(label == k, places[order[turn % n]], rows)
    return rows


class Given:
  """Images of one's own: image i is made of the i-th."""

  def __init__(self, items: contracts.Items):
    self._items = items

  def __getitem__(self, i: int) -> dict[str, Any]:
    return self._items[i]

  def column(self, name: str) -> list:
    return self._items.column(name)

  def chosen(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> np.ndarray:
    del seed, label
    return np.minimum(index, len(self._items) - 1)  # Batches are padded.


class Translator(common.Trained):
  """A trained translator: contracts.Translator.

  `draw(variables, image, label)` makes uint8 (n, s, s, c) of uint8
  (n, s, s, 1).
  """

  conditional = True

  def __init__(
    self,
    draw: Callable,
    name: str,
    config: contracts.Config,
    classes: Sequence[str],
    state: Any,
    originals: Originals | Given,
  ):
    super().__init__(draw, name, config, classes, state)
    self._originals, self._data = originals, config.data

  def sample(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> jax.Array:
    chosen = self._originals.chosen(seed, index, label)
    image = np.stack([self._originals[int(i)]["image"] for i in chosen])
    return self.drawn((), image, label)

  def origins(
    self, seed: int, index: np.ndarray, label: np.ndarray
  ) -> list[dict]:
    ids, patients = map(self._originals.column, FACTS)
    chosen = self._originals.chosen(seed, index, label)
    return [{"original": ids[i], "patient": patients[i]} for i in chosen]

  def give(self, items: contracts.Items) -> None:
    self._originals = Given(pipeline.Images(items, self._data, keep=False))

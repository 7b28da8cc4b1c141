"""Sources: items by index, as features; and some of another's items."""

from collections.abc import Mapping

import numpy as np


class Rows:
  """A source over equally long arrays: [i] -> {name: array[i]}."""

  def __init__(self, **arrays: np.ndarray):
    self._arrays = arrays

  def __len__(self) -> int:
    return len(next(iter(self._arrays.values())))

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    return {name: array[i] for name, array in self._arrays.items()}


class Subset:
  """The items of a source at the given indices."""

  def __init__(self, source, indices):
    self._source, self._indices = source, indices

  def __len__(self) -> int:
    return len(self._indices)

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Subset({len(self)} of {self._source})"

  def __getitem__(self, i: int):
    return self._source[int(self._indices[i])]

  @property
  def features(self) -> Mapping[str, str]:
    return self._source.features

  def reading(self, features) -> "Subset":
    """The same items with these features, where the source can."""
    return Subset(self._source.reading(features), self._indices)

  def column(self, name: str) -> list:
    """One fact of every item, where the source has columns."""
    values = self._source.column(name)
    return [values[int(i)] for i in self._indices]


NOTHING = Subset((), ())

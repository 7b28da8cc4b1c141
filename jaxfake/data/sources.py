"""Sources: items by index, as features; some of another's items, and several
sources as one."""

import bisect
from collections.abc import Mapping, Sequence
import itertools
from typing import Any

import numpy as np

from jaxfake import contracts
from jaxfake.data import matching


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

  def __init__(self, source: Any, indices: Sequence[int] | np.ndarray):
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

  def reading(self, features: Sequence[str]) -> "Subset":
    """The same items with these features, where the source can."""
    return Subset(self._source.reading(features), self._indices)

  def column(self, name: str) -> list:
    """One fact of every item, where the source has columns."""
    values = self._source.column(name)
    return [values[int(i)] for i in self._indices]


class OfClasses(Subset):
  """The items of some classes, given by their labels; the new label is the
  place among these."""

  def __init__(self, source: contracts.Items, classes: Sequence[int]):
    labels = source.column("label")
    super().__init__(source, [i for i, x in enumerate(labels) if x in classes])
    self._classes = list(classes)

  def __getitem__(self, i: int):
    item = super().__getitem__(i)
    return item | {"label": np.int32(self._classes.index(item["label"]))}

  def column(self, name: str) -> list:
    values = super().column(name)
    if name == "label":
      values = [self._classes.index(x) for x in values]
    return values


class Joined:
  """The items of several sources, one source after the other."""

  def __init__(self, *sources: contracts.Items):
    self._sources = sources
    self._ends = list(itertools.accumulate(map(len, sources)))

  @property
  def features(self) -> Mapping[str, str]:
    return self._sources[0].features

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, i: int):
    part = bisect.bisect_right(self._ends, i)
    source = self._sources[part]
    return source[i - self._ends[part] + len(source)]

  def column(self, name: str) -> list:
    """One fact of every item, where the sources have columns."""
    return [x for source in self._sources for x in source.column(name)]


NOTHING = Subset((), ())


def spread(source: contracts.Examples, most: int) -> Subset:
  """At most so many items, evenly over a source."""
  every = np.arange(len(source))
  return Subset(source, matching.evenly(every, min(most, len(every))))

"""As many images of each class from two sets."""

import numpy as np


def evenly(places: np.ndarray, count: int) -> np.ndarray:
  """So many of an array, spread evenly over it."""
  return places[np.arange(count) * len(places) // max(count, 1)]


def matched(
  first: np.ndarray, second: np.ndarray, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Indices into two arrays of labels: equally many of each class from both,
  spread evenly over each, a class after the other.

  As many as there are; or with a `limit` at most so many in all, in the first's
  class mix, of every class that both have.
  """
  first, second = np.asarray(first), np.asarray(second)
  places = [
    (np.flatnonzero(first == c), np.flatnonzero(second == c))
    for c in np.intersect1d(first, second)
  ]
  if limit is None:
    counts = [min(map(len, pair)) for pair in places]
  else:
    # The largest share of the first of which the second has enough.
    shares = [len(b) / len(a) for a, b in places]
    share = min([limit / len(first), 1, *shares])
    counts = [max(1, int(share * len(a) + 1e-9)) for a, _ in places]
  chosen = [], []
  for pair, count in zip(places, counts, strict=True):
    for indices, those in zip(chosen, pair, strict=True):
      indices.append(evenly(those, count))
  none = [np.zeros(0, np.intp)]
  of_first, of_second = (np.concatenate(x or none) for x in chosen)
  return of_first, of_second

"""Near-duplicates: the same picture in another size, brightness or format."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

# Of 256 bits. Measured on the 5,840 pictures of chest_xray_224: 34 pairs at
# most 12 apart, all of them 0, then nothing below 13. The same pictures from
# chest_xray, other size, aspect and JPEG history: at most 12 in 547. Among 796
# radiographs of three other sources: 4 pairs, the same pictures by eye.
NEAR = 12
# Of a picture's bits, at least so many are set, and are not: in radiographs of
# four sources 59 to 154 of 256 are. Blank images and ramps have none or all.
_TELLING = 16
# A cluster holds at most the larger of so many images and this share of the
# set, and no more than half of it.
_CLUSTER, _SHARE = 8, 0.25
_LIMITS = (NEAR, NEAR // 2, 0)


def dhash(image: np.ndarray) -> np.ndarray:
  """uint8 (h, w) -> bool (256,): is each of 16 x 17 means above its left one?

  Survives another size, aspect, brightness or JPEG quality; not a crop of 2 %
  (median distance 21) or a mirror.
  """
  small = Image.fromarray(image).resize((17, 16), Image.Resampling.BOX)
  small = np.asarray(small)
  return (small[:, 1:] > small[:, :-1]).ravel()


def pairs(bits: np.ndarray, limit: int = NEAR) -> Iterator[tuple]:
  """bool (n, 256) -> blocks of (distances, a, b), a < b, at most `limit`.

  Distances are one matrix product: bits as +-1 have product 256 - 2 distance.
  """
  signs = bits.astype(np.float32) * 2 - 1
  rows = min(1024, 2**25 // max(len(signs), 1) + 1)  # 128 MB of distances.
  for start in range(0, len(signs), rows):
    apart = (256 - signs[start : start + rows] @ signs[start:].T) / 2
    a, b = np.nonzero(np.triu(apart <= limit, k=1))
    yield apart[a, b], a + start, b + start


class Sets:
  """Union-find over 0 to n - 1."""

  def __init__(self, n: int):
    self._parent = list(range(n))

  def find(self, i: int) -> int:
    while self._parent[i] != i:
      self._parent[i] = i = self._parent[self._parent[i]]
    return i

  def join(self, a: int, b: int) -> None:
    """The smaller root stays, so that the order of joins does not matter."""
    low, high = sorted((self.find(a), self.find(b)))
    self._parent[high] = low

  def members(self) -> list[list[int]]:
    """The sets of two or more, by their first."""
    by_root = {}
    for i in range(len(self._parent)):
      by_root.setdefault(self.find(i), []).append(i)
    return [those for those in by_root.values() if len(those) > 1]


def clusters(bits: np.ndarray) -> tuple[list[list[int]], int]:
  """Indices of images that are near-duplicates of each other, and how many
  images were left apart though they are near many others.

  Chains of pairs make a cluster. One too large to be copies of one picture is
  taken apart by smaller distances, and left apart if that does not help: it
  says that the pictures are too simple for the hash, and would put most of a
  set into one split. Images with hardly any bits set or clear are no one's.
  """
  n = len(bits)
  set_bits = bits.sum(axis=1) if n else np.zeros(0)
  telling = np.flatnonzero(
    (set_bits >= _TELLING) & (set_bits <= 256 - _TELLING)
  )
  largest = max(2, min(max(_CLUSTER, int(_SHARE * n)), n // 2))
  near = [
    (d, telling[a], telling[b]) for d, a, b in pairs(bits[telling]) if len(d)
  ]
  d, a, b = (
    np.concatenate([x[k] for x in near]) if near else np.zeros(0, int)
    for k in range(3)
  )
  kept, left = [], None
  for limit in _LIMITS:
    sets = Sets(n)
    for i, j in zip(a[d <= limit], b[d <= limit], strict=True):
      if left is None or (i in left and j in left):
        sets.join(int(i), int(j))
    chains = sets.members()
    kept += [those for those in chains if len(those) <= largest]
    left = {i for those in chains if len(those) > largest for i in those}
  return sorted(kept), len(left or ())

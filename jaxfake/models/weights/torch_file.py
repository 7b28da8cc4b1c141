"""Tensors of a file of `torch.save`, read without PyTorch and without code.

Until PyTorch 1.6 such a file was five pickles (magic number, version, facts of
the machine, tensors, keys of storages) and then every storage's length and
numbers, in the order of the keys. A pickle runs code by calling what it names.
This reader knows the four names below, and none of them does anything but hold
data; any other name ends it.
"""

import collections
import io
import pickle
from typing import Any, NamedTuple

import numpy as np


class Piece(NamedTuple):
  """A tensor as the pickle has it: part of a storage, strides in elements."""

  storage: str
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]


KNOWN = {
  "collections OrderedDict": collections.OrderedDict,
  "torch._utils _rebuild_tensor_v2": lambda *args: Piece(*args[:4]),
  "torch FloatStorage": "<f4",
  "torch LongStorage": "<i8",
}


class _Unpickler(pickle.Unpickler):
  def __init__(self, file):
    super().__init__(file)
    self.dtypes = {}  # Of storages, by key.

  def find_class(self, module_name: str, global_name: str) -> Any:
    name = f"{module_name} {global_name}"
    if name not in KNOWN:
      raise pickle.UnpicklingError(f"it names {name}")
    return KNOWN[name]

  def persistent_load(self, pid) -> str:
    _, dtype, key, *_ = pid
    self.dtypes[key] = np.dtype(dtype)
    return key


def tensors(content: bytes) -> dict[str, np.ndarray]:
  """The arrays of a file's dictionary, by name.

  Raises UnpicklingError where the file holds other than plain tensors.
  """
  file = io.BytesIO(content)
  for _ in range(3):
    _Unpickler(file).load()
  unpickler = _Unpickler(file)
  pieces = unpickler.load()
  storages = {}
  for key in _Unpickler(file).load():
    dtype = unpickler.dtypes[key]
    n = int.from_bytes(file.read(8), "little")
    storages[key] = np.frombuffer(file.read(n * dtype.itemsize), dtype)
  return {name: _array(x, storages[x.storage]) for name, x in pieces.items()}


def _array(piece: Piece, storage: np.ndarray) -> np.ndarray:
  width = storage.itemsize
  strides = [width * x for x in piece.stride]
  return np.ndarray(
    piece.size, storage.dtype, storage, width * piece.offset, strides
  )

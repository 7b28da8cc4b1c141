"""The tensors of a local weights file: HDF5 of Keras, or safetensors.

Neither kind can run code. Names, shapes and types come first, without reading
a tensor, so that a file that declares too much is refused before any memory
is spent on it. What an HDF5 file would fetch from elsewhere (external links,
external storage, virtual datasets) or unpack is refused too.
"""

from collections.abc import Callable, Iterator
import contextlib
import pathlib
import typing

import h5py
import ml_dtypes  # noqa: F401  Teaches NumPy bfloat16.
import numpy as np
import safetensors

from jaxfake.errors import DataError

KERAS, TORCH = "keras", "torch"
KINDS = {".h5": KERAS, ".hdf5": KERAS, ".safetensors": TORCH}

PICKLE = (
  "a pickle, which can run code. Where you trust it, convert it:"
  " safetensors.torch.save_file(torch.load(OLD, weights_only=True), NEW)"
)
NUMPY = (
  "a NumPy archive, which can hold pickles. Convert it:"
  " safetensors.numpy.save_file(dict(numpy.load(OLD)), NEW)"
)
MODEL = (
  "a whole Keras model. Convert it:"
  " keras.saving.load_model(OLD).save_weights('NEW.weights.h5')"
)
REFUSED = {
  **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"), PICKLE),
  **dict.fromkeys((".npz", ".npy"), NUMPY),
  ".keras": MODEL,
}

FLOATS = ("F16", "BF16", "F32", "F64")  # As safetensors names them.


class Tensor(typing.NamedTuple):
  """A tensor of a file, not yet read."""

  name: str
  shape: tuple[int, ...]
  is_float: bool
  read: Callable[[], np.ndarray]


def kind(path: pathlib.Path) -> str:
  """KERAS or TORCH; raises DataError where it is neither or no file."""
  if not path.is_file():
    raise DataError(f"{path} is not a file: expected weights")
  if path.suffix not in KINDS:
    what = REFUSED.get(path.suffix, "neither")
    raise DataError(
      f"{path}: expected a file .weights.h5 or .safetensors; this is {what}"
    )
  return KINDS[path.suffix]


@contextlib.contextmanager
def open_torch(path: pathlib.Path) -> Iterator[dict[str, Tensor]]:
  """The tensors of a safetensors file, {name: tensor}, while it is open."""
  with contextlib.ExitStack() as stack:
    with _clear(path):
      file = stack.enter_context(safetensors.safe_open(path, "numpy"))
      names = file.keys()
      tensors = {name: _slice(path, file, name) for name in names}
    yield tensors


@contextlib.contextmanager
def open_keras(path: pathlib.Path) -> Iterator[dict[str, list[Tensor]]]:
  """{layer: its tensors in Keras's order} of an HDF5 file, while it is open.

  The file is of Keras 3's `save_weights`, or of Keras 1 and 2, as are those
  of keras.applications. Layers without tensors are left out.
  """
  with contextlib.ExitStack() as stack:
    with _clear(path):
      file = stack.enter_context(h5py.File(path, "r"))
      if "layers" in file:
        layers = _keras3(file)
      elif "model_weights" in file:  # Of a whole model.
        layers = _keras2(_member(file, "model_weights"))
      else:
        layers = _keras2(file)
    yield {layer: tensors for layer, tensors in layers.items() if tensors}


@contextlib.contextmanager
def _clear(path: pathlib.Path, tensor: str = "") -> Iterator[None]:
  """Makes the libraries' many errors a DataError that names the file."""
  try:
    yield
  except (
    safetensors.SafetensorError,
    AttributeError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
  ) as e:
    place = f"{path}, {tensor}" if tensor else path
    raise DataError(f"{place} cannot be read: {e}") from e


def _slice(path: pathlib.Path, file, name: str) -> Tensor:
  piece = file.get_slice(name)

  def read():
    with _clear(path, name):
      return file.get_tensor(name)

  shape = tuple(piece.get_shape())
  return Tensor(name, shape, piece.get_dtype() in FLOATS, read)


def _keras3(root: h5py.Group) -> dict[str, list[Tensor]]:
  """layers/*/vars/0, 1, ..., where `vars` bears the layer's name."""
  layers = {}
  for key in (parent := _member(root, "layers")):
    group = _member(parent, key)
    if "layers" in group:
      raise DataError(
        f"{root.file.filename}: {group.name} is a model within the model:"
        " expected the weights of one model; save the inner one by itself"
      )
    stored = _member(group, "vars")
    if not len(stored):
      continue
    name = stored.attrs.get("name")
    if not isinstance(name, str) or name in layers:
      raise DataError(
        f"{root.file.filename}: {stored.name} has the layer name {name!r}:"
        " expected a name of its own; save it again with a recent Keras 3"
      )
    layers[name] = [
      _tensor(stored, str(i), f"{name}/vars/{i}") for i in range(len(stored))
    ]
  return layers


def _keras2(root: h5py.Group) -> dict[str, list[Tensor]]:
  """Groups and data sets are listed by attributes."""
  layers = {}
  for layer in _names(root, "layer_names"):
    group = _member(root, layer)
    names = _names(group, "weight_names")
    layers[layer] = [_tensor(group, name, name) for name in names]
  return layers


def _names(group: h5py.Group, attribute: str) -> list[str]:
  """A list of names, which Keras splits where it is long for HDF5."""
  pieces = [attribute] if attribute in group.attrs else []
  while (piece := f"{attribute}{len(pieces)}") in group.attrs:
    pieces.append(piece)
  if not pieces:
    raise DataError(
      f"{group.file.filename}: {group.name} has neither layers nor"
      f" {attribute}: expected weights saved by Keras"
    )
  names = [name for piece in pieces for name in group.attrs[piece]]  # pyright: ignore[reportGeneralTypeIssues]
  return [x.decode() if isinstance(x, bytes) else str(x) for x in names]


def _member(group, path: str) -> typing.Any:
  """What lies at `path` in a group, if it lies in this file, by no link."""
  for name in path.split("/"):
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
      what = "missing" if link is None else "a link"
      raise DataError(
        f"{group.file.filename}: {group.name} / {name} is {what}: expected"
        " data in the file itself"
      )
    group = group[name]
  return group


def _tensor(group: h5py.Group, path: str, name: str) -> Tensor:
  data, file = _member(group, path), group.file.filename
  if not isinstance(data, h5py.Dataset) or data.shape is None:
    raise DataError(f"{file}: {name} is not an array: expected a plain one")
  if data.is_virtual or data.external or data.chunks:
    # A chunk may unpack to more than the array's shape says.
    raise DataError(
      f"{file}: {name} is stored in chunks, packed or in another file:"
      " expected a plain array; h5repack -l CONTI -f NONE makes one"
    )

  def read():
    with _clear(pathlib.Path(file), name):
      return data[()]

  is_float = data.dtype.kind == "f" and data.dtype.itemsize <= 8
  return Tensor(name, data.shape, is_float, read)

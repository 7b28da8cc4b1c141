"""Weights from a local file of Keras or PyTorch, for the networks in `MODELS`.

HDF5 files, as Keras's `save_weights` writes them or as they come with
keras.applications, serve every network that Keras has; safetensors files with
torchvision's or timm's names serve ResNet, DenseNet and VGG.

Gray images: a network of one input channel takes the SUM of the file's first
kernel over its three. The convolution being linear, a gray image then gives
what the file's network makes of that image repeated three times, so all that
follows, batch statistics included, sees what it has learned. A mean would make
those activations a third. The other way, one channel is repeated and divided
by three. How pixels are scaled is the caller's: by one offset and one factor
for all three colours, or the sum has no such meaning.
"""

import contextlib
import hashlib
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake.errors import DataError
from jaxfake.models.weights import weights_file, weights_names
from jaxfake.models.weights.weights_names import MOVED, Key, Layers, Match

VARIANTS = ("torch", "keras")
# How the networks of keras.applications differ from ours.
KERAS_DENSENET = {"epsilon": 1.001e-5}
KERAS_RESNET = {"stride_in": 1, "epsilon": 1.001e-5}


def variant(which: str, name: str) -> dict:
  """The options with which MODELS[name] is PyTorch's or Keras's network."""
  if which == "keras" and name.startswith("resnet"):
    return dict(KERAS_RESNET)
  if which == "keras" and name.startswith("densenet"):
    return dict(KERAS_DENSENET)
  return {}


def options(path: str | os.PathLike, name: str) -> dict:
  """The options with which MODELS[name] is the network of this file."""
  torch = weights_file.kind(pathlib.Path(path)) == weights_file.TORCH
  return variant("torch" if torch else "keras", name)


def load(
  path: str | os.PathLike, name: str, variables: dict
) -> tuple[dict, str]:
  """The variables with a file's weights in their place, and a report.

  Args:
    path: an `.h5` file of Keras or a `.safetensors` file of PyTorch.
    name: of the network in `MODELS`, made with `options(path, name)`.
    variables: what its `init` gave; not changed. The head is kept where the
      file has none, or one for another number of classes.

  Returns:
    New variables, and lines that say what was loaded and what was adapted,
    the last being the file's SHA-256.

  Raises:
    DataError: the file is of another kind, or its tensors are not those of
      the network: missing, superfluous, of other shapes, not finite.
  """
  path = pathlib.Path(path)
  layers: Layers = {}
  for collection in variables.values():
    for layer, leaves in collection.items():
      layers.setdefault(layer, {}).update(leaves)
  with contextlib.ExitStack() as stack:
    if weights_file.kind(path) == weights_file.TORCH:
      source = "PyTorch"
      file = stack.enter_context(weights_file.open_torch(path))
      match = weights_names.match_torch(path, name, file, layers)
    else:
      source = "Keras"
      file = stack.enter_context(weights_file.open_keras(path))
      match = weights_names.match_keras(name, file, layers)
    arrays = _read(f"{path} is not {name}", name, match, layers)
  loaded = {
    collection: {
      layer: {leaf: arrays.get((layer, leaf), x) for leaf, x in leaves.items()}
      for layer, leaves in tree.items()
    }
    for collection, tree in variables.items()
  }
  notes = [f"{path}: {len(arrays)} tensors of {source}'s {name}", *match.notes]
  if differing := options(path, name):
    settings = ", ".join(f"{k}={v}" for k, v in differing.items())
    notes.append(f"Keras's {name} is ours with {settings}")
  with path.open("rb") as file:
    notes.append(f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}")
  return loaded, "\n".join(notes)


def _read(
  where: str, name: str, match: Match, layers: Layers
) -> dict[Key, jax.Array]:
  """Arrays by layer and leaf. All is checked before anything is read."""
  shapes = {(l, k): x.shape for l in layers for k, x in layers[l].items()}
  moved = [layer for layer, leaf in match.tensors if leaf == MOVED]
  shapes.update({(layer, MOVED): shapes[layer, "mean"] for layer in moved})
  if _keeps_head(match, shapes):
    del shapes["head", "kernel"], shapes["head", "bias"]

  missing, misfits = [], []
  superfluous = [f"{x.name} {x.shape}" for x in match.strangers]
  plans = {}
  for key, shape in shapes.items():
    if key not in match.tensors:
      missing.append(f"{'/'.join(key)} {shape}")
      continue
    tensor = match.tensors[key]
    axes = match.axes.get(len(tensor.shape), range(len(tensor.shape)))
    got = tuple(tensor.shape[i] for i in axes)
    fit = _fit(got, shape, key, name, match.notes)
    plans[key] = tensor, axes, fit
    if fit is None:
      if len(got) == len(shape):  # In the file's order.
        shape = tuple(shape[i] for i in np.argsort(axes))
      misfits.append(f"{tensor.name} is {tensor.shape}, expected {shape}")
    if not tensor.is_float:
      misfits.append(f"{tensor.name} is not of floating-point numbers")
  _refuse(where, missing=missing, superfluous=superfluous, unfit=misfits)

  arrays, broken = {}, []
  for key, (tensor, axes, fit) in plans.items():
    with np.errstate(over="ignore"):  # Infinite then, and refused.
      x = tensor.read().astype(np.float32)
    x = arrays[key] = fit(x.transpose(*axes))
    if not np.isfinite(x).all():
      broken.append(f"{tensor.name} is not finite")
    elif key[1] == "var" and x.min() < 0:
      broken.append(f"{tensor.name} has negative variances")
  _refuse(where, broken=broken)
  for layer in moved:
    arrays[layer, "mean"] -= arrays.pop((layer, MOVED))
  if moved:
    match.notes.append(f"{len(moved)} biases moved into batch norms' means")
  return {key: jnp.asarray(x) for key, x in arrays.items()}


def _keeps_head(match: Match, shapes: dict[Key, tuple[int, ...]]) -> bool:
  """Whether the file has no head, or one for other classes; notes it."""
  kernel = match.tensors.get(("head", "kernel"))
  bias = match.tensors.get(("head", "bias"))
  if kernel is None and bias is None:
    match.notes.append("head: fresh, for the file has none")
    return True
  if kernel is None or bias is None or len(bias.shape) != 1:
    return False
  depth, classes = shapes["head", "kernel"]
  (theirs,) = bias.shape
  if theirs == classes or math.prod(kernel.shape) != depth * theirs:
    return False
  match.notes.append(f"head: fresh, {classes} classes; the file has {theirs}")
  return True


def _fit(got, shape, key: Key, name: str, notes: list[str]):
  """What makes a tensor of shape `got` one of `shape`; None if nothing may."""
  if got == shape:
    return lambda x: x
  if len(got) == 4 and math.prod(got) == math.prod(shape):
    # A dense layer held as a convolution, or a depthwise kernel, in Keras
    # (kh, kw, channels, multiplier).
    dense = len(shape) == 2 and got[3] == shape[1]
    depthwise = len(shape) == 4 and got[:2] == shape[:2] and shape[2] == 1
    return (lambda x: x.reshape(shape)) if dense or depthwise else None
  if not len(got) == len(shape) == 4:
    return None
  (*size, colours, width), (*our_size, our_colours, our_width) = got, shape
  if (size, width) != (our_size, our_width) or key != (
    weights_names.creation_order(name)[0],
    "kernel",
  ):
    return None
  if (colours, our_colours) == (3, 1):
    notes.append("first kernel: summed over three channels, for gray images")
    return lambda x: x.sum(2, keepdims=True, dtype=np.float64).astype(x.dtype)
  if (colours, our_colours) == (1, 3):
    notes.append("first kernel: its one channel repeated and divided by three")
    return lambda x: (x / 3).repeat(3, 2)
  return None


def _refuse(where: str, **problems: list[str]) -> None:
  """Raises DataError where there are problems, naming the first of a sort."""
  texts = []
  for sort, names in problems.items():
    if names:
      more = ", ..." if len(names) > 3 else ""
      texts.append(f"{len(names)} {sort}: {', '.join(names[:3])}{more}")
  if texts:
    raise DataError(f"{where}: {'; '.join(texts)}")

"""Which tensor of a weights file is which of ours, by the names."""

import functools
import pathlib
import re
import typing

import jax
import jax.numpy as jnp

from jaxfake import models
from jaxfake.errors import DataError
from jaxfake.models.weights.weights_file import Tensor

NORM = ("scale", "bias", "mean", "var")  # As Keras orders them.
# Names that Keras gives to layers without one, and those of its first version.
NUMBERED = re.compile(r"(conv2d|convolution2d|batch_?normalization)(?:_(\d+))?")
# Leaf of a batch norm for the bias of a convolution before it, where ours has
# none: the batch norm's mean then holds it.
MOVED = "bias of its convolution"
TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # OIHW to HWIO, (out, in) to ours.

Layers = dict[str, dict[str, jax.Array]]  # Ours: {layer: {leaf: array}}.
Key = tuple[str, str]  # Layer and leaf.


class Match(typing.NamedTuple):
  """Which tensor of a file goes where."""

  tensors: dict[Key, Tensor]
  strangers: list[Tensor]  # In the file, but not in the network.
  axes: dict[int, tuple[int, ...]]  # From the file's order to ours, by rank.
  notes: list[str]


@functools.cache
def creation_order(name: str) -> list[str]:
  """The network's layers as they are made; its variables may be sorted."""
  network = models.MODELS[name](num_classes=1)
  order = []

  def init():
    x = jnp.zeros((1, network.smallest, network.smallest, 3))
    order.extend(network.init(jax.random.key(0), x, train=False)["params"])

  jax.eval_shape(init)
  return order


def match_keras(
  name: str, file: dict[str, list[Tensor]], layers: Layers
) -> Match:
  """By the layers' names; those that Keras numbered, in the numbers' order."""
  match = Match({}, [], {}, [])
  for layer, targets in _keras_places(name, file, layers).items():
    keys = [
      (target, leaf)
      for target in targets
      for leaf in (NORM if "mean" in layers[target] else ("kernel", "bias"))
      if leaf in layers[target]
    ]
    if name.startswith("resnet") and keys == [(layer, "kernel")]:
      keys.append((layer.removesuffix("conv") + "bn", MOVED))
    match.tensors.update(zip(keys, file[layer], strict=False))
    match.strangers.extend(file.pop(layer)[len(keys) :])
  for layer, tensors in file.items():
    if re.fullmatch(r"normalization(_\d+)?", layer):
      match.notes.append(f"{layer}: left out, for inputs are the caller's")
    else:
      match.strangers.extend(tensors)
  return match


def _keras_places(
  name: str, file: dict[str, list[Tensor]], layers: Layers
) -> dict[str, list[str]]:
  """Our layers, one or a separable convolution's two, for Keras's."""
  places, numbered, dense = {}, {"conv": [], "batch": []}, []
  for layer, (first, *_) in file.items():
    split = [f"{layer}_depthwise", f"{layer}_pointwise"]
    if layer in layers:
      places[layer] = [layer]
    elif split[0] in layers and split[1] in layers:
      places[layer] = split
    elif number := NUMBERED.fullmatch(layer):
      kind = "conv" if number[1].startswith("conv") else "batch"
      numbered[kind].append((int(number[2] or 0), layer))
    elif len(first.shape) == 2 or layer == "conv_preds":  # MobileNet's head.
      dense.append(layer)
  if len(dense) == 1:  # "predictions", "fc1000", "probs", "dense_1", ...
    places[dense[0]] = ["head"]
  if any(numbered.values()):
    placed = {"head"}.union(*places.values())
    ours = [x for x in creation_order(name) if x not in placed]
    norms = [x for x in ours if "mean" in layers[x]]
    convs = [x for x in ours if x not in norms]
    for theirs, ours in ((numbered["conv"], convs), (numbered["batch"], norms)):
      if len(theirs) == len(ours):
        pairs = zip(sorted(theirs), ours, strict=True)
        places.update({layer: [x] for (_, layer), x in pairs})
  return places


def match_torch(
  path: pathlib.Path, name: str, file: dict[str, Tensor], layers: Layers
) -> Match:
  """By the names that torchvision and timm share, and where they differ."""
  family = name.rstrip("0123456789")
  if family not in TORCH:
    raise DataError(
      f"{path}: {name} has no names of PyTorch's here, expected Keras's"
      f" .weights.h5; .safetensors is for {', '.join(TORCH)}"
    )
  places = {
    module: layer
    for layer, modules in TORCH[family](layers).items()
    for module in modules
  }
  match = Match({}, [], TORCH_AXES, [])
  for full_name, tensor in file.items():
    module, _, leaf = full_name.rpartition(".")
    if leaf == "num_batches_tracked":
      continue
    layer = places.get(module, "")
    ours = layers.get(layer, {})
    kernel = "scale" if "mean" in ours else "kernel"
    leaf = {
      "weight": kernel,
      "bias": "bias",
      "running_mean": "mean",
      "running_var": "var",
    }.get(leaf)
    if leaf not in ours or (layer, leaf) in match.tensors:
      match.strangers.append(tensor)
      continue
    if layer == "fc1" and tensor.shape == ours["kernel"].shape[::-1]:
      tensor = _flattened_channels_first(tensor)
    match.tensors[layer, leaf] = tensor
  return match


def _flattened_channels_first(tensor: Tensor) -> Tensor:
  """VGG's first dense kernel (o, 512 * 7 * 7) as that of a convolution."""
  shape = (tensor.shape[0], 512, 7, 7)
  return tensor._replace(shape=shape, read=lambda: tensor.read().reshape(shape))


def _torch_resnet(layers: Layers) -> dict[str, list[str]]:
  names = {"conv1_conv": "conv1", "conv1_bn": "bn1", "head": "fc"}
  for layer in layers.keys() - names.keys():
    parts = re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", layer)
    assert parts is not None, layer
    stage, block, i, kind = parts.groups()
    end = f"{kind}{i}"
    if i == "0":
      end = "downsample.0" if kind == "conv" else "downsample.1"
    names[layer] = f"layer{int(stage) - 1}.{int(block) - 1}.{end}"
  return {layer: [name] for layer, name in names.items()}


def _torch_densenet(layers: Layers) -> dict[str, list[str]]:
  names = {
    "conv1_conv": ["features.conv0"],
    "conv1_bn": ["features.norm0"],
    "bn": ["features.norm5"],
    "head": ["classifier"],
  }
  ends = {
    "0_bn": "norm1",
    "1_conv": "conv1",
    "1_bn": "norm2",
    "2_conv": "conv2",
  }
  for layer in layers.keys() - names.keys():
    stage, part = layer.split("_", 1)
    i = int(stage[-1]) - 1
    if stage.startswith("pool"):
      kind = "norm" if part == "bn" else "conv"
      names[layer] = [f"features.transition{i}.{kind}"]
    else:
      block, end = part.removeprefix("block").split("_", 1)
      place = f"features.denseblock{i}.denselayer{block}"
      old = f"{ends[end][:-1]}.{ends[end][-1]}"  # norm.1 in older files.
      names[layer] = [f"{place}.{ends[end]}", f"{place}.{old}"]
  return names


def _torch_vgg(layers: Layers) -> dict[str, list[str]]:
  names = {
    "fc1": ["classifier.0", "pre_logits.fc1"],
    "fc2": ["classifier.3", "pre_logits.fc2"],
    "head": ["classifier.6", "head.fc"],
  }
  # `features` counts each convolution, its ReLU, and the pooling of a block.
  for i, layer in enumerate(sorted(layers.keys() - names.keys())):
    block = int(layer.removeprefix("block")[0])
    names[layer] = [f"features.{2 * i + block - 1}"]
  return names


TORCH = {
  "resnet": _torch_resnet,
  "densenet": _torch_densenet,
  "vgg": _torch_vgg,
}

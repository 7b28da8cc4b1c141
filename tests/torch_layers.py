"""Our weights in PyTorch's layers, and what both should then agree on."""

import functools
import math

from flax import linen
import jax
import numpy as np
import pytest
import torch

KINDS = (
  "Conv2d",
  "ConvTranspose2d",
  "Linear",
  "BatchNorm2d",
  "GroupNorm",
  # Of StyleGAN2.
  "Conv",
  "StyledConv",
  "Dense",
)

# Layers of DCGAN at 32 px as they are made.
GENERATOR = [
  f"{x}_{i}" for i in range(3) for x in ("ConvTranspose", "BatchNorm")
]
GENERATOR.append("ConvTranspose_3")


def layers_of(variables, order) -> list[dict]:
  """Leaves of each layer, in the order given: names, or paths of such."""
  names = [(x,) if isinstance(x, str) else x for x in order]
  within = lambda tree, path: functools.reduce(
    lambda tree, name: tree.get(name, {}), path, tree
  )
  return [
    {k: v for tree in variables.values() for k, v in within(tree, path).items()}
    for path in names
  ]


def pairs(layers, theirs) -> list[tuple]:
  """A peer's tensors, each with what ours is in its layout."""
  found = []
  for ours, module in zip(layers, theirs, strict=True):
    kernel = np.asarray(ours.get("kernel", ours.get("scale")))
    if isinstance(module, torch.nn.ConvTranspose2d):
      # A kernel of ours slides over the spread input unflipped.
      kernel = kernel[::-1, ::-1].transpose(2, 3, 0, 1)
    elif getattr(module, "doubles", False):
      kernel = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
    elif kernel.ndim > 1:
      kernel = kernel.transpose((3, 2, 0, 1) if kernel.ndim == 4 else (1, 0))
    found += [(module.weight, kernel), (module.bias, ours.get("bias"))]
    if "strength" in ours:
      found.append((module.strength, ours["strength"]))
    if "mean" in ours:
      found += [(module.running_mean, ours["mean"])]
      found += [(module.running_var, ours["var"])]
  for tensor, array in found:
    assert (tensor is None) == (array is None)
  return [(tensor, array) for tensor, array in found if array is not None]


def made(peer) -> list:
  """A peer's layers as they were made."""
  return [x for x in peer.modules() if type(x).__name__ in KINDS]


def carried(variables, order, peer) -> None:
  """Puts our weights into the peer, whose layers are made in our order."""
  copied(pairs(layers_of(variables, order), made(peer)))


def copied(found) -> None:
  for tensor, array in found:
    with torch.no_grad():
      tensor.copy_(torch.as_tensor(np.array(array)))


def used(network, peer, ours, theirs) -> tuple[list, list]:
  """Paths of our layers and the peer's layers, in the order that inputs go
  through them."""
  paths, modules = [], []

  def ours_next(call, args, kwargs, context):
    y, layer = call(*args, **kwargs), context.module
    weighs = any(layer.has_variable("params", x) for x in ("kernel", "scale"))
    if weighs and layer.path not in paths:  # A subclass calls its parent.
      paths.append(layer.path)
    return y

  with linen.intercept_methods(ours_next):
    shapes_of(network, *(x.shape for x in ours))
  hooks = [
    x.register_forward_hook(lambda module, *_: modules.append(module))
    for x in made(peer)
  ]
  with torch.no_grad():
    peer(*theirs)
  for hook in hooks:
    hook.remove()
  return paths, modules


def randomised(variables):
  """All leaves random, variances above 0."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    if path[-1].key in ("var", "scale"):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    scale = 0.1 if x.ndim == 1 else math.sqrt(2 / np.prod(x.shape[:-1]))
    return rng.normal(0, scale, x.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, variables)


def shapes_of(network, *inputs):
  init = functools.partial(network.init, train=False)
  inputs = [jax.ShapeDtypeStruct(x, np.float32) for x in inputs]
  return jax.eval_shape(init, jax.random.key(0), *inputs)


def same_steps(ours, theirs):
  """Of steps, metrics that both tell: the later ones show the updates."""
  for mine, other in zip(ours, theirs, strict=True):
    for name, value in other.items():
      assert float(mine[name]) == pytest.approx(float(value), rel=2e-3), name
  moved = [abs(ours[0][k] / ours[-1][k] - 1) for k in theirs[0]]
  assert max(moved) > 0.05

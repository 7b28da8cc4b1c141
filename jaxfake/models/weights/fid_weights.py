"""The published weights of the literature's FID, from the file of PyTorch.

One file is accepted, known by its SHA-256: numbers may only be called FID where
they are made with it. pytorch-fid and torch-fidelity release it, each under its
own name, converted from TensorFlow's of 2015.
"""

import hashlib
import os
import pathlib
import re

from jaxfake.errors import DataError
from jaxfake.models.weights import torch_file
from jaxfake.models.weights.weights_names import TORCH_AXES

FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

STEM = {
  "Conv2d_1a_3x3": "stem_a_1",
  "Conv2d_2a_3x3": "stem_a_2",
  "Conv2d_2b_3x3": "stem_a_3",
  "Conv2d_3b_1x1": "stem_b_1",
  "Conv2d_4a_3x3": "stem_b_2",
}
BLOCKS = "5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"
FORKED = {
  "3x3_2a": "3x3_row",
  "3x3_2b": "3x3_column",
  "3x3dbl_3a": "3x3dbl_row",
  "3x3dbl_3b": "3x3dbl_column",
}
LEAVES = {
  "conv.weight": ("params", "kernel"),
  "bn.weight": ("params", "scale"),
  "bn.bias": ("params", "bias"),
  "bn.running_mean": ("batch_stats", "mean"),
  "bn.running_var": ("batch_stats", "var"),
}
TENSOR = re.compile(rf"(.+)\.({'|'.join(map(re.escape, LEAVES))})")


def verified(path: str | os.PathLike) -> bytes:
  """The bytes of the file. Raises DataError where it is another."""
  path = pathlib.Path(path)
  expected = f"expected {FILE} of pytorch-fid, whose SHA-256 is {SHA256}"
  if not path.is_file():
    raise DataError(f"{path} is not a file: {expected}")
  content = path.read_bytes()
  found = hashlib.sha256(content).hexdigest()
  if found != SHA256:
    raise DataError(f"{path} has the SHA-256 {found}: {expected}")
  return content


def load(path: str | os.PathLike) -> dict:
  """Variables of models.fid_inception.FIDInception. Raises DataError where the
  file is another."""
  variables = {"params": {}, "batch_stats": {}}
  for name, x in torch_file.tensors(verified(path)).items():
    if not (parts := TENSOR.fullmatch(name)):
      continue  # The head, and counts of batches.
    module, kind = parts[1], parts[2].partition(".")[0]
    collection, leaf = LEAVES[parts[2]]
    layers = variables[collection].setdefault(f"{layer(module)}_{kind}", {})
    layers[leaf] = x.transpose(TORCH_AXES.get(x.ndim, (0,)))
  return variables


def layer(module: str) -> str:
  """Our name, less _conv or _bn, of such as Mixed_7b.branch3x3_2a."""
  if module in STEM:
    return STEM[module]
  block, branch = module.removeprefix("Mixed_").split(".")
  branch = branch.removeprefix("branch").removeprefix("_")
  branch = FORKED.get(branch, branch)
  numbered = re.search(r"_\d$", branch)
  return f"mixed{BLOCKS.index(block)}_{branch}" + "_1" * (not numbered)

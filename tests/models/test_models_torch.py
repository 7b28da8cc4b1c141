"""ResNet, DenseNet and VGG give the logits of PyTorch, from a file of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake import models
from jaxfake.models import vgg
from jaxfake.models.weights import pretrained

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is missing")
safetensors_torch = pytest.importorskip("safetensors.torch")
torch_peers = pytest.importorskip("jaxfake.benchmarks.torch_peers")

# More threads wait for each other at these sizes, at others' cost.
torch.set_num_threads(1)

CLASSES = 5


def timm_vgg(tensors):
  """A VGG's tensors as timm has them: dense layers as convolutions."""
  names = {
    "classifier.0.": ("pre_logits.fc1.", (4096, 512, 7, 7)),
    "classifier.3.": ("pre_logits.fc2.", (4096, 4096, 1, 1)),
    "classifier.6.": ("head.fc.", (CLASSES, 4096)),
  }
  for old, (new, shape) in names.items():
    tensors[f"{new}weight"] = tensors.pop(f"{old}weight").reshape(shape)
    tensors[f"{new}bias"] = tensors.pop(f"{old}bias")
  return tensors


def old_densenet(tensors):
  """A DenseNet's as in torchvision's first files: norm.1 for norm1."""
  return {
    name.replace(".norm1.", ".norm.1.")
    .replace(".norm2.", ".norm.2.")
    .replace(".conv1.", ".conv.1.")
    .replace(".conv2.", ".conv.2."): tensor
    for name, tensor in tensors.items()
  }


@pytest.mark.parametrize(
  "name, size, channels, rename",
  [
    ("resnet18", (33, 64), 1, dict),
    ("resnet34", (64, 65), 3, dict),
    ("resnet50", (65, 33), 3, dict),
    ("resnet101", (32, 32), 1, dict),
    ("resnet152", (33, 33), 3, dict),
    ("densenet121", (65, 64), 1, dict),
    ("densenet169", (33, 33), 3, old_densenet),
    ("densenet201", (32, 32), 3, dict),
    ("vgg16", (64, 33), 3, dict),
    ("vgg19", (65, 96), 1, timm_vgg),
  ],
)
def test_logits_equal_pytorchs(name, size, channels, rename, tmp_path):
  peer = torch_peers.make(name, CLASSES, channels)
  path = tmp_path / "weights.safetensors"
  safetensors_torch.save_file(rename(peer.state_dict()), path)
  network = models.MODELS[name](num_classes=CLASSES)
  x = np.random.default_rng(1).standard_normal((2, *size, channels))
  x = x.astype(np.float32)
  fresh = jax.eval_shape(
    lambda: network.init(jax.random.key(0), jnp.asarray(x), train=False)
  )
  variables, report = pretrained.load(path, name, fresh)
  path.unlink()  # Up to half a gigabyte.
  assert f"{len(jax.tree.leaves(fresh))} tensors" in report
  ours = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)
  theirs = torch_peers.logits(peer, x)
  assert np.abs(theirs[0] - theirs[1]).max() > 1e-3 * np.abs(theirs).max()
  tolerance = 1e-4 * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_adaptive_average_is_pytorchs():
  x = np.random.default_rng(0).standard_normal((1, 1, 1, 23)).astype("f4")
  for size in range(1, 24):
    pool = torch.nn.AdaptiveAvgPool2d((1, 7))
    theirs = pool(torch.as_tensor(x[..., :size])).numpy()[0, 0, 0]
    ours = vgg.average(size, 7) @ x[0, 0, 0, :size]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

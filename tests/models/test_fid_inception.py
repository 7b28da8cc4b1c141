"""The network of FID: equal to PyTorch's, from a file of PyTorch's."""

import hashlib
import io
import os
import pickle

import numpy as np
import pytest

from jaxfake import errors
from jaxfake.evaluation import inception
from jaxfake.models.weights import fid_weights, torch_file

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is missing")
F = torch.nn.functional

torch.set_num_threads(1)

ROW, COLUMN = ((1, 7), (0, 3)), ((7, 1), (3, 0))  # Kernel and padding.


class Reference:
  """The network with random weights, written after pytorch-fid's. `state` has
  the tensors that it has met, by pytorch-fid's names."""

  def __init__(self):
    self.state = {}
    self._rng = np.random.default_rng(0)

  def _draw(self, name, low, high, shape):
    x = torch.tensor(self._rng.uniform(low, high, shape).astype(np.float32))
    return self.state.setdefault(name, x)

  def conv(self, x, name, width, kernel=1, padding=0, stride=1):
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    shape = (width, x.shape[1], *kernel)
    bound = (6 / np.prod(shape[1:])) ** 0.5
    w = self._draw(f"{name}.conv.weight", -bound, bound, shape)
    scale, var = (
      self._draw(f"{name}.bn.{leaf}", 0.5, 1.5, width)
      for leaf in ("weight", "running_var")
    )
    bias, mean = (
      self._draw(f"{name}.bn.{leaf}", -0.2, 0.2, width)
      for leaf in ("bias", "running_mean")
    )
    x = F.conv2d(x, w, stride=stride, padding=padding)
    return F.relu(F.batch_norm(x, mean, var, scale, bias, eps=1e-3))

  def chain(self, x, name, *steps):
    for i, step in enumerate(steps, 1):
      x = self.conv(x, f"{name}_{i}", *step)
    return x

  def pooled(self, x, name, width, pool=None):
    if pool is None:
      pool = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return self.conv(pool, f"{name}.branch_pool", width)

  def a(self, x, name, width):
    one = self.conv(x, f"{name}.branch1x1", 64)
    five = self.chain(x, f"{name}.branch5x5", (48,), (64, 5, 2))
    three = self.chain(x, f"{name}.branch3x3dbl", (64,), (96, 3, 1), (96, 3, 1))
    return torch.cat([one, five, three, self.pooled(x, name, width)], 1)

  def b(self, x, name):
    three = self.conv(x, f"{name}.branch3x3", 384, 3, 0, 2)
    double = self.chain(
      x, f"{name}.branch3x3dbl", (64,), (96, 3, 1), (96, 3, 0, 2)
    )
    return torch.cat([three, double, F.max_pool2d(x, 3, 2)], 1)

  def c(self, x, name, w):
    one = self.conv(x, f"{name}.branch1x1", 192)
    seven = self.chain(x, f"{name}.branch7x7", (w,), (w, *ROW), (192, *COLUMN))
    rest = (w, *COLUMN), (w, *ROW), (w, *COLUMN), (192, *ROW)
    double = self.chain(x, f"{name}.branch7x7dbl", (w,), *rest)
    return torch.cat([one, seven, double, self.pooled(x, name, 192)], 1)

  def d(self, x, name):
    three = self.chain(x, f"{name}.branch3x3", (192,), (320, 3, 0, 2))
    rest = (192, *ROW), (192, *COLUMN), (192, 3, 0, 2)
    seven = self.chain(x, f"{name}.branch7x7x3", (192,), *rest)
    return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

  def e(self, x, name, pool=None):
    def fork(x, name):
      row = self.conv(x, f"{name}a", 384, (1, 3), (0, 1))
      return row, self.conv(x, f"{name}b", 384, (3, 1), (1, 0))

    one = self.conv(x, f"{name}.branch1x1", 320)
    three = self.chain(x, f"{name}.branch3x3", (384,))
    double = self.chain(x, f"{name}.branch3x3dbl", (448,), (384, 3, 1))
    three = fork(three, f"{name}.branch3x3_2")
    double = fork(double, f"{name}.branch3x3dbl_3")
    pool = self.pooled(x, name, 192, pool)
    return torch.cat([one, *three, *double, pool], 1)

  def __call__(self, x):
    x = self.conv(x, "Conv2d_1a_3x3", 32, 3, 0, 2)
    x = self.conv(x, "Conv2d_2a_3x3", 32, 3)
    x = self.conv(x, "Conv2d_2b_3x3", 64, 3, 1)
    x = self.conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1", 80)
    x = F.max_pool2d(self.conv(x, "Conv2d_4a_3x3", 192, 3), 3, 2)
    for name, width in (("5b", 32), ("5c", 64), ("5d", 64)):
      x = self.a(x, f"Mixed_{name}", width)
    x = self.b(x, "Mixed_6a")
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
      x = self.c(x, f"Mixed_{name}", width)
    x = self.e(self.d(x, "Mixed_7a"), "Mixed_7b")
    return self.e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1)).mean((2, 3))


def as_tensorflow_1(images) -> np.ndarray:
  """Gray images (b, h, w, 1) at 299 px, by NumPy's interpolation in a line."""

  def line(values):
    n = len(values)
    return np.interp(np.arange(299) * n / 299, np.arange(n), values)

  x = images[..., 0].astype(float)
  return np.apply_along_axis(line, 1, np.apply_along_axis(line, 2, x))


def test_enlarges_as_tensorflow_1():
  x = np.random.default_rng(0).integers(0, 256, (2, 64, 80, 1))
  got = inception.enlarged(x.astype(np.float32), 299)[..., 0]
  np.testing.assert_allclose(got, as_tensorflow_1(x), atol=2e-3)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """Images, their features by PyTorch, and a file of the weights, as PyTorch
  wrote them before 1.6, in place of the published one."""
  rng = np.random.default_rng(1)
  x = rng.normal(size=(2, 40, 40, 1)).cumsum(1).cumsum(2) * 4 + 128
  x = x.clip(0, 255).astype(np.uint8)
  network = Reference()
  y = torch.tensor((as_tensorflow_1(x) - 128) / 128, dtype=torch.float32)
  with torch.no_grad():
    features = network(y[:, None].repeat(1, 3, 1, 1)).numpy()
  network.state["fc.weight"] = torch.zeros(1008, 2048)
  network.state["Mixed_7c.branch_pool.bn.num_batches_tracked"] = torch.tensor(7)
  path = tmp_path_factory.mktemp("weights") / "weights.pth"
  torch.save(network.state, path, _use_new_zipfile_serialization=False)
  return x, features, path


def test_features_are_those_of_pytorch(published, monkeypatch):
  x, features, path = published
  sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  monkeypatch.setattr(fid_weights, "SHA256", sha256)
  got = np.asarray(inception.extractor(path)(x))
  assert got.shape == (2, 2048)
  # Relative to what the image changes, which is less than the features.
  error = np.abs(got - features).max() / np.abs(features[0] - features[1]).max()
  assert error < 1e-4


def test_another_file_is_refused(published, tmp_path):
  path = published[2]
  with pytest.raises(errors.DataError, match=r"weights.pth has the SHA-256"):
    inception.extractor(path)
  with pytest.raises(errors.DataError, match="is not a file: expected"):
    inception.extractor(tmp_path / "none.pth")


def test_strides_and_offsets_of_tensors_are_kept():
  x = torch.arange(24.0).reshape(2, 3, 4)
  wanted = {"view": x[1:, :, ::2], "turned": x.permute(2, 0, 1), "whole": x}
  wanted["count"] = torch.tensor(7)
  file = io.BytesIO()
  torch.save(wanted, file, _use_new_zipfile_serialization=False)
  got = torch_file.tensors(file.getvalue())
  assert got.keys() == wanted.keys()
  for name, tensor in wanted.items():
    np.testing.assert_array_equal(got[name], tensor.numpy(), strict=True)


class Code:
  def __reduce__(self):
    return os.mkdir, ("made_by_a_pickle",)


def test_a_file_that_would_run_code_does_not(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  file = io.BytesIO()
  torch.save({"x": Code()}, file, _use_new_zipfile_serialization=False)
  with pytest.raises(pickle.UnpicklingError, match="it names"):
    torch_file.tensors(file.getvalue())
  assert not os.listdir(tmp_path)

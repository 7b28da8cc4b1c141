"""ResNet, DenseNet and VGG in PyTorch, as independent oracles of ours.

Modules are named as torchvision names them, so a `state_dict` of these has
the tensors of a torchvision file.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

# More threads wait for each other at these sizes, at others' cost.
torch.set_num_threads(1)


def norm_conv(channels: int, width: int, kernel: int, stride: int = 1):
  return nn.Conv2d(
    channels, width, kernel, stride, padding=kernel // 2, bias=False
  )


class Block(nn.Module):
  """A residual block of ResNet; `wide` is 4 for a bottleneck, 1 for a basic."""

  def __init__(self, channels: int, width: int, wide: int, stride: int):
    super().__init__()
    if wide == 4:
      self.conv1 = norm_conv(channels, width, 1)
      self.conv2 = norm_conv(width, width, 3, stride)
      self.conv3 = norm_conv(width, 4 * width, 1)
      self.bn3 = nn.BatchNorm2d(4 * width)
    else:
      self.conv1 = norm_conv(channels, width, 3, stride)
      self.conv2 = norm_conv(width, width, 3)
    self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
    self.downsample = nn.Identity()
    if stride != 1 or channels != wide * width:
      self.downsample = nn.Sequential(
        norm_conv(channels, wide * width, 1, stride),
        nn.BatchNorm2d(wide * width),
      )

  def forward(self, x):
    y = self.bn1(self.conv1(x)).relu()
    y = self.bn2(self.conv2(y))
    if hasattr(self, "conv3"):
      y = self.bn3(self.conv3(y.relu()))
    return (y + self.downsample(x)).relu()


class ResNet(nn.Module):
  def __init__(self, blocks, wide: int, num_classes: int, channels: int = 3):
    super().__init__()
    self.conv1 = norm_conv(channels, 64, 7, 2)
    self.bn1 = nn.BatchNorm2d(64)
    self.maxpool = nn.MaxPool2d(3, 2, padding=1)
    c = 64
    for i, number in enumerate(blocks):
      width, stage = 64 << i, []
      for j in range(number):
        stage.append(Block(c, width, wide, 2 if i and not j else 1))
        c = wide * width
      setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
    self.fc = nn.Linear(c, num_classes)

  def forward(self, x):
    x = self.maxpool(self.bn1(self.conv1(x)).relu())
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
  def __init__(self, channels: int):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(channels)
    self.conv1 = norm_conv(channels, 128, 1)
    self.norm2 = nn.BatchNorm2d(128)
    self.conv2 = norm_conv(128, 32, 3)

  def forward(self, x):
    y = self.conv1(self.norm1(x).relu())
    return torch.cat([x, self.conv2(self.norm2(y).relu())], 1)


class DenseNet(nn.Module):
  def __init__(self, blocks, num_classes: int, channels: int = 3):
    super().__init__()
    parts = OrderedDict(
      conv0=norm_conv(channels, 64, 7, 2),
      norm0=nn.BatchNorm2d(64),
      relu0=nn.ReLU(),
      pool0=nn.MaxPool2d(3, 2, padding=1),
    )
    c = 64
    for i, number in enumerate(blocks, 1):
      block = OrderedDict()
      for j in range(1, number + 1):
        block[f"denselayer{j}"] = DenseLayer(c)
        c += 32
      parts[f"denseblock{i}"] = nn.Sequential(block)
      if i < len(blocks):
        parts[f"transition{i}"] = nn.Sequential(
          OrderedDict(
            norm=nn.BatchNorm2d(c),
            relu=nn.ReLU(),
            conv=norm_conv(c, c // 2, 1),
            pool=nn.AvgPool2d(2, 2),
          )
        )
        c //= 2
    parts["norm5"] = nn.BatchNorm2d(c)
    self.features = nn.Sequential(parts)
    self.classifier = nn.Linear(c, num_classes)

  def forward(self, x):
    return self.classifier(self.features(x).relu().mean((2, 3)))


class VGG(nn.Module):
  def __init__(self, convs, num_classes: int, channels: int = 3):
    super().__init__()
    parts, c = [], channels
    for i, number in enumerate(convs):
      for _ in range(number):
        width = min(64 << i, 512)
        parts += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU()]
        c = width
      parts.append(nn.MaxPool2d(2, 2))
    self.features = nn.Sequential(*parts)
    self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    self.classifier = nn.Sequential(
      nn.Linear(512 * 7 * 7, 4096),
      nn.ReLU(),
      nn.Dropout(),
      nn.Linear(4096, 4096),
      nn.ReLU(),
      nn.Dropout(),
      nn.Linear(4096, num_classes),
    )

  def forward(self, x):
    return self.classifier(self.avgpool(self.features(x)).flatten(1))


PLANS = {
  "resnet18": (ResNet, (2, 2, 2, 2), 1),
  "resnet34": (ResNet, (3, 4, 6, 3), 1),
  "resnet50": (ResNet, (3, 4, 6, 3), 4),
  "resnet101": (ResNet, (3, 4, 23, 3), 4),
  "resnet152": (ResNet, (3, 8, 36, 3), 4),
  "densenet121": (DenseNet, (6, 12, 24, 16)),
  "densenet169": (DenseNet, (6, 12, 32, 32)),
  "densenet201": (DenseNet, (6, 12, 48, 32)),
  "vgg16": (VGG, (2, 2, 3, 3, 3)),
  "vgg19": (VGG, (2, 2, 4, 4, 4)),
}


def make(name: str, num_classes: int, channels: int = 3) -> nn.Module:
  """A network for inference with random weights and batch statistics."""
  build, *plan = PLANS[name]
  with torch.device("meta"):  # Without torch's own, slower, initialisation.
    network = build(*plan, num_classes, channels)
  network = network.to_empty(device="cpu").eval()
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for key, x in network.state_dict().items():
      if key.endswith("num_batches_tracked"):
        value = np.int64(7)
      elif x.ndim > 1:  # Keeps activations near one.
        value = rng.random(x.shape, np.float32)  # Variance 2 / fan_in.
        value -= np.float32(0.5)
        value *= np.sqrt(24 / np.prod(x.shape[1:]), dtype=np.float32)
      elif key.endswith(("running_var", "weight")):  # Of a batch norm.
        value = rng.uniform(0.5, 1.5, x.shape)
      else:
        value = rng.normal(0, 0.1, x.shape)
      x.copy_(torch.as_tensor(value))
  return network


def logits(network: nn.Module, x: np.ndarray) -> np.ndarray:
  """Of images (b, h, w, c), as ours takes them."""
  with torch.no_grad():
    return network(torch.as_tensor(x).permute(0, 3, 1, 2)).numpy()

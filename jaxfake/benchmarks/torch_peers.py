"""Networks in PyTorch, to be compared with ours: results in tests, and speed.

Modules of ResNet, DenseNet, VGG and MobileNetV2 are named as torchvision names
them, so a `state_dict` of these has the tensors of a torchvision file. DCGAN,
WGAN-GP's critic and CNN are `models.dcgan`'s, `models.wgan`'s and
`models.cnn`'s, module for module.

Padding is symmetric, PyTorch's custom. Where an even side is halved, ours pads
one pixel less before and one more behind in CNN and MobileNetV2: at odd sides
(65 px: 33, 17, 9, 5, 3) the two agree.
"""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false
# pyright: reportCallIssue=false, reportArgumentType=false

from collections import OrderedDict
from collections.abc import Callable, Sequence
import math

import numpy as np
import torch
from torch import nn


def norm_conv(
  channels: int, width: int, kernel: int, stride: int = 1
) -> nn.Conv2d:
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

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.bn1(self.conv1(x)).relu_()
    y = self.bn2(self.conv2(y))
    if hasattr(self, "conv3"):
      y = self.bn3(self.conv3(y.relu_()))
    return (y + self.downsample(x)).relu_()


class ResNet(nn.Module):
  def __init__(
    self, blocks: Sequence[int], wide: int, num_classes: int, channels: int = 3
  ):
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

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.maxpool(self.bn1(self.conv1(x)).relu_())
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
  def __init__(self, channels: int):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(channels)
    self.conv1 = norm_conv(channels, 128, 1)
    self.norm2 = nn.BatchNorm2d(128)
    self.conv2 = norm_conv(128, 32, 3)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.conv1(self.norm1(x).relu_())
    return torch.cat([x, self.conv2(self.norm2(y).relu_())], 1)


class DenseNet(nn.Module):
  def __init__(
    self, blocks: Sequence[int], num_classes: int, channels: int = 3
  ):
    super().__init__()
    parts = OrderedDict(
      conv0=norm_conv(channels, 64, 7, 2),
      norm0=nn.BatchNorm2d(64),
      relu0=nn.ReLU(inplace=True),
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
            relu=nn.ReLU(inplace=True),
            conv=norm_conv(c, c // 2, 1),
            pool=nn.AvgPool2d(2, 2),
          )
        )
        c //= 2
    parts["norm5"] = nn.BatchNorm2d(c)
    self.features = nn.Sequential(parts)
    self.classifier = nn.Linear(c, num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.classifier(self.features(x).relu_().mean((2, 3)))


class VGG(nn.Module):
  def __init__(self, convs: Sequence[int], num_classes: int, channels: int = 3):
    super().__init__()
    parts, c = [], channels
    for i, number in enumerate(convs):
      for _ in range(number):
        width = min(64 << i, 512)
        parts += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU(inplace=True)]
        c = width
      parts.append(nn.MaxPool2d(2, 2))
    self.features = nn.Sequential(*parts)
    self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    self.classifier = nn.Sequential(
      nn.Linear(512 * 7 * 7, 4096),
      nn.ReLU(inplace=True),
      nn.Dropout(),
      nn.Linear(4096, 4096),
      nn.ReLU(inplace=True),
      nn.Dropout(),
      nn.Linear(4096, num_classes),
    )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.classifier(self.avgpool(self.features(x)).flatten(1))


class InvertedResidual(nn.Module):
  def __init__(self, channels: int, expansion: int, width: int, stride: int):
    super().__init__()
    wide, parts = expansion * channels, []
    if expansion > 1:
      parts.append(conv_norm_relu6(channels, wide, 1))
    parts.append(conv_norm_relu6(wide, wide, 3, stride, groups=wide))
    parts += [norm_conv(wide, width, 1), nn.BatchNorm2d(width, eps=1e-3)]
    self.conv = nn.Sequential(*parts)
    self.short = stride == 1 and channels == width

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + self.conv(x) if self.short else self.conv(x)


def conv_norm_relu6(
  channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
  return nn.Sequential(
    nn.Conv2d(
      channels, width, kernel, stride, kernel // 2, groups=groups, bias=False
    ),
    nn.BatchNorm2d(width, eps=1e-3),
    nn.ReLU6(inplace=True),
  )


class MobileNetV2(nn.Module):
  def __init__(
    self, stages: Sequence[Sequence[int]], num_classes: int, channels: int = 3
  ):
    super().__init__()
    parts, c = [conv_norm_relu6(channels, 32, 3, 2)], 32
    for expansion, width, repeats, stride in stages:
      for i in range(repeats):
        step = 1 if i else stride
        parts.append(InvertedResidual(c, expansion, width, step))
        c = width
    parts.append(conv_norm_relu6(c, 1280, 1))
    self.features = nn.Sequential(*parts)
    self.classifier = nn.Sequential(
      nn.Dropout(0.2), nn.Linear(1280, num_classes)
    )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.classifier(self.features(x).mean((2, 3)))


class CNNStage(nn.Module):
  def __init__(self, channels: int, width: int, stride: int):
    super().__init__()
    self.conv1 = norm_conv(channels, width, 3, stride)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = norm_conv(width, width, 3)
    self.bn2 = nn.BatchNorm2d(width)
    self.short = nn.Identity()
    if stride > 1:
      self.short = nn.Sequential(
        norm_conv(channels, width, 1, stride), nn.BatchNorm2d(width)
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
    return (self.short(x) + y).relu_()


class CNN(nn.Module):
  def __init__(self, width: int, num_classes: int, channels: int = 1):
    super().__init__()
    self.stem = nn.Sequential(
      norm_conv(channels, width, 5, 2),
      nn.BatchNorm2d(width),
      nn.ReLU(inplace=True),
    )
    stages, c = [], width
    for i in range(4):
      stages.append(CNNStage(c, width << i, 2 if i else 1))
      c = width << i
    self.stages = nn.Sequential(*stages)
    self.dropout = nn.Dropout(0.0)
    self.fc = nn.Linear(2 * c, num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.stages(self.stem(x))
    x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
    return self.fc(self.dropout(x))


class Generator(nn.Module):
  """Of DCGAN: latents (b, z) to images (b, c, s, s)."""

  def __init__(self, widths: Sequence[int], latents: int, channels: int = 1):
    super().__init__()
    parts, c = [], latents
    for i, width in enumerate(widths):
      pads = (2, 1) if i else (1, 0)  # Stride and padding.
      parts += [
        nn.ConvTranspose2d(c, width, 4, *pads, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
      ]
      c = width
    parts += [nn.ConvTranspose2d(c, channels, 4, 2, 1), nn.Tanh()]
    self.main = nn.Sequential(*parts)

  def forward(self, z: torch.Tensor) -> torch.Tensor:
    return self.main(z[:, :, None, None])


class Discriminator(nn.Module):
  """Of DCGAN: images (b, c, s, s) to logits (b,)."""

  def __init__(
    self,
    widths: Sequence[int],
    channels: int = 1,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    bias: bool = False,
  ):
    super().__init__()
    parts, c = [], channels
    for i, width in enumerate(reversed(widths)):
      parts.append(nn.Conv2d(c, width, 4, 2, 1, bias=bias or i == 0))
      if i > 0:
        parts.append(norm(width))
      parts.append(nn.LeakyReLU(0.2, inplace=True))
      c = width
    parts.append(nn.Conv2d(c, 1, 4))
    self.main = nn.Sequential(*parts)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.main(x)[:, 0, 0, 0]


class Critic(Discriminator):
  """Of WGAN-GP: images (b, c, s, s) to scores (b,). Its layer norm, over the
  whole image, is a group norm of one group."""

  def __init__(self, widths: Sequence[int], channels: int = 1):
    norm = lambda width: nn.GroupNorm(1, width, eps=1e-6)
    super().__init__(widths, channels, norm, bias=True)


def dcgan_widths(size: int, width: int) -> list[int]:
  """Channels at 4x4, 8x8, ... size / 2."""
  return [width << i for i in reversed(range(int(math.log2(size)) - 2))]


# Of MobileNetV2: expansion, output channels, repeats, stride of the first.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)
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
  "mobilenet_v2": (MobileNetV2, STAGES),
  "cnn": (CNN, 24),
}


def make(name: str, num_classes: int, channels: int = 3) -> nn.Module:
  """A network for inference with random weights and batch statistics."""
  network = filled(lambda: empty(name, num_classes, channels))
  return network.eval()


def empty(name: str, num_classes: int, channels: int = 3) -> nn.Module:
  build, *plan = PLANS[name]
  return build(*plan, num_classes, channels)


def filled(build: Callable[[], nn.Module]) -> nn.Module:
  """What `build` makes, with random weights and batch statistics."""
  with torch.device("meta"):  # Without torch's own, slower, initialisation.
    network = build()
  network = network.to_empty(device="cpu")
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

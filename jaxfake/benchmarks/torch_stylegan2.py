"""`models.stylegan2`'s networks in PyTorch, unconditional: Karras et al., 2020,
arXiv:1912.04958, with their modulation of what goes into and comes out of a
convolution that all images share."""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false

from collections.abc import Iterable, Sequence
import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

TINY = 1e-8  # Below roots.
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
FILTER = TAPS[:, None] * TAPS


def widths(size: int, width: int, max_width: int = 512) -> list[int]:
  """Channels at 4x4, 8x8, ... size."""
  stages = int(math.log2(size)) - 1
  return [min(width << i, max_width) for i in reversed(range(stages))]


def noise_sides(size: int) -> list[int]:
  """Pixels a side of each map of noise: one at 4x4, then two at each side."""
  sides = [4 << i for i in range(1, int(math.log2(size)) - 1)]
  return [4, *(side for side in sides for _ in range(2))]


def activated(x: torch.Tensor) -> torch.Tensor:
  return F.leaky_relu(x, 0.2) * math.sqrt(2)


def each_channels(x: torch.Tensor, gain: float) -> torch.Tensor:
  """The filter for each channel of x, (c, 1, 4, 4)."""
  return (gain * FILTER).to(x).expand(x.shape[1], 1, 4, 4)


def filtered(
  x: torch.Tensor, padding: int, stride: int = 1, gain: float = 1.0
) -> torch.Tensor:
  kernel = each_channels(x, gain)
  return F.conv2d(x, kernel, None, stride, padding, groups=x.shape[1])


def doubled(x: torch.Tensor) -> torch.Tensor:
  kernel = each_channels(x, 4.0)
  return F.conv_transpose2d(x, kernel, None, 2, 1, groups=x.shape[1])


def normal(*shape: int) -> nn.Parameter:
  return nn.Parameter(torch.randn(shape))


class Dense(nn.Module):
  def __init__(
    self, channels: int, features: int, bias: float = 0.0, rate: float = 1.0
  ):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(features, channels) / rate)
    self.bias = nn.Parameter(torch.full((features,), bias / rate))
    self.rate = rate

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    scale = self.rate / math.sqrt(x.shape[1])
    return F.linear(x, self.weight * scale, self.bias * self.rate)


class Conv(nn.Module):
  def __init__(
    self,
    channels: int,
    features: int,
    side: int = 3,
    stride: int = 1,
    bias: bool = True,
  ):
    super().__init__()
    self.weight = normal(features, channels, side, side)
    self.bias = nn.Parameter(torch.zeros(features)) if bias else None
    self.stride, self.padding = stride, side // 2 if stride == 1 else 0

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    weight = self.weight / math.sqrt(self.weight[0].numel())
    return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class StyledConv(nn.Module):
  def __init__(
    self, channels: int, features: int, latents: int, double: bool = False
  ):
    super().__init__()
    self.affine = Dense(latents, channels, bias=1.0)
    self.weight = normal(features, channels, 3, 3)
    self.strength = nn.Parameter(torch.zeros(()))
    self.bias = nn.Parameter(torch.zeros(features))
    self.doubles = double

  def forward(
    self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor
  ) -> torch.Tensor:
    style = self.affine(style)  # (b, c)
    weight = self.weight / math.sqrt(self.weight[0].numel())
    squares = weight.square().sum((2, 3))  # (o, c)
    scale = (F.linear(style.square(), squares) + TINY).rsqrt()
    x = x * style[:, :, None, None]
    if self.doubles:
      x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
      x = filtered(x, 1, gain=4.0)
    else:
      x = F.conv2d(x, weight, padding=1)
    x = x * scale[:, :, None, None] + self.strength * noise
    return activated(x + self.bias[:, None, None])


class ToImage(nn.Module):
  def __init__(self, channels: int, features: int, latents: int):
    super().__init__()
    self.affine = Dense(latents, channels, bias=1.0)
    self.conv = Conv(channels, features, side=1)

  def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    return self.conv(x * self.affine(style)[:, :, None, None])


class Generator(nn.Module):
  """Normal deviates (b, n), of which the first are the latents and the others
  noise, to images (b, c, s, s)."""

  def __init__(
    self,
    widths: Sequence[int],
    latents: int = 256,
    channels: int = 1,
    mapping_layers: int = 8,
  ):
    super().__init__()
    self.sides = noise_sides(4 << (len(widths) - 1))
    self.parts = [latents, *(side**2 for side in self.sides)]
    self.mapping = nn.ModuleList(
      Dense(latents, latents, rate=0.01) for _ in range(mapping_layers)
    )
    self.constant = normal(1, widths[0], 4, 4)
    self.doubles, self.convs = nn.ModuleList(), nn.ModuleList()
    self.images, c = nn.ModuleList(), widths[0]
    for i, width in enumerate(widths):
      if i:
        self.doubles.append(StyledConv(c, width, latents, double=True))
      self.convs.append(StyledConv(width, width, latents))
      self.images.append(ToImage(width, channels, latents))
      c = width

  def forward(self, deviates: torch.Tensor) -> torch.Tensor:
    z, *maps = deviates.split(self.parts, 1)
    style = z * (z.square().mean(1, keepdim=True) + TINY).rsqrt()
    for dense in self.mapping:
      style = activated(dense(style))
    noise = iter(
      x.view(-1, 1, s, s) for x, s in zip(maps, self.sides, strict=True)
    )
    return self.drawn(style, noise)

  def drawn(
    self, style: torch.Tensor, noise: Iterable[torch.Tensor]
  ) -> torch.Tensor:
    noise = iter(noise)
    x = self.constant.expand(len(style), -1, -1, -1)
    x = self.convs[0](x, style, next(noise))
    image = self.images[0](x, style)
    rest = zip(self.doubles, self.convs[1:], self.images[1:], strict=True)
    for double, conv, to_image in rest:
      x = double(x, style, next(noise))
      x = conv(x, style, next(noise))
      image = doubled(image) + to_image(x, style)
    return image


class Block(nn.Module):
  def __init__(self, channels: int, features: int):
    super().__init__()
    self.conv1 = Conv(channels, channels)
    self.conv2 = Conv(channels, features, stride=2)
    self.short = Conv(channels, features, side=1, bias=False)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = filtered(activated(self.conv1(x)), 2)
    y = activated(self.conv2(y))
    return (self.short(filtered(x, 1, stride=2)) + y) / math.sqrt(2)


class Discriminator(nn.Module):
  """Images (b, c, s, s) to logits (b,)."""

  def __init__(self, widths: Sequence[int], channels: int = 1, group: int = 4):
    super().__init__()
    self.group = group
    self.first = Conv(channels, widths[-1], side=1)
    narrower = list(reversed(widths))
    self.blocks = nn.Sequential(
      *(Block(*pair) for pair in itertools.pairwise(narrower))
    )
    self.conv = Conv(widths[0] + 1, widths[0])
    self.dense1 = Dense(16 * widths[0], widths[0])
    self.dense2 = Dense(widths[0], 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.blocks(activated(self.first(x)))
    groups = x.unflatten(0, (-1, min(self.group, len(x))))
    deviation = (groups.var(1, correction=0) + TINY).sqrt().mean((1, 2, 3))
    told = deviation.repeat_interleave(groups.shape[1])
    told = told[:, None, None, None].expand(-1, 1, *x.shape[2:])
    x = activated(self.conv(torch.cat([x, told], 1)))
    x = x.permute(0, 2, 3, 1).flatten(1)  # As it lies in memory.
    return self.dense2(activated(self.dense1(x)))[:, 0]

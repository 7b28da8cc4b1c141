"""`models.unet`'s network in PyTorch, unconditional and without patches: the
default of configs/edm.py; and its denoiser.

Karras et al., 2022, arXiv:2206.00364, table 1 ("Ours") and equation 7.
"""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false

import math

import torch
from torch import nn
from torch.nn import functional as F

SIGMA_DATA = 0.5
HEAD = 32  # Channels of an attention head.


def group_norm(channels: int) -> nn.GroupNorm:
  groups = math.gcd(channels, min(32, max(1, channels // 4)))
  return nn.GroupNorm(groups, channels, eps=1e-6)


def waves(level: torch.Tensor, width: int) -> torch.Tensor:
  """Cosines and sines of numbers (b,), (b, width)."""
  powers = torch.arange(width // 2, device=level.device) / (width // 2)
  angles = level[:, None] * 10_000**-powers
  return torch.cat([angles.cos(), angles.sin()], 1)


class Block(nn.Module):
  def __init__(self, channels: int, width: int, wide: int, dropout: float):
    super().__init__()
    self.norm1 = group_norm(channels)
    self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
    self.affine = nn.Linear(wide, 2 * width)
    self.norm2 = group_norm(width)
    self.dropout = nn.Dropout(dropout)
    self.conv2 = nn.Conv2d(width, width, 3, padding=1)
    self.short = nn.Identity()
    if channels != width:
      self.short = nn.Conv2d(channels, width, 1)

  def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    h = self.conv1(F.silu(self.norm1(x)))
    gain, shift = self.affine(condition)[:, :, None, None].chunk(2, 1)
    h = F.silu(torch.addcmul(shift, self.norm2(h), 1 + gain))
    h = self.conv2(self.dropout(h))
    return (self.short(x) + h) / math.sqrt(2)


class Attention(nn.Module):
  def __init__(self, channels: int):
    super().__init__()
    self.heads = max(1, channels // HEAD)
    self.norm = group_norm(channels)
    self.qkv = nn.Linear(channels, 3 * channels)
    self.out = nn.Linear(channels, channels)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    pixels = self.norm(x).flatten(2).mT  # (b, h w, c)
    qkv = self.qkv(pixels).view(b, h * w, 3, self.heads, c // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (b, heads, h w, c / heads)
    mixed = F.scaled_dot_product_attention(q, k, v)
    mixed = self.out(mixed.transpose(1, 2).reshape(b, h * w, c))
    return (x + mixed.mT.view(b, c, h, w)) / math.sqrt(2)


class Level(nn.Module):
  """A block and, at small sides, attention."""

  def __init__(
    self, channels: int, width: int, wide: int, dropout: float, attends: bool
  ):
    super().__init__()
    self.block = Block(channels, width, wide, dropout)
    self.attention = Attention(width) if attends else nn.Identity()

  def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    return self.attention(self.block(x, condition))


class Down(nn.Module):
  def __init__(self, width: int):
    super().__init__()
    self.conv = nn.Conv2d(width, width, 3, 2)

  def forward(self, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return self.conv(F.pad(x, (0, 1, 0, 1)))  # As ours: none before.


class Up(nn.Module):
  def __init__(self, width: int):
    super().__init__()
    self.conv = nn.Conv2d(width, width, 3, padding=1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
  """Images (b, c, s, s) and levels of noise (b,) to (b, c, s, s)."""

  def __init__(
    self,
    size: int,
    width: int,
    max_width: int = 256,
    blocks: int = 2,
    smallest: int = 8,
    attention: int = 16,
    dropout: float = 0.1,
    channels: int = 1,
  ):
    super().__init__()
    wide = 4 * width
    level = lambda c, o: Level(c, o, wide, dropout, size <= attention)
    self.dense1, self.dense2 = nn.Linear(width, wide), nn.Linear(wide, wide)
    self.first = nn.Conv2d(channels, width, 3, padding=1)
    skips, c = [(size, width)], width
    self.down = nn.ModuleList()
    while True:
      for _ in range(blocks):
        self.down.append(level(c, width))
        skips.append((size, c := width))
      if size <= smallest:
        break
      self.down.append(Down(width))
      size //= 2
      skips.append((size, width))
      width = min(2 * width, max_width)
    self.middle = level(c, width)
    self.grow, self.up = nn.ModuleList(), nn.ModuleList()
    for side, skip in reversed(skips):
      self.grow.append(Up(c) if side > size else nn.Identity())
      size = side
      self.up.append(level(c + skip, skip))
      c = skip
    self.norm = group_norm(c)
    self.last = nn.Conv2d(c, channels, 3, padding=1)

  def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    condition = F.silu(self.dense1(waves(level, self.dense1.in_features)))
    condition = F.silu(self.dense2(condition))
    h = self.first(x)
    skips = [h]
    for module in self.down:
      skips.append(h := module(h, condition))
    h = self.middle(h, condition)
    for grow, module in zip(self.grow, self.up, strict=True):
      h = module(torch.cat([grow(h), skips.pop()], 1), condition)
    return self.last(F.silu(self.norm(h)))


def denoised(
  network: nn.Module, x: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
  """Clean images of noisy ones (b, c, s, s) and their noise's deviations
  (b,)."""
  s = sigma[:, None, None, None]
  both = s**2 + SIGMA_DATA**2
  answer = network(x * both.rsqrt(), sigma.log() / 4).float()
  return x * (SIGMA_DATA**2 / both) + answer * (s * SIGMA_DATA * both.rsqrt())

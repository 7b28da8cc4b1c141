"""PyTorch's side of the cases of `generators.edm`, by its configuration's
defaults. JAX is not imported here."""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from collections.abc import Callable
import itertools

import numpy as np
import torch

from jaxfake.benchmarks import torch_place, torch_unet
from jaxfake.benchmarks.cases import Case
from jaxfake.benchmarks.torch_place import Place

WARMUP = 2000  # Steps, over which the rate grows.
STEPS, RHO = 18, 7.0  # Of sampling.


def network(case: Case, place: Place) -> torch.nn.Module:
  return place.network(
    lambda: torch_unet.UNet(
      case.size, case.width, dropout=case.dropout, channels=case.channels
    )
  )


def training(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  step = stepper(place, network(case, place).train(), place.images(case, n))
  return torch_place.repeated(step, place, n)


def stepper(
  place: Place, network: torch.nn.Module, image: torch.Tensor
) -> Callable:
  """A step, to be called again and again; it tells what ours tells. The
  weighted error of denoising: Karras et al., equation 8."""
  opt = torch_place.adam(network.parameters(), place, 2e-4, 0.9, 0.999)
  average = torch_place.averager(list(network.parameters()), 0.9995)
  count = itertools.count()

  @place.compile
  def loss_of(image, sigma, noise):
    x = image.float() / 127.5 - 1
    noisy = x + sigma[:, None, None, None] * noise
    error = torch_unet.denoised(network, noisy, sigma) - x
    data = torch_unet.SIGMA_DATA
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    return (weight * error.square().mean((1, 2, 3))).mean()

  def step() -> dict[str, torch.Tensor]:
    t = next(count)
    for group in opt.param_groups:
      group["lr"] = 2e-4 * min(1, (t + 1) / WARMUP)
    sigma = torch.randn(len(image), device=place.device)
    sigma = (1.2 * sigma - 1.2).exp()
    noise = torch.randn(image.shape, device=place.device)
    with place.autocast():
      loss = loss_of(image, sigma, noise)
    opt.zero_grad()
    loss.backward()
    gradient = torch_place.norm(network.parameters())
    opt.step()
    average(t)
    return {"loss": loss.detach(), "gradient": gradient}

  return step


def sampling(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  draw = sampler(place, network(case, place).eval())
  shape = n, case.channels, case.size, case.size

  def run(batches: int) -> int:
    for _ in range(batches):
      place.fetch(draw(torch.randn(shape, device=place.device)))
    return batches * n

  return run


def sampler(place: Place, network: torch.nn.Module) -> Callable:
  """`draw(noise)` gives uint8 images of normal deviates, both (b, c, s, s):
  Heun's method, Karras et al., algorithm 1 and equation 5."""
  ends = np.array((80.0, 0.002)) ** (1 / RHO)
  levels = np.append(np.linspace(*ends, STEPS) ** RHO, 0).tolist()

  @place.compile
  def slope(x, sigma):
    return (x - torch_unet.denoised(network, x, sigma.expand(len(x)))) / sigma

  @torch.no_grad()
  def draw(noise: torch.Tensor) -> torch.Tensor:
    at = torch.tensor(levels, device=place.device).unbind()
    x = levels[0] * noise
    with place.autocast():
      for i, (now, then) in enumerate(itertools.pairwise(levels)):
        first = slope(x, at[i])
        ahead = x + (then - now) * first
        if then > 0:
          second = slope(ahead, at[i + 1])
          ahead = x + (then - now) / 2 * (first + second)
        x = ahead
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

  return draw

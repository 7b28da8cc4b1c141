"""PyTorch's side of the case of `generators.stylegan2`, by its configuration's
defaults, without augmentation. JAX is not imported here."""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from collections.abc import Callable
import itertools

import torch
from torch.nn import functional as F

from jaxfake.benchmarks import torch_place, torch_stylegan2
from jaxfake.benchmarks.cases import Case
from jaxfake.benchmarks.torch_place import Place

R1_WEIGHT, R1_EVERY = 0.05, 16


def networks(
  case: Case, place: Place
) -> tuple[torch_stylegan2.Generator, torch.nn.Module]:
  widths = torch_stylegan2.widths(case.size, case.width)
  with place.device:
    generator = torch_stylegan2.Generator(widths, channels=case.channels)
    discriminator = torch_stylegan2.Discriminator(widths, case.channels)
  last = torch.channels_last
  return generator.to(memory_format=last), discriminator.to(memory_format=last)


def training(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  generator, discriminator = networks(case, place)
  image = place.images(case, n)
  step = stepper(place, generator, discriminator, image)
  return torch_place.repeated(step, place, n)


def stepper(
  place: Place,
  generator: torch_stylegan2.Generator,
  discriminator: torch.nn.Module,
  image: torch.Tensor,
) -> Callable:
  """A step, to be called again and again; it tells what ours tells."""
  adam = lambda net: torch_place.adam(net.parameters(), place, 2e-3, 0.0, 0.99)
  g_opt, d_opt = adam(generator), adam(discriminator)
  average = torch_place.averager(list(generator.parameters()), 0.998)
  count = itertools.count()
  generate, judge = place.compile(generator), place.compile(discriminator)

  def r1(real):
    # torch.compile has no gradients of gradients: this stays eager.
    real = real.requires_grad_()
    logits = discriminator(real).sum()
    (slope,) = torch.autograd.grad(logits, real, create_graph=True)
    return R1_WEIGHT * R1_EVERY * slope.square().sum((1, 2, 3)).mean()

  def step() -> dict[str, torch.Tensor]:
    t = next(count)
    with place.autocast():
      z = torch.randn(len(image), sum(generator.parts), device=place.device)
      fake = generate(z)
      real = image.float() / 127.5 - 1
      terms = {
        "d_loss_real": F.softplus(-judge(real)).mean(),
        "d_loss_fake": F.softplus(judge(fake.detach())).mean(),
      }
      if t % R1_EVERY == 0:
        terms["d_loss_r1"] = r1(real)
    seen = {name: x.detach() for name, x in terms.items()}
    d_opt.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    seen["d_gradient"] = torch_place.norm(discriminator.parameters())
    d_opt.step()
    with torch_place.frozen(discriminator), place.autocast():
      loss = F.softplus(-judge(fake)).mean()
    seen |= torch_place.descended(loss, generator, g_opt)
    average(t)
    return seen

  return step

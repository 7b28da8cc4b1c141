"""PyTorch's side of the case of `generators.wgan_gp`, by its configuration's
defaults: Gulrajani et al., 2017, arXiv:1704.00028, algorithm 1. JAX is not
imported here."""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from collections.abc import Callable
import itertools

import torch

from jaxfake.benchmarks import torch_peers, torch_place
from jaxfake.benchmarks.cases import Case
from jaxfake.benchmarks.torch_place import Place

LATENTS, CRITIC_STEPS, PENALTY = 128, 5, 10.0


def networks(
  case: Case, place: Place
) -> tuple[torch.nn.Module, torch.nn.Module]:
  widths = torch_peers.dcgan_widths(case.size, case.width)
  return (
    place.network(
      lambda: torch_peers.Generator(widths, LATENTS, case.channels)
    ),
    place.network(lambda: torch_peers.Critic(widths, case.channels)),
  )


def training(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  generator, critic = networks(case, place)
  image = place.images(case, n)
  step = stepper(place, generator.train(), critic.train(), image)
  return torch_place.repeated(step, place, n)


def stepper(
  place: Place,
  generator: torch.nn.Module,
  critic: torch.nn.Module,
  image: torch.Tensor,
) -> Callable:
  """A step, to be called again and again; it tells what ours tells."""
  adam = lambda net: torch_place.adam(net.parameters(), place, 1e-4, 0.0, 0.9)
  g_opt, d_opt = adam(generator), adam(critic)
  average = torch_place.averager(torch_place.floats(generator), 0.999)
  count, n = itertools.count(), len(image) // CRITIC_STEPS
  latents = lambda rows: torch.randn(rows, LATENTS, device=place.device)

  # torch.compile has no gradients of gradients: the penalty stays eager.
  generate = place.compile(generator)
  judge = place.compile(critic)

  def penalty(real, fake):
    share = torch.rand((n, 1, 1, 1), device=place.device)
    x = torch.lerp(fake, real, share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm = (slope.square().sum((1, 2, 3)) + 1e-12).sqrt()
    return PENALTY * (norm - 1).square().mean()

  def critic_step(real, fake) -> dict[str, torch.Tensor]:
    with place.autocast():
      terms = {
        "d_loss_real": -judge(real).mean(),
        "d_loss_fake": judge(fake).mean(),
        "d_loss_penalty": penalty(real, fake),
      }
    d_opt.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    seen = {name: x.detach() for name, x in terms.items()}
    seen["d_gradient"] = torch_place.norm(critic.parameters())
    d_opt.step()
    return seen

  def step() -> dict[str, torch.Tensor]:
    with torch.no_grad(), place.autocast():
      fakes = generate(latents(len(image)))
    real = image.float() / 127.5 - 1
    each = [
      critic_step(real[k::CRITIC_STEPS], fakes[k::CRITIC_STEPS])
      for k in range(CRITIC_STEPS)
    ]
    seen = {x: torch.stack([y[x] for y in each]).mean() for x in each[0]}
    with torch_place.frozen(critic), place.autocast():
      loss = -judge(generate(latents(n))).mean()
    seen |= torch_place.descended(loss, generator, g_opt)
    average(next(count))
    return seen

  return step

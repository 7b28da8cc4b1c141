"""Where PyTorch's side of a case runs, and what its steps share."""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from collections.abc import Callable, Iterable, Iterator
import contextlib

import torch

from jaxfake.benchmarks import torch_peers
from jaxfake.benchmarks.cases import Case


class Place:
  """Where and how a case's networks run."""

  def __init__(self, case: Case, platform: str, mode: str):
    self.device = torch.device("cuda" if platform == "gpu" else platform)
    self.half = platform == "gpu" and case.precision("gpu") == "bfloat16"
    self.compiles = mode == "compile"
    self.fused = platform != "meta"

  def compile(self, fn: Callable) -> Callable:
    return torch.compile(fn, dynamic=False) if self.compiles else fn

  def autocast(self) -> torch.autocast:
    device = self.device.type if self.half else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=self.half)

  def network(self, build: Callable) -> torch.nn.Module:
    if self.device.type == "meta":
      with self.device:
        return build()
    network = torch_peers.filled(build)
    return network.to(self.device, memory_format=torch.channels_last)

  def images(self, case: Case, n: int) -> torch.Tensor:
    shape = n, 1, case.size, case.size
    return torch.randint(
      0, 256, shape, dtype=torch.uint8, device=self.device
    ).contiguous(memory_format=torch.channels_last)

  def fetch(self, x: torch.Tensor) -> torch.Tensor:
    """x on the host, once it is computed."""
    return x if self.device.type == "meta" else x.cpu()

  def wait(self) -> None:
    if self.device.type == "cuda":
      torch.cuda.synchronize()


def floats(network: torch.nn.Module) -> list[torch.Tensor]:
  """Parameters and batch statistics."""
  state = network.state_dict(keep_vars=True).values()
  return [x for x in state if x.is_floating_point()]


def detached(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
  return [x.detach() for x in tensors]


def adam(
  parameters: Iterable[torch.Tensor],
  place: Place,
  lr: float,
  b1: float,
  b2: float,
) -> torch.optim.Adam:
  return torch.optim.Adam(parameters, lr, (b1, b2), fused=place.fused)


def norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
  """Of all gradients together."""
  return torch.nn.utils.get_total_norm(
    [p.grad for p in parameters if p.grad is not None]
  )


@contextlib.contextmanager
def frozen(network: torch.nn.Module) -> Iterator[None]:
  """What is computed meanwhile takes no gradients of it: a generator's step
  would not use a discriminator's."""
  network.requires_grad_(False)
  try:
    yield
  finally:
    network.requires_grad_(True)


def descended(
  loss: torch.Tensor,
  generator: torch.nn.Module,
  optimiser: torch.optim.Optimizer,
) -> dict[str, torch.Tensor]:
  """Takes a generator's step down a loss; tells what ours tells."""
  optimiser.zero_grad()
  loss.backward()
  gradient = norm(generator.parameters())
  optimiser.step()
  return {"g_loss": loss.detach(), "g_gradient": gradient}


def averager(
  tensors: list[torch.Tensor], decay: float
) -> Callable[[int], None]:
  """`average(t)` moves the average of tensors on after step t; at first it
  forgets faster than by `decay`."""
  now = [x.detach() for x in tensors]
  ema = [x.clone() for x in now]

  def average(t: int) -> None:
    torch._foreach_lerp_(ema, now, 1 - min(decay, (1 + t) / (10 + t)))

  return average


def repeated(step: Callable, place: Place, n: int) -> Callable[[int], int]:
  """run(count) of a step of n images."""

  def run(count: int) -> int:
    for _ in range(count):
      step()
    place.wait()
    return count * n

  return run

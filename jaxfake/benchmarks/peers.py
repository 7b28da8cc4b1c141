"""PyTorch's side of each case, as its users write it at its best.

Channels last, fused optimisers, `torch.compile` where asked for, on a GPU
autocast to bfloat16, a DataLoader with a process for each core. JAX is not
imported here. `make(case, folder, mode)` returns what ours.make returns.
"""

# PyTorch may be missing, and its types say less of it than is so.
# pyright: reportMissingImports=false
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from collections.abc import Callable, Iterator
import functools
import itertools
import math
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image
import torch
from torch.nn import functional as F
from torch.utils import data as torch_data
from torch.utils import flop_counter, module_tracker

from jaxfake.benchmarks import (
  cases,
  peers_edm,
  peers_stylegan2,
  peers_wgan_gp,
  torch_peers,
  torch_place,
)
from jaxfake.benchmarks.cases import Case
from jaxfake.benchmarks.torch_place import Place
from jaxfake.data import pipeline, real_or_fake, work

LATENTS, STEPS = 100, 10_000


def platform() -> str:
  return "gpu" if torch.cuda.is_available() else "cpu"


def about(case: Case) -> dict:
  """What there is to run on, and what the case takes."""
  return {
    "platform": platform(),
    "version": torch.__version__,
    "flops_per_image": flops(case),
  }


def peak_mb() -> float | None:
  """The most device memory held so far; None where that is the host's."""
  if platform() == "gpu":
    return torch.cuda.max_memory_allocated() / 1e6
  return None


def make(case: Case, folder: pathlib.Path, mode: str) -> Callable[[int], int]:
  torch.set_num_threads(work.cores())
  torch.set_float32_matmul_precision("high")  # TF32, JAX's default on a GPU.
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  place = Place(case, platform(), mode)
  return KINDS[case.kind](case, folder, place, case.batch(platform()))


def dcgan(case: Case, place: Place) -> tuple[torch.nn.Module, torch.nn.Module]:
  widths = torch_peers.dcgan_widths(case.size, case.width)
  return (
    place.network(
      lambda: torch_peers.Generator(widths, LATENTS, case.channels)
    ),
    place.network(lambda: torch_peers.Discriminator(widths, case.channels)),
  )


def gan(case: Case, _: object, place: Place, n: int) -> Callable[[int], int]:
  generator, discriminator = dcgan(case, place)
  image = place.images(case, n)
  step = gan_step(place, generator.train(), discriminator.train(), image)
  return torch_place.repeated(step, place, n)


def gan_step(
  place: Place,
  generator: torch.nn.Module,
  discriminator: torch.nn.Module,
  image: torch.Tensor,
) -> Callable:
  """A step, to be called again and again; it tells losses and norms."""
  adam = functools.partial(
    torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999), fused=place.fused
  )
  g_opt = adam(generator.parameters())
  d_opt = adam(discriminator.parameters())
  average = torch_place.averager(torch_place.floats(generator), 0.999)
  count = itertools.count()

  def d_loss(image, fake):
    real = image.float() / 127.5 - 1
    real_term = F.softplus(-discriminator(real)).mean()
    fake_term = F.softplus(discriminator(fake)).mean()
    return real_term + fake_term, real_term.detach(), fake_term.detach()

  def g_loss(fake):
    return F.softplus(-discriminator(fake)).mean()

  generate = place.compile(generator)
  d_loss, g_loss = place.compile(d_loss), place.compile(g_loss)

  def step() -> dict[str, torch.Tensor]:
    with place.autocast():
      fake = generate(torch.randn(len(image), LATENTS, device=place.device))
      loss, real_term, fake_term = d_loss(image, fake.detach())
    seen = {"d_loss_real": real_term, "d_loss_fake": fake_term}
    d_opt.zero_grad()
    loss.backward()
    seen["d_gradient"] = torch_place.norm(discriminator.parameters())
    d_opt.step()
    with torch_place.frozen(discriminator), place.autocast():
      loss = g_loss(fake)
    seen |= torch_place.descended(loss, generator, g_opt)
    average(next(count))
    return seen

  return step


def sampling(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  generator = dcgan(case, place)[0].eval()

  @place.compile
  def draw(z):
    x = generator(z)
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

  @torch.no_grad()
  def run(batches: int) -> int:
    for _ in range(batches):
      with place.autocast():
        drawn = draw(torch.randn(n, LATENTS, device=place.device))
      place.fetch(drawn)
    return batches * n

  return run


def classifier(case: Case, place: Place) -> torch.nn.Module:
  network = place.network(
    lambda: torch_peers.empty(case.model, case.classes, case.channels)
  )
  for module in network.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = case.dropout
  return network


def prepared(image: torch.Tensor, channels: int) -> torch.Tensor:
  """uint8 (b, 1, s, s) to what a network reads, (b, channels, s, s)."""
  x = (image.float() - 127.5) / 127.5
  x = x.expand(-1, channels, -1, -1)
  return x.contiguous(memory_format=torch.channels_last)


def rate(step: int) -> float:
  """A warm-up and a cosine."""
  warmup = STEPS // 10
  if step < warmup:
    return 1e-3 * step / warmup
  done = (step - warmup) / (STEPS - warmup)
  return 1e-3 * (1 + math.cos(math.pi * min(1, done))) / 2


def training(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  network, image = classifier(case, place).train(), place.images(case, n)
  label = torch.arange(n, device=place.device) % case.classes
  step = classifier_step(case, place, network, image, label)
  return torch_place.repeated(step, place, n)


def classifier_step(
  case: Case,
  place: Place,
  network: torch.nn.Module,
  image: torch.Tensor,
  label: torch.Tensor,
) -> Callable:
  """A step, to be called again and again; it tells what ours tells."""
  kernels = [p for p in network.parameters() if p.ndim > 1]
  rest = [p for p in network.parameters() if p.ndim == 1]
  opt = torch.optim.AdamW(
    [
      {"params": kernels, "weight_decay": 1e-2},
      {"params": rest, "weight_decay": 0.0},
    ],
    fused=place.fused,
  )
  now = torch_place.detached(torch_place.floats(network))
  average = [x.clone() for x in now]
  count = itertools.count()

  @place.compile
  def forward(image, label):
    logits = network(prepared(image, case.channels)).float()
    loss = F.cross_entropy(logits, label, label_smoothing=0.05)
    return loss, (logits.argmax(1) == label).float().mean()

  def step() -> dict[str, torch.Tensor]:
    t = next(count)
    for group in opt.param_groups:
      group["lr"] = rate(t)
    with place.autocast():
      loss, accuracy = forward(image, label)
    opt.zero_grad()
    loss.backward()
    gradient = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    opt.step()
    torch._foreach_lerp_(average, now, 1 - min(0.99, (1 + t) / (10 + t)))
    return {"loss": loss.detach(), "accuracy": accuracy, "gradient": gradient}

  return step


def scorer(case: Case, place: Place) -> Callable:
  """uint8 (b, 1, s, s) to logits on the host; to be called without gradient."""
  network = classifier(case, place).eval()
  if place.compiles:
    import torch._inductor.config as inductor

    inductor.freezing = True  # Weights are constants: batch norm is folded.
  forward = place.compile(lambda x: network(prepared(x, case.channels)))

  def score(image):
    with place.autocast():
      return place.fetch(forward(image).float())

  return score


def scoring(
  case: Case, _: object, place: Place, n: int
) -> Callable[[int], int]:
  score, image = scorer(case, place), place.images(case, n)

  @torch.no_grad()
  def run(batches: int) -> int:
    for _ in range(batches):
      score(image)
    return batches * n

  return run


class Files(torch_data.Dataset):
  """Images of files, uint8 (1, s, s) after `canonical`, with their place."""

  def __init__(self, folder: pathlib.Path, canonical: Callable):
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    self._files, self._canonical = [str(p) for p in paths], canonical

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
    with Image.open(self._files[i]) as image:
      gray = np.asarray(image.convert("L"))
    return torch.tensor(self._canonical(gray))[None], i


def loader(
  files: Files, n: int, place: Place, **options: Any
) -> torch_data.DataLoader:
  return torch_data.DataLoader(
    files,
    n,
    num_workers=work.cores(),
    persistent_workers=True,
    prefetch_factor=4,
    pin_memory=place.device.type == "cuda",
    **options,
  )


def reading(
  case: Case, folder: pathlib.Path, place: Place, n: int
) -> Callable[[int], int]:
  data = cases.config(case, platform()).data
  canonical = functools.partial(
    pipeline.fit, size=data.size, how=data.fit, kernel=data.kernel
  )
  files = Files(folder / "images", canonical)
  batches = loader(files, n, place, shuffle=True, drop_last=True)

  def epochs() -> Iterator:
    while True:
      yield from batches

  feed = epochs()
  return lambda count: sum(len(next(feed)[0]) for _ in range(count))


def detecting(
  case: Case, folder: pathlib.Path, place: Place, n: int
) -> Callable[[int], int]:
  changes = {"data.name": "real_or_fake"}
  data = cases.config(case, platform(), **changes).data
  files = Files(folder / "images", real_or_fake.canonical(data))
  batches, score = loader(files, n, place), scorer(case, place)

  @torch.no_grad()
  def run(_: int) -> int:
    p = [0.0] * len(files)
    for image, i in batches:
      fake = score(image.to(place.device)).softmax(1)[:, 1]
      for at, value in zip(i.tolist(), fake.tolist(), strict=True):
        p[at] = value
    return len(p)

  return run


KINDS = {
  "gan_train": gan,
  "gan_sample": sampling,
  "edm_train": peers_edm.training,
  "edm_sample": peers_edm.sampling,
  "wgan_gp_train": peers_wgan_gp.training,
  "stylegan2_train": peers_stylegan2.training,
  "train": training,
  "score": scoring,
  "input": reading,
  "detect": detecting,
}


def flops(case: Case) -> float | None:
  """Of the multiplications and additions of a step, for each image.

  Counted from the shapes of what PyTorch calls, without computing any of it.
  """
  if case.kind == "input":
    return None
  if case.kind == "detect":
    case = case._replace(kind="score")
  n = 20  # What wgan_gp and stylegan2 can cut up.
  place = Place(case, "meta", "eager")
  counter = flop_counter.FlopCounterMode(
    display=False,
    custom_mapping={torch.ops.aten.convolution_backward: _gradients},
  )
  counter.mod_tracker = _NoModules()
  with counter:
    steps = cases.CYCLE.get(case.kind, 1)
    images = KINDS[case.kind](case, None, place, n)(steps)
  return counter.get_total_flops() / images


class _NoModules(module_tracker.ModuleTracker):
  """Counts by no module: the hooks that tell them apart fail in
  torch.autograd.grad, which penalties call."""

  def __enter__(self):
    return self

  def __exit__(self, *_: object):
    pass


def _gradients(
  grad, x, w, bias, stride, padding, dilation, transposed, *rest, **_
) -> int:
  """Of a convolution's gradients: each wanted takes what its forward took.

  PyTorch's own count takes a kernel's gradient for that of one group.
  """
  forward = flop_counter.conv_flop_count(x, w, grad, transposed=transposed)
  return forward * sum(rest[2][:2])  # output_padding, groups, output_mask.


def multiply(precision: str, n: int) -> float:
  """The best FLOP/s of some products of two (n, n) matrices."""
  dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
  device = "cuda" if platform() == "gpu" else "cpu"
  a, seconds = torch.ones((n, n), dtype=dtype, device=device), []
  for _ in range(6):  # The first is left out.
    start = time.perf_counter()
    float((a @ a)[0, 0])
    seconds.append(time.perf_counter() - start)
  return 2 * n**3 / min(seconds[1:])

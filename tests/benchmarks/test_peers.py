"""PyTorch's generators are ours: their outputs, gradients and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.benchmarks import cases
from jaxfake.benchmarks.cases import CASES
from jaxfake.data import pipeline
from jaxfake.generators import common, edm
from jaxfake.models import unet
from jaxfake.runtime import xla

torch = pytest.importorskip("torch", reason="PyTorch, the peer, is missing")
import torch_layers  # noqa: E402

from jaxfake.benchmarks import peers_edm, torch_unet  # noqa: E402
from jaxfake.benchmarks.torch_place import Place  # noqa: E402

# More threads wait for each other at these sizes, at others' cost.
torch.set_num_threads(1)

NOTHING = pipeline.Splits((), (), (), ())
LABEL = np.zeros(2, np.int32)


def images(n):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (n, 32, 32, 1)).astype(np.uint8)


def theirs(x):
  """(b, h, w, c) or (b,) as PyTorch has it."""
  x = np.asarray(x)
  return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)


def jitted(f):
  """Compiled quickly, to be run once or thrice."""
  return jax.jit(f, compiler_options=xla.run_once_options())


def handed(monkeypatch, *draws):
  """PyTorch draws these instead of its own."""
  rest = [theirs(x) for x in draws]
  monkeypatch.setattr(torch, "randn", lambda *_, **__: rest.pop(0))


@pytest.fixture(scope="module")
def denoiser():
  """A small U-Net's configuration, our parameters, and PyTorch's network with
  them."""
  case = cases.tiny(CASES["edm64_train"])._replace(dropout=0.0)
  small = {"model.blocks": 1, "model.smallest": 16, "opt.warmup": 1}
  c = cases.config(case, "cpu", **small)
  network = unet.unet(c.model, 0)
  peer = torch_unet.UNet(32, case.width, blocks=1, smallest=16, dropout=0.0)
  inputs = np.zeros((2, 32, 32, 1), "f4"), np.ones(2, "f4")
  params = torch_layers.randomised(
    torch_layers.shapes_of(network, *(x.shape for x in inputs))
  )["params"]
  paths, modules = torch_layers.used(
    network, peer, inputs, [theirs(x) for x in inputs]
  )

  def pairs(tree):
    layers = torch_layers.layers_of({"params": tree}, paths)
    return torch_layers.pairs(layers, modules)

  torch_layers.copied(pairs(params))
  return case, c, params, peer, pairs


def test_a_unet_denoises_as_ours(denoiser):
  _, c, params, peer, _ = denoiser
  x = np.random.default_rng(1).standard_normal((2, 32, 32, 1), "f4")
  sigma = np.array([0.3, 20], "f4")
  net = edm.network(c, ())
  denoise = edm.denoiser(edm.preconditioning(c), net, train=False)
  ours = jitted(denoise)(params, x, sigma, LABEL)
  with torch.no_grad():
    other = torch_unet.denoised(peer.eval(), theirs(x), theirs(sigma))
  other = other.numpy().transpose(0, 2, 3, 1)
  assert np.abs(other - x).max() > 0.1
  np.testing.assert_allclose(ours, other, rtol=0, atol=1e-4 * abs(other).max())


def test_a_unets_gradients_and_steps_are_ours(denoiser, monkeypatch):
  case, c, params, peer, pairs = denoiser
  monkeypatch.setattr(peers_edm, "WARMUP", 1)
  image, draws, ours = images(4), [], []
  batch = {"image": image, "label": np.zeros(4, np.int32)}
  state = common.first(params, edm.optimiser(c))
  step = jitted(edm.stepper(c, ()))
  for i in range(3):
    key = jax.random.fold_in(jax.random.key(c.seed), i)
    k_sigma, k_noise, *_ = jax.random.split(key, 4)
    draws += [jax.random.normal(k_sigma, (4,))]
    draws += [jax.random.normal(k_noise, image.shape)]
    state, metrics = step(state, batch)
    ours.append(metrics)
    if i == 0:  # Adam's first moment is a tenth of the gradient.
      gradient = jax.tree.map(lambda x: 10 * x, state.opt[0].mu)
  handed(monkeypatch, *draws)
  place = Place(case, "cpu", "eager")
  other = peers_edm.stepper(place, peer.train(), theirs(image))
  seen = [other()]
  for tensor, array in pairs(gradient):
    most = np.abs(array).max()
    np.testing.assert_allclose(tensor.grad, array, rtol=0, atol=1e-3 * most)
  torch_layers.same_steps(ours, seen + [other() for _ in range(2)])


def test_heuns_method_is_ours(denoiser, monkeypatch):
  case, c, params, peer, pairs = denoiser
  torch_layers.copied(pairs(params))
  index = np.arange(2, dtype=np.int32)
  ours = edm.sampler(c, ())(params, np.uint32(0), index, LABEL)
  noise = common.latents(0, jnp.asarray(index), 32, 32, 1)
  draw = peers_edm.sampler(Place(case, "cpu", "eager"), peer.eval())
  other = draw(theirs(noise)).numpy().transpose(0, 2, 3, 1)
  assert np.std(other) > 10
  off = np.abs(np.asarray(ours, int) - other)
  assert off.max() <= 1

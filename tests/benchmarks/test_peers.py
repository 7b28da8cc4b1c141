"""PyTorch's generators are ours: their outputs, gradients and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.benchmarks import cases
from jaxfake.benchmarks.cases import CASES
from jaxfake.generators import common, edm, gan, wgan_gp
from jaxfake.models import unet
from jaxfake.runtime import xla

torch = pytest.importorskip("torch", reason="PyTorch, the peer, is missing")
import torch_layers  # noqa: E402

from jaxfake.benchmarks import (  # noqa: E402
  peers_edm,
  peers_stylegan2,
  peers_wgan_gp,
  torch_stylegan2,
  torch_unet,
)
from jaxfake.benchmarks.torch_place import Place  # noqa: E402

# More threads wait for each other at these sizes, at others' cost.
torch.set_num_threads(1)

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


def defaults(name):
  return cases.config(CASES[name], "cpu")


def test_numbers_are_the_configurations():
  c = defaults("wgan_gp64_train")
  ours = c.critic_steps, c.penalty, c.model.latents
  of = peers_wgan_gp
  assert ours == (of.CRITIC_STEPS, of.PENALTY, of.LATENTS)
  c, of = defaults("stylegan2_64_train"), peers_stylegan2
  assert (c.r1.weight, c.r1.every) == (of.R1_WEIGHT, of.R1_EVERY)
  assert c.r1.every == cases.CYCLE["stylegan2_train"] and c.path.weight == 0
  c, of = defaults("edm64_train"), peers_edm
  assert (c.opt.warmup, c.sampler.steps) == (of.WARMUP, of.STEPS)
  assert (c.sampler.rho, c.sigma_data) == (of.RHO, torch_unet.SIGMA_DATA)


def test_a_wgan_gps_steps_are_ours(monkeypatch):
  monkeypatch.setattr(peers_wgan_gp, "CRITIC_STEPS", 2)
  case = cases.tiny(CASES["wgan_gp64_train"])._replace(cpu=4, width=16)
  c = cases.config(case, "cpu", critic_steps=2)
  place = Place(case, "cpu", "eager")
  peers = [x.train() for x in peers_wgan_gp.networks(case, place)]
  state = jitted(gan.initial(c, ()))(jax.random.key(0))
  critic = ["Conv_0", "Conv_1", "LayerNorm_0", "Conv_2", "LayerNorm_1"]
  orders = torch_layers.GENERATOR, [*critic, "Conv_3"]
  ours = state.generator, state.discriminator
  for network, order, peer in zip(ours, orders, peers, strict=True):
    torch_layers.carried(network.variables, order, peer)
  image, draws, shares, ours = images(4), [], [], []
  batch = {"image": image, "label": np.zeros(4, np.int32)}
  step = jitted(wgan_gp.stepper(c, ()))
  for i in range(3):
    key = jax.random.fold_in(jax.random.key(c.seed), i)
    k_fakes, k_z, _, *k_steps = jax.random.split(key, 5)
    draws.append(jax.random.normal(k_fakes, (4, c.model.latents)))
    draws.append(jax.random.normal(k_z, (2, c.model.latents)))
    for k in k_steps:
      k_mix, _ = jax.random.split(jax.random.split(k, 3)[2])
      shares.append(jax.random.uniform(k_mix, (2, 1, 1, 1)))
    state, metrics = step(state, batch)
    ours.append(metrics)
  handed(monkeypatch, *draws)
  monkeypatch.setattr(torch, "rand", lambda *_, **__: theirs(shares.pop(0)))
  step = peers_wgan_gp.stepper(place, *peers, theirs(image))
  torch_layers.same_steps(ours, [step() for _ in range(3)])


def test_a_stylegan2s_images_and_logits_are_ours():
  case = cases.tiny(CASES["stylegan2_64_train"])
  changes = {"model.mapping_layers": 2, "model.latents": 8}
  c = cases.config(case, "cpu", **changes)
  widths = torch_stylegan2.widths(32, case.width)
  generator = torch_stylegan2.Generator(widths, latents=8, mapping_layers=2)
  peers = generator, torch_stylegan2.Discriminator(widths)
  rng = np.random.default_rng(0)
  inputs = (
    rng.standard_normal((8, gan.latents(c)), "f4"),
    rng.standard_normal((8, 32, 32, 1), "f4"),
  )

  def drawn(path, x):  # The mapping network's kernels are large: see its rate.
    scale = 100 if path[1].key == "mapping" else 1
    return scale * rng.standard_normal(x.shape, "f4")

  networks = gan.networks(c, ())
  for network, peer, x in zip(networks, peers, inputs, strict=True):
    shapes = torch_layers.shapes_of(network, x.shape)
    variables = jax.tree_util.tree_map_with_path(drawn, shapes)
    paths, modules = torch_layers.used(network, peer, (x,), (theirs(x),))
    layers = torch_layers.layers_of(variables, paths)
    torch_layers.copied(torch_layers.pairs(layers, modules))
    if peer is generator:
      constant = variables["params"]["synthesis"]["constant"]
      constant = constant.transpose(0, 3, 1, 2)
      torch_layers.copied([(generator.constant, constant)])
    ours = jitted(lambda v, x, net=network: net.apply(v, x, train=False))(
      variables, x
    )
    with torch.no_grad():
      other = peer(theirs(x))
    if other.ndim == 4:
      other = other.permute(0, 2, 3, 1)
    assert other.std(0).max() > 0.01 * abs(other).max()
    most = float(abs(other).max())
    np.testing.assert_allclose(ours, other, rtol=0, atol=1e-4 * most)

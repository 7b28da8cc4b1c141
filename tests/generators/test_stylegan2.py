"""StyleGAN2's own: its regularisers, its adaptive augmentation, its step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from places import CONFIGS
import pytest

from jaxfake import configuration
from jaxfake.data import pipeline
from jaxfake.generators import gan, losses, stylegan2
from jaxfake.models import stylegan2 as networks

CONFIG = CONFIGS / "stylegan2.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def test_r1_of_a_linear_discriminator():
  """Its gradient is its weights anywhere: |w|^2."""
  w = draw(0, 6, 6, 1)
  judge = lambda x, key: (jnp.einsum("bhwc,hwc->b", x, w), None)
  found = losses.r1(judge, jnp.asarray(draw(1, 5, 6, 6, 1)), None)
  assert float(found) == pytest.approx((w**2).sum(), rel=1e-5)


def along(f, params, seed):
  """A function's derivative in a random direction, and central differences."""
  rng = np.random.default_rng(seed)
  way = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
  step = 1e-5
  at = jax.jit(lambda t: f(jax.tree.map(lambda x, d: x + t * d, params, way)))
  want = (at(step) - at(-step)) / (2 * step)
  gradient = jax.jit(jax.grad(f))(params)
  products = jax.tree.map(lambda g, d: (g * d).sum(), gradient, way)
  return float(sum(jax.tree.leaves(products))), float(want)


def random(init, *inputs):
  """Parameters in float64, of the shapes that a network begins with."""
  shapes = jax.eval_shape(
    lambda *x: init(jax.random.key(0), *x, train=True), *inputs
  )
  rng = np.random.default_rng(0)
  fill = lambda x: jnp.asarray(rng.normal(size=x.shape))
  return jax.tree.map(fill, shapes["params"])


def test_r1_is_differentiated_through_all_layers():
  """By all parameters of a discriminator, against central differences in
  float64: the kink of leaky ReLU is then too far to be stepped over."""
  with jax.enable_x64(True):
    net = networks.Discriminator((4, 3), group=2)
    x = jnp.asarray(draw(0, 4, 8, 8, 1))
    params = random(net.init, x)

    def penalty(params):
      logits = lambda x: net.apply({"params": params}, x, train=True)
      return losses.r1(lambda x, key: (logits(x), None), x, None)

    found, want = along(penalty, params, 1)
    assert abs(want) > 1e-3 and found == pytest.approx(want, rel=1e-5)


def test_path_lengths_of_a_linear_generator():
  """Images are matrix @ style, so the length is |noise @ matrix|."""
  matrix, style = draw(0, 16, 3), jnp.asarray(draw(1, 5, 3))
  key = jax.random.key(0)
  paint = lambda style: (style @ matrix.T).reshape(5, 4, 4, 1)
  found = stylegan2.path_lengths(paint, style, key)
  noise = np.asarray(jax.random.normal(key, (5, 4, 4, 1))).reshape(5, 16) / 4
  want = np.linalg.norm(noise @ matrix, axis=1)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_path_lengths_are_differentiated_through_all_layers():
  with jax.enable_x64(True):
    net = networks.Generator((4, 3), 3, mapping_layers=1)
    z = jnp.asarray(draw(0, 2, 3 + 4 * 4 + 2 * 8 * 8))
    params = random(net.init, z)["synthesis"]
    style = jnp.asarray(draw(1, 2, 3))

    def penalty(params):
      v = {"params": {"synthesis": params}}
      paint = lambda style: net.apply(v, style, z, method="draw")
      lengths = stylegan2.path_lengths(paint, style, jax.random.key(1))
      return ((lengths - 0.1) ** 2).mean()

    found, want = along(penalty, params, 2)
    assert abs(want) > 1e-3 and found == pytest.approx(want, rel=1e-5)


def test_a_lazy_term_counts_as_much_as_it_is_left_out():
  group = config(r1__every=4, r1__weight=0.5).r1
  x, term = jnp.float32(3), lambda x: (x**2, x)
  found = [stylegan2.lazily(jnp.int32(i), group, term, x, 7) for i in range(8)]
  values, gradients, aux = np.array(found).T.tolist()
  assert values == [18.0, 0, 0, 0] * 2  # 4 * 0.5 * 9.
  assert gradients == [12.0, 0, 0, 0] * 2
  assert aux == [3, 7, 7, 7] * 2
  # Where it has no weight it is not computed.
  group.weight = 0.0
  value, gradient, aux = stylegan2.lazily(0, group, None, jnp.ones(2), 7)
  assert (value, gradient.tolist(), aux) == (0, [0, 0], 7)


def test_p_follows_the_sign_of_the_reals_logits():
  """By ada.every * batch_size / ada.images, every so many steps."""
  c = config(ada__every=2, ada__images=80, batch_size=8)  # 0.2 at once.

  def run(p, *logits):
    seen = []
    state = stylegan2.State(
      *(jnp.int32(0), None, None, None), p, jnp.zeros(()), jnp.zeros(())
    )
    for x in logits:
      p, overfit = stylegan2.adapted(c, state, jnp.array(x))
      state = state.replace(step=state.step + 1, p=p, overfit=overfit)
      seen.append(round(float(p), 4))
    return seen

  told, guessed = [3.0, 1, 9, 0.1, 5], [3.0, -1, -9, 0.1, 5]  # r_t of 1, 0.2.
  assert run(0.5, told, told, told, told) == [0.5, 0.7, 0.7, 0.9]
  assert run(0.5, guessed, guessed, guessed) == [0.5, 0.3, 0.3]
  # The mean of two steps counts: 0.6 and below.
  assert run(0.5, told, guessed[:4]) == [0.5, 0.3]
  assert run(0.9, told, told) == [0.9, 1.0]
  assert run(0.1, guessed, guessed) == [0.1, 0.0]


def test_a_step_is_as_written_out():
  """Both updates at a step with R1 and path length regularisation."""
  c = config(data__size=4, path__weight=2, path__decay=0.9, augment="")
  t = stylegan2.make(c, pipeline.Splits((), (), (), ()))
  generator, discriminator = gan.networks(c, ())
  state = jax.jit(t.init)(jax.random.key(0))
  state = state.replace(path_mean=jnp.float32(0.2))
  image = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), np.uint8)
  batch = {"image": image, "label": np.zeros(8, np.int32)}
  new, seen = jax.jit(t.step)(state, batch)

  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  k_z, _, k_path, *_ = jax.random.split(key, 6)
  real = image.astype(np.float32) / 127.5 - 1
  z = jax.random.normal(k_z, (8, c.model.latents + 4 * 4))
  adam = optax.adam(2e-3, b1=0, b2=0.99)
  g = lambda p, z: generator.apply({"params": p}, z, train=True)
  d = lambda p, x: discriminator.apply({"params": p}, x, train=True)

  def d_loss(p, fake):
    slope = jax.grad(lambda x: d(p, x).sum())(real)
    r1 = c.r1.every * c.r1.weight * (slope**2).sum((1, 2, 3)).mean()
    return (
      jnp.log1p(jnp.exp(-d(p, real))).mean()
      + jnp.log1p(jnp.exp(d(p, fake))).mean()
      + r1
    )

  def g_loss(p, dp):
    style = generator.apply({"params": p}, z, None, method="style")
    noise = jax.random.normal(k_path, (8, 4, 4, 1)) / 4
    apply = lambda w: generator.apply({"params": p}, w, z, method="draw")
    slope = jax.grad(lambda w: (apply(w) * noise).sum())(style)
    length = jnp.linalg.norm(slope, axis=1)
    mean = jax.lax.stop_gradient(0.9 * 0.2 + 0.1 * length.mean())
    path = c.path.every * 2 * ((length - mean) ** 2).mean()
    return jnp.log1p(jnp.exp(-d(dp, g(p, z)))).mean() + path, mean

  def stepped(params, gradient):
    updates, _ = adam.update(gradient, adam.init(params), params)
    return optax.apply_updates(params, updates)

  @jax.jit
  def expected():
    gp, dp = state.generator.params, state.discriminator.params
    by_d = jax.grad(d_loss)(dp, g(gp, z))
    dp = stepped(dp, by_d)
    by_g, mean = jax.grad(g_loss, has_aux=True)(gp, dp)
    return by_d, by_g, dp, stepped(gp, by_g), mean

  by_d, by_g, dp, gp, mean = expected()
  for name, gradient in ("d_gradient", by_d), ("g_gradient", by_g):
    norm = float(optax.tree.norm(gradient))
    assert float(seen[name]) == pytest.approx(norm, rel=1e-4)
  assert float(new.path_mean) == pytest.approx(float(mean), rel=1e-5)
  # Adam's first step is the gradient's sign: compared where that is certain.
  for network, params, gradient in (
    (new.discriminator, dp, by_d),
    (new.generator, gp, by_g),
  ):
    certain = lambda x, y, g: np.testing.assert_allclose(
      np.where(np.abs(g) > 1e-4, x, y), y, atol=1e-5
    )
    jax.tree.map(certain, network.params, params, gradient)
  assert int(new.step) == 1 and float(new.p) == 0

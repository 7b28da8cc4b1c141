"""The inpainter's own: its networks and its step."""

import jax
import jax.numpy as jnp
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration, errors
from jaxfake.generators import filling, inpainter
from jaxfake.models import inpainter as networks

CONFIG = CONFIGS / "inpainter.py:tiny"
SIZE = 32


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def batch(n=4):
  rng = np.random.default_rng(0)
  mask = np.zeros((n, SIZE, SIZE, 1), np.uint8)
  for i in range(n):
    mask[i, 8 : 20 + i, 10:22] = 255
  image = rng.integers(0, 256, mask.shape).astype(np.uint8)
  return {"image": image, "mask": mask, "label": np.zeros(n, np.int32)}


def floats(n=2):
  image, mask, _ = batch(n).values()
  return [np.asarray(x) for x in filling.to_float(image, mask)]


@pytest.fixture(scope="module")
def state():
  return jax.jit(inpainter.initial(config(), ()))(jax.random.key(0))


def test_only_the_region_changes_and_nothing_of_it_is_seen(state):
  net, critic = inpainter.networks(config())
  image, mask = floats()
  noise = np.random.default_rng(1).normal(size=image.shape)
  apply = jax.jit(
    lambda x, noise: inpainter.filled(net, state.ema, x, mask, noise)
  )
  one = apply(image, noise)
  inside = mask > 0
  np.testing.assert_array_equal(one[~inside], image[~inside])
  assert jnp.abs(one[inside] - image[inside]).max() > 0.1
  # Another picture beneath, and noise elsewhere, change nothing.
  beneath = apply(np.where(inside, -image, image), np.where(inside, noise, 7))
  np.testing.assert_allclose(beneath, one, atol=1e-6)
  assert (apply(image, -noise)[inside] != one[inside]).any()
  score = jax.jit(
    lambda x, y: critic.apply(
      {"params": state.discriminator.params}, x, mask, y
    )
  )
  beneath = score(np.where(inside, -image, image), one)
  np.testing.assert_allclose(beneath, score(image, one), atol=1e-6)
  assert jnp.abs(score(-image, one) - score(image, one)).max() > 1e-6


def test_the_network_sees_the_whole_window():
  net = networks.Generator(2)
  x, mask = np.zeros((1, 32, 32, 1)), np.zeros((1, 32, 32, 1))
  mask[0, 16, 16] = 1
  params = jax.jit(net.init)(jax.random.key(0), x, mask, x)
  noise = np.zeros_like(x)
  middle = lambda x: net.apply(params, x, mask, noise)[0, 16, 16, 0]
  slope = jax.jit(jax.grad(middle))(x)[0, ..., 0]
  corners = slope[[0, 0, -1, -1], [0, -1, 0, -1]]
  assert (corners != 0).all()
  assert slope[16, 16] == 0  # It is to be filled.


def test_one_step_is_the_paper_s(state, monkeypatch):
  """Equations 1, 3 and 4 written out, and Adam's first step, which is the
  gradient's sign."""
  monkeypatch.setattr(inpainter.augment, "turned", lambda key, *x: x)
  c = config(l1=10.0)
  g, d = inpainter.networks(c)
  image, mask = floats(4)
  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  noise = jax.random.normal(jax.random.split(key)[1], image.shape)
  score = lambda params, x: d.apply({"params": params}, image, mask, x)
  make = lambda params: inpainter.filled(g, params, image, mask, noise)

  def d_loss(params):
    fake = make(state.generator.params)
    p_real = jax.nn.sigmoid(score(params, image))
    p_fake = jax.nn.sigmoid(score(params, fake))
    return [-(jnp.log(p_real).mean() + jnp.log(1 - p_fake).mean()) / 2]

  after, seen = jax.jit(inpainter.stepper(c))(state, batch())

  def g_loss(params):
    x = make(params)
    off = jnp.abs(x - image)[mask > 0].mean()
    p = jax.nn.sigmoid(score(after.discriminator.params, x))
    return [-jnp.log(p).mean(), c.l1 * off]

  for loss, before, now, terms in (
    (d_loss, state.discriminator, after.discriminator, ["d_loss"]),
    (
      g_loss,
      state.generator,
      after.generator,
      ["g_loss_adversarial", "g_loss_l1"],
    ),
  ):
    wanted = jax.jit(lambda p, loss=loss: jnp.stack(loss(p)))
    np.testing.assert_allclose(
      [seen[name] for name in terms], wanted(before.params), rtol=1e-4
    )
    slope = jax.jit(jax.grad(lambda p, loss=loss: sum(loss(p))))(before.params)
    for x, y, moved in zip(
      *map(jax.tree.leaves, (before.params, now.params, slope)), strict=True
    ):
      clear = np.abs(moved) > 1e-4
      want = -c.opt.lr * np.sign(moved)
      np.testing.assert_allclose((y - x)[clear], want[clear], atol=2e-5)


def test_other_data_are_refused():
  with pytest.raises(errors.ConfigError, match="name is 'phantom'"):
    inpainter.check(config(data__name="phantom"))

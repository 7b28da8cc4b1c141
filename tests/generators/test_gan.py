"""The GAN's learning: losses, augmentation, one golden step, sampling."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from places import CONFIGS
import pytest

from jaxfake import configuration
from jaxfake.data import pipeline
from jaxfake.generators import common, gan, losses

CONFIG = CONFIGS / "dcgan.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


@functools.cache
def batch(n=4, size=32):
  rng = np.random.default_rng(0)
  smooth = rng.integers(0, 256, (n, 4, 4, 1), np.uint8)
  image = smooth.repeat(size // 4, 1).repeat(size // 4, 2)
  return {"image": image, "label": np.arange(n, dtype=np.int32) % 2}


def task(c):
  return gan.make(c, pipeline.Splits(("a", "b"), (), (), ()))


@functools.cache
def compiled(**changes):
  """A config, its first state and its step: compiling takes seconds."""
  c = config(**changes)
  t = task(c)
  return c, jax.jit(t.init)(jax.random.key(c.seed)), jax.jit(t.step)


PLAIN = dict(model__conditional=True)
FAST = dict(opt__lr=2e-3, model__width=8, ema=0.5)


def run(steps, data=None, **changes):
  _, state, step = compiled(**changes)
  for _ in range(steps):
    state, metrics = step(state, data or batch())
  return state, {k: float(v) for k, v in metrics.items()}


def test_golden_step():
  """If this fails and you meant to change what a step computes, put in the
  values it prints, and say in the commit why they changed."""
  state, metrics = run(2, **PLAIN)
  total = lambda tree: sum(
    float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree)
  )
  seen = metrics | {
    "generator": total(state.generator.params),
    "discriminator": total(state.discriminator.params),
    "ema": total(state.ema["params"]),
  }
  golden = {
    "d_fake": 0.5295027,
    "d_gradient": 20.4216,
    "d_loss_fake": 0.7566378,
    "d_loss_real": 0.6520081,
    "d_real": 0.5226819,
    "g_gradient": 9.524491,
    "g_loss": 0.6679448,
    "generator": 483.7535,
    "discriminator": 70.1016,
    "ema": 483.7488,
  }
  assert seen == pytest.approx(golden, rel=1e-4), seen


def test_bfloat16_keeps_state_and_losses_in_float32():
  state, metrics = run(2, dtype="bfloat16", **PLAIN)
  kinds = {x.dtype for x in jax.tree.leaves(state)}
  assert jnp.dtype("bfloat16") not in kinds
  _, exact = run(2, **PLAIN)
  assert metrics == pytest.approx(exact, rel=0.15)
  assert metrics != pytest.approx(exact, rel=1e-4)  # Or it was not in bfloat16.


def test_step_is_the_textbook_one():
  """Against the update written out plainly: two discriminator passes, each
  with its own batch statistics, then the generator through the new one."""
  c, state, step = compiled(**PLAIN)
  generator, discriminator = gan.networks(c, ("a", "b"))
  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  z = jax.random.normal(jax.random.split(key, 4)[0], (4, c.model.latents))
  label = batch()["label"]
  real = batch()["image"].astype(np.float32) / 127.5 - 1

  def g(params):
    v = state.generator.variables | {"params": params}
    return generator.apply(v, z, label, train=True, mutable=["batch_stats"])[0]

  def d(params, x):
    v = state.discriminator.variables | {"params": params}
    return discriminator.apply(
      v, x, label, train=True, mutable=["batch_stats"]
    )[0]

  bce = optax.sigmoid_binary_cross_entropy
  adam = optax.adam(2e-4, b1=0.5)

  def updated(params, gradient):
    return optax.apply_updates(
      params, adam.update(gradient, adam.init(params), params)[0]
    )

  @jax.jit
  def expected():
    gp, dp = state.generator.params, state.discriminator.params
    fake = g(gp)
    d_loss = lambda p: (
      bce(d(p, real), jnp.ones(4)).mean() + bce(d(p, fake), jnp.zeros(4)).mean()
    )
    new_d = updated(dp, jax.grad(d_loss)(dp))
    g_loss = lambda p: bce(d(new_d, g(p)), jnp.ones(4)).mean()
    return updated(gp, jax.grad(g_loss)(gp)), new_d

  want_g, want_d = expected()
  new, _ = step(state, batch())
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
    (new.generator.params, new.discriminator.params),
    (want_g, want_d),
  )


def test_average_follows_parameters_and_batch_statistics():
  _, state, step = compiled(**PLAIN)
  new, _ = step(state, batch())
  decay = 1 / 10  # min(ema, (1 + step) / (10 + step)) at step 0.
  for part in ("params", "batch_stats"):
    want = jax.tree.map(
      lambda old, now: decay * old + (1 - decay) * now,
      state.generator.variables[part],
      new.generator.variables[part],
    )
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
      new.ema[part],
      want,
    )


def test_discriminator_learns_the_obvious_fake():
  _, metrics = run(40, **FAST)
  assert metrics["d_real"] > 0.8 > 0.3 > metrics["d_fake"]


def test_generator_learns_a_brightness():
  """All reals are one bright gray: the fakes' mean must go there."""
  c, state, _ = compiled(**FAST)
  bright = {**batch(), "image": np.full((4, 32, 32, 1), 230, np.uint8)}
  sample = jax.jit(gan.sampler(c, ("a", "b")))
  mean = lambda state: sample(
    state.ema, 0, np.arange(4), bright["label"]
  ).mean()
  before, after = mean(state), mean(run(120, bright, **FAST)[0])
  assert abs(after - 230) < abs(before - 230) / 3


def judge(x, key):
  """A discriminator that takes what it is given for logits."""
  return x, judge


def terms(loss, real, fake):
  return loss.discriminator(judge, real, fake, (None, None)).terms


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_reward_the_right_side(name):
  loss = losses.LOSSES[name]
  high, low = jnp.full(4, 3.0), jnp.full(4, -3.0)
  right, wrong = terms(loss, high, low), terms(loss, low, high)
  assert sum(right.values()) < sum(wrong.values())
  of = lambda x: loss.generator(judge, x, None)
  assert of(high) < of(low)


def test_bce_is_the_cross_entropy():
  x, y = jnp.array([0.3, -2.0, 5.0]), jnp.array([-0.7, 0.1, 4.0])
  bce = optax.sigmoid_binary_cross_entropy
  real, fake = terms(losses.bce, x, y).values()
  assert real == pytest.approx(float(bce(x, jnp.ones(3)).mean()), rel=1e-6)
  assert fake == pytest.approx(float(bce(y, jnp.zeros(3)).mean()), rel=1e-6)
  want = float(bce(y, jnp.ones(3)).mean())
  assert losses.bce.generator(judge, y, None) == pytest.approx(want, rel=1e-6)


def test_hinge_by_hand():
  x, y = jnp.array([2.0, 0.0]), jnp.array([-2.0, 0.5])
  real, fake = terms(losses.hinge, x, y).values()
  assert (float(real), float(fake)) == (0.5, 0.75)


def test_augmentation_and_three_channels():
  # The first step's terms see one network, so only the pictures differ.
  _, plain = run(1, model__channels=3)
  names = "brightness,contrast,translation,cutout"
  _, changed = run(1, model__channels=3, augment=names)
  assert np.isfinite([*plain.values(), *changed.values()]).all()
  assert plain["d_loss_real"] != changed["d_loss_real"]
  assert plain["d_loss_fake"] != changed["d_loss_fake"]


def test_latents_depend_on_seed_and_index_alone():
  a = common.latents(7, jnp.arange(10), 5)
  b = common.latents(7, jnp.array([9, 3]), 5)
  np.testing.assert_array_equal(a[jnp.array([9, 3])], b)
  assert (common.latents(8, jnp.arange(10), 5) != a).all()


def penalised(weight):
  """Hinge with a gradient penalty at the real images (Mescheder et al., 2018,
  arXiv:1801.04406, equation 9), as a user might add it."""

  def discriminator(judge, real, fake, keys):
    judged = losses.hinge.discriminator(judge, real, fake, keys)
    slope = jax.grad(lambda x: judge(x, keys[0])[0].sum())(real)
    penalty = weight * (slope**2).sum((1, 2, 3)).mean()
    return judged._replace(terms=judged.terms | {"penalty": penalty})

  return losses.Loss(discriminator, losses.hinge.generator)


def test_a_loss_may_ask_for_the_discriminators_gradient(monkeypatch):
  monkeypatch.setitem(losses.LOSSES, "r1", penalised(0.0))
  c = config(model__conditional=True, loss="hinge")
  state = jax.jit(task(c).init)(jax.random.key(0))

  def step():
    new, seen = jax.jit(task(c).step)(state, batch())
    return new, {name: float(x) for name, x in seen.items()}

  plain, seen = step()
  c.loss = "r1"
  free, seen_free = step()
  assert seen_free.pop("d_loss_penalty") == 0
  assert seen == pytest.approx(seen_free)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6), plain, free
  )
  monkeypatch.setitem(losses.LOSSES, "r1", penalised(10.0))
  _, seen_paid = step()
  assert seen_paid["d_loss_penalty"] > 0
  assert seen_paid["d_gradient"] != pytest.approx(seen["d_gradient"], rel=1e-3)


class Plain(nn.Module):
  """A network of a GAN with no batch norm, and a collection of its own."""

  shape: tuple = ()

  @nn.compact
  def __call__(self, x, label=None, *, train: bool):
    calls = self.variable("counts", "calls", lambda: jnp.zeros(()))
    if train and not self.is_initializing():
      calls.value += 1
    n = int(np.prod(self.shape))
    x = nn.Dense(n)(x.reshape(len(x), -1))
    return jnp.tanh(x.reshape(len(x), *self.shape))


def test_networks_may_have_any_collections(monkeypatch):
  plain = lambda *_: (Plain((32, 32, 1)), Plain())
  monkeypatch.setattr(gan, "networks", plain)
  t = task(config())
  state = jax.jit(t.init)(jax.random.key(0))
  for _ in range(3):
    state, metrics = jax.jit(t.step)(state, batch())
  assert np.isfinite([float(x) for x in metrics.values()]).all()
  calls = lambda network: float(network.variables["counts"]["calls"])
  assert (calls(state.generator), calls(state.discriminator)) == (3, 6)
  assert state.ema.keys() == {"params", "counts"}

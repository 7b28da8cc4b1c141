"""The WGAN-GP's own: its penalty, its critic, its step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from places import CONFIGS
import pytest

from jaxfake import configuration, errors
from jaxfake.data import pipeline, sources
from jaxfake.generators import common, gan, losses, wgan_gp
from jaxfake.models import wgan

CONFIG = CONFIGS / "wgan_gp.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def images(n=8, size=32, seed=0):
  return jax.random.uniform(
    jax.random.key(seed), (n, size, size, 1), minval=-1, maxval=1
  )


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic(length):
  """Its gradient is its weights anywhere: (|w| - 1)^2."""
  w = np.random.default_rng(0).normal(size=(6, 6, 1)).astype(np.float32)
  w *= length / np.linalg.norm(w)
  judge = lambda x, key: (jnp.einsum("bhwc,hwc->b", x, w), None)
  given = images(5, 6), images(5, 6, 1), jax.random.key(2)
  penalty = losses.gradient_penalty(judge, *given)
  assert float(penalty) == pytest.approx((length - 1) ** 2, abs=1e-5)
  terms = losses.wgan_gp(10.0).discriminator(
    lambda x, key: (judge(x, key)[0], judge), *given[:2], [given[2]] * 3
  )
  assert float(terms.terms["penalty"]) == pytest.approx(
    10 * (length - 1) ** 2, abs=1e-4
  )


def test_penalty_is_between_real_and_fake():
  """Of a critic that is steep in the middle alone."""
  steep = lambda x, key: (jnp.where(jnp.abs(x) < 0.5, 9.0, 1.0) * x, None)
  judge = lambda x, key: (steep(x, key)[0].sum((1, 2, 3)), None)
  real, fake = jnp.ones((256, 1, 1, 1)), -jnp.ones((256, 1, 1, 1))
  between = losses.gradient_penalty(judge, real, fake, jax.random.key(0))
  assert float(between) == pytest.approx(64 / 2, rel=0.2)
  ends = losses.gradient_penalty(judge, real, real, jax.random.key(0))
  assert float(ends) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("norm", wgan.NORMS)
def test_the_penalty_is_differentiated_through_our_convolutions(norm):
  """By each of the critic's kernels, against central differences in float64:
  the kink of leaky ReLU is then too far to be stepped over."""
  with jax.enable_x64(True):
    critic = wgan.Critic((6, 4), norm=norm)
    x = images(2, 16).astype(float), images(2, 16, 1).astype(float)
    params = critic.init(jax.random.key(0), x[0], train=True)["params"]
    # Larger than they begin with, so that the penalty is not flat.
    params = jax.tree.map(lambda w: 5 * w.astype(float), params)

    def penalty(params):
      judge = lambda x, key: (
        critic.apply({"params": params}, x, train=True),
        None,
      )
      return losses.gradient_penalty(judge, *x, jax.random.key(1))

    value, gradient = jax.jit(jax.value_and_grad(penalty))(params)
    assert value > 0.01
    penalty, step = jax.jit(penalty), 1e-6
    for name in ("Conv_0", "Conv_1", "Conv_2"):
      w = params[name]["kernel"]
      along = jax.random.normal(jax.random.key(2), w.shape, float)
      at = lambda t, name=name, w=w, along=along: float(
        penalty(params | {name: params[name] | {"kernel": w + t * along}})
      )
      want = (at(step) - at(-step)) / (2 * step)
      found = float((gradient[name]["kernel"] * along).sum())
      assert abs(found) > 1e-4
      assert found == pytest.approx(want, rel=1e-5), name


def test_the_critic_sees_each_image_by_itself():
  critic = wgan.Critic((8, 4), 2)
  x, label = images(4, 16), jnp.arange(4) % 2
  v = critic.init(jax.random.key(0), x, label, train=True)
  assert v.keys() == {"params"}
  all_ = critic.apply(v, x, label, train=True)
  one = critic.apply(v, x[1:2], label[1:2], train=True)
  np.testing.assert_allclose(all_[1:2], one, rtol=1e-4)
  assert (critic.apply(v, x, 1 - label, train=True) != all_).all()


def test_parts_of_a_batch_take_every_row_once():
  x = jnp.arange(12)
  found = [wgan_gp.part(x, k, 3) for k in range(3)]
  assert [list(map(int, y)) for y in found] == [
    [k, k + 3, k + 6, k + 9] for k in range(3)
  ]


def test_step_is_algorithm_1():
  """Against the updates written out plainly."""
  c = config(critic_steps=1, batch_size=4)
  generator, critic = gan.networks(c, ())
  t = wgan_gp.make(c, pipeline.Splits((), (), (), ()))
  state = jax.jit(t.init)(jax.random.key(0))
  image = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
  batch = {"image": image, "label": np.zeros(4, np.int32)}
  new, seen = jax.jit(t.step)(state, batch)

  key = jax.random.fold_in(jax.random.key(c.seed), 0)
  k_fakes, k_z, _, k_step = jax.random.split(key, 4)
  real = image.astype(np.float32) / 127.5 - 1
  adam = optax.adam(1e-4, b1=0, b2=0.9)

  def g(params, z):
    v = state.generator.variables | {"params": params}
    return generator.apply(v, z, train=True, mutable=["batch_stats"])[0]

  def d(params, x):
    return critic.apply({"params": params}, x, train=True)

  def d_loss(params, real, fake, key):
    k_mix, _ = jax.random.split(jax.random.split(key, 3)[2])
    e = jax.random.uniform(k_mix, (4, 1, 1, 1))
    slope = jax.grad(lambda x: d(params, x).sum())(e * real + (1 - e) * fake)
    norm = jnp.linalg.norm(slope.reshape(4, -1), axis=1)
    penalty = 10 * ((norm - 1) ** 2).mean()
    return d(params, fake).mean() - d(params, real).mean() + penalty

  @jax.jit
  def expected():
    gp, dp = state.generator.params, state.discriminator.params
    fakes = g(gp, jax.random.normal(k_fakes, (4, c.model.latents)))
    gradient = jax.grad(d_loss)(dp, real, fakes, k_step)
    updates, _ = adam.update(gradient, adam.init(dp), dp)
    dp = optax.apply_updates(dp, updates)
    z = jax.random.normal(k_z, (4, c.model.latents))
    gradient = jax.grad(lambda p: -d(dp, g(p, z)).mean())(gp)
    updates, _ = adam.update(gradient, adam.init(gp), gp)
    return optax.apply_updates(gp, updates), dp

  for got, want in zip(
    (new.generator.params, new.discriminator.params), expected(), strict=True
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), got, want
    )
  assert int(new.step) == 1
  assert {"wasserstein", "d_loss_penalty", "g_loss", "d_gradient"} <= {*seen}


class Labelled(sources.Rows):
  def column(self, name):
    return self._arrays[name].tolist()


def split(*labels):
  n = len(labels)
  image = np.zeros((n, 32, 32, 1), np.uint8)
  return Labelled(image=image, label=np.array(labels, np.int32))


def test_one_class_is_learnt_from_and_said():
  splits = pipeline.Splits(
    ("NORMAL", "PNEUMONIA"), split(0, 1, 1), split(0, 1), split(1, 1, 0)
  )
  only = common.of_class(splits, "PNEUMONIA")
  assert [len(x) for x in only[1:]] == [2, 1, 2]
  assert {int(only.train[i]["label"]) for i in range(2)} == {1}
  assert only.classes == splits.classes
  assert common.of_class(splits, "") is splits
  for name, error, named in (
    ("NORMA", errors.ConfigError, "did you mean NORMAL?"),
    ("NORMAL", errors.DataError, "1 images of it in train"),
  ):
    with pytest.raises(error, match=f"only_class is .*{named}"):
      common.of_class(splits, name)
  with pytest.raises(errors.ConfigError, match="not every image"):
    common.of_class(splits._replace(classes=()), "NORMAL")


def test_a_generator_of_one_class_says_its_class():
  c = config(only_class="PNEUMONIA")
  state = jax.jit(gan.initial(c, ()))(jax.random.key(0))
  made = gan.generator(c, ("NORMAL", "PNEUMONIA"), state)
  assert (made.classes, made.conditional) == (("PNEUMONIA",), True)
  x = made.sample(0, np.arange(2), np.zeros(2, np.int32))
  assert x.shape == (2, 32, 32, 1) and x.dtype == np.uint8

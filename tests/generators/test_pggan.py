"""The growing GAN's own: when it grows, and what a step then does."""

import jax
import jax.numpy as jnp
import numpy as np
from places import CONFIGS
import pytest

from jaxfake import configuration
from jaxfake.data import pipeline
from jaxfake.generators import gan, losses, pggan
from jaxfake.training import task

CONFIG = CONFIGS / "pggan.py:tiny"


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def test_levels_written_out():
  """At 16 px, from 4: held 2 steps, faded in 3 of 4 parts, held, and again."""
  c = config(data__size=16, grow__first=4, grow__hold=2, grow__fade=3)
  assert pggan.begins(c) == [0, 2, 7]
  want = [1, 1, 1.25, 1.5, 1.75, 2, 2, 2.25, 2.5, 2.75, 3, 3, 3]
  found = [float(pggan.level(c, jnp.int32(i))) for i in range(13)]
  assert found == want
  c = config(data__size=16, grow__first=8, grow__hold=2, grow__fade=0)
  assert [float(pggan.level(c, jnp.int32(i))) for i in range(4)] == [2, 2, 3, 3]
  c = config(grow__first=32)
  assert pggan.begins(c) == [0]
  assert float(pggan.level(c, jnp.int32(0))) == 4


def test_a_stage_is_that_of_the_step():
  made = task.Task(*"isep", later=((2, "t"), (7, "u")))
  found = [task.stage(made, i, 9) for i in (0, 1, 2, 6, 7, 8)]
  assert found == [("s", 2)] * 2 + [("t", 7)] * 2 + [("u", 9)] * 2
  assert task.stage(made, 3, 5) == ("t", 5)  # A run that ends before.


def test_reals_are_as_sharp_as_fakes_can_be():
  x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
  blocks = lambda x, n: x.reshape(2, 16 // n, n, 16 // n, n, 1).mean((2, 4))
  small, half = blocks(x, 2), np.kron(blocks(x, 4), np.ones((1, 2, 2, 1)))
  found = pggan.shrunk(x, 8, jnp.float32(0.25))
  np.testing.assert_allclose(found, 0.75 * half + 0.25 * small, atol=1e-6)


def test_drift_is_the_mean_square_of_the_reals_scores():
  judge = lambda x, key: (x.sum((1, 2, 3)), judge)
  plain = losses.wgan_gp(10.0)
  real, fake = jnp.arange(8.0).reshape(2, 2, 2, 1), jnp.ones((2, 2, 2, 1))
  given = judge, real, fake, jax.random.split(jax.random.key(0), 3)
  terms = losses.with_drift(plain, 0.5).discriminator(*given).terms
  assert float(terms.pop("drift")) == 0.5 * (6**2 + 22**2) / 2
  assert terms == plain.discriminator(*given).terms


@pytest.fixture(scope="module")
def grown():
  """Config, task, and the states before and after steps at 4, 8, 8 px."""
  size = dict(data__size=8, grow__first=4, total_steps=3)
  c = config(**size, grow__hold=1, grow__fade=1)
  made = pggan.make(c, pipeline.Splits((), (), (), ()))
  states, seen = [jax.jit(made.init)(jax.random.key(0))], []
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
  batch = {"image": image, "label": np.zeros(8, np.int32)}
  compiled = {}
  for i in range(3):
    step, _ = task.stage(made, i, 3)
    run = compiled.setdefault(step, jax.jit(step))
    state, metrics = run(states[-1], batch)
    states.append(state)
    seen.append(metrics)
  return c, states, seen


def moved(before, after):
  """Names of the layers that a step has changed."""
  return {
    name
    for name, layer in after.items()
    if any(
      (x != y).any()
      for x, y in zip(
        jax.tree.leaves(layer), jax.tree.leaves(before[name]), strict=True
      )
    )
  }


def test_resolutions_to_come_do_not_change(grown):
  _, states, seen = grown
  assert [float(x["level"]) for x in seen] == [1, 1.5, 2]
  for network in ("generator", "discriminator"):
    params = [getattr(x, network).params for x in states]
    later = {name for name in params[0] if name.endswith("_8")}
    assert len(later) == 3
    assert moved(*params[:2]) == params[0].keys() - later
    assert moved(*params[1:3]) == {*params[0]}
    # What has been faded out no longer changes.
    assert moved(*params[2:]) == params[0].keys() - {"image_4"}


def test_adam_begins_anew_with_a_resolution(grown):
  """A first step is of size lr, whatever the gradient."""
  c, states, _ = grown
  counts = [int(x.generator.opt[0].count) for x in states]
  assert counts == [0, 1, 1, 2]
  for network in ("generator", "discriminator"):
    before, after = (getattr(x, network).params for x in states[1:3])
    change = np.abs(
      after["first_8"]["kernel"] - before["first_8"]["kernel"]
    ).max()
    assert change == pytest.approx(c.opt.lr, rel=1e-2)


def test_samples_are_what_has_grown_so_far(grown):
  c, states, _ = grown
  draw = lambda state: np.asarray(
    gan.generator(c, (), state).sample(0, np.arange(2), np.zeros(2, np.int32))
  )
  small = draw(states[1])
  assert small.shape == (2, 8, 8, 1)
  np.testing.assert_array_equal(
    small, small[:, ::2, ::2].repeat(2, 1).repeat(2, 2)
  )
  whole = draw(states[3])
  assert (whole != whole[:, ::2, ::2].repeat(2, 1).repeat(2, 2)).any()

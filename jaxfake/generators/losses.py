"""Adversarial losses. A new one stands beside these.

Each is a pair, both to be minimised: `discriminator(judge, real, fake, keys) ->
Judged` and `generator(judge, fake, key) -> term`.

`judge(x, key) -> (logits, judge)` is the discriminator as a function of images
(b, s, s, c) in [-1, 1]: logits (b,) of being real, and the discriminator after
that pass, whose batch statistics have moved along. Augmentation is drawn from
the key. A loss calls it as often as it likes: of a gradient penalty the norm is
that of jax.grad(lambda x: judge(x, key)[0].sum())(x), per image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Judged(NamedTuple):
  """What a discriminator's loss comes to."""

  terms: dict[str, jax.Array]  # Scalars whose sum is minimised, to be reported.
  real: jax.Array  # Logits (b,), to be reported.
  fake: jax.Array
  judge: Any  # After all passes that count.


class Loss(NamedTuple):
  discriminator: Callable
  generator: Callable


def two_passes(on_real: Callable, on_fake: Callable) -> Callable:
  """The discriminator's loss made of a term of each side's logits."""

  def loss(judge, real, fake, keys) -> Judged:
    real, judge = judge(real, keys[0])
    fake, judge = judge(fake, keys[1])
    terms = {"real": on_real(real), "fake": on_fake(fake)}
    return Judged(terms, real, fake, judge)

  return loss


def one_pass(on_fake: Callable) -> Callable:
  """The generator's loss made of a term of the fakes' logits."""
  return lambda judge, fake, key: on_fake(judge(fake, key)[0])


# Non-saturating: Goodfellow et al., 2014, arXiv:1406.2661, section 3.
bce = Loss(
  two_passes(
    lambda real: jax.nn.softplus(-real).mean(),
    lambda fake: jax.nn.softplus(fake).mean(),
  ),
  one_pass(lambda fake: jax.nn.softplus(-fake).mean()),
)

# Lim and Ye, 2017, arXiv:1705.02894.
hinge = Loss(
  two_passes(
    lambda real: jax.nn.relu(1 - real).mean(),
    lambda fake: jax.nn.relu(1 + fake).mean(),
  ),
  one_pass(lambda fake: -fake.mean()),
)

LOSSES = {"bce": bce, "hinge": hinge}


def r1(judge: Callable, real: jax.Array, key: jax.Array) -> jax.Array:
  """How steep the discriminator is at real images: the mean of |its gradient at
  x|^2, x (b, s, s, c). Mescheder et al., 2018, arXiv:1801.04406, equation 9,
  without its weight."""
  slope = jax.grad(lambda x: judge(x, key)[0].sum())(real)
  return (slope**2).sum((1, 2, 3)).mean()


# Below the norm's root, so that its derivative is finite where all of a
# gradient is 0. Norms are driven to 1: there it changes them by 5e-13.
_TINY = 1e-12


def gradient_penalty(
  judge: Callable, real: jax.Array, fake: jax.Array, key: jax.Array
) -> jax.Array:
  """How far the critic's slope is from 1 between real and fake images.

  The mean of (|gradient of the critic at x| - 1)^2, x uniform on the line from
  a real image to a fake one, (b, s, s, c) both: Gulrajani et al., 2017,
  arXiv:1704.00028, equation 3.
  """
  k_mix, k_judge = jax.random.split(key)
  share = jax.random.uniform(k_mix, (len(real), 1, 1, 1))
  x = share * real + (1 - share) * fake
  slope = jax.grad(lambda x: judge(x, k_judge)[0].sum())(x)
  norm = jnp.sqrt((slope**2).sum((1, 2, 3)) + _TINY)
  return ((norm - 1) ** 2).mean()


def wgan_gp(weight: float) -> Loss:
  """The Wasserstein distance's dual with the gradient penalty times `weight`:
  the same paper, algorithm 1. Takes a third key, the penalty's."""
  distance = two_passes(lambda real: -real.mean(), lambda fake: fake.mean())

  def discriminator(judge, real, fake, keys) -> Judged:
    judged = distance(judge, real, fake, keys)
    penalty = weight * gradient_penalty(judge, real, fake, keys[2])
    return judged._replace(terms=judged.terms | {"penalty": penalty})

  return Loss(discriminator, one_pass(lambda fake: -fake.mean()))


def with_drift(loss: Loss, weight: float) -> Loss:
  """A loss that also keeps the scores of real images near 0, which the
  Wasserstein distance leaves open: Karras et al., 2018, arXiv:1710.10196,
  appendix A.1."""

  def discriminator(judge, real, fake, keys) -> Judged:
    judged = loss.discriminator(judge, real, fake, keys)
    drift = weight * (judged.real**2).mean()
    return judged._replace(terms=judged.terms | {"drift": drift})

  return loss._replace(discriminator=discriminator)

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

"""Adversarial losses: logits in, scalars out. A new one stands beside these.

Each is a pair: `discriminator(real, fake) -> (term on real, term on fake)` and
`generator(fake) -> term`, all to be minimised.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Loss(NamedTuple):
  discriminator: Callable
  generator: Callable


# Non-saturating: Goodfellow et al., 2014, arXiv:1406.2661, section 3.
bce = Loss(
  lambda real, fake: (
    jax.nn.softplus(-real).mean(),
    jax.nn.softplus(fake).mean(),
  ),
  lambda fake: jax.nn.softplus(-fake).mean(),
)

# Lim and Ye, 2017, arXiv:1705.02894.
hinge = Loss(
  lambda real, fake: (
    jax.nn.relu(1 - real).mean(),
    jax.nn.relu(1 + fake).mean(),
  ),
  lambda fake: -fake.mean(),
)

LOSSES = {"bce": bce, "hinge": hinge}

"""What the classifiers share: batch norm, the head, the least size."""

from flax import linen as nn
import jax
import jax.numpy as jnp

# Share of the old running mean and variance kept at each step. The published
# networks keep up to .999, for training of millions of steps.
MOMENTUM = 0.9


def batch_norm(
  train: bool,
  epsilon: float = 1e-5,
  scale: bool = True,
  dtype: jax.typing.DTypeLike | None = None,
  name: str | None = None,
) -> nn.BatchNorm:
  """Batch norm; its statistics are float32 whatever the `dtype`."""
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=MOMENTUM,
    epsilon=epsilon,
    use_scale=scale,
    dtype=dtype,
    name=name,
  )


def head(
  x: jax.Array,
  num_classes: int,
  dropout: float,
  train: bool,
  dtype: jax.typing.DTypeLike | None,
) -> jax.Array:
  """Features (b, d) to float32 logits (b, num_classes)."""
  x = nn.Dropout(dropout, deterministic=not train)(x)
  return nn.Dense(num_classes, dtype=dtype, name="head")(x).astype(jnp.float32)


def check_size(network: nn.Module, x: jax.Array) -> None:
  """Raises ValueError where images (b, h, w, c) are too small for a network."""
  if min(x.shape[1:3]) < network.smallest:
    raise ValueError(
      f"{type(network).__name__} takes images from {network.smallest} px, not"
      f" {x.shape[1]} x {x.shape[2]}"
    )

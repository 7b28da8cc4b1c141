"""DenseNet: Huang, Liu, van der Maaten and Weinberger, 2016, arXiv:1608.06993.

The networks of table 1 for ImageNet: DenseNet-BC, growth rate 32, compression
1/2. torchvision's and Keras's are the same but for the batch norms' epsilon:
the default is torchvision's, Keras's is 1.001e-5. Layers have Keras's names.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers, pool


class DenseNet(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, d).
  """

  num_classes: int
  blocks: tuple[int, ...]  # Layers in each of the four dense blocks.
  growth: int = 32
  epsilon: float = 1e-5
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)

    def convolve(x, width, kernel, stride, name):
      pads = (kernel // 2, kernel // 2)
      return conv.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        (pads, pads),
        use_bias=False,
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=name,
      )(x)

    def norm_relu(x, name):
      norm = layers.batch_norm(train, self.epsilon, dtype=self.dtype, name=name)
      return nn.relu(norm(x))

    x = convolve(x, 2 * self.growth, 7, 2, "conv1_conv")
    x = norm_relu(x, "conv1_bn")
    x = pool.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for i, blocks in enumerate(self.blocks, 2):
      if i > 2:  # The transition: half the channels, half the size.
        x = norm_relu(x, f"pool{i - 1}_bn")
        x = convolve(x, x.shape[-1] // 2, 1, 1, f"pool{i - 1}_conv")
        x = pool.avg_pool(x, (2, 2), (2, 2))
      for j in range(1, blocks + 1):
        name = f"conv{i}_block{j}"
        y = norm_relu(x, f"{name}_0_bn")
        y = convolve(y, 4 * self.growth, 1, 1, f"{name}_1_conv")
        y = norm_relu(y, f"{name}_1_bn")
        y = convolve(y, self.growth, 3, 1, f"{name}_2_conv")
        x = jnp.concatenate([x, y], -1)
    x = norm_relu(x, "bn")
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, d)
    return layers.head(self, x, train, features)


DenseNet121 = functools.partial(DenseNet, blocks=(6, 12, 24, 16))
DenseNet169 = functools.partial(DenseNet, blocks=(6, 12, 32, 32))
DenseNet201 = functools.partial(DenseNet, blocks=(6, 12, 48, 32))

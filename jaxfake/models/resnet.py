"""ResNet: He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, table 1.

By default the common variant "v1.5", as in torchvision: a bottleneck that
halves the image does so in its 3x3 convolution. The paper and
keras.applications halve in the 1x1 before it: `stride_in=1`; Keras also adds
1.001e-5 to the variances, `epsilon`, and gives the convolutions biases, which
the means of the batch norms hold as well. Layers have Keras's names; those of
ResNet-18 and 34, which Keras lacks, follow them.
"""

import functools
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxfake.nn import conv, layers, pool

# He, Zhang, Ren and Sun, 2015, arXiv:1502.01852, for the backward pass.
KERNEL_INIT = nn.initializers.variance_scaling(2, "fan_out", "normal")


class ResNet(nn.Module):
  """Images (b, h, w, c) to float32 logits (b, num_classes).

  With `features`, to what the head reads: (b, d).
  """

  num_classes: int
  blocks: tuple[int, ...]  # In each of the four stages.
  bottleneck: bool
  stride_in: int = 3  # Kernel of a bottleneck's strided convolution: 3 or 1.
  epsilon: float = 1e-5
  dropout: float = 0.0
  dtype: jax.typing.DTypeLike | None = None

  smallest: typing.ClassVar[int] = 32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, features: bool = False):
    layers.check_size(self, x)

    def conv_norm(x, width, kernel, stride, name):
      pads = (kernel // 2, kernel // 2)
      x = conv.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        (pads, pads),
        use_bias=False,
        dtype=self.dtype,
        kernel_init=KERNEL_INIT,
        name=f"{name}_conv",
      )(x)
      return layers.batch_norm(
        train, self.epsilon, dtype=self.dtype, name=f"{name}_bn"
      )(x)

    x = nn.relu(conv_norm(x, 64, 7, 2, "conv1"))
    x = pool.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for i, blocks in enumerate(self.blocks):
      width = 64 << i
      for j in range(blocks):
        name = f"conv{i + 2}_block{j + 1}"
        stride = 2 if i > 0 and j == 0 else 1
        if self.bottleneck:
          at_1x1 = stride if self.stride_in == 1 else 1
          plan = [(width, 1, at_1x1), (width, 3, stride // at_1x1)]
          plan += [(4 * width, 1, 1)]
        else:
          plan = [(width, 3, stride), (width, 3, 1)]
        out = plan[-1][0]
        shortcut = x
        if stride > 1 or x.shape[-1] != out:
          shortcut = conv_norm(x, out, 1, stride, f"{name}_0")
        for k, (wide, kernel, s) in enumerate(plan, 1):
          x = conv_norm(x, wide, kernel, s, f"{name}_{k}")
          x = nn.relu(x if k < len(plan) else x + shortcut)
    x = x.mean((1, 2), dtype=jnp.float32)  # (b, d)
    return layers.head(self, x, train, features)


Basic = functools.partial(ResNet, bottleneck=False)
Bottleneck = functools.partial(ResNet, bottleneck=True)
ResNet18 = functools.partial(Basic, blocks=(2, 2, 2, 2))
ResNet34 = functools.partial(Basic, blocks=(3, 4, 6, 3))
ResNet50 = functools.partial(Bottleneck, blocks=(3, 4, 6, 3))
ResNet101 = functools.partial(Bottleneck, blocks=(3, 4, 23, 3))
ResNet152 = functools.partial(Bottleneck, blocks=(3, 8, 36, 3))

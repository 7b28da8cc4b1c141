"""2-D convolution and transposed convolution, fast on CPUs, as two layers.

`Conv` and `ConvTranspose` have the parameters of Flax's layers of those
names; `conv` and `conv_transpose` mean what `lax`'s do. On GPU and TPU they
are `lax`'s. On CPU XLA is slow at much of what a GAN is made of, so each map
takes the form that was fastest there.

A convolution with kernel w, y = conv(x, w), is linear in x and in w, so with
a cotangent g of y there are three maps,

    forward (x, w) -> y,  input gradient (g, w) -> x,
    kernel gradient (x, g) -> w,

the partial derivatives of one trilinear form, <g, conv(x, w)>. Hence each is
the gradient of the others, and naming all three gives gradients of any order
(the gradient penalties) the same fast forms. A transposed convolution is the
input gradient used forwards.

Figures are GFLOP/s, the best of five, float32, two Zen 3 cores (peak about
180), jaxlib 0.10.2 with `platform.compiler_options()`, without which lax's
fall by a half and more. "4x4/2, 1 -> 64" is a kernel, a stride, channels.

On CPU there is no forward-mode differentiation (`jax.jvp`): `custom_vjp`.
"""

import functools
import math
import typing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import dtypes
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # (before, after) for each of height and width.
Padding = str | Sequence[Sequence[int]]

NHWC = ("NHWC", "HWIO", "NHWC")

# At most this many kernel elements per output channel: gather and multiply.
# 4x4/2, 1 -> 64, 16 elements: 64 against lax's 40; 3x3, 3 -> 32, 27: 65
# against 41; but 3x3, 8 -> 32, 72 elements: 25 against 118.
SMALL_KERNEL = 32

# At most this many input channels: the input gradient is one multiplication.
# 4x4/2, 1 -> 64: 123 against 17 by phases; 8 -> 64: 156 against 84; 3x3,
# 8 -> 32: 99 against 93; but 3x3, 32 -> 32: 31 against 114.
FEW_CHANNELS = 8


class Geometry(typing.NamedTuple):
  """What the three maps of one convolution share; all static."""

  size: Pair  # Of x.
  kernel: Pair
  strides: Pair
  pads: Pads  # May be negative, which crops.


def conv(
  x: jax.Array,
  w: jax.Array,
  strides: Pair = (1, 1),
  padding: Padding = "SAME",
  dilation: Pair = (1, 1),
  groups: int = 1,
) -> jax.Array:
  """Convolution: (b, h, w, c), (kh, kw, c / groups, o) -> (b, h', w', o).

  As `lax.conv_general_dilated`, errors included. `padding` is "SAME", "VALID"
  or a (before, after) pair for height and for width. Dilated and grouped
  convolutions are lax's on every backend.
  """
  plain = functools.partial(
    lax.conv_general_dilated,
    window_strides=strides,
    padding=padding,
    rhs_dilation=dilation,
    dimension_numbers=NHWC,
    feature_group_count=groups,
  )
  y = jax.eval_shape(plain, x, w)  # Raises lax's errors before we reshape.
  if groups > 1 or tuple(dilation) != (1, 1) or not _ours(x, w, y):
    return plain(x, w)
  size, kernel = x.shape[1:3], w.shape[:2]
  strides = _pair(strides)
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(size, kernel, strides, padding)
  pads = _pair(map(_pair, padding))
  unpadded = pads == ((0, 0), (0, 0))
  if unpadded and kernel == (1, 1):
    # lax's kernel gradient would transpose the whole of x.
    return jnp.tensordot(x[:, :: strides[0], :: strides[1]], w[0, 0], 1)
  if unpadded and kernel == size:
    return jnp.tensordot(x, w, 3)[:, None, None]
  if (
    strides == (1, 1) and w.shape[3] <= FEW_CHANNELS and w.shape[3] < w.shape[2]
  ):
    # At stride 1 the two are one map, and the transposed one is fast at few
    # outputs. 3x3, 64 -> 1: 65, 57 and 40 against 14, 18 and 7.
    return conv_transpose(x, w, strides, pads)
  return _forward(Geometry(size, kernel, strides, pads), x, w)


def conv_transpose(
  x: jax.Array,
  w: jax.Array,
  strides: Pair = (1, 1),
  padding: Padding = "SAME",
) -> jax.Array:
  """Transposed convolution: (b, h, w, c), (kh, kw, c, o) -> (b, h', w', o).

  As `lax.conv_transpose` with `transpose_kernel=False`, errors included: the
  kernel slides unflipped over x with strides - 1 zeros between its pixels, and
  explicit `padding` pads that. "SAME" makes h' = h * stride.
  """
  plain = functools.partial(
    lax.conv_transpose, strides=strides, padding=padding, dimension_numbers=NHWC
  )
  y = jax.eval_shape(plain, x, w)
  if not _ours(x, w, y):
    return plain(x, w)
  kernel, strides = w.shape[:2], _pair(strides)
  if isinstance(padding, str):
    padding = [
      _transpose_pads(k, s, padding)
      for k, s in zip(kernel, strides, strict=True)
    ]
  # The convolution of which this is the input gradient takes y to x, with
  # the kernel flipped.
  pads = _pair(
    (k - 1 - int(p[0]), k - 1 - int(p[1]))
    for k, p in zip(kernel, padding, strict=True)
  )
  w = w[::-1, ::-1]
  if x.shape[1:3] == (1, 1) and pads == ((0, 0), (0, 0)):
    return jnp.einsum("bc,hwco->bhwo", x[:, 0, 0], w)
  geometry = Geometry(y.shape[1:3], kernel, strides, pads)
  return _input_gradient(geometry, x, w.swapaxes(2, 3))


def _ours(x, w, y) -> bool:
  """Whether the forms below serve this convolution (x, w) -> y."""
  shaped = x.ndim == w.ndim == 4 and 0 not in (*x.shape, *w.shape, *y.shape)
  real = jnp.issubdtype(x.dtype, jnp.floating)
  return jax.default_backend() == "cpu" and shaped and real


def _pair(values) -> tuple:
  first, second = values
  return first, second


def _transpose_pads(k: int, s: int, padding: str) -> Pair:
  """lax's reading of "SAME" and "VALID" for a transposed convolution."""
  if padding == "VALID":
    return k - 1, max(k, s) - 1
  total = k + s - 2
  before = k - 1 if s > k - 1 else -(-total // 2)
  return before, total - before


# The three maps. `geo` is static; the kernel is (kh, kw, c, o) in each.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(geo, x, w):
  """y (b, h', w', o). lax's, except that XLA is slow at few channels."""
  if math.prod(w.shape[:3]) > SMALL_KERNEL:
    return lax.conv_general_dilated(
      x, w, geo.strides, geo.pads, dimension_numbers=NHWC
    )
  return jnp.tensordot(_patches(geo, x), w.reshape(-1, w.shape[-1]), 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geo, x, g):
  """w (kh, kw, c, o). lax's, with x and g exchanging no roles.

  What lax makes of a transposed convolution takes g for the kernel's input:
  4x4/2, 256 -> 128 from 8x8 runs at 2. This runs at over 100.
  """
  c, o = x.shape[-1], g.shape[-1]
  if math.prod(geo.kernel) * c <= SMALL_KERNEL:
    w = lax.dot_general(_patches(geo, x), g, (((0, 1, 2), (0, 1, 2)), ((), ())))
    return w.reshape(*geo.kernel, c, o)
  # Channels stand for the batch, which is summed over; g is the kernel.
  pads = [
    (p, s * (m - 1) + k - n - p)
    for n, k, s, (p, _), m in zip(*geo, g.shape[1:3], strict=True)
  ]
  return lax.conv_general_dilated(
    x,
    g,
    (1, 1),
    pads,
    rhs_dilation=geo.strides,
    dimension_numbers=("CHWN", "IHWO", "HWNC"),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(geo, g, w):
  """x (b, h, w, c), by phases: the pixels of equal index modulo the stride.

  A phase meets only every stride-th element of the kernel, so it is a small
  convolution of g at stride 1 and no zero is multiplied, where lax spreads g
  with zeros: 4x4/2, 64 -> 128, 151 against 63; 128 -> 256, 172 against 92.

  At few channels it is one multiplication by the whole kernel, whose products
  each phase shifts and adds up.
  """
  (h, width), _, s, _ = geo
  n = g.shape[1:3]
  m = (-(-h // s[0]), -(-width // s[1]))  # Pixels of a phase.
  few = w.shape[2] <= FEW_CHANNELS
  if few:  # Added up in float32 at least, as inside a product.
    wide = jnp.promote_types(g.dtype, jnp.float32)
    products = jnp.einsum(
      "bhwo,ijco->bhwijc", g, w, preferred_element_type=wide
    )

  def phase(*r):
    # Pixel s * i + r meets element t + s * u at pixel i + q - u of g.
    q, t = zip(
      *(divmod(r[a] + geo.pads[a][0], s[a]) for a in (0, 1)), strict=True
    )
    elements = w[t[0] :: s[0], t[1] :: s[1]]
    u = elements.shape[:2]
    if 0 in u:  # The kernel is smaller than the stride.
      return jnp.zeros((g.shape[0], *m, w.shape[2]), g.dtype)
    if not few:
      flipped = elements[::-1, ::-1].swapaxes(2, 3)
      pads = [(u[a] - 1 - q[a], m[a] + q[a] - n[a]) for a in (0, 1)]
      return lax.conv_general_dilated(
        g, flipped, (1, 1), pads, dimension_numbers=NHWC
      )
    shifted = (
      _pad(
        products[:, :, :, t[0] + s[0] * i, t[1] + s[1] * j],
        (i - q[0], m[0] + q[0] - i - n[0]),
        (j - q[1], m[1] + q[1] - j - n[1]),
      )
      for i, j in np.ndindex(*u)
    )
    return functools.reduce(jnp.add, shifted).astype(g.dtype)

  rows = [
    jnp.stack([phase(i, j) for j in range(s[1])], axis=3) for i in range(s[0])
  ]
  x = jnp.stack(rows, axis=2)  # (b, m, s, m', s', c)
  x = x.reshape(x.shape[0], m[0] * s[0], m[1] * s[1], x.shape[-1])
  return x[:, :h, :width]


_forward.defvjp(
  lambda geo, x, w: (_forward(geo, x, w), (x, w)),
  lambda geo, saved, g: (
    _input_gradient(geo, g, saved[1]),
    _kernel_gradient(geo, saved[0], g),
  ),
)
_input_gradient.defvjp(
  lambda geo, g, w: (_input_gradient(geo, g, w), (g, w)),
  lambda geo, saved, x: (
    _forward(geo, x, saved[1]),
    _kernel_gradient(geo, x, saved[0]),
  ),
)
_kernel_gradient.defvjp(
  lambda geo, x, g: (_kernel_gradient(geo, x, g), (x, g)),
  lambda geo, saved, w: (
    _input_gradient(geo, saved[1], w),
    _forward(geo, saved[0], w),
  ),
)


def _pad(x, rows: Pair, columns: Pair):
  """x with zeros around it; a negative count crops."""
  pads = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _patches(geo, x):
  """(b, h', w', kh * kw * c): what the kernel sees from each place."""
  x = _pad(x, *geo.pads)
  end = [n - k + 1 for n, k in zip(x.shape[1:3], geo.kernel, strict=True)]
  views = [
    x[:, i : i + end[0] : geo.strides[0], j : j + end[1] : geo.strides[1]]
    for i, j in np.ndindex(*geo.kernel)
  ]
  return jnp.concatenate(views, -1)


class _Layer(nn.Module):
  """Parameters, names and types of Flax's layers, from the same options."""

  features: int
  kernel_size: Pair
  strides: Pair = (1, 1)
  padding: Padding = "SAME"
  use_bias: bool = True
  dtype: jax.typing.DTypeLike | None = None
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

  convolve: typing.ClassVar[Callable]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(b, h, w, c) -> (b, h', w', features)."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    w = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = None
    if self.use_bias:
      bias = self.param("bias", self.bias_init, shape[-1:], jnp.float32)
    x, w, bias = dtypes.promote_dtype(x, w, bias, dtype=self.dtype)
    y = self.convolve(x, w, self.strides, self.padding)
    return y if bias is None else y + bias


class Conv(_Layer):
  """`flax.linen.Conv` on (b, h, w, c), without dilation and groups."""

  convolve = staticmethod(conv)


class ConvTranspose(_Layer):
  """`flax.linen.ConvTranspose` on (b, h, w, c)."""

  convolve = staticmethod(conv_transpose)

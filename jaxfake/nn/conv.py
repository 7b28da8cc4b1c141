"""2-D convolution and transposed convolution, fast on CPUs, as two layers.

`Conv` and `ConvTranspose` have the parameters of Flax's layers of those
names; `conv` and `conv_transpose` mean what `lax`'s do. On GPU and TPU they
are `lax`'s. On CPU XLA is slow at much of what a GAN or a classifier is made
of, so there each map takes the form that measured fastest.

A convolution y = conv(x, w) is linear in x and in w, so with a cotangent g of
y there are three maps, the partial derivatives of one form <g, conv(x, w)>:

    forward (x, w) -> y
    input gradient (g, w) -> x
    kernel gradient (x, g) -> w

Each is the gradient of the others, so naming the three gives gradients of any
order, hence gradient penalties, the same fast forms. A transposed convolution
is the input gradient used forwards. At many channels all three save
multiplications by `winograd`. `custom_vjp` has no forward mode: on CPU
`jax.jvp` and `jax.hessian` through these raise.

Figures below are GFLOP/s, the best of five runs in float32 on two Zen 3 cores
(peak about 180), jaxlib 0.10.2 with `platform.compiler_options()`. "4x4/2,
1 -> 64" gives kernel, stride and channels of the convolution.
"""

import functools
import math

from flax import linen as nn
from flax.linen import dtypes
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jaxfake.nn import windows, winograd
from jaxfake.nn.windows import Padding, Pair

NHWC = ("NHWC", "HWIO", "NHWC")

# Up to this many kernel elements per output channel, gather and multiply.
# 4x4/2, 1 -> 64, 16 elements: 64 against lax's 40; 3x3, 3 -> 32, 27: 65
# against 41; but 3x3, 8 -> 32, 72 elements: 25 against 118.
SMALL_KERNEL = 32

# Up to this many input channels, the input gradient is one multiplication.
# 4x4/2, 1 -> 64: 123 against 17 by phases; 8 -> 64: 156 against 84; 3x3,
# 8 -> 32: 99 against 93; but 3x3, 32 -> 32: 31 against 114.
FEW_CHANNELS = 8

# Parts of an image whose products a depthwise kernel gradient adds up at once.
# 3x3, 144 channels of 56 x 56, milliseconds: 23 at 4, 20 at 8, 16 at 28, 17 at
# 56; 576 of 14 x 14: 8, 7 at 8, 13 at 14. More also take longer to compile.
TERMS = 8


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
  or a (before, after) pair for height and one for width. Dilated convolutions
  are lax's everywhere, and grouped ones where a group has several channels.
  """
  plain = functools.partial(
    lax.conv_general_dilated,
    window_strides=strides,
    padding=padding,
    rhs_dilation=dilation,
    dimension_numbers=NHWC,
    feature_group_count=groups,
  )
  y = jax.eval_shape(plain, x, w)  # Raises lax's errors for bad arguments.
  depthwise = 1 < groups == x.shape[-1]
  plain_only = tuple(dilation) != (1, 1) or (groups > 1 and not depthwise)
  if plain_only or not windows.ours(x, w, y):
    return plain(x, w)
  geometry = windows.geometry(x, w.shape[:2], strides, padding)
  if depthwise:
    x = jnp.repeat(x, w.shape[3] // groups, -1)
    return _depthwise(geometry, x, w[:, :, 0])
  size, kernel, strides, pads = geometry
  if pads == ((0, 0), (0, 0)) and kernel == (1, 1):
    # lax's kernel gradient would transpose the whole of x.
    return _multiply(x[:, :: strides[0], :: strides[1]], w[0, 0])
  if pads == ((0, 0), (0, 0)) and kernel == size:
    x = x.reshape(x.shape[0], 1, 1, -1)
    return _multiply(x, w.reshape(-1, w.shape[3]))
  if (
    strides == (1, 1) and w.shape[3] <= FEW_CHANNELS and w.shape[3] < w.shape[2]
  ):
    # Unstrided, either is also the other, and the transposed one is better at
    # few outputs. 3x3, 64 -> 1, the three maps: 35, 30, 19 against 11, 14, 6.
    return conv_transpose(x, w, strides, pads)
  return _forward(geometry, x, w)


def conv_transpose(
  x: jax.Array,
  w: jax.Array,
  strides: Pair = (1, 1),
  padding: Padding = "SAME",
) -> jax.Array:
  """Transposed convolution: (b, h, w, c), (kh, kw, c, o) -> (b, h', w', o).

  As `lax.conv_transpose` with `transpose_kernel=False`, errors included: w
  slides unflipped over x with strides - 1 zeros between its pixels. "SAME"
  makes h' = h * stride; explicit pairs pad the spread x.
  """
  plain = functools.partial(
    lax.conv_transpose, strides=strides, padding=padding, dimension_numbers=NHWC
  )
  y = jax.eval_shape(plain, x, w)
  if not windows.ours(x, w, y):
    return plain(x, w)
  kernel, strides = windows.pair(w.shape[:2]), windows.pair(strides)
  if isinstance(padding, str):
    spread = functools.partial(_spread_pads, padding)
    padding = list(map(spread, kernel, strides))
  # Now for the convolution of which this is the input gradient. It takes y to
  # x, with the kernel flipped.
  pads = windows.static(
    (k - 1 - before, k - 1 - after)
    for k, (before, after) in zip(kernel, windows.static(padding), strict=True)
  )
  w = w[::-1, ::-1]
  if x.shape[1:3] == (1, 1) and pads == ((0, 0), (0, 0)):
    return jnp.einsum("bc,hwco->bhwo", x[:, 0, 0], w)
  geometry = windows.Geometry(y.shape[1:3], kernel, strides, pads)
  return _input_gradient(geometry, x, w.swapaxes(2, 3))


def _spread_pads(padding: str, k: int, s: int) -> Pair:
  """What lax means by "SAME" and "VALID" for a transposed convolution."""
  if padding == "VALID":
    return k - 1, max(k, s) - 1
  total = k + s - 2
  before = k - 1 if s > k - 1 else -(-total // 2)
  return before, total - before


# The three maps. `geo` is a Geometry, w is (kh, kw, c, o) in each.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(geo, x, w):
  """y (b, h', w', o): lax's where channels are neither few nor many."""
  if math.prod(w.shape[:3]) <= SMALL_KERNEL:
    return _multiply(_patches(geo, x), w.reshape(-1, w.shape[-1]))
  if _minimal(geo, x, *w.shape[2:]):
    return winograd.convolve(_blocks(geo, x), windows.blocks(w, geo.strides, 0))
  return _lax(x, w, geo.pads, window_strides=geo.strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geo, x, g):
  """w (kh, kw, c, o): lax's for a convolution, here for transposed ones too.

  Transposed, lax spreads x and slides the larger array: 1 at 4x4/2 from 8x8
  pixels, 256 -> 128, where this form has 79, on a machine half busy.
  """
  c, o = x.shape[-1], g.shape[-1]
  if math.prod(geo.kernel) * c <= SMALL_KERNEL:
    patches = _patches(geo, x)
    w = patches.reshape(-1, patches.shape[-1]).T @ g.reshape(-1, o)
    return w.reshape(*geo.kernel, c, o)
  # Over devices each product of a transform would be summed and not only w: for
  # a step of the DCGAN at 64 px they would send 78 MB and not 36.
  if jax.device_count() == 1 and _minimal(geo, x, c, o):
    w = winograd.kernel_gradient(_blocks(geo, x), g)
    return windows.unblocked(w, geo.strides, 0)
  # The channels of x stand for its batch, which is summed over; g is a kernel.
  pads = tuple(
    (p, s * (m - 1) + k - n - p)
    for n, k, s, (p, _), m in zip(*geo, g.shape[1:3], strict=True)
  )
  letters = ("CHWN", "IHWO", "HWNC")
  return _lax(x, g, pads, rhs_dilation=geo.strides, dimension_numbers=letters)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(geo, g, w):
  """x (b, h, w, c), by phases: the pixels of equal index modulo the stride.

  A phase meets only every stride-th element of the kernel, so it is a small
  unstrided convolution of g, and no zeros are multiplied, where lax spreads g
  with zeros. 4x4/2, 64 -> 128: 151 against 63; 128 -> 256: 172 against 92.

  At few channels all is one multiplication, whose products each phase shifts
  and adds up.
  """
  (height, width), _, s, _ = geo
  n, c = g.shape[1:3], w.shape[2]
  if _minimal(geo, g, *w.shape[2:]):
    x = winograd.input_gradient(g, windows.blocks(w, s, 0))
    x = windows.unblocked(x, s, 1)
    (top, _), (left, _) = geo.pads
    bottom, right = height + top - x.shape[1], width + left - x.shape[2]
    return windows.pad(x, ((-top, bottom), (-left, right)))
  m = -(-height // s[0]), -(-width // s[1])  # Pixels of a phase.
  few = c <= FEW_CHANNELS
  if few:  # Added up in float32 at least, as inside a product.
    wide = jnp.promote_types(g.dtype, jnp.float32)
    products = jnp.einsum(
      "bhwo,ijco->bhwijc", g, w, preferred_element_type=wide
    )

  def phase(*r):
    # Pixel s * i + r meets element t + s * u at pixel i + q - u of g.
    (q0, t0), (q1, t1) = (divmod(r[a] + geo.pads[a][0], s[a]) for a in (0, 1))
    elements = w[t0 :: s[0], t1 :: s[1]]
    u = elements.shape[:2]
    if 0 in u:  # The kernel is smaller than the stride.
      return jnp.zeros((g.shape[0], *m, c), g.dtype)
    if not few:
      pads = (
        (u[0] - 1 - q0, m[0] + q0 - n[0]),
        (u[1] - 1 - q1, m[1] + q1 - n[1]),
      )
      return _lax(g, elements[::-1, ::-1].swapaxes(2, 3), pads)
    shifted = (
      windows.pad(
        products[:, :, :, t0 + s[0] * i, t1 + s[1] * j],
        ((i - q0, m[0] + q0 - n[0] - i), (j - q1, m[1] + q1 - n[1] - j)),
      )
      for i, j in np.ndindex(*u)
    )
    return functools.reduce(jnp.add, shifted).astype(g.dtype)

  x = [jnp.stack([phase(i, j) for j in range(s[1])], 3) for i in range(s[0])]
  x = jnp.stack(x, 2)  # (b, m0, s0, m1, s1, c)
  x = x.reshape(g.shape[0], m[0] * s[0], m[1] * s[1], c)
  return x[:, :height, :width]


def _differentiate(f, by_first, by_second):
  """Gives f(geo, a, b) the gradients by_first(ct, b) and by_second(a, ct)."""
  f.defvjp(
    lambda geo, a, b: (f(geo, a, b), (a, b)),
    lambda geo, ab, ct: (by_first(geo, ct, ab[1]), by_second(geo, ab[0], ct)),
  )


def _swapped(f):
  return lambda geo, a, b: f(geo, b, a)


_differentiate(_forward, _input_gradient, _kernel_gradient)
_differentiate(_input_gradient, _forward, _swapped(_kernel_gradient))
_differentiate(_kernel_gradient, _swapped(_input_gradient), _forward)


# The same three where each channel has its own kernel: w is (kh, kw, c). They
# move much and compute little. Milliseconds of processor time per core, on
# cores shared with others, with lax's and PyTorch's: 3x3, 144 channels of
# 56 x 56, 16 images, forward 6.5 (518, 5.2), input gradient 6.6 (-, 6.4),
# kernel gradient 20 (-, 6.5); with a reduction for each element that was 41.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(geo, x, w):
  """y (b, h', w', c): shifted products, added up."""
  w = windows.wide(w)
  views = windows.views(geo, windows.pad(x, geo.pads))
  elements = np.ndindex(*geo.kernel)
  products = [v * w[i] for v, i in zip(views, elements, strict=True)]
  return functools.reduce(jnp.add, products).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise_input(geo, g, w):
  """x (b, h, w, c)."""
  w = windows.in_blocks(geo, windows.wide(w))
  return windows.spread(geo, lambda u, v, g: g * w[u, v], g).astype(g.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise_kernel(geo, x, g):
  """w (kh, kw, c): for each of its elements a sum of products.

  A pair of images at a time, one for each core, which stay in the cache until
  all elements have read them. The products of up to TERMS parts of an image
  are added up in registers before they meet memory.
  """
  b, h, w, c = g.shape
  pair = math.gcd(b, 2)
  rows = -(-h // TERMS)  # Of a part.
  zeros = -h % rows  # More rows, so that all parts are alike.
  (top, bottom), sides = geo.pads
  pads = (top, bottom + zeros * geo.strides[0]), sides

  def add(sums, images):
    x, g = images
    g = windows.pad(windows.wide(g), ((0, zeros), (0, 0)))
    views = windows.views(geo, windows.pad(x, pads))
    added = []
    for s, view in zip(sums, views, strict=True):
      parts = [slice(i, i + rows) for i in range(0, h + zeros, rows)]
      products = [view[:, part] * g[:, part] for part in parts]
      added.append(functools.reduce(jnp.add, products, s))
    return added, None

  sums = [jnp.zeros((pair, rows, w, c), windows.wide(g).dtype)]
  pairs = [a.reshape(-1, pair, *a.shape[1:]) for a in (x, g)]
  sums, _ = lax.scan(add, sums * math.prod(geo.kernel), pairs)
  sums = jnp.stack([s.sum((0, 1, 2)) for s in sums])
  return sums.reshape(*geo.kernel, c).astype(g.dtype)


_differentiate(_depthwise, _depthwise_input, _depthwise_kernel)
_differentiate(_depthwise_input, _depthwise, _swapped(_depthwise_kernel))
_differentiate(_depthwise_kernel, _swapped(_depthwise_input), _depthwise)


def _minimal(geo, x, c, o) -> bool:
  """Whether `winograd` serves; x is the input or the cotangent."""
  if any(k % s for k, s in zip(geo.kernel, geo.strides, strict=True)):
    return False
  size, kernel = [], []
  for n, k, s, pads in zip(*geo, strict=True):
    size.append((n + sum(pads) - k) // s + 1)
    kernel.append(k // s)
  c *= math.prod(geo.strides)
  return winograd.pays(x.dtype, x.shape[0], size, kernel, c, o)


def _blocks(geo, x):
  """Padded x, a stride's pixels as one, so that the stride is one."""
  ends = []
  for n, k, s, (before, after) in zip(*geo, strict=True):
    unseen = (n + before + after - k) % s
    ends.append((before, after - unseen))
  return windows.blocks(windows.pad(x, ends), geo.strides, 1)


def _lax(x, w, pads, window_strides=(1, 1), dimension_numbers=NHWC, **kwargs):
  """lax's convolution, safe at negative pads and fast at tiny images.

  At negative pads XLA's CPU convolution can read beyond x: openxla/xla#48713.
  Where the kernel exceeds x, and zeros around x must make up for it, XLA does
  not send it to its library: 3x3 over 2x2 pixels, 512 channels, as in the last
  stage of a ResNet at 64 px, 2 against 168 when the zeros are there already.
  The barrier keeps XLA from taking them back.
  """
  kernel = [w.shape[dimension_numbers[1].index(side)] for side in "HW"]
  if any(k > n for k, n in zip(kernel, x.shape[1:3], strict=True)):
    x, pads = lax.optimization_barrier(windows.pad(x, pads)), ((0, 0), (0, 0))
  if min(map(min, pads)) < 0:
    x, pads = windows.pad(x, pads), ((0, 0), (0, 0))
  return lax.conv_general_dilated(
    x, w, window_strides, pads, dimension_numbers=dimension_numbers, **kwargs
  )


def _multiply(x, w):
  """Each pixel of x (b, h, w, c) by a matrix (c, o).

  As a product of matrices, since XLA lets its library read one of those
  transposed. Of images it writes a transposed copy first, for the gradient of
  w, by single numbers and with all that led to them: 163 ms against 29, 56 x 56
  pixels, 16 images, 64 -> 256, and a third of ResNet-50's step.
  """
  return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], w.shape[1])


def _patches(geo, x):
  """(b, h', w', kh * kw * c): what the kernel meets at each place."""
  return jnp.concatenate(windows.views(geo, windows.pad(x, geo.pads)), -1)


class _Layer(nn.Module):
  """Parameters of Flax's layers, from the same options."""

  features: int
  kernel_size: Pair
  strides: Pair = (1, 1)
  padding: Padding = "SAME"
  use_bias: bool = True
  dtype: jax.typing.DTypeLike | None = None  # Of the arithmetic.
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(b, h, w, c) -> (b, h', w', features)."""
    shape = self.kernel_shape(x.shape[-1])
    w = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = None
    if self.use_bias:
      bias = self.param("bias", self.bias_init, shape[-1:], jnp.float32)
    x, w, bias = dtypes.promote_dtype(x, w, bias, dtype=self.dtype)
    y = self.convolve(x, w)
    return y if bias is None else y + bias


class Conv(_Layer):
  """`flax.linen.Conv` for (b, h, w, c).

  Depthwise where `groups` is the number of input channels and `features` a
  multiple of it; the kernel is then (kh, kw, 1, features).
  """

  dilation: Pair = (1, 1)
  groups: int = 1

  def kernel_shape(self, channels: int) -> tuple[int, ...]:
    return (*self.kernel_size, channels // self.groups, self.features)

  def convolve(self, x: jax.Array, w: jax.Array) -> jax.Array:
    return conv(x, w, self.strides, self.padding, self.dilation, self.groups)


class ConvTranspose(_Layer):
  """`flax.linen.ConvTranspose` for (b, h, w, c)."""

  def kernel_shape(self, channels: int) -> tuple[int, ...]:
    return (*self.kernel_size, channels, self.features)

  def convolve(self, x: jax.Array, w: jax.Array) -> jax.Array:
    return conv_transpose(x, w, self.strides, self.padding)

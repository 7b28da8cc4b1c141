"""Convolutions agree with lax's, to every derivative, and are not lax's."""

import functools
import re

from flax import linen as nn
import hypothesis
from hypothesis import strategies as st
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfake.nn import conv as C
from jaxfake.runtime import xla

SAME, VALID, ONES = "SAME", "VALID", (1, 1)

# Halves the compiling, which is most of the time; XLA's passes stay.
QUICK = {"xla_backend_optimization_level": 0}

# size, kernel, (in, out) channels, strides, padding.
CONV = {
  "dcgan first": (16, (4, 4), (1, 12), (2, 2), SAME),
  "dcgan inner": (8, (4, 4), (20, 12), (2, 2), SAME),
  "dcgan last": (4, (4, 4), (20, 1), ONES, VALID),
  "3x3": (7, (3, 3), (12, 20), ONES, SAME),
  "1x1": (7, (1, 1), (12, 20), ONES, SAME),
  "1x1 strided": (7, (1, 1), (12, 20), (2, 3), SAME),
  "1x1 padded": (7, (1, 1), (12, 20), (2, 2), ((1, 0), (0, 2))),
  "few outputs": (7, (3, 3), (12, 2), ONES, SAME),
  "few inputs": (9, (3, 3), (2, 12), ONES, SAME),
  "few inputs, large kernel": (9, (7, 7), (1, 12), (2, 2), SAME),
  "odd size": (9, (4, 4), (12, 20), (2, 2), SAME),
  "unseen edge": (10, (3, 3), (12, 20), (3, 3), VALID),
  "kernel under stride": (10, (2, 2), (12, 20), (3, 3), SAME),
  "unequal axes": (9, (1, 5), (12, 20), (1, 3), SAME),
  "asymmetric": (8, (4, 3), (12, 20), (2, 1), ((2, 1), (0, 3))),
  "wider than kernel": (5, (2, 2), (12, 20), (2, 2), ((3, 4), (0, 5))),
  "cropped": (9, (3, 3), (12, 20), (2, 2), ((-2, 2), (1, -1))),
}
TRANSPOSED = {
  "dcgan first": (1, (4, 4), (20, 12), ONES, VALID),
  "dcgan inner": (5, (4, 4), (20, 12), (2, 2), SAME),
  "dcgan last": (8, (4, 4), (20, 1), (2, 2), SAME),
  "unstrided": (5, (3, 3), (12, 20), ONES, SAME),
  "one pixel": (1, (4, 4), (20, 12), (2, 2), SAME),
  "3x3": (5, (3, 3), (12, 20), (2, 2), SAME),
  "5x5, to few": (5, (5, 5), (12, 3), (2, 2), VALID),
  "kernel under stride": (5, (2, 2), (12, 20), (3, 3), VALID),
  "unequal axes": (5, (1, 5), (12, 20), (1, 3), SAME),
  "asymmetric": (5, (4, 3), (12, 20), (2, 1), ((2, 1), (0, 3))),
  # lax's float32 gradient reads beyond x here (openxla/xla#48713).
  "wider than kernel": (5, (2, 2), (3, 4), (3, 3), ((3, 0), (1, 2))),
  "cropped": (5, (4, 4), (12, 20), (2, 2), ((-1, 2), (-2, -1))),
}
CASES = [
  pytest.param(transposed, *case, id=f"{kind}, {name}")
  for transposed, kind, cases in (
    (False, "conv", CONV),
    (True, "transposed", TRANSPOSED),
  )
  for name, case in cases.items()
]


def pair(transposed, strides, padding, **kwargs):
  """Our function of (x, w) and lax's."""
  if transposed:
    return (
      lambda x, w: C.conv_transpose(x, w, strides, padding),
      lambda x, w: lax.conv_transpose(
        x, w, strides, padding, dimension_numbers=C.NHWC
      ),
    )
  dilation, groups = kwargs.get("dilation", ONES), kwargs.get("groups", 1)
  return (
    lambda x, w: C.conv(x, w, strides, padding, dilation, groups),
    lambda x, w: lax.conv_general_dilated(
      x,
      w,
      strides,
      padding,
      rhs_dilation=dilation,
      feature_group_count=groups,
      dimension_numbers=C.NHWC,
    ),
  )


def inputs(size, kernel, channels, dtype=np.float32, groups=1, batch=3, seed=0):
  rng = np.random.default_rng(seed)
  size = (size, size) if isinstance(size, int) else size
  x = rng.normal(size=(batch, *size, channels[0]))
  w = rng.normal(size=(*kernel, channels[0] // groups, channels[1]))
  return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def maps(f):
  """x, w -> f(x, w) and its two gradients, for a cotangent of many values."""

  def evaluate(x, w):
    y, gradients = jax.vjp(f, x, w)
    g = jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return y, *gradients(g)

  return evaluate


def penalty(f):
  """x, w -> both gradients of the cosine of both gradients."""

  def square(x, w):
    slopes = jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, w)
    return sum(jnp.sum(jnp.cos(s)) for s in slopes)

  return jax.grad(square, (0, 1))


def compare(evaluate, ours, plain, x, w, tolerance, options=QUICK):
  """Ours in the type of x against lax's in float64, scaled by the largest.

  In float64 also because lax in float32 can be wrong (openxla/xla#48713).
  """
  with jax.enable_x64(True):
    wide = x.astype(jnp.float64), w.astype(jnp.float64)
    both = jax.jit(
      lambda x, w, *wide: (evaluate(ours)(x, w), evaluate(plain)(*wide)),
      compiler_options=options,
    )
    for name, a, b in zip(("y", "dx", "dw"), *both(x, w, *wide), strict=False):
      assert a.shape == b.shape, name
      assert a.dtype == x.dtype, name
      error = np.max(abs(a - b)) / max(np.max(abs(b)), 1e-30)
      assert error <= tolerance, f"{name} differs by {error:.1e} of the largest"


@pytest.mark.parametrize(
  "transposed, size, kernel, channels, strides, padding", CASES
)
def test_values_and_gradients(
  transposed, size, kernel, channels, strides, padding
):
  f = pair(transposed, strides, padding)
  x, w = inputs(size, kernel, channels)
  compare(maps, *f, x, w, 1e-5, QUICK | xla.compiler_options())


@pytest.mark.parametrize("name", ["dcgan first", "dcgan inner", "dcgan last"])
@pytest.mark.parametrize("transposed", [False, True])
def test_float64(transposed, name):
  case = (TRANSPOSED if transposed else CONV)[name]
  f = pair(transposed, *case[3:])
  with jax.enable_x64(True):
    x, w = inputs(*case[:3], np.float64)
  compare(maps, *f, x, w, 1e-10)


pads = st.tuples(*[st.tuples(*[st.integers(-1, 4)] * 2)] * 2)
sizes = st.tuples(*[st.integers(1, 9)] * 2)


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(
  transposed=st.booleans(),
  batch=st.integers(1, 3),
  size=sizes,
  kernel=st.tuples(*[st.integers(1, 5)] * 2),
  channels=st.tuples(*[st.sampled_from((1, 3, 9, 17))] * 2),
  strides=st.tuples(*[st.integers(1, 3)] * 2),
  padding=st.one_of(st.sampled_from((SAME, VALID)), pads),
  dilation=st.sampled_from((ONES, ONES, (2, 1))),
  groups=st.sampled_from((1, 1, 3)),
)
def test_any_geometry(
  transposed, batch, size, kernel, channels, strides, padding, dilation, groups
):
  if transposed or any(c % groups for c in channels):
    groups = 1
  if transposed or groups > 1:
    dilation = ONES
  f = pair(transposed, strides, padding, dilation=dilation, groups=groups)
  x, w = inputs(size, kernel, channels, groups=groups, batch=batch)
  try:
    y = jax.eval_shape(f[1], x, w)
  except ValueError:  # A crop of more than there is.
    hypothesis.reject()
  hypothesis.assume(y.size)
  # Beyond our own, lax's must be in its own bounds to be right.
  own = groups == 1 and dilation == ONES
  hypothesis.assume(own or isinstance(padding, str) or np.min(padding) >= 0)
  compare(maps, *f, x, w, 1e-5)


@pytest.mark.parametrize(
  "dilation, groups", [((2, 1), 1), (ONES, 4), ((2, 1), 12)]
)
def test_dilated_and_grouped_are_lax(dilation, groups):
  f = pair(False, (2, 2), SAME, dilation=dilation, groups=groups)
  x, w = inputs(7, (3, 3), (12, 24), groups=groups)
  ours, plain = (str(jax.make_jaxpr(maps(g))(x, w)) for g in f)
  assert ours == plain


@pytest.mark.parametrize(
  "transposed, name",
  [(t, n) for t in (False, True) for n in ("dcgan first", "dcgan inner")]
  + [(False, "dcgan last"), (False, "1x1 strided"), (True, "dcgan last")],
)
def test_gradient_of_gradient(transposed, name):
  case = (TRANSPOSED if transposed else CONV)[name]
  f = pair(transposed, *case[3:])
  with jax.enable_x64(True):
    x, w = inputs(*case[:3], np.float64)
  compare(penalty, *f, x, w, 1e-10)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("channels", [(9, 12), (1, 12), (12, 1)])
def test_vmap_over_inputs_and_kernels(transposed, channels):
  f = pair(transposed, (2, 2), SAME)
  xs, ws = zip(
    *(inputs(6, (4, 4), channels, seed=i) for i in range(2)), strict=True
  )
  xs, ws = jnp.stack(xs), jnp.stack(ws)
  one, both = (
    lambda g, axes=axes: jax.vmap(maps(g), axes) for axes in ((0, None), 0)
  )
  compare(one, *f, xs, ws[0], 1e-5)
  compare(both, *f, xs, ws, 1e-5)


@pytest.mark.parametrize(
  "transposed, name",
  [
    (False, "dcgan first"),
    (False, "dcgan inner"),
    (False, "few outputs"),
    (True, "dcgan last"),
  ],
)
def test_bfloat16_rounds_once(transposed, name):
  case = (TRANSPOSED if transposed else CONV)[name]
  rounds_once(*pair(transposed, *case[3:]), *inputs(*case[:3], jnp.bfloat16))


def rounds_once(ours, plain, x, w):
  # The cotangents are the same numbers, rounded as ours are.
  def exact(x, w):
    y, back = jax.vjp(plain, x.astype(np.float32), w.astype(np.float32))
    g = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
    return y, *back(g.astype(x.dtype).astype(y.dtype))

  both = jax.jit(
    lambda x, w: (maps(ours)(x, w), exact(x, w)), compiler_options=QUICK
  )
  for a, b in zip(*both(x, w), strict=True):
    assert a.dtype == jnp.bfloat16
    allowed = 2**-8 * abs(b) + 1e-5 * jnp.max(abs(b))
    assert jnp.all(abs(a - b) <= allowed)


# Depthwise: size, kernel, (channels, multiplier), strides, padding.

DEPTHWISE = {
  "3x3": ((19, 7), (3, 3), (12, 1), ONES, SAME),
  "3x3/2": ((21, 8), (3, 3), (12, 1), (2, 2), SAME),
  "5x5/2, odd": (9, (5, 5), (4, 1), (2, 2), ((2, 2), (2, 2))),
  "multiplied": (7, (3, 3), (4, 3), ONES, SAME),
  "unequal axes": ((9, 11), (2, 4), (3, 2), (1, 3), ((2, 1), (0, 3))),
  "kernel under stride": (10, (2, 2), (5, 1), (3, 3), VALID),
  "cropped": (9, (3, 3), (5, 1), (2, 2), ((-2, 2), (1, -1))),
}


def depthwise(size, kernel, channels, strides, padding, batch=4, dtype="f4"):
  """Our function of (x, w), lax's, x and w."""
  c, multiplier = channels
  x, w = inputs(size, kernel, (c, c * multiplier), dtype, groups=c, batch=batch)
  ours, plain = pair(False, strides, padding, groups=c)
  if not isinstance(padding, str):  # Where lax crops it can be wrong.
    _, valid = pair(False, strides, VALID, groups=c)
    plain = lambda x, w: valid(padded(x, padding), w)
  return ours, plain, x, w


def padded(x, padding):
  for axis, (before, after) in enumerate(padding, 1):
    n = x.shape[axis]
    x = lax.slice_in_dim(x, max(-before, 0), n + min(after, 0), axis=axis)
    widths = [(0, 0)] * 4
    widths[axis] = max(before, 0), max(after, 0)
    x = jnp.pad(x, widths)
  return x


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(name):
  case = depthwise(*DEPTHWISE[name])
  compare(maps, *case, 1e-5, QUICK | xla.compiler_options())


@pytest.mark.parametrize("name", ["3x3", "unequal axes"])
@pytest.mark.parametrize("evaluate", [maps, penalty])
def test_depthwise_float64(evaluate, name):
  with jax.enable_x64(True):
    case = depthwise(*DEPTHWISE[name], dtype="f8")
  compare(evaluate, *case, 1e-10)


@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(
  batch=st.integers(1, 4),
  size=st.tuples(*[st.integers(1, 19)] * 2),
  kernel=st.tuples(*[st.integers(1, 4)] * 2),
  channels=st.tuples(st.integers(2, 5), st.integers(1, 2)),
  strides=st.tuples(*[st.integers(1, 3)] * 2),
  padding=st.one_of(st.sampled_from((SAME, VALID)), pads),
)
def test_any_depthwise(batch, size, kernel, channels, strides, padding):
  try:
    case = depthwise(size, kernel, channels, strides, padding, batch)
    y = jax.eval_shape(case[1], *case[2:])
  except (TypeError, ValueError):  # A crop of more than there is.
    hypothesis.reject()
  hypothesis.assume(y.size)
  compare(maps, *case, 1e-5)


def test_depthwise_vmap():
  ours, plain, x, w = depthwise(*DEPTHWISE["3x3/2"])
  both = lambda f: jax.vmap(maps(f), (0, None))
  compare(both, ours, plain, jnp.stack([x, x[::-1]]), w, 1e-5)


def test_depthwise_bfloat16_rounds_once():
  ours, plain, x, w = depthwise(*DEPTHWISE["3x3/2"], dtype=jnp.bfloat16)
  rounds_once(ours, plain, x, w)


def test_depthwise_convolves_nothing_and_needs_little_memory():
  ours, _, x, w = depthwise(28, (3, 3), (32, 1), ONES, SAME)
  jaxpr = str(jax.make_jaxpr(maps(ours))(x, w))
  assert "conv_general_dilated" not in jaxpr
  program = jax.jit(maps(ours), compiler_options=QUICK).lower(x, w).compile()
  assert program.memory_analysis().temp_size_in_bytes < 4 * x.nbytes


# That a slow form does not come back unseen.


def spreads(f, *args):
  """Whether f convolves arrays that it spread with zeros."""
  found = re.findall(
    r"lhs_dilation=\((\d+), (\d+)\)", str(jax.make_jaxpr(f)(*args))
  )
  return any(pair != ("1", "1") for pair in found)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("channels", [(12, 20), (1, 12), (12, 1)])
@pytest.mark.parametrize("evaluate", [maps, penalty])
def test_nothing_is_spread_on_cpu(transposed, channels, evaluate):
  ours, plain = pair(transposed, (2, 2), SAME)
  x, w = inputs(8, (4, 4), channels)
  assert spreads(evaluate(plain), x, w)
  assert not spreads(evaluate(ours), x, w)


@pytest.mark.parametrize("layer", [C.Conv, C.ConvTranspose])
def test_layers_use_it(layer):
  model = layer(12, (4, 4), (2, 2))
  x = jnp.zeros((2, 8, 8, 20))
  params = jax.eval_shape(model.init, jax.random.key(0), x)
  loss = lambda params, x: model.apply(params, x).sum()
  assert not spreads(jax.grad(loss, (0, 1)), params, x)


def test_products_write_no_transposed_images():
  """What a ResNet's 1x1 convolutions once spent a third of their time on."""
  x, w = inputs(16, (1, 1), (24, 40))
  pixels = x.size // 24

  def transposes(multiply):
    def loss(w, x):  # What leads to a product is written with it.
      return (multiply(jnp.sin(x), w) ** 2).sum()

    gradient = jax.jit(jax.grad(loss), compiler_options=xla.compiler_options())
    program = gradient.lower(w, x).compile().as_text()
    return any(f"f32[{c},{pixels}]" in program for c in (24, 40))

  assert transposes(lambda x, w: jnp.tensordot(x, w[0, 0], 1))
  assert not transposes(C.conv)


@pytest.mark.parametrize(
  "transposed, name",
  [
    (False, "1x1 strided"),
    (False, "dcgan first"),
    (False, "dcgan last"),
    (True, "dcgan first"),
    (True, "dcgan last"),
  ],
)
def test_small_ones_multiply(transposed, name):
  case = (TRANSPOSED if transposed else CONV)[name]
  ours, _ = pair(transposed, *case[3:])
  jaxpr = str(jax.make_jaxpr(maps(ours))(*inputs(*case[:3])))
  assert "conv_general_dilated" not in jaxpr
  assert "dot_general" in jaxpr


@pytest.mark.parametrize(
  "transposed, size, kernel, channels, strides, padding", CASES[::4]
)
def test_lax_elsewhere(
  monkeypatch, transposed, size, kernel, channels, strides, padding
):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  f = pair(transposed, strides, padding)
  x, w = inputs(size, kernel, channels)
  ours, plain = (str(jax.make_jaxpr(maps(g))(x, w)) for g in f)
  assert ours == plain


@pytest.mark.parametrize("f", [C.conv, C.conv_transpose])
@pytest.mark.parametrize(
  "x, w, padding",
  [
    ((1, 8, 8, 3), (3, 3, 4, 5), SAME),  # Channels.
    ((1, 8, 8), (3, 3, 3, 5), SAME),  # Axes.
    ((1, 8, 8, 3), (3, 3, 3, 5), "LOOSE"),
    ((1, 8, 8, 3), (3, 3, 3, 5), ((1, 1),)),
  ],
)
def test_bad_arguments(f, x, w, padding):
  with pytest.raises((TypeError, ValueError, RuntimeError, AssertionError)):
    f(jnp.ones(x), jnp.ones(w), (2, 2), padding)


@pytest.mark.parametrize("transposed", [False, True])
def test_empty_and_whole_numbers_are_lax(transposed):
  x, w = inputs(5, (3, 3), (4, 5))
  f = pair(transposed, (2, 2), VALID)
  whole = x.astype(int), w.astype(int)
  for arguments in (x[:0], w), (x[:, :0] if transposed else x[:, :2], w), whole:
    ours, plain = (str(jax.make_jaxpr(g)(*arguments)) for g in f)
    assert ours == plain


LAYERS = [
  (C.Conv, nn.Conv, dict(features=6, kernel_size=(4, 4), strides=(2, 2))),
  (C.Conv, nn.Conv, dict(features=6, kernel_size=(3, 3), padding=VALID)),
  (
    C.Conv,
    nn.Conv,
    dict(
      features=6,
      kernel_size=(3, 3),
      padding=((0, 2), (1, 0)),
      kernel_init=nn.initializers.normal(0.02),
      bias_init=nn.initializers.ones_init(),
    ),
  ),
  (
    C.ConvTranspose,
    nn.ConvTranspose,
    dict(features=6, kernel_size=(4, 4), strides=(2, 2), use_bias=False),
  ),
  (
    C.ConvTranspose,
    nn.ConvTranspose,
    dict(features=1, kernel_size=(3, 3), dtype=jnp.bfloat16),
  ),
]


@pytest.mark.parametrize("ours, linen, options", LAYERS)
def test_layers_are_flax_layers(ours, linen, options):
  x = jax.random.normal(jax.random.key(1), (2, 6, 6, 3))
  (y, params), (z, expected) = (
    jax.jit(f(**options).init_with_output, compiler_options=QUICK)(
      jax.random.key(0), x
    )
    for f in (ours, linen)
  )
  # Compiled apart, the same numbers round differently.
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  assert jax.tree.structure(params) == jax.tree.structure(expected)
  assert jax.eval_shape(lambda: params) == jax.eval_shape(lambda: expected)
  jax.tree.map(close, params, expected)
  assert y.dtype == z.dtype
  tolerance = 1e-5 if y.dtype == np.float32 else 1e-2
  np.testing.assert_allclose(
    y.astype(np.float32), z.astype(np.float32), atol=tolerance
  )


def test_layers_take_names_as_flax_does():
  def names(conv, transpose):
    class Net(nn.Module):
      @nn.compact
      def __call__(self, x):
        return transpose(2, (3, 3))(conv(2, (3, 3))(conv(2, (3, 3))(x)))

    x = jnp.ones((1, 4, 4, 1))
    return jax.eval_shape(Net().init, jax.random.key(0), x)

  expected = names(nn.Conv, nn.ConvTranspose)
  assert names(C.Conv, C.ConvTranspose) == expected

"""A convolutional reservoir: frozen random filters, echo states, a ridge.

After the abstract of MeDiFakeD, whose inner workings could not be read: banks
of random convolutions are never trained, each bank's map is read line by line
by echo-state networks (Jaeger, 2001, GMD report 148; Lukoševičius, 2012,
doi:10.1007/978-3-642-35289-8_36), several of them side by side, and only a
linear readout is fitted, in closed form. For sets of fewer than 100 images.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import math
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import errors
from jaxfake.classifiers import features, ridge
from jaxfake.nn import conv
from jaxfake.runtime import xla

BATCH = 64  # Images at once: one shape, compiled once.
DIRECTIONS = ("rows", "columns")  # How a map is read; one reservoir for each.
ARRAYS = ("moments", "coef", "intercept", "penalty")  # Of a saved model.


@dataclasses.dataclass(frozen=True)
class Reservoir:
  """All that the frozen weights follow from; a bank for each kernel size.

  A bank has `width` random filters of zero mean and unit norm, and is pooled
  to a map of `map` x `map`. A row of it, (map * width,), is one input u to a
  reservoir of `units`; so is a column, to another. Reservoirs follow

      x_t = (1 - leak) x_{t-1} + leak tanh(W_in u_t + W x_{t-1} + b)

  from x_0 = 0 (Lukoševičius, equations 2 and 3). W has a share `density` of
  entries that are not zero and the spectral radius `radius`; W_in and b are
  uniform, W_in with the deviation `gain` of W_in u for standardised u, b
  within +-`bias`.
  """

  size: int  # Of the images, pixels a side.
  seed: int
  kernels: tuple[int, ...]
  strides: tuple[int, ...]
  width: int
  map: int
  units: int
  leak: float
  radius: float
  density: float
  gain: float
  bias: float

  def __post_init__(self):
    def refuse(field, expected):
      value = getattr(self, field)
      raise errors.ConfigError(f"reservoir.{field} is {value}: {expected}")

    if not self.kernels or min(self.kernels) < 1:
      refuse("kernels", "expected one size or more, each at least 1")
    if len(self.strides) != len(self.kernels) or min(self.strides) < 1:
      refuse("strides", "expected one for each kernel, at least 1")
    for field in ("width", "map", "units"):
      if getattr(self, field) < 1:
        refuse(field, "expected at least 1")
    if self.map > self.size // max(self.strides):
      refuse(
        "map",
        f"at most {self.size // max(self.strides)}, for {self.size} px images"
        f" at strides {self.strides}",
      )
    if not 0 < self.leak <= 1:
      refuse("leak", "expected above 0, at most 1")
    if not 1 / self.units <= self.density <= 1:  # Sparser, no cycle is left.
      refuse("density", "expected from 1 / units to 1")
    for field in ("radius", "gain", "bias"):
      if not 0 <= getattr(self, field) < math.inf:
        refuse(field, "expected a number from 0 up")

  @property
  def features(self) -> int:
    """How many the readout reads: mean over time and last state of each."""
    return len(self.kernels) * len(DIRECTIONS) * 2 * self.units

  def weights(self) -> dict:
    """The frozen arrays, always the same; for r reservoirs

    filters [(k, k, 1, width), ...], inputs (r, map * width, units),
    recurrent (r, units, units), bias (r, units).
    """
    filters, inputs, recurrent, bias = [], [], [], []
    for bank, k in enumerate(self.kernels):
      rng = np.random.default_rng([self.seed, bank])
      filters.append(random_filters(rng, k, self.width))
      for _ in DIRECTIONS:
        d = self.map * self.width
        limit = self.gain * math.sqrt(3 / d)  # Uniform: variance limit^2 / 3.
        inputs.append(rng.uniform(-limit, limit, (d, self.units)))
        bias.append(rng.uniform(-self.bias, self.bias, self.units))
        key = int(rng.integers(2**32))
        recurrent.append(
          self.radius * unit_radius(key, self.units, self.density)
        )
    single = lambda arrays: np.stack(arrays).astype(np.float32)
    return {
      "filters": filters,
      "inputs": single(inputs),
      "recurrent": single(recurrent),
      "bias": single(bias),
    }


def random_filters(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
  """float32 (k, k, 1, n), each of unit norm and, from 2x2, zero mean."""
  w = rng.normal(size=(k, k, 1, n))
  if k > 1:
    w -= w.mean((0, 1))
  return (w / np.linalg.norm(w, axis=(0, 1))).astype(np.float32)


@functools.lru_cache(maxsize=64)
def unit_radius(seed: int, units: int, density: float) -> np.ndarray:
  """A sparse random matrix (units, units) whose spectral radius is 1.

  The radius is the largest modulus of its eigenvalues, all computed. One that
  has no cycle, so that all are zero, is drawn again.
  """
  rng = np.random.default_rng(seed)
  while True:
    w = rng.uniform(-1, 1, (units, units))
    w *= rng.random((units, units)) < density
    radius = np.abs(np.linalg.eigvals(w)).max()
    if radius > 1e-3:
      return w / radius


def echo_states(
  inputs: jax.Array,
  recurrent: jax.Array,
  bias: jax.Array,
  leak: float,
  u: jax.Array,
  start: jax.Array,
) -> jax.Array:
  """States (t, r, b, n) of r reservoirs fed u (t, r, b, d), from (r, b, n)."""

  def step(x, u):
    new = jnp.tanh(u + x @ recurrent)
    x = (1 - leak) * x + leak * new
    return x, x

  fed = u @ inputs + bias[:, None]  # All times at once: one large product.
  return jax.lax.scan(step, start, fed)[1]


def maps(
  filters: jax.Array, stride: int, side: int, images: jax.Array
) -> jax.Array:
  """A bank's rectified, pooled map of uint8 images: (b, side, side, width)."""
  x = images.astype(jnp.float32) / 127.5 - 1
  y = jax.nn.relu(conv.conv(x, filters, (stride, stride)))
  rows, columns = (features.area_shares(n, side) for n in y.shape[1:3])
  return jnp.einsum("ih,bhwc,jw->bijc", rows, y, columns)


@functools.lru_cache(maxsize=8)
def _machine(reservoir: Reservoir):
  """The frozen weights of a reservoir, and its two jitted passes."""
  r = reservoir
  weights = jax.device_put(r.weights())

  def banks(weights, images):
    return [
      maps(w, stride, r.map, images)
      for w, stride in zip(weights["filters"], r.strides, strict=True)
    ]

  def states(weights, mean, std, images):
    u = (jnp.stack(banks(weights, images)) - mean) / std  # (bank, b, i, j, c)
    # Row i at time i, column j at time j.
    u = jnp.stack([u.transpose(2, 0, 1, 3, 4), u.transpose(3, 0, 1, 2, 4)], 2)
    t, n, _, b = u.shape[:4]
    u = u.reshape(t, 2 * n, b, -1)  # (t, r, b, map * width)
    start = jnp.zeros((2 * n, b, r.units))
    x = echo_states(
      weights["inputs"], weights["recurrent"], weights["bias"], r.leak, u, start
    )
    x = jnp.stack([x.mean(0), x[-1]], 1)  # (r, 2, b, units)
    return x.transpose(2, 0, 1, 3).reshape(b, -1)

  return weights, xla.jit(banks), xla.jit(states)


def filter_moments(reservoir: Reservoir, images: np.ndarray) -> np.ndarray:
  """float32 (2, banks, width): mean and deviation over maps of images."""
  weights, banks, _ = _machine(reservoir)
  total, squares = 0.0, 0.0
  for part, n in features.batches(images, BATCH):
    y = np.stack([np.asarray(m[:n], np.float64) for m in banks(weights, part)])
    total += y.sum((1, 2, 3))
    squares += (y**2).sum((1, 2, 3))
  count = len(images) * reservoir.map**2
  mean = total / count
  std = np.sqrt(np.maximum(squares / count - mean**2, 0))
  return np.stack([mean, np.where(std > 1e-6, std, 1)]).astype(np.float32)


def states(
  reservoir: Reservoir, moments: np.ndarray, images: np.ndarray
) -> np.ndarray:
  """float32 (n, `reservoir.features`) of uint8 images (n, s, s, 1)."""
  weights, _, run = _machine(reservoir)
  mean, std = moments[:, :, None, None, None, :]
  fn = functools.partial(run, weights, mean, std)
  return features.in_batches(fn, images, BATCH)


@dataclasses.dataclass(frozen=True)
class Model:
  """A reservoir and what was fitted to train images, all finite.

  moments (2, banks, width) standardise the filters' maps; coef (d, k) and
  intercept (k,) read raw states, the standardisation of these folded in.
  """

  reservoir: Reservoir
  moments: np.ndarray
  coef: np.ndarray
  intercept: np.ndarray
  penalty: float  # Chosen of ridge.PENALTIES.


def fit(
  options: Mapping, images: np.ndarray, labels: np.ndarray, seed: int
) -> Model:
  """Fits a readout to uint8 images (n, s, s, 1), labels (n,) from 0 to k - 1.

  `options` are the fields of `Reservoir` but size and seed. The readout is a
  ridge regression of the classes' indicators on standardised states, classes
  weighing the same however many examples each has.

  Raises ConfigError for options of no use and DataError for a class without
  examples.
  """
  counts = np.bincount(labels)
  if len(counts) < 2 or not counts.all():
    raise errors.DataError(
      f"reservoir: {counts.tolist()} training examples of classes 0, 1, ...:"
      " expected two classes or more, and some of each"
    )
  lists = {k: tuple(options[k]) for k in ("kernels", "strides")}
  reservoir = Reservoir(size=images.shape[1], seed=seed, **{**options, **lists})
  moments = filter_moments(reservoir, images)
  x = states(reservoir, moments, images)
  return Model(reservoir, moments, *ridge.readout(x, labels))


def logits(model: Model, images: np.ndarray) -> np.ndarray:
  """float64 (n, k): the readout, about 1 for an image's class, 0 for others.

  Raises ValueError for images of another size than those it was fitted to.
  """
  size = model.reservoir.size
  if images.shape[1:] != (size, size, 1):
    raise ValueError(
      f"images of shape {images.shape[1:]}: expected {(size, size, 1)}"
    )
  x = states(model.reservoir, model.moments, images)
  return x @ model.coef + model.intercept


def parameters(model: Model) -> int:
  """How many numbers were fitted to labels: those of the readout."""
  return model.coef.size + model.intercept.size


def frozen(model: Model) -> int:
  """How many numbers a prediction reads besides: none has seen a label.

  Filters, input weights, biases, the recurrent weights that are not zero, and
  the moments of the maps.
  """
  weights = model.reservoir.weights()
  dense = [*weights["filters"], weights["inputs"], weights["bias"]]
  sparse = int(np.count_nonzero(weights["recurrent"]))
  return sum(w.size for w in dense) + sparse + model.moments.size


def _norms(weights: dict) -> np.ndarray:
  """Sums of moduli of the frozen arrays, in a fixed order, to know them by."""
  return np.array(
    [np.abs(w).sum(dtype=np.float64) for w in jax.tree.leaves(weights)]
  )


def save(model: Model, path: str | pathlib.Path) -> None:
  """Writes options and fitted arrays as .npz; the frozen arrays follow."""
  with open(path, "wb") as file:  # Given a name, NumPy adds a suffix to it.
    np.savez(
      file,
      options=json.dumps(dataclasses.asdict(model.reservoir)),
      norms=_norms(model.reservoir.weights()),
      **{k: getattr(model, k) for k in ARRAYS},
    )


def load(path: str | pathlib.Path) -> Model:
  """Reads what `save` wrote.

  Raises ConfigError for another kind of file, arrays of wrong shape or not
  finite, and where NumPy's random numbers are no longer those of the file.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      options = json.loads(str(file["options"]))
      lists = {k: tuple(options[k]) for k in ("kernels", "strides")}
      reservoir = Reservoir(**{**options, **lists})
      arrays = {k: file[k] for k in (*ARRAYS, "norms")}
  except (
    AttributeError,  # From an .npy file.
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    errors.ConfigError,
  ) as error:
    raise errors.ConfigError(f"{path}: not a reservoir ({error})") from error
  norms = arrays.pop("norms")
  k = arrays["intercept"].size
  shapes = {
    "moments": (2, len(reservoir.kernels), reservoir.width),
    "coef": (reservoir.features, k),
    "intercept": (k,),
    "penalty": (),
  }
  for name, array in arrays.items():
    if array.shape != shapes[name] or array.dtype.kind != "f":
      raise errors.ConfigError(
        f"{path}: {name} is {array.dtype} {array.shape}: expected floats"
        f" {shapes[name]}"
      )
    if not np.isfinite(array).all():
      raise errors.ConfigError(f"{path}: {name} has values that are not finite")
  want = _norms(reservoir.weights())
  if norms.shape != want.shape or not np.allclose(norms, want, rtol=1e-5):
    raise errors.ConfigError(
      f"{path}: NumPy {np.__version__} draws other frozen weights from its seed"
      " than the readout was fitted on; fit it again"
    )
  return Model(reservoir, **{**arrays, "penalty": float(arrays["penalty"])})

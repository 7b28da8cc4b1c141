"""Distances between sets of images, and the features they are taken in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

FILTERS, FILTER_SIZE, SCALES, THUMBNAIL = 24, 5, 4, 8
FEATURES = THUMBNAIL**2 + 2 * FILTERS * SCALES  # 256


@functools.cache
def _filters() -> np.ndarray:
  """Unit-norm, zero-mean random filters (k, k, 1, n), always the same."""
  rng = np.random.Generator(np.random.PCG64(20151119))
  w = rng.normal(size=(FILTER_SIZE, FILTER_SIZE, 1, FILTERS))
  w -= w.mean((0, 1))
  return (w / np.linalg.norm(w, axis=(0, 1))).astype(np.float32)


def random_filter_features(images: jax.Array) -> jax.Array:
  """uint8 images (b, s, s, 1) to float32 features (b, 256).

  Mean and deviation over the picture of rectified responses to fixed random
  filters at four scales (texture), and an 8x8 thumbnail (layout). No network
  was trained for it, so distances here compare runs of this project and are
  NOT the FID or KID of the literature, which use Inception-v3.
  """
  x = images.astype(jnp.float32) / 127.5 - 1
  b, s = x.shape[:2]
  block = s // THUMBNAIL
  features = [
    x.reshape(b, THUMBNAIL, block, THUMBNAIL, block).mean((2, 4)).reshape(b, -1)
  ]
  for scale in range(SCALES):
    if scale:
      h = x.shape[1] // 2
      x = x.reshape(b, h, 2, h, 2, 1).mean((2, 4))
    y = jax.lax.conv_general_dilated(
      x,
      jnp.asarray(_filters()),
      (1, 1),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = jax.nn.relu(y)
    features += [y.mean((1, 2)), y.std((1, 2))]
  return jnp.concatenate(features, -1)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
  """Squared Fréchet distance between Gaussians fitted to two sets (n, d).

  |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): Dowson and Landau, 1982;
  Heusel et al., 2017, arXiv:1706.08500, equation 6. Biased upwards when n is
  not far above d, so compare only at equal n.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
  # With these the covariances are a' a and b' b.
  a = (a - a.mean(0)) / np.sqrt(len(a) - 1)
  b = (b - b.mean(0)) / np.sqrt(len(b) - 1)
  if max(len(a), len(b)) < a.shape[1]:
    # But for zeros, the eigenvalues of a' a b' b are those of a b' (a b')'.
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
  else:
    # tr (AB)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), which stays symmetric.
    values, vectors = scipy.linalg.eigh(a.T @ a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = scipy.linalg.eigvalsh(root @ (b.T @ b) @ root)
    trace = np.sqrt(np.maximum(cross, 0)).sum()
  return float(mean + (a**2).sum() + (b**2).sum() - 2 * trace)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
  """Unbiased squared MMD between sets (n, d), cubic kernel (x.y / d + 1)^3.

  Binkowski et al., 2018, arXiv:1801.01401, section 3 and equation 4; may fall
  below zero by chance when the sets are alike.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

  def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3

  def within(x):
    k = kernel(x, x)
    return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))

  return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def standardise(reference: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
  """All sets (n, d) shifted and scaled so the reference has mean 0, std 1.

  A feature that is constant in the reference keeps its scale.
  """
  mean, std = reference.mean(0), reference.std(0)
  std = np.where(std > 1e-6 * np.abs(mean).max(), std, 1)
  return [(x - mean) / std for x in (reference, *others)]


def radial_spectra(images: np.ndarray) -> np.ndarray:
  """Log10 power at whole radial frequencies: (n, s, s) -> (n, s // 2).

  Column f holds frequencies that round to f cycles a picture. A Hann window
  keeps the borders' jump from leaking over all frequencies. Upsampling traces
  show at the right end: Durall et al., 2020, arXiv:2003.01826.
  """
  n, size = len(images), images.shape[1]
  window = np.hanning(size)[:, None] * np.hanning(size)
  f = np.fft.fftfreq(size, 1 / size)
  radius = np.rint(np.hypot(f[:, None], f)).astype(int).ravel()
  count = np.bincount(radius)[: size // 2]
  power = np.empty((n, size // 2))
  for i in range(0, n, 256):
    x = np.asarray(images[i : i + 256], np.float64) / 255
    x = (x - x.mean((1, 2), keepdims=True)) * window
    for j, image in enumerate(np.abs(np.fft.fft2(x)) ** 2):
      power[i + j] = np.bincount(radius, image.ravel())[: size // 2] / count
  return np.log10(power + 1e-12)


def radial_spectrum(images: np.ndarray) -> np.ndarray:
  """Mean over images (n, s, s) of their `radial_spectra`: (s // 2,)."""
  return radial_spectra(images).mean(0)


def spectrum_gap(a: np.ndarray, b: np.ndarray) -> float:
  """Mean absolute difference in dB between two radial spectra (f,), the mean
  brightness (frequency 0) left out."""
  return float(10 * np.abs(a - b)[1:].mean())


def nearest(
  queries: np.ndarray, bank: np.ndarray, k: int = 3
) -> tuple[np.ndarray, np.ndarray]:
  """Indices and root-mean-square distances (n, k) of the k nearest in a bank.

  Rows are flattened images; a query that stands in the bank finds itself.
  """
  q = np.asarray(queries, np.float32).reshape(len(queries), -1)
  b = np.asarray(bank, np.float32).reshape(len(bank), -1)
  k = min(k, len(b))
  norms = (b**2).sum(1)
  indices, distances = [], []
  for i in range(0, len(q), 256):  # All at once would be n times the bank.
    part = q[i : i + 256]
    square = (part**2).sum(1)[:, None] + norms - 2 * part @ b.T
    index = np.argpartition(square, k - 1, axis=1)[:, :k]
    square = np.take_along_axis(square, index, 1)
    order = np.argsort(square, axis=1)
    indices.append(np.take_along_axis(index, order, 1))
    distances.append(np.take_along_axis(square, order, 1))
  square = np.maximum(np.concatenate(distances), 0)
  return np.concatenate(indices), np.sqrt(square / q.shape[1])

"""Augmentation of radiographs for classifiers: what another film might show.

Images (b, h, w, c) in [-1, 1]; every image draws its own parameters. Nothing
here flips: a mirrored chest has its heart on the wrong side; `flip` does it
where asked.
"""

import jax
import jax.numpy as jnp


def affine(key, x):
  """Turns by up to 8 degrees, scales by up to 10 %, shifts by up to 5 %.

  Bilinear; what lies outside repeats the border.
  """
  b, h, w, _ = x.shape
  turn, scale, dy, dx = jax.random.uniform(key, (4, b), minval=-1, maxval=1)
  angle, scale = turn * jnp.deg2rad(8), 1 + 0.1 * scale
  cos, sin = jnp.cos(angle) * scale, jnp.sin(angle) * scale
  y = jnp.arange(h, dtype=jnp.float32)[:, None] - (h - 1) / 2
  x_ = jnp.arange(w, dtype=jnp.float32)[None, :] - (w - 1) / 2

  def one(image, cos, sin, dy, dx):
    rows = cos * y - sin * x_ + (h - 1) / 2 + 0.05 * h * dy
    columns = sin * y + cos * x_ + (w - 1) / 2 + 0.05 * w * dx
    return _bilinear(image, rows, columns)

  return jax.vmap(one)(x, cos, sin, dy, dx)


def _bilinear(image, rows, columns):
  """image (h, w, c) at real coordinates (h, w), the border repeated."""
  h, w, c = image.shape
  rows, columns = jnp.clip(rows, 0, h - 1), jnp.clip(columns, 0, w - 1)
  top, left = jnp.floor(rows), jnp.floor(columns)
  down, right = (rows - top)[..., None], (columns - left)[..., None]
  top, left = top.astype(int), left.astype(int)
  flat = image.reshape(h * w, c)
  at = lambda i, j: flat[jnp.minimum(i, h - 1) * w + jnp.minimum(j, w - 1)]
  upper = at(top, left) * (1 - right) + at(top, left + 1) * right
  lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
  return upper * (1 - down) + lower * down


def exposure(key, x):
  """Another exposure and film: gamma 0.7 to 1.4, then gain and offset."""
  gamma, gain, offset = jax.random.uniform(
    key, (3, len(x), 1, 1, 1), minval=-1, maxval=1
  )
  y = jnp.clip((x + 1) / 2, 1e-4, 1) ** (2 ** (gamma / 2))
  return (2 * y - 1) * (1 + 0.2 * gain) + 0.2 * offset


def noise(key, x):
  """Adds Gaussian noise of up to 2 % of the range to each image."""
  k_level, k_noise = jax.random.split(key)
  level = jax.random.uniform(k_level, (len(x), 1, 1, 1), maxval=0.04)
  return x + level * jax.random.normal(k_noise, x.shape)


def flip(key, x):
  """Mirrors every second image, by chance, left to right."""
  mirrored = jax.random.bernoulli(key, shape=(len(x), 1, 1, 1))
  return jnp.where(mirrored, x[:, :, ::-1], x)


AUGMENTATIONS = {
  "affine": affine,
  "exposure": exposure,
  "noise": noise,
  "flip": flip,
}


def augment(names: tuple[str, ...], key, x):
  """Applies the named augmentations in order."""
  for i, name in enumerate(names):
    x = AUGMENTATIONS[name](jax.random.fold_in(key, i), x)
  return x

"""Differentiable augmentation: Zhao et al., 2020, arXiv:2006.10738.

Applied to real and fake alike, so the discriminator sees more than a small set
holds and the generator never learns the augmentation. Images (b, h, w, c) in
[-1, 1]; every image draws its own parameters.
"""

import jax
import jax.numpy as jnp


def brightness(key, x):
  """Adds up to half a unit, a quarter of the range, to each image."""
  shape = (len(x), 1, 1, 1)
  return x + jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)


def contrast(key, x):
  """Scales each image about its mean by 0.5 to 1.5."""
  mean = x.mean((1, 2, 3), keepdims=True)
  scale = jax.random.uniform(key, (len(x), 1, 1, 1), minval=0.5, maxval=1.5)
  return (x - mean) * scale + mean


def translation(key, x):
  """Shifts by up to an eighth of each side; the paper fills with zero."""
  b, h, w, _ = x.shape
  dy, dx = h // 8, w // 8
  padded = jnp.pad(x, ((0, 0), (dy, dy), (dx, dx), (0, 0)))
  ky, kx = jax.random.split(key)
  top = jax.random.randint(ky, (b,), 0, 2 * dy + 1)
  left = jax.random.randint(kx, (b,), 0, 2 * dx + 1)
  rows = jax.vmap(lambda im, t: jax.lax.dynamic_slice_in_dim(im, t, h, 0))
  columns = jax.vmap(lambda im, t: jax.lax.dynamic_slice_in_dim(im, t, w, 1))
  return columns(rows(padded, top), left)


def cutout(key, x):
  """Blanks a square of half the side, anywhere, partly outside too."""
  b, h, w, _ = x.shape
  ky, kx = jax.random.split(key)
  centre_y = jax.random.randint(ky, (b, 1, 1, 1), 0, h + 1)
  centre_x = jax.random.randint(kx, (b, 1, 1, 1), 0, w + 1)
  y = jnp.arange(h)[None, :, None, None] - centre_y
  x_ = jnp.arange(w)[None, None, :, None] - centre_x
  hole = (y >= -(h // 4)) & (y < h // 4) & (x_ >= -(w // 4)) & (x_ < w // 4)
  return jnp.where(hole, 0, x)


AUGMENTATIONS = {
  "brightness": brightness,
  "contrast": contrast,
  "translation": translation,
  "cutout": cutout,
}


def augment(names: tuple[str, ...], key, x):
  """Applies the named augmentations in order."""
  for i, name in enumerate(names):
    x = AUGMENTATIONS[name](jax.random.fold_in(key, i), x)
  return x

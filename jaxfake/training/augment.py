"""Augmentation inside the compiled step, differentiable: images (b, h, w, c) in
[-1, 1], of which every one draws its own parameters.

The first four are DiffAugment: Zhao et al., 2020, arXiv:2006.10738. Applied to
real and fake alike, a discriminator sees more than a small set holds and the
generator never learns them. The others are what another film might show.
`flip` puts the heart on the wrong side.
"""

import jax
import jax.numpy as jnp

from jaxfake import errors


def brightness(key: jax.Array, x: jax.Array) -> jax.Array:
  """Adds up to half a unit, a quarter of the range, to each image."""
  shape = (len(x), 1, 1, 1)
  return x + jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)


def contrast(key: jax.Array, x: jax.Array) -> jax.Array:
  """Scales each image about its mean by 0.5 to 1.5."""
  mean = x.mean((1, 2, 3), keepdims=True)
  scale = jax.random.uniform(key, (len(x), 1, 1, 1), minval=0.5, maxval=1.5)
  return (x - mean) * scale + mean


def translation(key: jax.Array, x: jax.Array) -> jax.Array:
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


def cutout(key: jax.Array, x: jax.Array) -> jax.Array:
  """Blanks a square of half the side, anywhere, partly outside too."""
  b, h, w, _ = x.shape
  ky, kx = jax.random.split(key)
  centre_y = jax.random.randint(ky, (b, 1, 1, 1), 0, h + 1)
  centre_x = jax.random.randint(kx, (b, 1, 1, 1), 0, w + 1)
  y = jnp.arange(h)[None, :, None, None] - centre_y
  x_ = jnp.arange(w)[None, None, :, None] - centre_x
  hole = (y >= -(h // 4)) & (y < h // 4) & (x_ >= -(w // 4)) & (x_ < w // 4)
  return jnp.where(hole, 0, x)


def affine(key: jax.Array, x: jax.Array) -> jax.Array:
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


def exposure(key: jax.Array, x: jax.Array) -> jax.Array:
  """Another exposure and film: gamma 0.7 to 1.4, then gain and offset."""
  gamma, gain, offset = jax.random.uniform(
    key, (3, len(x), 1, 1, 1), minval=-1, maxval=1
  )
  y = jnp.clip((x + 1) / 2, 1e-4, 1) ** (2 ** (gamma / 2))
  return (2 * y - 1) * (1 + 0.2 * gain) + 0.2 * offset


def noise(key: jax.Array, x: jax.Array) -> jax.Array:
  """Adds Gaussian noise of up to 2 % of the range to each image."""
  k_level, k_noise = jax.random.split(key)
  level = jax.random.uniform(k_level, (len(x), 1, 1, 1), maxval=0.04)
  return x + level * jax.random.normal(k_noise, x.shape)


def flip(key: jax.Array, x: jax.Array) -> jax.Array:
  """Mirrors every second image, by chance, left to right."""
  mirrored = jax.random.bernoulli(key, shape=(len(x), 1, 1, 1))
  return jnp.where(mirrored, x[:, :, ::-1], x)


def turned(key: jax.Array, *images: jax.Array) -> list[jax.Array]:
  """Images (b, s, s, c), mirrored and turned by quarters by chance: every row
  its own way, all that are given alike."""
  ways = (
    lambda x: x[:, ::-1],
    lambda x: x[:, :, ::-1],
    lambda x: x.swapaxes(1, 2),
  )
  chosen = jax.random.bernoulli(key, shape=(3, len(images[0]), 1, 1, 1))
  now = list(images)
  for way, rows in zip(ways, chosen, strict=True):
    now = [jnp.where(rows, way(x), x) for x in now]
  return now


AUGMENTATIONS = {
  "brightness": brightness,
  "contrast": contrast,
  "translation": translation,
  "cutout": cutout,
  "affine": affine,
  "exposure": exposure,
  "noise": noise,
  "flip": flip,
}


def names(augment: str) -> tuple[str, ...]:
  """Of a config's "affine,noise". Raises ConfigError for an unknown one."""
  chosen = tuple(name for name in augment.split(",") if name)
  for name in chosen:
    errors.check_choice("augment", name, AUGMENTATIONS)
  return chosen


def augment(names: tuple[str, ...], key: jax.Array, x: jax.Array) -> jax.Array:
  """Applies the named augmentations in order."""
  for i, name in enumerate(names):
    x = AUGMENTATIONS[name](jax.random.fold_in(key, i), x)
  return x


def augment_some(
  names: tuple[str, ...], p: jax.Array, key: jax.Array, x: jax.Array
) -> jax.Array:
  """Applies each of the named augmentations with probability p to each image:
  Karras et al., 2020, arXiv:2006.06676, section 2.2."""
  for i, name in enumerate(names):
    k_change, k_which = jax.random.split(jax.random.fold_in(key, i))
    chosen = jax.random.bernoulli(k_which, p, (len(x), 1, 1, 1))
    x = jnp.where(chosen, AUGMENTATIONS[name](k_change, x), x)
  return x

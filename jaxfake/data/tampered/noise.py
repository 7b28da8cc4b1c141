"""A picture's noise: how strong it is at each gray level, and more of the same.

A radiograph's noise is mostly of photons, and its strength depends on how many
there were, so on the gray level: a noise level function, as Foi et al. (2008,
doi:10.1109/TIP.2008.2001399) fit it. Here it is fitted on the picture itself.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxfake.data.tampered.region import Box

BLOCK = 9  # Pixels a side, over which a variance is taken.
BINS = 12  # Of gray levels, with equally many pixels.
ROUNDING = 1 / 12  # Variance of rounding to whole levels.
_SMOOTH = 2.0  # Pixels; what is finer counts as noise when more of it is made.
# Second differences along both axes: a plane, and an edge along an axis, leave
# nothing (Immerkaer, 1996, doi:10.1006/cviu.1996.0060).
_KERNEL = np.outer((1, -2, 1), (1, -2, 1)) / 6


class Level(NamedTuple):
  """Variance of the noise by gray level, between knots."""

  grays: np.ndarray  # (k,), rising.
  variances: np.ndarray  # (k,)

  def __call__(self, gray: np.ndarray) -> np.ndarray:
    return np.interp(gray, self.grays, self.variances)


def residual(picture: np.ndarray) -> np.ndarray:
  """The finest detail, float32 (h, w); white noise keeps its variance."""
  return ndimage.correlate(
    picture.astype(np.float32), _KERNEL.astype(np.float32), mode="mirror"
  )


def local(picture: np.ndarray, block: int = BLOCK) -> tuple:
  """Mean gray and variance of the residual about each pixel: (h, w) each."""
  gray = ndimage.uniform_filter(picture.astype(np.float32), block)
  squares = ndimage.uniform_filter(residual(picture) ** 2, block)
  return gray, np.maximum(squares, 0)  # Running sums may end below 0.


def fit(picture: np.ndarray) -> Level:
  """The noise level function of a picture (h, w).

  In each bin of gray levels the median of local variances: neither edges, as
  long as they cover less than half, nor an altered region move it.
  """
  return level(*local(picture))


def level(gray: np.ndarray, variance: np.ndarray) -> Level:
  """The same of what `local` found."""
  gray, variance = (x[::2, ::2].ravel() for x in (gray, variance))
  order = np.argsort(gray, kind="stable")
  parts = np.array_split(order, BINS)
  grays = np.array([np.median(gray[part]) for part in parts])
  variances = [max(np.median(variance[part]), ROUNDING) for part in parts]
  grays, first = np.unique(grays, return_index=True)
  return Level(grays, np.array(variances)[first])


def matched(
  picture: np.ndarray, box: Box, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Noise (height, width) that a filled region lacks beside its surroundings.

  `picture` (h, w) has the fill in `box`, at `mask` (height, width). The noise
  has the spectrum of a place next to the box, by random phases (Galerne,
  Gousseau and Morel, 2011, doi:10.1109/TIP.2010.2052822), and at each pixel the
  variance that the residual lacks.
  """
  around = box.grown(max(2 * BLOCK, max(box[2:]) // 2), picture.shape)
  near = picture[around.place].astype(np.float64)
  inner = box._replace(x=box.x - around.x, y=box.y - around.y)
  filled = np.zeros(near.shape, bool)
  filled[inner.place] = mask
  gray = ndimage.gaussian_filter(near, _SMOOTH)
  squares = residual(near) ** 2
  level = fit(picture)(gray)
  # Surroundings may be noisier than the picture's median at their gray level.
  outside = np.logical_not(ndimage.binary_dilation(filled, iterations=2))
  ratio = _of_median(squares[outside]) / level[outside].mean()
  lacking = ratio * level - _mean_within(squares, filled)
  lacking = np.where(filled, np.maximum(lacking, 0), 0)[inner.place]
  return np.where(mask, _texture(near, inner, rng) * np.sqrt(lacking), 0)


def _of_median(squares):
  """A normal distribution's variance, by the median of its squares."""
  return max(float(np.median(squares)) / 0.4549, ROUNDING)


def _mean_within(values, mask):
  """Means about each pixel of those under a mask."""
  weight = ndimage.uniform_filter(mask.astype(np.float64), BLOCK)
  total = ndimage.uniform_filter(np.where(mask, values, 0.0), BLOCK)
  return total / np.maximum(weight, 1e-6)


def _texture(near, inner, rng):
  """Random noise (height, width) whose residual has variance 1, with the
  spectrum of the calmest place beside the box."""
  size = inner.height, inner.width
  fine = near - ndimage.gaussian_filter(near, _SMOOTH)
  squares = residual(near) ** 2
  y, x = inner.y, inner.x
  h, w = size
  corners = [(y - h, x), (y + h, x), (y, x - w), (y, x + w)]
  limits = near.shape[0] - h, near.shape[1] - w
  # Where there is no room for all of the box, as far away as there is.
  corners = [tuple(np.clip(c, 0, limits)) for c in corners]
  strength = lambda c: squares[c[0] : c[0] + h, c[1] : c[1] + w].mean()
  top, left = min(corners, key=strength)
  place = fine[top : top + h, left : left + w]
  power = np.abs(np.fft.rfft2(place - place.mean())) ** 2
  frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w))
  # The same in all directions, and by medians: edges of ribs stand out in few.
  rings = np.minimum((frequency * 32).astype(int), 16)
  power = ndimage.median(power, rings, np.arange(17))[rings]
  white = np.fft.rfft2(rng.standard_normal(size))
  texture = np.fft.irfft2(white * np.sqrt(np.nan_to_num(power)), size)
  return texture / max(float(np.sqrt((residual(texture) ** 2).mean())), 1e-12)

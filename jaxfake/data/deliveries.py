"""What happens to a picture on its way from where it was made to a detector.

All here takes and gives uint8 gray (h, w), and can be pickled. `DELIVERIES` are
the named ones that detectors are tested after:

    as it is        the pixels untouched
    JPEG 90, 75, 50 compressed once, by a program's usual setting or to be small
    JPEG twice      at 85, then at 75: an image service's copy of a JPEG
    resize 0.5, ... each side so many times as long: a thumbnail, a slide, a
                    zoomed view; bicubic
    crop 0.8        the middle, 4/5 of each side: borders and letters cut off
    gamma 0.7       brightened
    window          the darkest and brightest tenth of the range cut off
    inverted        shown as MONOCHROME1 is stored
    sharpened       by a viewer's unsharp mask
    screenshot      shown on a screen at 4/5 of its size and saved from there

`draw` gives a random chain of the same kinds, and of the retouching that
radiographs take before anyone sees them, to train with. Real pictures and fakes
take the same chains: else smooth would mean fake, or noisy real.
"""

from collections.abc import Callable, Sequence
from functools import partial
import io

import numpy as np
from PIL import Image, ImageFilter

Delivery = Callable[[np.ndarray], np.ndarray]

_R = Image.Resampling
SHRINKING = _R.BOX, _R.BILINEAR, _R.HAMMING, _R.BICUBIC, _R.LANCZOS
ENLARGING = _R.BILINEAR, _R.BICUBIC, _R.LANCZOS
LEAST_QUALITY, MOST_QUALITY = 45, 97  # Of JPEG, in training.


def as_it_is(image: np.ndarray) -> np.ndarray:
  return image


def jpeg(image: np.ndarray, qualities: Sequence[int]) -> np.ndarray:
  """Compressed by Pillow and read again, at one quality after the other."""
  for quality in qualities:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    image = np.asarray(Image.open(out))
  return image


def resized(
  image: np.ndarray, factor: float, kernel: Image.Resampling = _R.BICUBIC
) -> np.ndarray:
  """Each side `factor` times as long, at least one pixel."""
  h, w = image.shape
  size = max(1, round(w * factor)), max(1, round(h * factor))
  return np.asarray(Image.fromarray(image).resize(size, kernel))


def cropped(image: np.ndarray, share: float) -> np.ndarray:
  """The middle, `share` of each side, at least one pixel."""
  h, w = image.shape
  top, left = (min(round(n * (1 - share) / 2), (n - 1) // 2) for n in (h, w))
  return image[top : h - top, left : w - left]


def toned(
  image: np.ndarray,
  gamma: float = 1.0,
  window: tuple[float, float] = (0.0, 1.0),
  inverted: bool = False,
) -> np.ndarray:
  """Through a window, given as shares of the range, a gamma, an inversion."""
  low, high = window
  levels = np.clip((np.arange(256) / 255 - low) / (high - low), 0, 1) ** gamma
  levels = 1 - levels if inverted else levels
  return np.rint(255 * levels).astype(np.uint8)[image]


def filtered(image: np.ndarray, by: ImageFilter.Filter) -> np.ndarray:
  return np.asarray(Image.fromarray(image).filter(by))


def resampled(
  image: np.ndarray,
  factor: float,
  down: Image.Resampling,
  up: Image.Resampling,
) -> np.ndarray:
  """Shrunk and brought back to its size."""
  small = Image.fromarray(resized(image, factor, down))
  return np.asarray(small.resize(image.shape[::-1], up))


def noisy(
  image: np.ndarray, sigma: float, seed: int, grain: int, quantum: bool
) -> np.ndarray:
  """With Gaussian noise of `sigma` gray levels, averaged over `grain` pixels a
  side; `quantum` makes its variance proportional to the gray level."""
  noise = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
  for axis in range(2):
    shifted = [np.roll(noise, k, axis) for k in range(grain)]
    noise = sum(shifted) / np.float32(np.sqrt(grain))
  if quantum:
    # By a table: so no level needs a root of its own.
    levels = np.sqrt(np.maximum(np.arange(256), 4) / 128).astype(np.float32)
    noise *= levels[image]
  noise *= np.float32(sigma)
  return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def screenshot(image: np.ndarray) -> np.ndarray:
  """Linear resizing, a screen's gamma not undone, JPEG."""
  return jpeg(toned(resized(image, 0.8, _R.BILINEAR), gamma=1.1), (85,))


DELIVERIES: dict[str, Delivery] = {
  "as it is": as_it_is,
  "JPEG 90": partial(jpeg, qualities=(90,)),
  "JPEG 75": partial(jpeg, qualities=(75,)),
  "JPEG 50": partial(jpeg, qualities=(50,)),
  "JPEG twice": partial(jpeg, qualities=(85, 75)),
  "resize 0.5": partial(resized, factor=0.5),
  "resize 0.75": partial(resized, factor=0.75),
  "resize 1.5": partial(resized, factor=1.5),
  "resize 2": partial(resized, factor=2.0),
  "crop 0.8": partial(cropped, share=0.8),
  "gamma 0.7": partial(toned, gamma=0.7),
  "window": partial(toned, window=(0.1, 0.9)),
  "inverted": partial(toned, inverted=True),
  "sharpened": partial(filtered, by=ImageFilter.UnsharpMask(1.5, 100, 0)),
  "screenshot": screenshot,
}


def draw(rng: np.random.Generator, smallest: int) -> Delivery:
  """A random chain, the same for every picture of one size.

  It makes no side smaller than `smallest`, nor smaller than it was, where it
  was smaller already.
  """
  chain = [_retouch(rng) for _ in range(rng.choice(3, p=(0.4, 0.4, 0.2)))]
  if rng.random() < 0.4:
    factor = _between(rng, 0.6, 1.5)
    down, up = rng.choice(len(SHRINKING)), rng.choice(len(ENLARGING))
    kernels = SHRINKING[down], ENLARGING[up]
    chain.append(
      partial(_zoomed, factor=factor, kernels=kernels, smallest=smallest)
    )
  if rng.random() < 0.5:
    gamma = _between(rng, 0.6, 1.7)
    window = rng.uniform(-0.1, 0.15), rng.uniform(0.8, 1.6)
    inverted = bool(rng.random() < 0.1)
    chain.append(partial(toned, gamma=gamma, window=window, inverted=inverted))
  times = rng.choice(3, p=(0.45, 0.4, 0.15))
  qualities = rng.integers(LEAST_QUALITY, MOST_QUALITY + 1, times)
  chain.append(partial(jpeg, qualities=tuple(map(int, qualities))))
  return partial(_through, chain)


def _through(chain, image):
  for step in chain:
    image = step(image)
  return image


def _zoomed(image, factor, kernels, smallest):
  factor = max(factor, min(1.0, smallest / min(image.shape)))
  return resized(image, factor, kernels[factor > 1])


def _between(rng, low: float, high: float) -> float:
  """Between two bounds above 0, evenly by ratio."""
  return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _retouch(rng) -> Delivery:
  """One of what radiographs' own processing does to texture."""
  kind = rng.choice(("blur", "median", "sharpen", "resample", "noise", "grain"))
  if kind == "blur":
    by = ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5))
    return partial(filtered, by=by)
  if kind == "median":
    return partial(filtered, by=ImageFilter.MedianFilter(3))
  if kind == "sharpen":
    radius, percent = _between(rng, 0.6, 4), int(rng.integers(30, 220))
    return partial(filtered, by=ImageFilter.UnsharpMask(radius, percent, 0))
  if kind == "resample":
    down, up = rng.choice(len(SHRINKING)), rng.choice(len(ENLARGING))
    return partial(
      resampled,
      factor=rng.uniform(0.5, 0.95),
      down=SHRINKING[down],
      up=ENLARGING[up],
    )
  return partial(
    noisy,
    sigma=_between(rng, 0.5, 6),
    seed=int(rng.integers(2**31)),
    grain=1 if kind == "noise" else 2,
    quantum=bool(rng.integers(2)),
  )

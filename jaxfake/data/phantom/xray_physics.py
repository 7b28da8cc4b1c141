"""X-ray physics: cm of tissue in, 8-bit radiograph out.

Beer-Lambert at one effective energy, 40 keV, about that of a filtered 70 kVp
paediatric chest beam. Mass attenuation (cm2/g) is NIST's for ICRU-44 tissues
at 40 keV (Hubbell & Seltzer, NISTIR 5632), density (g/cm3) is ICRU-44's.
"""

from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft

if TYPE_CHECKING:
  from jaxfake.data.phantom import anatomy

MU = {  # Linear attenuation, 1/cm. Air, 3e-4, is left out.
  "soft": 0.2685 * 1.05,  # Skeletal muscle; also blood, liver, consolidation.
  "fat": 0.2396 * 0.95,
  "lung": 0.2699 * 0.26,  # Inflated.
  "bone": 0.6655 * 1.92,  # Cortical.
}
_SCATTER_CM = 4  # Spread of scattered photons, standard deviation.
_MARKERS = {  # Strokes of a lead letter, unit high, v down.
  "L": [(0, 0), (0, 1), (0.6, 1)],
  "R": [(0, 1), (0, 0), (0.5, 0), (0.6, 0.25), (0.5, 0.5), (0, 0.5), (0.6, 1)],
}


@dataclasses.dataclass(frozen=True)
class Technique:
  """How one exposure was made and developed."""

  dose: float  # Photons per mm2 at the detector with nothing in the beam.
  scatter: float  # Scattered over primary there, as the grid leaves it.
  focus_mm: float  # Blur by focus, motion and detector, standard deviation.
  level: float  # Attenuation shown mid-gray, over the mean of the AEC field.
  gain: float  # Slope of the characteristic curve per unit attenuation.
  local: float  # Share of coarse contrast that processing takes away.
  sharpen: float  # Unsharp-mask weight.
  marker: str  # "", "L" or "R".
  shutter: float  # Collimated border as a share of the field; negative: none.

  @classmethod
  def draw(cls, rng: np.random.Generator) -> "Technique":
    return cls(
      dose=10 ** rng.uniform(4.5, 5.7),
      scatter=rng.uniform(0.15, 0.6),
      focus_mm=rng.uniform(0.15, 0.6),
      level=rng.normal(-0.35, 0.25),
      gain=rng.uniform(0.9, 1.5),
      local=rng.uniform(0.15, 0.4),
      sharpen=rng.uniform(0.3, 0.9),
      marker=str(rng.choice(["", "L", "R"], p=[0.75, 0.1, 0.15])),
      shutter=rng.uniform(0.01, 0.05) if rng.random() < 0.08 else -1.0,
    )


class Grid:
  """World coordinates x, v of n x n pixels, float32 (n, n), in cm.

  The patient's own gentle bend of space keeps outlines from being the perfect
  curves they are made of.
  """

  def __init__(self, patient: "anatomy.Patient", view: "anatomy.View", n: int):
    self.n, self._p, self._view = n, patient, view
    height = max(1.55 * patient.h, 2.35 * patient.w / view.aspect)
    self.height = height * view.zoom
    self.width = self.height * view.aspect
    self.pixel = math.sqrt(self.height * self.width) / n  # Mean pitch, cm.
    u = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    a, b = u * self.width, u[:, None] * self.height
    c, s = math.cos(view.roll), math.sin(view.roll)
    x = c * a - s * b + view.x * patient.w
    v = s * a + c * b + view.v * patient.h
    bend = self._bend(x, v)
    self.x, self.v = x + bend[0], v + bend[1]

  def _bend(self, x, v):
    size, phase = 0.012 * self._p.w, self._p.bend
    x, v = x * (5 / self._p.w), v * (5 / self._p.w)
    return (
      size * (np.sin(v + phase[0]) + np.sin(0.6 * x - 0.7 * v + phase[1])),
      size * (np.sin(x + phase[2]) + np.sin(0.7 * x + 0.6 * v + phase[3])),
    )

  def pixels(
    self, x: float | np.ndarray, v: float | np.ndarray
  ) -> tuple[Any, Any]:
    """Fractional column and row of world points; first order in the bend."""
    bend = self._bend(x, v)
    x = x - bend[0] - self._view.x * self._p.w
    v = v - bend[1] - self._view.v * self._p.h
    c, s = math.cos(self._view.roll), math.sin(self._view.roll)
    a, b = (c * x + s * v) / self.width, (c * v - s * x) / self.height
    return (a + 0.5) * self.n - 0.5, (b + 0.5) * self.n - 0.5

  def ball(self, x: float, v: float, r: float) -> tuple[np.ndarray, np.ndarray]:
    """Relative squared radius (n, n) in a ball's shadow, and its chord, cm."""
    column, row = self.pixels(x, v)
    i = np.arange(self.n, dtype=np.float32)
    a = (i - float(column)) * (self.width / self.n / r)
    b = (i - float(row)) * (self.height / self.n / r)
    q = a * a + (b * b)[:, None]
    return q, 2 * r * chord(q)

  def splat(
    self, x: np.ndarray, v: np.ndarray, volume: np.ndarray, sigma: float
  ) -> np.ndarray:
    """Thickness (n, n), cm, of points of given cm3, blurred by sigma cm."""
    n = self.n
    column, row = self.pixels(x, v)
    c, r = np.floor(column), np.floor(row)
    inside = (c >= 0) & (c < n - 1) & (r >= 0) & (r < n - 1)
    right, below = (column - c)[inside], (row - r)[inside]
    upper, lower = volume[inside] * (1 - below), volume[inside] * below
    share = (
      upper * (1 - right),
      upper * right,
      lower * (1 - right),
      lower * right,
    )
    at = (r * n + c)[inside].astype(np.int64)
    at = np.concatenate([at, at + 1, at + n, at + n + 1])
    total = np.bincount(at, np.concatenate(share), n * n)
    area = self.width * self.height / n**2
    total = np.float32(total / area).reshape(n, n)
    sigma = sigma / self.pixel
    return blur(total, sigma) if sigma > 0.3 else total


def chord(q: np.ndarray) -> np.ndarray:
  """Chord of a ball over its diameter, at squared relative radius q."""
  return np.sqrt(np.maximum(1 - q, 0))


def ramp(t: np.ndarray) -> np.ndarray:
  """Smooth step from 0 to 1 over 0 < t < 1."""
  t = np.clip(t, 0, 1)
  return t * t * (3 - 2 * t)


def norm(x: np.ndarray, v: np.ndarray) -> np.ndarray:
  return np.sqrt(x * x + v * v)  # Four times as fast as np.hypot.


def segment(
  x: np.ndarray,
  v: np.ndarray,
  start: tuple[float, float],
  stop: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
  """Distance to a segment, and where on it, 0 to 1, the nearest point is."""
  (x0, v0), (x1, v1) = start, stop
  ex, ev = x1 - x0, v1 - v0
  t = np.clip(((x - x0) * ex + (v - v0) * ev) / (ex * ex + ev * ev), 0, 1)
  return norm(x - x0 - t * ex, v - v0 - t * ev), t


def shell(
  dist: np.ndarray,
  r: float | np.ndarray,
  half: float | np.ndarray,
  cortex: float,
  spongy: float = 0.2,
) -> np.ndarray:
  """Bone (cm) across a flattened tube, `dist` cm from its axis.

  r is half its height in the image, half its half depth along the beam, cortex
  the thickness of its wall; `spongy` is the share of bone inside.
  """
  outer = half * chord((dist / r) ** 2)
  inner = (half - cortex) * chord((dist / (r - cortex)) ** 2)
  return 2 * (outer - (1 - spongy) * inner)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Gaussian blur by sigma pixels, mirrored at the border; float32 (h, w)."""
  decay = [
    np.exp(-0.5 * (np.pi * sigma / n * np.arange(n, dtype=np.float32)) ** 2)
    for n in image.shape
  ]
  spectrum = scipy.fft.dctn(image.astype(np.float32), norm="ortho")
  blurred = scipy.fft.idctn(spectrum * np.outer(*decay), norm="ortho")
  return np.asarray(blurred)


def bin_pixels(image: np.ndarray, k: int) -> np.ndarray:
  """Mean over k x k pixels: what a detector with larger pixels collects."""
  h, w = image.shape
  return image.reshape(h // k, k, w // k, k).mean((1, 3))


def line_integral(cm: Mapping[str, np.ndarray]) -> np.ndarray:
  """Attenuation along each ray, no unit, of {tissue: thickness (h, w)}."""
  each = [MU[tissue] * thickness for tissue, thickness in cm.items()]
  return np.asarray(sum(each))


def expose(
  line: np.ndarray,
  pixel_cm: float,
  k: int,
  technique: Technique,
  rng: np.random.Generator,
) -> np.ndarray:
  """Detector signal (h // k, w // k), 1 for the unattenuated primary beam.

  `line` is sampled at `pixel_cm`, k times finer than the detector. Scatter is
  a smeared copy of the primary image, the usual first-order model (Love &
  Kruger, Med. Phys. 14, 178, 1987).
  """
  t = technique
  primary = np.exp(-line)
  signal = blur(primary, 0.1 * t.focus_mm / pixel_cm)
  signal = signal + t.scatter * blur(primary, _SCATTER_CM / pixel_cm)
  signal = bin_pixels(np.maximum(signal, 1e-6), k)
  photons = t.dose * (10 * pixel_cm * k) ** 2  # Per detector pixel.
  return np.asarray(rng.poisson(signal * photons) / photons, np.float32)


def develop(
  signal: np.ndarray, pixel_cm: float, technique: Technique
) -> np.ndarray:
  """Uint8 radiograph (h, w), dense tissue bright, of a detector signal.

  Log, local contrast as any digital system has it, then a sigmoid
  characteristic curve placed by the mean over the mid-field, as automatic
  exposure control would; air is black.
  """
  t = technique
  density = -np.log(np.maximum(signal, 1e-4))
  h, w = density.shape
  field = density[h // 4 : h - h // 4, w // 4 : w - w // 4]
  middle = float(field.mean()) + t.level
  coarse = blur(density, 3 / pixel_cm) - middle
  fine = density - blur(density, 0.25 / pixel_cm)
  density = density - t.local * coarse + t.sharpen * fine
  curve = 1 / (1 + np.exp(-t.gain * (density - middle)))
  air = 0.25 - math.log1p(t.scatter)  # A little over the unattenuated signal.
  black = 1 / (1 + math.exp(-t.gain * (air - middle)))
  image = np.clip((curve - black) / (0.97 - black), 0, 1)
  return np.asarray(255 * _annotate(image, t) + 0.5).astype(np.uint8)


def _annotate(image, technique):
  """Image in 0 to 1 with its lead marker and black collimated border."""
  n = len(image)
  u = (np.arange(n, dtype=np.float32) + 0.5) / n
  if technique.marker:
    left = 0.06 if technique.marker == "R" else 0.9
    x, v = (u - left) / 0.04, (u[:, None] - 0.12) / 0.04
    strokes = _MARKERS[technique.marker]
    pairs = itertools.pairwise(strokes)
    near = np.min([segment(x, v, *pair)[0] for pair in pairs], axis=0)
    image = np.maximum(image, np.clip((0.09 - near) * 0.04 * n + 0.5, 0, 0.98))
  if technique.shutter > 0:
    inside = np.minimum(u, 1 - u) - technique.shutter
    inside = np.clip(inside * n + 0.5, 0, 1)
    image = image * np.outer(inside, inside)
  return image

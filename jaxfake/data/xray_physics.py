"""X-ray physics: thickness of tissue in, 8-bit radiograph out.

Beer-Lambert at one effective energy, 40 keV, about that of a filtered 70 kVp
paediatric chest beam. Mass attenuation is NIST's (Hubbell & Seltzer, NISTIR
5632, ICRU-44 tissues at 40 keV), in cm2/g, times ICRU-44 density in g/cm3.
"""

import dataclasses
import math

import numpy as np
import scipy.fft

MU = {  # Linear attenuation, 1/cm.
  "soft": 0.2685 * 1.05,  # Skeletal muscle; also blood, liver, consolidation.
  "fat": 0.2396 * 0.95,
  "lung": 0.2699 * 0.26,  # Inflated.
  "bone": 0.6655 * 1.92,  # Cortical.
  "air": 0.0,  # 3e-4 in truth.
}


@dataclasses.dataclass(frozen=True)
class Technique:
  """How one exposure was made and developed."""

  dose: float  # Photons per mm2 at the detector, unattenuated.
  scatter: float  # Scattered over primary, left after the grid.
  focus_mm: float  # Blur by focus, motion and detector, standard deviation.
  level: float  # Attenuation shown mid-gray, less that of the AEC field.
  gain: float  # Slope of the characteristic curve per unit attenuation.
  local: float  # Share of coarse contrast that processing takes away.
  sharpen: float  # Unsharp-mask weight.

  @classmethod
  def draw(cls, rng):
    return cls(
      dose=10 ** rng.uniform(4.5, 5.7),
      scatter=rng.uniform(0.15, 0.6),
      focus_mm=rng.uniform(0.15, 0.6),
      level=rng.normal(-0.35, 0.25),
      gain=rng.uniform(0.9, 1.5),
      local=rng.uniform(0.15, 0.4),
      sharpen=rng.uniform(0.3, 0.9),
    )


def blur(image, sigma):
  """Gaussian blur by sigma pixels, mirrored at the border; (h, w) float32."""
  h, w = image.shape
  fh = np.exp(-0.5 * (np.pi * sigma * np.arange(h) / h) ** 2)
  fw = np.exp(-0.5 * (np.pi * sigma * np.arange(w) / w) ** 2)
  spectrum = scipy.fft.dctn(image.astype(np.float32), norm="ortho")
  spectrum *= (fh[:, None] * fw).astype(np.float32)
  return scipy.fft.idctn(spectrum, norm="ortho")


def path(thickness):
  """Line integral of attenuation, no unit, from {tissue: cm (h, w)}."""
  return sum(MU[tissue] * cm for tissue, cm in thickness.items())


def bin_pixels(image, k):
  """Mean over k x k pixels: what a detector with larger pixels collects."""
  h, w = image.shape
  return image.reshape(h // k, k, w // k, k).mean((1, 3))


def expose(line, pixel_cm, k, technique, rng):
  """Photons per detector pixel over those unattenuated, (h // k, w // k).

  `line` is the line integral on a grid of pitch `pixel_cm`, k times finer than
  the detector. Scatter is the primary image smeared over 4 cm, a common
  first-order model (Love & Kruger, Med. Phys. 14, 178, 1987).
  """
  t = technique
  primary = np.exp(-line)
  signal = blur(primary, 0.1 * t.focus_mm / pixel_cm)
  signal = signal + t.scatter * blur(primary, 4 / pixel_cm)
  signal = bin_pixels(np.maximum(signal, 1e-6), k)
  photons = t.dose * (10 * pixel_cm * k) ** 2
  return np.float32(rng.poisson(signal * photons) / photons)


def develop(signal, pixel_cm, technique):
  """Uint8 radiograph, dense tissue bright, of a detector signal (h, w).

  Log, local contrast as in any digital system, then a sigmoid characteristic
  curve whose middle sits at the mean over the chest: automatic exposure.
  """
  t = technique
  density = -np.log(np.maximum(signal, 1e-4)).astype(np.float32)
  air = -math.log1p(t.scatter)  # Nothing in the beam.
  h, w = density.shape
  field = density[h // 4 : 3 * h // 4, w // 4 : 3 * w // 4]
  middle = float(field.mean()) + t.level
  coarse = blur(density, 3 / pixel_cm) - middle
  fine = density - blur(density, 0.25 / pixel_cm)
  density = density - t.local * coarse + t.sharpen * fine
  curve = 1 / (1 + np.exp(-t.gain * (density - middle)))
  floor = 1 / (1 + math.exp(-t.gain * (air + 0.25 - middle)))
  top = 0.97
  return np.uint8(255 * np.clip((curve - floor) / (top - floor), 0, 1) + 0.5)

"""Procedural chest radiographs, each a function of (seed, index) alone.

    Patient -> thickness of each tissue in cm -> xray_physics -> 8 bits

World coordinates are cm: x to the image's right (the patient's left), v down
from the lung apices, depth forward from mid-chest. Lengths scale with w and h,
half the width and the height of the patient's lungs, so a size in pixels is
chosen only when the maps are sampled.
"""

import dataclasses
import math

import numpy as np
import scipy.fft
import scipy.ndimage

from jaxfake.data import xray_physics

VIEWS_PER_PATIENT = 4
NORMAL, PNEUMONIA = 0, 1
_GRID = 128  # Thickness is never sampled more coarsely than this.


@dataclasses.dataclass(frozen=True)
class Patient:
  """What stays with a patient; lengths in cm unless said otherwise."""

  label: int
  w: float  # Half width of the rib cage, inside.
  h: float  # Lung apex to right dome.
  d: float  # Half depth of the chest cavity.
  wall: float  # Muscle and fat at the side.
  fat: float  # Of which fat.
  heart: float  # Scale of the heart, 1 typical.
  tilt: float  # Of the heart's long axis, rad.
  knob: float  # Scale of the aortic arch.
  rib_drop: float  # Vertical span of a rib over the chest's depth.
  rib_size: float  # Half height of a rib.
  bone: float  # Mineral density, 1 typical.
  bend: tuple  # Phases of a slight bend of all shapes, rad.
  scoliosis: tuple  # Amplitude and phase of the spine's bend.
  domes: tuple  # How much lower the left dome is, height of the domes; of h.
  breast: float  # Depth of breast tissue.
  shoulder: float  # Half width at the shoulders, of w.
  bubble: tuple  # Gastric air: radius (0: none), x of w, v below the dome of h.
  head: float  # How far the chin reaches below the neck's top, of h.
  tree: int  # Seeds of vessels and textures.
  disease: int

  @classmethod
  def draw(cls, seed, number):
    rng = _rng(seed, 0, number)
    adult = rng.beta(0.9, 1.1)  # 0 a small child, 1 an adult.
    w = (8 + 4.5 * adult) * rng.normal(1, 0.05)
    return cls(
      label=int(rng.random() < 0.5),
      w=w,
      h=w * (1.15 + 0.35 * adult) * rng.normal(1, 0.05),
      d=w * rng.normal(0.68, 0.04),
      wall=w * rng.uniform(0.08, 0.2),
      fat=w * rng.uniform(0.02, 0.09),
      heart=rng.normal(1.04 - 0.08 * adult, 0.06),
      tilt=rng.normal(0.75, 0.1),
      knob=rng.normal(0.8 + 0.3 * adult, 0.1),
      rib_drop=w * (0.55 + 0.2 * adult) * rng.normal(1, 0.1),
      rib_size=w * rng.normal(0.047, 0.004),
      bone=rng.normal(1, 0.12),
      bend=tuple(rng.uniform(0, 6.28) for _ in range(4)),
      scoliosis=(w * rng.normal(0, 0.02), rng.uniform(0, 6.28)),
      domes=(rng.normal(0.04, 0.02), rng.normal(0.2, 0.03)),
      breast=max(0.0, rng.normal(0.08, 0.15)) * w * (adult > 0.6),
      shoulder=rng.normal(1.3, 0.05),
      bubble=(
        (rng.random() < 0.6) * w * rng.uniform(0.1, 0.24),
        rng.uniform(0.35, 0.6),
        rng.uniform(0.16, 0.3),
      ),
      head=rng.uniform(0.02, 0.2) * (rng.random() < 0.7 - 0.6 * adult),
      tree=int(rng.integers(2**31)),
      disease=int(rng.integers(2**31)),
    )


@dataclasses.dataclass(frozen=True)
class View:
  """What changes between a patient's images."""

  field: float  # Zoom: height of the image over that which just fits.
  aspect: float  # Width over height of the field shown.
  x: float  # Middle of the field, of w, and of h.
  v: float
  roll: float  # In the image plane, rad.
  yaw: float  # Sideways shift per cm of depth.
  pitch: float  # Downward shift per cm of depth.
  breath: float  # Height of the lungs, 1 full inspiration.
  arms: float  # Angle of the upper arms from straight down, rad.
  severity: float  # Of the patient's disease.
  marker: str  # "", "L" or "R".
  shutter: float  # Collimated border, share of the field; negative for none.

  @classmethod
  def draw(cls, rng):
    return cls(
      field=rng.uniform(0.93, 1.1),
      aspect=rng.uniform(1.0, 1.25),
      x=rng.normal(0, 0.05),
      v=rng.normal(0.59, 0.04),
      roll=rng.normal(0, 0.03),
      yaw=rng.normal(0, 0.05),
      pitch=rng.normal(0, 0.06),
      breath=rng.normal(0.98, 0.05),
      arms=rng.uniform(0.1, 0.6) if rng.random() < 0.5 else rng.uniform(1.4, 2.6),
      severity=rng.uniform(0.7, 1.15),
      marker=str(rng.choice(["", "L", "R"], p=[0.75, 0.1, 0.15])),
      shutter=rng.uniform(0.01, 0.05) if rng.random() < 0.12 else -1.0,
    )


def radiograph(seed, index, size=256, nodules=False):
  """Frontal chest radiograph `index` of the endless set `seed`.

  `image` is uint8 (size, size), bone bright; `mask` likewise, 255 on nodules.
  Patient, pose and disease do not depend on `size`; photon noise does.
  """
  number, view_number = divmod(index, VIEWS_PER_PATIENT)
  patient = Patient.draw(seed, number)
  view = View.draw(_rng(seed, 1, index))
  technique = xray_physics.Technique.draw(_rng(seed, 2, index))
  balls = _nodules(patient, _rng(seed, 3, number)) if nodules else []
  k = -(-_GRID // size)
  grid = Grid(patient, view, size * k)
  maps, mask, _ = thickness(patient, view, grid, balls)
  pixel = grid.pixel
  line = xray_physics.path(maps)
  signal = xray_physics.expose(
    line, pixel, k, technique, _rng(seed, 4, index, size)
  )
  image = xray_physics.develop(signal, pixel * k, technique)
  image = _annotate(image, view)
  return {
    "image": image,
    "label": patient.label,
    "patient": f"phantom-{number:06d}",
    "view": view_number,
    "mask": np.uint8(255 * (xray_physics.bin_pixels(mask, k) > 0)),
    "nodule_count": len(balls),
  }


def _rng(*path):
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(path)))


class Grid:
  """World coordinates of n x n pixels; x, v are float32 (n, n) in cm.

  A gentle bend of space, the patient's own, keeps outlines from being the
  perfect curves they are made of.
  """

  def __init__(self, patient, view, n):
    self.n, self._p, self._view = n, patient, view
    height = max(1.55 * patient.h, 2.35 * patient.w / view.aspect)
    height *= view.field
    self.width, self.height = height * view.aspect, height
    self.pixel = height * math.sqrt(view.aspect) / n  # Geometric mean, cm.
    u = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    a, b = u * self.width, u[:, None] * height
    c, s = math.cos(view.roll), math.sin(view.roll)
    x = c * a - s * b + view.x * patient.w
    v = s * a + c * b + view.v * patient.h
    bent = self._bend(x, v)
    self.x, self.v = x + bent[0], v + bent[1]

  def _bend(self, x, v):
    size, phase = 0.012 * self._p.w, self._p.bend
    x, v = x * (5 / self._p.w), v * (5 / self._p.w)
    return (
      size * (np.sin(v + phase[0]) + np.sin(0.6 * x - 0.7 * v + phase[1])),
      size * (np.sin(x + phase[2]) + np.sin(0.6 * v + 0.7 * x + phase[3])),
    )

  def pixels(self, x, v):
    """Column and row, fractional, of world points; first order in the bend."""
    bent = self._bend(x, v)
    x = x - bent[0] - self._view.x * self._p.w
    v = v - bent[1] - self._view.v * self._p.h
    c, s = math.cos(self._view.roll), math.sin(self._view.roll)
    a, b = (c * x + s * v) / self.width, (c * v - s * x) / self.height
    return (a + 0.5) * self.n - 0.5, (b + 0.5) * self.n - 0.5

  def distance(self, x, v):
    """Distance (cm) of every pixel to a world point, straight: (n, n)."""
    column, row = self.pixels(x, v)
    i = np.arange(self.n, dtype=np.float32)
    a = (i - float(column)) * (self.width / self.n)
    b = (i - float(row)) * (self.height / self.n)
    return np.sqrt(a * a + (b * b)[:, None])

  def rows(self, lo, hi):
    """Slice of the rows that meet lo < v < hi."""
    edge = self.v[:, :: self.n // 8]
    hit = np.flatnonzero((edge.max(1) > lo) & (edge.min(1) < hi))
    return slice(hit[0], hit[-1] + 1) if len(hit) else slice(0, 0)


def _chord(q):
  """Relative chord of a ball where the squared relative radius is q."""
  return np.sqrt(np.maximum(1 - q, 0))


def _ramp(t):
  """Smooth step from 0 to 1 over 0 < t < 1."""
  t = np.clip(t, 0, 1)
  return t * t * (3 - 2 * t)


def _norm(x, v):
  return np.sqrt(x * x + v * v)  # Four times as fast as np.hypot.


def _segment(x, v, x0, v0, x1, v1):
  """Distance to a segment, and where along it, 0 to 1, the nearest point is."""
  ex, ev = x1 - x0, v1 - v0
  t = np.clip(((x - x0) * ex + (v - v0) * ev) / (ex * ex + ev * ev), 0, 1)
  return _norm(x - x0 - t * ex, v - v0 - t * ev), t


def _shell(dist, r, half, cortex, spongy=0.2):
  """Bone (cm) of a flattened tube: half height r, half depth, wall cortex."""
  outer = half * _chord((dist / r) ** 2)
  inner = (half - cortex) * _chord((dist / (r - cortex)) ** 2)
  return 2 * (outer - (1 - spongy) * inner)


def _texture(seed, grid, period, slope, shape=(1, 1)):
  """Unit-variance noise fixed to the patient: amplitude ~ frequency^-slope."""
  m = 128
  f = np.fft.fftfreq(m)[:, None] ** 2 * shape[0]
  f = np.sqrt(f + np.fft.rfftfreq(m) ** 2 * shape[1])
  f[0, 0] = np.inf
  white = scipy.fft.rfft2(_rng(seed).standard_normal((m, m), np.float32))
  field = scipy.fft.irfft2(np.complex64(white * f**-slope))
  field /= field.std()
  at = np.stack([grid.v, grid.x]) * np.float32(m / period)
  return scipy.ndimage.map_coordinates(field, at, order=1, mode="grid-wrap")


def _cage(p, v):
  """Outer and inner wall of a lung (cm from the midline) and relative depth."""
  t = v / p.h
  s = (1 - (1 - np.clip(t, 0, 1)) ** 1.9) ** 0.72
  apex, spine = 0.36 * p.w, 0.06 * p.w
  outer = apex + (p.w - apex) * s - 0.06 * p.w * np.maximum(t - 1, 0) ** 2
  close = np.clip(t / 0.25, 0, 1)
  inner = apex - (apex - spine) * _chord((1 - close) ** 2)
  return outer, inner, 0.55 + 0.45 * s - 0.25 * np.maximum(t - 0.5, 0)


def _cavity(p, view, g):
  """Depth (cm) of the chest cavity that lung could fill, above the domes."""
  x = np.abs(g.x)
  outer, inner, depth = _cage(p, g.v)
  u = (x - inner) / np.maximum(outer - inner, 0.01)
  e = 2 * u - 1
  q = np.where(e > 0, np.abs(e) ** 2.3, np.abs(e) ** 2.6)
  chord = 2 * p.d * depth * np.maximum(1 - q, 0) ** 0.45
  chord *= _chord((1 - np.clip(g.v / (0.12 * p.h), 0, 1)) ** 2)
  lower, rise = p.domes
  out = (x - 0.5 * p.w) / (0.5 * p.w)
  fall = p.h * rise * out**2 * np.where(out > 0, np.float32(1), np.float32(0.35))
  top = p.h * view.breath + np.float32(lower * p.h) * (g.x > 0) + fall
  sulcus = p.h * 0.35 * (1.05 - np.clip(u, 0, 1) ** 3)
  below = np.maximum(g.v - top, 0) / sulcus
  return chord, np.maximum(1 - np.sqrt(below), 0)


def _mediastinum(p, view, g):
  """Depth (cm) of heart and great vessels."""
  base = p.h * view.breath
  size = 0.5 * p.w * p.heart

  def ball(x, v, a, b, tilt=0.0, depth=0.3, flat=1.0):
    dx = g.x - x - view.yaw * depth * p.d
    dv = g.v - v - view.pitch * depth * p.d
    dv = np.where(dv > 0, flat * dv, dv)
    c, s = math.cos(tilt), math.sin(tilt)
    return _chord(((c * dx + s * dv) / a) ** 2 + ((c * dv - s * dx) / b) ** 2)

  heart_v = base - 0.42 * size
  left = 1.5 * size * ball(0.42 * size, heart_v, 1.12 * size, 0.78 * size,
                           p.tilt, flat=0.85)
  right = 1.2 * size * ball(-0.22 * size, heart_v, 0.5 * size, 0.85 * size,
                            flat=0.8)
  trunk = 0.5 * p.w * ball(0.16 * p.w, heart_v - 1.0 * size, 0.16 * p.w,
                           0.3 * p.w, 0.2)
  r = 0.11 * p.w * p.knob
  knob = 3 * r * ball(0.17 * p.w, heart_v - 1.55 * size, r, 1.1 * r, 0, 0)
  cava = 0.25 * p.w * ball(-0.12 * p.w, heart_v - size, 0.11 * p.w, 0.75 * p.w)
  aorta = np.abs(g.x - 0.1 * p.w + view.yaw * 0.6 * p.d)
  aorta = 0.2 * p.w * _chord((aorta / (0.1 * p.w)) ** 2)
  aorta *= _ramp((g.v - heart_v + 1.5 * size) / (0.1 * p.w))
  heart = (left**3 + right**3 + trunk**3) ** (1 / 3)
  return heart + knob + cava + aorta


def _body(p, view, g):
  """Depth (cm) of the whole body and of its fat."""
  x, v = np.abs(g.x), g.v
  outer, _, _ = _cage(p, np.maximum(v, 0.1 * p.h))
  arm = p.shoulder * p.w
  bulge = np.exp(-(((v - 0.02 * p.h) / (0.35 * p.h)) ** 2))
  edge = outer + p.wall
  edge = edge + np.maximum(arm - edge, 0) * bulge
  slope = -0.45 * p.h + 0.38 * x  # Trapezius, neck to shoulder.
  slope = slope + 0.2 * p.h * np.maximum(x / arm - 0.75, 0) ** 2 * 4

  def shape(inset):
    q = (x / (edge - inset)) ** 2
    chord = 2 * (p.d * 1.25 - inset) * np.maximum(1 - q * np.sqrt(q), 0) ** 0.45
    lift = np.clip((v - slope - inset) / (0.45 * p.h), 0, 1)
    chord = chord * (0.25 + 0.75 * lift) * _chord(
      (1 - np.clip(lift / 0.12, 0, 1)) ** 2)
    neck = 0.42 * p.w - inset
    chord = chord**4 + (2.4 * neck * _chord((x / neck) ** 2)) ** 4
    for sign in (-1, 1):
      dist, t = _segment(g.x, v, sign * 1.12 * p.w, 0.1 * p.h,
                         sign * (1.12 * p.w + 2 * p.w * math.sin(view.arms)),
                         0.1 * p.h + 2 * p.w * math.cos(view.arms))
      r = (0.36 - 0.1 * t) * p.w - inset
      chord = chord + (2 * r * _chord((dist / r) ** 2)) ** 4
    if p.head:
      q = (x / (0.62 * p.w)) ** 2 + ((v - (p.head - 0.85) * p.h) / (0.55 * p.h)) ** 2
      chord = chord + (0.9 * p.w * _chord(q)) ** 4
    return chord**0.25

  whole = shape(0.0)
  return whole, np.maximum(whole - shape(p.fat), 0)


def _spine(p, view, g):
  """Bone (cm) of the vertebral column."""
  pitch = p.h / 9.2
  bone = np.zeros_like(g.x)
  amplitude, phase = p.scoliosis
  mid = amplitude * np.sin(g.v / p.h * 2.5 + phase) - view.yaw * 0.7 * p.d
  x = g.x - mid
  level = (g.v + view.pitch * 0.7 * p.d) / pitch
  half = (0.1 + 0.035 * np.clip(level / 10, -0.3, 1.2)) * p.w  # Bodies widen downwards.
  y = 2 * (level - np.floor(level)) - 1  # -1 to 1 within a vertebra.
  waist = half * (0.9 + 0.12 * y * y)
  q = (x / waist) ** 2
  body = _chord(q**3) * (1 - _ramp((np.abs(y) - 0.8) / 0.12))
  plate = np.exp(-(((np.abs(y) - 0.74) / 0.07) ** 2)) * _chord(q**2)
  wall = np.exp(-(((np.abs(x) - waist * 0.93) / (0.12 * half)) ** 2))
  wall *= np.abs(y) < 0.78
  ped = _norm((np.abs(x) - 0.62 * half) / (0.3 * half), (y + 0.3) / 0.42)
  ring = np.exp(-(((ped - 0.8) / 0.22) ** 2))
  spike = _norm(x / (0.16 * half), (y - 0.35) / 0.5)
  spike = np.exp(-(spike**4))
  wing = np.exp(-(((y + 0.25) / 0.35) ** 2)) * _ramp(
    (1.75 * half - np.abs(x)) / (0.3 * half)) * (np.abs(x) > 0.6 * half)
  bone = 0.12 * _chord(q) + 0.3 * body + 0.14 * plate + 0.14 * wall + 0.22 * ring
  return p.w / 8 * (bone + 0.25 * spike + 0.16 * wing), mid


def _ribs(p, view, g, mid, rng):
  """Bone (cm) of twelve pairs of ribs.

  A rib is a tilted ring: going round from the spine it moves out, down and
  forward, and projects to an ellipse whose top half is the posterior rib.
  """
  pitch = p.h / 9.2
  bone = np.zeros_like(g.x)
  for i in range(12):
    jitter = [rng.normal(0, 0.06 * pitch) for _ in range(2)]
    size = p.rib_size * rng.normal(1, 0.06)
    short = (0.55, 0.8, 0.92)[i] if i < 3 else 1.0
    b = 0.5 * (p.rib_drop * short + 1.0 * view.pitch * p.d * 2)
    b = max(b, 0.1 * p.w)
    vc = (i + 0.25) * pitch + b
    a = float(_cage(p, vc)[0]) + 0.25 * size
    last = (2.55 - 0.035 * i, 1.5, 1.15)[max(i - 9, 0)]
    s = g.rows(vc - b - 3 * size, vc + b + 3 * size)
    x = g.x[s] - mid[s] * _ramp(2 - 2 * np.abs(g.x[s]) / p.w)
    v = g.v[s] - vc - np.where(x > 0, jitter[0], jitter[1])
    x = x + (view.yaw * p.d / b) * v * 0.7
    v = v + 0.03 * p.w * np.cos(3.0 * x / a)
    px, pv = np.abs(x) / a, v / b
    rho = np.sqrt(px * px + pv * pv) + 1e-3
    sin, cos = px / rho, -pv / rho
    dist = (rho - 1) * rho / np.sqrt((px / a) ** 2 + (pv / b) ** 2 + 1e-6)
    r = size * (0.62 + 0.38 * cos * cos)
    run = (p.d * sin) ** 2 / ((a * cos) ** 2 + (b * sin) ** 2)
    slant = np.minimum(np.sqrt(1 + run), 3.0)
    tube = _shell(dist, r, 0.6 * size, 0.17 * size) * slant
    tube *= _ramp((math.cos(last) + 0.1 - cos) / -0.12)
    tube *= 0.85 + 0.15 * cos
    tube *= _ramp((np.abs(x) / p.w - 0.13) / 0.06)
    bone[s] += tube
  return bone


def _girdle(p, view, g):
  """Bone (cm) of clavicles, scapulae and upper arms."""
  bone = np.zeros_like(g.x)
  arm = p.shoulder * p.w
  x, v = g.x - view.yaw * 0.7 * p.d, g.v - view.pitch * 0.7 * p.d
  t = (np.abs(x) - 0.1 * p.w) / (0.95 * p.w)
  line = 0.13 * p.h - 0.16 * p.h * t + 0.035 * p.h * np.sin(6.28 * t)
  slope = (-0.16 + 0.22 * np.cos(6.28 * t)) * p.h / (0.95 * p.w)
  r = p.rib_size * (0.85 + 0.9 * (t - 0.45) ** 2)
  tube = _shell((v - line) / np.sqrt(1 + slope**2), r, r, 0.3 * p.rib_size)
  bone += tube * _ramp(t / 0.03) * _ramp((1.0 - t) / 0.2)
  x, v = np.abs(g.x + view.yaw * 0.6 * p.d), g.v + view.pitch * 0.6 * p.d
  out = 0.12 * p.w * math.sin(view.arms)
  corners = (0.62, 0.02), (1.08, 0.08), (0.86, 0.62)
  corners = [(a * p.w + out, b * p.h) for a, b in corners]
  inside = np.inf
  for i in range(3):
    x0, v0, x1, v1 = *corners[i], *corners[(i + 1) % 3]
    n = math.hypot(x1 - x0, v1 - v0)
    inside = np.minimum(inside, ((x1 - x0) * (v - v0) - (v1 - v0) * (x - x0)) / n)
  rim = np.exp(-((inside / (0.022 * p.w)) ** 2))
  rim *= 0.4 + 0.6 * _ramp((x - corners[2][0] + 0.1 * p.w) / (0.1 * p.w))
  bone += p.w / 8 * (0.12 * _ramp(inside / (0.03 * p.w)) + 0.4 * rim)
  for sign in (-1, 1):
    x0, v0 = sign * (1.13 * p.w), 0.1 * p.h
    x1 = x0 + sign * 2 * p.w * math.sin(view.arms)
    v1 = v0 + 2 * p.w * math.cos(view.arms)
    dist, t = _segment(g.x, g.v, x0, v0, x1, v1)
    r = p.w * (0.07 + 0.035 * _ramp(1 - t / 0.2))
    bone += 0.8 * _shell(dist, r, r, 0.016 * p.w, 0.25)
  if p.head:
    q = _norm(g.x / (0.5 * p.w), (g.v - (p.head - 0.9) * p.h) / (0.5 * p.h))
    bone += 0.12 * p.w * np.exp(-(((q - 0.9) / 0.12) ** 2))
  return bone


def _tree(p, rng):
  """Vessels as points in space: x, v, depth, radius (cm), volume (cm3).

  Arteries fork from each hilum, daughters a factor 2^(-1/3) as thick (Murray).
  """
  points = []
  for sign in (-1, 1):
    n = 12
    angle = np.linspace(-1.35, 1.65, n) + rng.normal(0, 0.12, n)
    direction = np.stack([sign * np.cos(angle), np.sin(angle) * 1.1,
                          rng.normal(0, 0.4, n)])
    start = np.array([sign * 0.24 * p.w, 0.5 * p.h, 0])[:, None]
    start = start + rng.normal(0, 0.03 * p.w, (3, n))
    start[1] += 0.12 * p.h * np.sin(angle)
    r = 0.042 * p.w * rng.uniform(0.6, 1.1, n)
    for level in range(6):
      direction = direction / np.linalg.norm(direction, axis=0)
      length = p.w * 0.27 * 0.8**level * rng.uniform(0.6, 1.2, len(r))
      t = (np.arange(24) + 0.5) / 24
      bend = rng.normal(0, 0.16, direction.shape)
      path = direction[..., None] * t + bend[..., None] * t * t
      path = start[..., None] + length[:, None] * path  # (3, n, 24)
      width = np.repeat(r[:, None], 24, 1) * (1 - 0.2 * t)
      volume = np.pi * width**2 * length[:, None] / 24
      points.append(np.concatenate([path, width[None], volume[None]]).reshape(5, -1))
      start = np.repeat(path[..., -1], 2, 1)
      direction = np.repeat(direction + 2 * bend * 0.5, 2, 1)
      direction = direction + rng.normal(0, 0.4, direction.shape)
      r = np.repeat(r, 2) * 0.8 * rng.uniform(0.7, 1.1, 2 * len(r))
  return np.concatenate(points, 1)


def _splat(g, x, v, volume, sigma):
  """Thickness (cm) of small volumes (cm3) blurred by sigma cm."""
  c, r = g.pixels(x, v)
  c0, r0 = np.floor(c).astype(int), np.floor(r).astype(int)
  fc, fr = c - c0, r - r0
  total = np.zeros(g.n * g.n)
  for dc, wc in ((0, 1 - fc), (1, fc)):
    for dr, wr in ((0, 1 - fr), (1, fr)):
      cc, rr = c0 + dc, r0 + dr
      ok = (cc >= 0) & (cc < g.n) & (rr >= 0) & (rr < g.n)
      total += np.bincount((rr * g.n + cc)[ok], (volume * wc * wr)[ok], g.n**2)
  total = np.float32(total.reshape(g.n, g.n) / g.pixel**2)
  return xray_physics.blur(total, sigma / g.pixel)


def _vessels(p, view, g):
  """Depth (cm) of blood in the lungs, and of the larger airways beside it."""
  x, v, depth, r, volume = _tree(p, _rng(p.tree))
  v = v * view.breath + view.pitch * depth
  x = x + view.yaw * depth
  blood = 0
  edges = (0, 0.008 * p.w, 0.016 * p.w, p.w)
  for lo, hi in zip(edges, edges[1:], strict=False):
    s = (r >= lo) & (r < hi)
    blood = blood + _splat(g, x[s], v[s], volume[s], 0.6 * float(r[s].mean()))
  s = r > 0.014 * p.w
  air = _splat(g, x[s] + 0.03 * p.w, v[s], volume[s], 0.012 * p.w)
  return blood, air


def _airways(p, view, g):
  """Depth (cm) of air in trachea and main bronchi."""
  x = g.x - 0.02 * p.w
  carina = 0.36 * p.h
  r = 0.08 * p.w
  air = 2 * r * _chord((x / r) ** 2) * _ramp((carina + r - g.v) / r)
  for sign, drop, scale in ((-1, 0.13, 0.8), (1, 0.1, 0.7)):
    dist, t = _segment(x, g.v, 0, carina, sign * 0.26 * p.w, carina + drop * p.h)
    rb = scale * r
    air = np.maximum(air, 2 * rb * _chord((dist / rb) ** 2) * (1 - 0.5 * t))
  return air


def _opacity(p, view, g, air):
  """Share of the lung's depth that is consolidated, 0 to 1."""
  if p.label == NORMAL:
    return 0.0
  rng = _rng(p.disease)
  rough = _texture(p.disease + 1, g, 2.4 * p.w, 1.7)
  kind = rng.choice(3, p=[0.4, 0.35, 0.25])
  strength = view.severity * rng.uniform(0.45, 1.0)
  clear = np.ones_like(g.x)
  if kind == 2:  # Interstitial: perihilar haze and streaks.
    reach = rng.uniform(0.4, 0.8) * p.w
    q = ((np.abs(g.x) - 0.3 * p.w) / reach) ** 2
    q = q + ((g.v - 0.55 * p.h) / (1.2 * reach)) ** 2
    fine = _texture(p.disease + 2, g, p.w, 1.2)
    return 0.4 * strength * np.exp(-q) * np.clip(0.8 + 0.4 * rough + 0.4 * fine, 0, 2)
  count = 1 if kind == 0 else rng.integers(4, 10)
  first = int(rng.choice([-1, 1]))
  for _ in range(count):
    side = first if kind == 0 else int(rng.choice([-1, 1]))
    x = side * p.w * rng.uniform(0.3, 0.75)
    v = p.h * view.breath * rng.beta(2.2, 1.4)
    rx = p.w * (rng.uniform(0.25, 0.5) if kind == 0 else rng.uniform(0.1, 0.28))
    rv = rx * rng.uniform(0.7, 1.3)
    d = _norm((g.x - x) / rx, (g.v - v) / rv)
    blob = _ramp((1.5 - d + 0.3 * rough) / 1.2)
    blob *= (g.x * side > 0) * min(1.0, strength * rng.uniform(0.7, 1.2))
    clear *= 1 - 0.9 * blob
  return (1 - clear) * (1 - 0.2 * np.minimum(air / (0.05 * p.w), 1))


def _nodules(p, rng):
  """One to three balls (x, v, depth, radius in cm) inside the lungs."""
  balls = []
  count = rng.integers(1, 4)
  while len(balls) < count:
    r = 0.5 * rng.uniform(0.5, 3.0)
    v = p.h * rng.uniform(0.15, 0.85)
    outer, inner, depth = _cage(p, np.float64(v))
    lo, hi = max(inner, 0.35 * p.w) + r, outer - 0.12 * p.w - r
    if lo < hi:
      x = rng.choice([-1, 1]) * rng.uniform(lo, hi)
      balls.append((x, v, 0.4 * p.d * depth * rng.uniform(-1, 1), r))
  return balls


def thickness(p, view, g, balls=()):
  """Tissues {name: cm}, nodule mask and lung depth (cm), each (n, n)."""
  whole, fat = _body(p, view, g)
  cavity, above = _cavity(p, view, g)
  lung = np.minimum(cavity - _mediastinum(p, view, g), cavity * above)
  lung = np.maximum(lung, 0)
  blood, small_air = _vessels(p, view, g)
  lung = np.maximum(lung - np.minimum(blood, 0.6 * lung), 0)
  fine = _texture(p.tree + 1, g, 1.3 * p.w, 0.9)
  lung = lung * (1 + 0.028 * fine)
  lung = lung * (1 - _opacity(p, view, g, small_air))
  mask = np.zeros_like(g.x)
  for x, v, depth, r in balls:
    d = g.distance(x + view.yaw * depth, v * view.breath + view.pitch * depth)
    lung = np.maximum(lung - 2 * r * _chord((d / r) ** 2), 0)
    mask = np.maximum(mask, d < r)
  air = _airways(p, view, g)
  if p.bubble[0]:
    r, x, v = p.bubble
    q = ((g.x - x * p.w) / (1.4 * r)) ** 2
    q = q + ((g.v - (view.breath + p.domes[0] + v) * p.h) / r) ** 2
    air = air + 1.5 * r * _chord(q)
  spine, mid = _spine(p, view, g)
  bone = spine + _ribs(p, view, g, mid, _rng(p.tree, 2)) + _girdle(p, view, g)
  bone = np.minimum(bone * p.bone, 0.5 * whole)
  soft = whole - fat - lung - air - bone
  soft = soft * (1 + 0.03 * _texture(p.tree + 2, g, 4 * p.w, 1.6))
  if p.breast:
    x, v = (np.abs(g.x) - 0.55 * p.w) / (0.42 * p.w), (g.v - 0.75 * p.h) / (0.3 * p.h)
    soft = soft + p.breast * _chord(x**2 + np.where(v > 0, v**2, 0.3 * v**2))
  maps = {"soft": np.maximum(soft, 0), "fat": fat, "lung": lung, "bone": bone}
  return maps, mask, lung


_STROKES = {
  "L": [(0, 0), (0, 1), (0.6, 1)],
  "R": [(0, 1), (0, 0), (0.5, 0.05), (0.6, 0.28), (0.5, 0.5), (0, 0.52), (0.6, 1)],
}


def _annotate(image, view):
  n = len(image)
  u = (np.arange(n) + 0.5) / n
  if view.marker:
    x0 = 0.06 if view.marker == "R" else 0.9
    x, v = (u[None, :] - x0) / 0.04, (u[:, None] - 0.12) / 0.04
    near = np.inf
    strokes = _STROKES[view.marker]
    for (a, b), (c, d) in zip(strokes, strokes[1:], strict=False):
      near = np.minimum(near, _segment(x, v, a, b, c, d)[0])
    ink = np.clip((0.09 - near) * 0.05 * n + 0.5, 0, 1)
    image = image + (250 - image) * ink
  if view.shutter > 0:
    edge = np.minimum(u, 1 - u) - view.shutter
    open_ = np.clip(edge * n + 0.5, 0, 1)
    image = image * (open_[:, None] * open_[None, :])
  return np.uint8(image)

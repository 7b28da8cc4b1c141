"""Organs: cm of each tissue along the beam, for a patient in a view.

Every map takes p, view and g: an anatomy.Patient, whose lengths w, h and d
scale the shapes; an anatomy.View; and the xray_physics.Grid whose points x, v
(cm) it is sampled at. What a patient's seeds decide is drawn here.
"""

from collections.abc import Sequence
import functools
import math
import types
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import scipy.ndimage

from jaxfake.data.phantom import xray_physics

if TYPE_CHECKING:
  from jaxfake.data.phantom import anatomy

_VERTEBRAE = 9.2  # From the apices to the right dome.


def generator(*path: int) -> np.random.Generator:
  """Random numbers that are a function of the integers `path`."""
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(path)))


@functools.cache
def _amplitude(m, slope):
  """Fourier amplitudes of noise on m x m points: frequency^-slope."""
  f = np.sqrt(np.fft.fftfreq(m)[:, None] ** 2 + np.fft.rfftfreq(m) ** 2)
  f[0, 0] = np.inf
  return np.float32(f**-slope)


def texture(
  seed: int, g: xray_physics.Grid, period: float, slope: float
) -> np.ndarray:
  """Noise fixed to the patient, variance 1, repeating every `period` cm."""
  m = 128
  white = generator(seed).standard_normal((m, m), np.float32)
  white = np.asarray(scipy.fft.rfft2(white))
  field = np.asarray(scipy.fft.irfft2(white * _amplitude(m, slope)))
  at = np.stack([g.v, g.x]) * (m / period)
  field = field / field.std()
  return scipy.ndimage.map_coordinates(field, at, order=1, mode="grid-wrap")


def thickness(
  p: "anatomy.Patient",
  view: "anatomy.View",
  g: xray_physics.Grid,
  balls: Sequence[tuple[float, ...]] = (),
) -> dict[str, np.ndarray]:
  """Each tissue's depth along the beam, {name: cm (n, n)}."""
  whole = _body(p, view, g)
  # A skin of fat is crossed twice, aslant by 2.5 d over the local depth.
  fat = 2 * p.fat * 2.5 * p.d / np.maximum(whole, 0.1)
  fat = np.minimum(fat, whole)
  lung = lungs(p, view, g)
  blood, bronchi = _vessels(p, view, g)
  lung = lung - np.clip(blood, 0, 0.6 * lung)
  lung = lung * (1 + 0.028 * texture(p.tree + 1, g, 1.3 * p.w, 0.9))
  for ball in balls:
    lung = np.maximum(lung - g.ball(*project(view, ball))[1], 0)
  lung = lung * (1 - _consolidation(p, view, g, bronchi))
  spine, middle = _spine(p, view, g)
  bone = spine + _ribs(p, view, g, middle) + _girdle(p, view, g)
  bone = np.minimum(bone * p.bone, 0.5 * whole)
  soft = whole - fat - lung - bone - _air(p, view, g)
  soft = soft * (1 + 0.03 * texture(p.tree + 2, g, 4 * p.w, 1.6))
  if p.breast:
    x, v = np.abs(g.x) / p.w - 0.55, g.v / p.h - 0.75
    soft += p.breast * xray_physics.chord(
      (x / 0.42) ** 2 + (v / np.where(v > 0, 0.3, 0.55)) ** 2
    )
  return {"soft": np.maximum(soft, 0), "fat": fat, "lung": lung, "bone": bone}


def project(
  view: "anatomy.View", points: Sequence[float | np.ndarray]
) -> tuple:
  """Points (x, v, depth, radius) of the patient at rest: x, v, radius here."""
  x, v, depth, r = points
  return x + view.yaw * depth, v * view.breath + view.pitch * depth, r


def _cage(p, v):
  """Outer and inner border of a lung (cm from midline), relative depth."""
  t = v / p.h
  s = (1 - (1 - np.clip(t, 0, 1)) ** 1.9) ** 0.72
  apex = 0.36 * p.w
  outer = apex + (p.w - apex) * s - 0.06 * p.w * np.maximum(t - 1, 0) ** 2
  inner = apex - 0.3 * p.w * xray_physics.chord((1 - np.clip(4 * t, 0, 1)) ** 2)
  return outer, inner, 0.55 + 0.45 * s - 0.25 * np.maximum(t - 0.5, 0)


def lungs(
  p: "anatomy.Patient",
  view: "anatomy.View",
  g: xray_physics.Grid | types.SimpleNamespace,
) -> np.ndarray:
  """Depth (cm) of aerated lung: the chest cavity less what else it holds."""
  x = np.abs(g.x)
  outer, inner, depth = _cage(p, g.v)
  u = np.clip((x - inner) / np.maximum(outer - inner, 0.01), 0, 1)
  q = np.abs(2 * u - 1) ** np.where(u > 0.5, np.float32(2.4), np.float32(2.6))
  cavity = 2 * p.d * depth * xray_physics.chord(q)
  cavity *= xray_physics.chord((1 - np.clip(g.v / (0.12 * p.h), 0, 1)) ** 2)
  # Lung reaches below the dome behind it, down to the costophrenic sulcus.
  out = 2 * x / p.w - 1
  fall = p.dome * out**2 * np.where(out > 0, np.float32(1), np.float32(0.35))
  top = p.h * view.breath + np.where(g.x > 0, np.float32(p.left), 0) + fall
  below = np.maximum(g.v - top, 0) / (0.35 * p.h * (1.05 - u**3))
  above = np.maximum(1 - np.sqrt(below), 0)
  free = np.minimum(cavity - _mediastinum(p, view, g), cavity * above)
  return np.maximum(free, 0)


def _mediastinum(p, view, g):
  """Depth (cm) of heart and great vessels."""
  w, size, half = p.w, p.heart, 0.3 * p.d
  middle = p.h * view.breath - 0.42 * size  # Level of the heart's centre.

  def ball(x, v, a, b, tilt=0.0, depth=half, flat=1.0):
    dx = g.x - x - view.yaw * depth
    dv = g.v - v - view.pitch * depth
    dv = np.where(dv > 0, flat * dv, dv)  # The heart rests on the diaphragm.
    c, s = math.cos(tilt), math.sin(tilt)
    q = ((c * dx + s * dv) / a) ** 2 + ((c * dv - s * dx) / b) ** 2
    return xray_physics.chord(q)

  left = ball(0.42 * size, middle, 1.12 * size, 0.78 * size, p.tilt, flat=0.85)
  right = ball(-0.22 * size, middle, 0.5 * size, 0.9 * size, flat=0.8)
  trunk = 0.5 * w * ball(0.16 * w, middle - size, 0.16 * w, 0.32 * w, 0.2)
  knob = ball(0.17 * w, middle - 1.55 * size, p.knob, 1.1 * p.knob, depth=0)
  cava = 0.25 * w * ball(-0.13 * w, middle - 0.9 * size, 0.13 * w, 0.85 * w)
  aorta = (g.x - 0.1 * w + view.yaw * 0.6 * p.d) / (0.1 * w)
  aorta = 0.2 * w * xray_physics.chord(aorta**2)
  aorta *= xray_physics.ramp((g.v - middle + 1.5 * size) / (0.1 * w))
  chambers = (1.5 * size * left) ** 3 + (1.2 * size * right) ** 3
  heart = (chambers + trunk**3) ** (1 / 3)
  return heart + 2.2 * p.knob * knob + cava + aorta


def _arms(p, view):
  """Shoulder and elbow (x, v) of each arm, right first."""
  for sign, angle in zip((-1, 1), view.arms, strict=True):
    x, v, length = sign * 1.12 * p.w, 0.1 * p.h, 2 * p.w
    elbow = x + sign * length * math.sin(angle), v + length * math.cos(angle)
    yield (x, v), elbow


def _body(p, view, g):
  """Depth (cm) of the whole body."""
  x, v, w, h = np.abs(g.x), g.v, p.w, p.h
  edge = _cage(p, np.maximum(v, 0.1 * h))[0] + p.wall
  bulge = np.exp(-(((v / h - 0.02) / 0.35) ** 2))
  edge = edge + np.maximum(p.shoulder - edge, 0) * bulge
  q = (x / edge) ** 2
  torso = 2.5 * p.d * np.maximum(1 - q * q, 0) ** 0.45
  slope = 0.38 * x - 0.45 * h  # Trapezius, from neck to shoulder.
  slope += 0.8 * h * np.maximum(x / p.shoulder - 0.75, 0) ** 2
  lift = np.clip((v - slope) / (0.45 * h), 0, 1)
  torso *= 0.25 + 0.75 * lift
  torso *= xray_physics.chord((1 - np.clip(lift / 0.12, 0, 1)) ** 2)
  neck = w * xray_physics.chord((x / (0.42 * w)) ** 2)
  # A soft maximum melts the parts into each other.
  total = torso**4 + neck**4
  for shoulder, elbow in _arms(p, view):
    dist, t = xray_physics.segment(g.x, v, shoulder, elbow)
    r = (0.36 - 0.1 * t) * w
    total += (2 * r * xray_physics.chord((dist / r) ** 2)) ** 4
  if p.head:
    q = (x / (0.62 * w)) ** 2 + ((v / h - p.head + 0.85) / 0.55) ** 2
    total += (0.9 * w * xray_physics.chord(q)) ** 4
  return np.sqrt(np.sqrt(total))


def _spine(p, view, g):
  """Bone (cm) of the vertebrae, and the column's midline x (cm)."""
  back = -0.7 * p.d
  middle = 0.02 * p.w * np.sin(2.5 * g.v / p.h + p.bend[0]) + view.yaw * back
  x = np.abs(g.x - middle)
  level = (g.v - view.pitch * back) * (_VERTEBRAE / p.h)
  half = (0.1 + 0.0035 * np.clip(level, -3, 12)) * p.w  # Wider downwards.
  y = 2 * (level - np.floor(level)) - 1  # -1 to 1 from disc to disc.
  x = x / half
  height = np.abs(y)
  q = (x / (0.9 + 0.12 * y * y)) ** 2  # Bodies have a waist.
  body = xray_physics.chord(q**3) * (
    1 - xray_physics.ramp((height - 0.76) / 0.2)
  )
  plate = np.exp(-(((height - 0.74) / 0.07) ** 2)) * xray_physics.chord(q * q)
  wall = np.exp(-(((np.sqrt(q) - 0.93) / 0.12) ** 2)) * (height < 0.78)
  pedicle = xray_physics.norm((x - 0.62) / 0.3, (y + 0.3) / 0.42)
  pedicle = np.exp(-(((pedicle - 0.8) / 0.22) ** 2))
  spinous = np.exp(-(((x / 0.16) ** 2 + ((y - 0.35) / 0.5) ** 2) ** 2))
  wing = np.exp(-(((y + 0.25) / 0.35) ** 2))
  wing *= xray_physics.ramp((1.75 - x) / 0.3) * (x > 0.6)
  bone = 0.16 * xray_physics.chord(q) + 0.26 * body + 0.12 * plate + 0.14 * wall
  bone += 0.22 * pedicle + 0.25 * spinous + 0.16 * wing
  return p.w / 8 * bone, middle


def _ribs(p, view, g, middle):
  """Bone (cm) of twelve pairs of ribs.

  A rib is a tilted ring: from the spine it runs out, down and forward, and
  projects to an ellipse. The posterior rib is its top half; at the side it
  runs along the beam and is brightest.
  """
  rng = generator(p.tree, 2)
  pitch = p.h / _VERTEBRAE
  bone = np.zeros_like(g.x)
  edges = g.v[:, :: g.n // 8]
  top, bottom = edges.min(1), edges.max(1)
  pixels = np.arange(g.n * g.n).reshape(g.n, g.n)
  for i in range(12):
    shift = [rng.normal(0, 0.06 * pitch) for _ in range(2)]
    size = p.rib * rng.normal(1, 0.06)
    b = p.drop * (0.55, 0.8, 0.92)[i] if i < 3 else p.drop
    b = max(b + view.pitch * p.d, 0.1 * p.w)
    centre = (i + 0.25) * pitch + b
    a = float(_cage(p, centre)[0]) + 0.25 * size
    last = (2.55 - 0.06 * i, 1.5, 1.15)[max(i - 9, 0)]  # Angle where it ends.
    reach = b + 3 * size
    rows = (bottom > centre - reach) & (top < centre + reach)
    at = pixels[rows].ravel()
    x, v = g.x.ravel()[at], g.v.ravel()[at] - centre
    x = x - middle.ravel()[at] * xray_physics.ramp(2 - 2 * np.abs(x) / p.w)
    v = v - np.where(x > 0, np.float32(shift[0]), np.float32(shift[1]))
    x = x + (0.7 * view.yaw * p.d / b) * v
    v = v + 0.03 * p.w * np.cos(3 / a * x)
    rho = xray_physics.norm(x / a, v / b)
    near = np.flatnonzero(np.abs(rho - 1) < 1.5 * size / b)
    at, x, v, rho = at[near], np.abs(x[near]), v[near], rho[near]
    sin, cos = x / (a * rho), -v / (b * rho)
    dist = (rho - 1) / np.sqrt((sin / a) ** 2 + (cos / b) ** 2)
    run = (p.d * sin) ** 2 / ((a * cos) ** 2 + (b * sin) ** 2)
    r = size * (0.62 + 0.38 * cos * cos)
    tube = xray_physics.shell(dist, r, 0.6 * size, 0.17 * size)
    tube *= np.minimum(np.sqrt(1 + run), 3) * (0.82 + 0.18 * cos)
    tube *= xray_physics.ramp((cos - math.cos(last) - 0.02) / 0.12)
    tube *= xray_physics.ramp((x / p.w - 0.13) / 0.06)
    bone.ravel()[at] += tube
  return bone


def _girdle(p, view, g):
  """Bone (cm) of clavicles, shoulder blades, upper arms and jaw."""
  w, h = p.w, p.h
  front = 0.7 * p.d
  x, v = np.abs(g.x - view.yaw * front), g.v - view.pitch * front
  t = (x / w - 0.1) / 0.95  # Along the clavicle, 0 to 1.
  line = h * (0.13 - 0.16 * t + 0.035 * np.sin(6.28 * t))
  slope = (h / w / 0.95) * (0.22 * np.cos(6.28 * t) - 0.16)
  r = p.rib * (0.85 + 0.9 * (t - 0.45) ** 2)
  dist = (v - line) / np.sqrt(1 + slope * slope)
  bone = xray_physics.shell(dist, r, r, 0.3 * p.rib)
  bone *= xray_physics.ramp(t / 0.03) * xray_physics.ramp((1 - t) / 0.2)

  x, v = np.abs(g.x + view.yaw * front), g.v + view.pitch * front
  out = 0.12 * math.sin(view.arms[0])  # Raised arms turn the blades outwards.
  corners = [(0.62, 0.02), (1.08, 0.08), (0.86, 0.62)]
  corners = [((a + out) * w, b * h) for a, b in corners]
  inside = np.float32(np.inf)  # Distance to the nearest edge.
  for (x0, v0), (x1, v1) in zip(corners, corners[1:] + corners, strict=False):
    edge = (x1 - x0) * (v - v0) - (v1 - v0) * (x - x0)
    inside = np.minimum(inside, edge / math.hypot(x1 - x0, v1 - v0))
  rim = np.exp(-((inside / (0.022 * w)) ** 2))
  rim *= 0.4 + 0.6 * xray_physics.ramp((x - corners[2][0]) / (0.1 * w) + 1)
  bone += w / 8 * (0.12 * xray_physics.ramp(inside / (0.03 * w)) + 0.3 * rim)

  for shoulder, elbow in _arms(p, view):
    dist, t = xray_physics.segment(g.x, g.v, shoulder, elbow)
    r = w * (0.07 + 0.035 * xray_physics.ramp(1 - t / 0.2))
    bone += 0.8 * xray_physics.shell(dist, r, r, 0.016 * w, 0.25)
  if p.head:
    q = xray_physics.norm(g.x / (0.5 * w), (g.v / h - p.head + 0.9) / 0.5)
    bone += 0.12 * w * np.exp(-(((q - 0.9) / 0.12) ** 2))
  return bone


def _vessels(p, view, g):
  """Depth (cm) of blood in the lungs, and of air in bronchi beside it.

  Arteries fork from each hilum in three dimensions, daughters about 0.8 as
  thick (Murray's law has 2^(-1/3)), and are summed as small volumes.
  """
  rng = generator(p.tree)
  w = p.w
  points = []
  for sign in (-1, 1):
    n = 12
    angle = np.linspace(-1.35, 1.65, n) + rng.normal(0, 0.12, n)
    toward = np.stack(
      [sign * np.cos(angle), 1.1 * np.sin(angle), rng.normal(0, 0.4, n)]
    )
    start = np.array([[sign * 0.24 * w], [0.5 * p.h], [0]])
    start = start + rng.normal(0, 0.03 * w, (3, n))
    start[1] += 0.12 * p.h * np.sin(angle)
    r = 0.042 * w * rng.uniform(0.6, 1.1, n)
    for level in range(6):
      toward /= np.linalg.norm(toward, axis=0)
      length = 0.27 * w * 0.8**level * rng.uniform(0.6, 1.2, n)
      bend = rng.normal(0, 0.16, (3, n))
      m = 14 - level
      t = (np.arange(m) + 0.5) / m
      path = toward[..., None] * t + bend[..., None] * t * t
      path = start[..., None] + length[:, None] * path  # (3, n, m)
      radius = r[:, None] * (1 - 0.2 * t)
      volume = np.pi * radius**2 * length[:, None] / m
      points.append(np.stack([*path, radius, volume]).reshape(5, -1))
      n *= 2
      start = np.repeat(path[..., -1], 2, 1)
      toward = np.repeat(toward + bend, 2, 1) + rng.normal(0, 0.4, (3, n))
      r = 0.8 * np.repeat(r, 2) * rng.uniform(0.7, 1.1, n)
  *points, volume = np.concatenate(points, 1).astype(np.float32)
  x, v, r = project(view, points)
  blood = np.zeros_like(g.x)
  for lo, hi in ((0, 0.008), (0.008, 0.016), (0.016, 1)):
    s = (r >= lo * w) & (r < hi * w)
    blood += g.splat(x[s], v[s], volume[s], 0.6 * float(r[s].mean()))
  if p.healthy:
    return blood, 0.0  # Thin walls hide healthy bronchi.
  s = r > 0.014 * w
  return blood, g.splat(x[s] + 0.03 * w, v[s], volume[s], 0.012 * w)


def _air(p, view, g):
  """Depth (cm) of air in trachea, main bronchi and stomach."""
  x = g.x - 0.02 * p.w
  carina, r = 0.36 * p.h, 0.08 * p.w
  air = (
    2
    * r
    * xray_physics.chord((x / r) ** 2)
    * xray_physics.ramp((carina - g.v) / r + 1)
  )
  for sign, drop, scale in ((-1, 0.13, 0.8), (1, 0.1, 0.7)):
    hilum = sign * 0.26 * p.w, carina + drop * p.h
    dist, t = xray_physics.segment(x, g.v, (0, carina), hilum)
    rb = scale * r
    tube = 2 * rb * xray_physics.chord((dist / rb) ** 2)
    air = np.maximum(air, tube * (1 - 0.5 * t))
  r, x, v = p.bubble
  if r:
    v = v + p.h * view.breath + p.left
    q = ((g.x - x) / 1.4 / r) ** 2 + ((g.v - v) / r) ** 2
    air += 1.5 * r * xray_physics.chord(q)
  return air


def _consolidation(p, view, g, bronchi):
  """Share of the lung's depth, 0 to 1, whose air is replaced by fluid."""
  if p.healthy:
    return 0.0
  rng = generator(p.disease)
  pattern = rng.choice(["lobar", "patchy", "interstitial"], p=[0.4, 0.35, 0.25])
  strength = view.severity * rng.uniform(0.45, 1.0)
  rough = texture(p.disease + 1, g, 2.4 * p.w, 1.7)
  if pattern == "interstitial":  # Haze and streaks about the hila.
    reach = rng.uniform(0.4, 0.8)
    q = (np.abs(g.x) / p.w - 0.3) ** 2 + (0.8 * (g.v / p.h - 0.55)) ** 2
    streaks = 0.9 + 0.35 * (rough + texture(p.disease + 2, g, p.w, 1.2))
    haze = 0.4 * strength * np.exp(-q / reach**2)
    return np.clip(haze * np.maximum(streaks, 0), 0, 0.95)
  lobar = pattern == "lobar"
  clear = 1.0
  for _ in range(1 if lobar else rng.integers(4, 10)):
    side = -1 if rng.random() < 0.5 else 1
    x = p.w * rng.uniform(0.3, 0.75)
    v = p.h * view.breath * rng.beta(2.2, 1.4)  # The bases more often.
    rx = p.w * (rng.uniform(0.25, 0.5) if lobar else rng.uniform(0.1, 0.28))
    rv = rx * rng.uniform(0.7, 1.3)
    dist = xray_physics.norm((side * g.x - x) / rx, (g.v - v) / rv)
    blob = xray_physics.ramp((1.5 - dist + 0.3 * rough) / 1.2) * (
      side * g.x > 0
    )
    share = 0.9 * min(1.0, strength * rng.uniform(0.7, 1.2))
    clear = clear * (1 - share * blob)
  bronchogram = np.minimum(bronchi / (0.05 * p.w), 1)
  return (1 - clear) * (1 - 0.2 * bronchogram)

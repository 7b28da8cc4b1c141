"""Procedural chest radiographs, each a function of (seed, index) alone.

    Patient, View -> organs: cm of each tissue -> xray_physics -> 8 bits

World coordinates are cm: x to the image's right (the patient's left), v down
from the lung apices, depth forward from mid-chest. Lengths scale with w, half
the width of the rib cage, and h, the height of the lungs, so pixels enter only
when shapes are sampled on a Grid. Proportions were set by eye against
paediatric and adult radiographs; they are plausible, not anthropometry.
"""

import dataclasses
import math
import types

import numpy as np

from jaxfake.data.phantom import organs, xray_physics

VIEWS_PER_PATIENT = 4
NORMAL, PNEUMONIA = 0, 1
_GRID = 128  # Shapes are never sampled more coarsely than this.


def radiograph(
  seed: int, index: int, size: int = 256, nodules: bool = False
) -> dict:
  """Frontal chest radiograph `index` of the endless set `seed`, as a dict.

  `image` is uint8 (size, size), bone bright; `mask` likewise, 255 wherever a
  nodule touches the pixel. Consecutive images share a `patient`, and with it
  anatomy, `label` and nodules. `size` changes sampling and photon noise only.
  """
  number, view_number = divmod(index, VIEWS_PER_PATIENT)
  patient = Patient.draw(organs.generator(seed, 0, number))
  view = View.draw(organs.generator(seed, 1, index))
  technique = xray_physics.Technique.draw(organs.generator(seed, 2, index))
  balls = []
  if nodules:
    balls = place_nodules(patient, organs.generator(seed, 3, number))
  k = -(-_GRID // size)
  grid = xray_physics.Grid(patient, view, size * k)
  line = xray_physics.line_integral(
    organs.thickness(patient, view, grid, balls)
  )
  noise = organs.generator(seed, 4, index, size)
  signal = xray_physics.expose(line, grid.pixel, k, technique, noise)
  mask = np.zeros((grid.n, grid.n), bool)
  for ball in balls:
    mask |= grid.ball(*organs.project(view, ball))[0] < 1
  return {
    "image": xray_physics.develop(signal, grid.pixel * k, technique),
    "label": patient.label,
    "patient": f"phantom-{number:06d}",
    "view": view_number,
    "mask": np.uint8(255 * (xray_physics.bin_pixels(mask, k) > 0)),
    "nodule_count": len(balls),
  }


@dataclasses.dataclass(frozen=True)
class Patient:
  """What stays with a patient; lengths in cm unless said otherwise."""

  label: int
  w: float  # Half width of the rib cage, inside.
  h: float  # Lung apex to right dome, breathing in.
  d: float  # Half depth of the chest cavity.
  wall: float  # Muscle and fat at the side.
  fat: float  # Of which fat.
  shoulder: float  # Half width at the shoulders.
  head: float  # How far the chin hangs below the neck's top, of h; 0: no head.
  breast: float  # Depth of breast tissue.
  heart: float  # Half width of the heart, about.
  tilt: float  # Of the heart's long axis, rad.
  knob: float  # Radius of the aortic arch.
  dome: float  # Height of a diaphragm dome.
  left: float  # How much lower the left dome is.
  bubble: tuple  # Gastric air: radius (0: none), x, v below the left dome.
  rib: float  # Half height of a rib.
  drop: float  # Half the vertical span of a rib.
  bone: float  # Mineral content, 1 typical.
  bend: tuple  # Phases of a slight bend of all shapes, rad.
  tree: int  # Seeds of vessels and textures, and of the disease.
  disease: int

  @property
  def healthy(self) -> bool:
    return self.label == NORMAL

  @classmethod
  def draw(cls, rng: np.random.Generator) -> "Patient":
    adult = rng.beta(0.9, 1.1)  # 0 a small child, 1 an adult.
    w = (8 + 4.5 * adult) * rng.normal(1, 0.05)
    h = w * (1.15 + 0.35 * adult) * rng.normal(1, 0.05)
    return cls(
      label=int(rng.random() < 0.5),
      w=w,
      h=h,
      d=w * rng.normal(0.68, 0.04),
      wall=w * rng.uniform(0.08, 0.2),
      fat=w * rng.uniform(0.02, 0.09),
      shoulder=w * rng.normal(1.3, 0.05),
      head=rng.uniform(0.02, 0.2) * (rng.random() < 0.7 - 0.6 * adult),
      breast=w * max(0.0, rng.normal(0.08, 0.15)) * (adult > 0.6),
      heart=w * rng.normal(0.52 - 0.04 * adult, 0.03),
      tilt=rng.normal(0.75, 0.1),
      knob=w * rng.normal(0.09 + 0.03 * adult, 0.012),
      dome=h * rng.normal(0.2, 0.03),
      left=h * rng.normal(0.04, 0.02),
      bubble=(
        w * rng.uniform(0.1, 0.24) * (rng.random() < 0.6),
        w * rng.uniform(0.35, 0.6),
        h * rng.uniform(0.16, 0.3),
      ),
      rib=w * rng.normal(0.047, 0.004),
      drop=w * (0.27 + 0.1 * adult) * rng.normal(1, 0.1),
      bone=rng.normal(1.1, 0.13),
      bend=tuple(rng.uniform(0, 6.28) for _ in range(4)),
      tree=int(rng.integers(2**31)),
      disease=int(rng.integers(2**31)),
    )


@dataclasses.dataclass(frozen=True)
class View:
  """What changes between a patient's images."""

  zoom: float = 1.0  # Height of the field over that which just fits.
  aspect: float = 1.0  # Width of the field over its height.
  x: float = 0.0  # Middle of the field, of w, and of h.
  v: float = 0.59
  roll: float = 0.0  # In the image plane, rad.
  yaw: float = 0.0  # Shift right, and down, per cm of depth.
  pitch: float = 0.0
  breath: float = 1.0  # Height of the lungs, 1 full inspiration.
  arms: tuple = (0.3, 0.3)  # Right and left upper arm from straight down, rad.
  severity: float = 1.0  # Of the patient's disease.

  @classmethod
  def draw(cls, rng: np.random.Generator) -> "View":
    low, high = (0.1, 0.6) if rng.random() < 0.5 else (1.4, 2.6)
    arms = rng.uniform(low, high)
    return cls(
      zoom=rng.uniform(0.93, 1.1),
      aspect=rng.uniform(1.0, 1.25),
      x=rng.normal(0, 0.05),
      v=rng.normal(0.59, 0.04),
      roll=rng.normal(0, 0.03),
      yaw=rng.normal(0, 0.05),
      pitch=rng.normal(0, 0.06),
      breath=rng.normal(0.98, 0.05),
      arms=tuple(arms + rng.normal(0, 0.1) for _ in range(2)),
      severity=rng.uniform(0.7, 1.15),
    )


def place_nodules(
  p: Patient, rng: np.random.Generator
) -> list[tuple[float, ...]]:
  """One to three balls (x, v, depth, radius in cm) within healthy lung.

  5 to 30 mm across; their shadows are apart in a patient seen straight on.
  """
  balls = []
  turn = np.linspace(0, 2 * np.pi, 12)
  for _ in range(rng.integers(1, 4)):
    r = 0.5 * rng.uniform(0.5, 3.0)
    for _ in range(200):  # About one in three fits.
      x, v = rng.uniform(-p.w, p.w), p.h * rng.uniform(0.1, 0.95)
      rim = types.SimpleNamespace(
        x=x + 1.3 * r * np.cos(turn), v=v + 1.3 * r * np.sin(turn)
      )
      room = organs.lungs(p, View(), rim).min()
      apart = all(
        math.hypot(x - b[0], v - b[1]) > 1.3 * (r + b[3]) for b in balls
      )
      if room > 2 * r and apart:
        balls.append((x, v, rng.uniform(-0.4, 0.4) * (room - 2 * r), r))
        break
  return balls

"""Fakes that show what real pictures show: repetitions by many small networks.

Each real picture is passed through small autoencoders
(models/trace_autoencoder) of every way to enlarge maps, of several depths,
bottlenecks and losses, taken early and late in their training. Real and fake
then differ in what a generator leaves and in nothing else, so that a detector
cannot learn a hospital or a finding instead (aligned pairs: Rajan et al., 2024,
arXiv:2410.11835; Guillaro et al., 2024, arXiv:2412.17671).

The run's folder is a folder of data.name=many_sources: real/SOURCE/ holds the
pieces that were repeated, fake/trace_KIND/ their repetitions, sources.csv whose
they are. Networks learn from train patients, perhaps of some
sources only. A few repeat validation and test patients, the others train
patients. Networks that are finished are not trained again.
"""

from collections.abc import Sequence
import csv
import functools
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from jaxfake import data as datasets
from jaxfake import errors, platform, progress, sample, workdir
from jaxfake.data import crops, folders
from jaxfake.models import trace_autoencoder as networks

CONFIG = "traces.py"
SIDES = 112, 128, 160, 192  # Of pieces: multiples of 2**depth.
LOSSES = "l1", "spectral", "adversarial"
BATCH = 8  # Pieces that are repeated at once.
FIELDS = "file", "patient", "licence", "original"


class Spec(NamedTuple):
  """One network."""

  upsampling: str
  depth: int
  width: int
  latent: int
  bottleneck: str
  direct: bool
  averaged: bool
  loss: str

  def network(self) -> networks.TraceAutoencoder:
    return networks.TraceAutoencoder(*self[:-1])


class Piece(NamedTuple):
  """A real piece that is repeated, and whose it is."""

  image: np.ndarray  # uint8 (s, s), s one of SIDES.
  source: str
  patient: str
  licence: str
  file: str  # In the run's folder.


def specs(count: int, seed: int) -> list[Spec]:
  """`count` networks, each way to enlarge in turn, the rest drawn."""
  found = []
  for i in range(count):
    rng = np.random.default_rng((seed, i))
    kind = networks.UPSAMPLINGS[i % len(networks.UPSAMPLINGS)]
    pick = lambda *values, rng=rng: values[rng.integers(len(values))]
    direct = rng.random() < 0.3 and kind.startswith("transpose")
    found.append(
      Spec(
        kind,
        pick(1, 2, 2, 3),
        pick(12, 16, 16, 20),
        pick(4, 8, 16),
        pick(*networks.BOTTLENECKS),
        bool(direct),
        bool(rng.random() < 0.4),
        pick(*LOSSES, "adversarial"),
      )
    )
  return found


def check(config) -> None:
  """Raises ConfigError for values no run could use."""
  for field, least in (
    ("networks", 1),
    ("steps", 2),
    ("batch_size", 1),
    ("pictures", 1),
    ("repetitions", 1),
    ("validation", 2),
  ):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )
  if not 16 <= config.crop <= SIDES[0] or config.crop % 8:
    raise errors.ConfigError(
      f"crop is {config.crop}: expected a multiple of 8 from 16 to {SIDES[0]}"
    )
  if config.seed not in range(2**32):
    raise errors.ConfigError(f"seed is {config.seed}: expected 0 to 2**32 - 1")


def run(config, path: pathlib.Path, train) -> int:
  """Trains what is left, repeats pictures, writes the folder; returns 0."""
  del train  # These networks are no runs of their own.
  check(config)
  folder = workdir.Workdir(path)
  folder.claim()
  try:
    dataset = datasets.prepare(config.data)
    progress.say(dataset.summary())
    folder.open(config.to_dict(), dataset.facts)
    folder.begin(0)
    return _run(config, path, folder, dataset)
  finally:
    folder.close()


def _run(config, path, folder, dataset) -> int:
  pieces = {
    split: pieces_of(config, dataset, split, path)
    for split in folders.SPLITS
    if split in dataset.facts["counts"]
  }
  names = [name for name in config.learn_from.split(",") if name]
  learnt = [x for x in pieces["train"] if not names or x.source in names]
  if not learnt:
    raise errors.ConfigError(
      f"learn_from is {config.learn_from!r}: expected some of"
      f" {', '.join(sorted({x.source for x in pieces['train']}))}"
    )
  wanted = specs(config.networks, config.seed)
  begin = time.monotonic()
  for i, spec in enumerate(wanted):
    done = path / "networks" / f"{i:03}.json"
    if done.exists():
      progress.say(f"[{i + 1} of {len(wanted)}] {spec.upsampling}: done before")
      continue
    repeated = pieces["train"]
    if (i + 1) % config.validation == 0:
      repeated = [x for split in ("val", "test") for x in pieces.get(split, [])]
    facts = one(config, i, spec, learnt, repeated, path)
    done.parent.mkdir(exist_ok=True)
    workdir.write_json(done, facts)
    error = ", ".join(f"{x:.1f}" for x in facts["error"])
    progress.say(
      f"[{i + 1} of {len(wanted)}] {spec.upsampling}: {facts['seconds']:.0f} s,"
      f" mean error {error} gray levels"
    )
  rows = [
    dict(zip(FIELDS, (x.file, x.patient, x.licence, ""), strict=True))
    for those in pieces.values()
    for x in those
  ]
  made = [
    workdir.read_json(p) for p in sorted((path / "networks").glob("*.json"))
  ]
  rows += [row for facts in made for row in facts["rows"]]
  write_table(path / "sources.csv", rows)
  fakes = len(rows) - sum(map(len, pieces.values()))
  counts = {"reals": len(rows) - fakes, "fakes": fakes}
  folder.finish(config.networks, {"pictures": counts}, {})
  progress.say(
    f"{fakes:,} repetitions of {counts['reals']:,} pieces by {len(made)}"
    f" networks in {path}, {progress.duration(time.monotonic() - begin)}\n"
    "As a data set:"
    f" --config.data.name=many_sources --config.data.dir={path}"
  )
  return 0


def write_table(path: pathlib.Path, rows: list[dict]) -> None:
  part = path.with_name(path.name + ".part")
  with open(part, "w", newline="") as file:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
  part.replace(path)


def pieces_of(config, dataset, split: str, path: pathlib.Path) -> list[Piece]:
  """Real pieces of a split, at most `pictures` a source, written as PNG."""
  source = dataset.source(split)
  many = dataset.name == "many_sources"
  column = lambda name, other: (
    source.column(name) if many else [other] * len(source)
  )
  names, licences = column("source", dataset.name), column("licence", "")
  labels = source.column("label") if many else [0] * len(source)
  patients, places = source.column("patient"), {}
  for i, name in enumerate(names):
    if not labels[i]:
      places.setdefault(name, []).append(i)
  found = []
  for name, indices in sorted(places.items()):
    n = min(config.pictures, len(indices))
    for i in (indices[k * len(indices) // n] for k in range(n)):
      rng = np.random.default_rng((config.seed, i))
      image = crops.real_size(source[i]["image"][..., 0], rng)
      if min(image.shape) < SIDES[0]:
        continue
      file = f"real/{name}/{split}_{i:06}.png"
      piece = Piece(square(image, rng), name, patients[i], licences[i], file)
      if not (path / file).exists():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(piece.image).save(path / file)
      found.append(piece)
  if not found:
    raise errors.DataError(
      f"{dataset.name}: no real {split} picture of {SIDES[0]} px or more"
    )
  return found


def square(image: np.ndarray, rng) -> np.ndarray:
  """The largest of SIDES that fits, anywhere in uint8 (h, w)."""
  side = max(s for s in SIDES if s <= min(image.shape))
  top = rng.integers(image.shape[0] - side + 1)
  left = rng.integers(image.shape[1] - side + 1)
  return np.ascontiguousarray(image[top : top + side, left : left + side])


def one(
  config,
  i: int,
  spec: Spec,
  learnt: Sequence[Piece],
  repeated: Sequence[Piece],
  path: pathlib.Path,
) -> dict:
  """Trains network i and writes its repetitions; returns facts with rows."""
  begin = time.monotonic()
  stages, error = train(config, i, spec, learnt)
  rng = np.random.default_rng((config.seed, i, 2))
  n = min(config.repetitions, len(repeated))
  which = rng.choice(len(repeated), n, replace=False) if n else []
  rows = []
  facts = {"model": "trace_autoencoder", "seed": config.seed, "network": i}
  for stage, params in enumerate(stages):
    mine = [repeated[j] for j in which[stage :: len(stages)]]
    for piece, image in zip(mine, repeat(spec, params, mine), strict=True):
      name = pathlib.Path(piece.file).stem
      file = (
        f"fake/trace_{spec.upsampling}/{i:03}_{stage}_{piece.source}_{name}.png"
      )
      (path / file).parent.mkdir(parents=True, exist_ok=True)
      data = sample.png(image[..., None], facts | {"stage": stage})
      (path / file).write_bytes(data)
      values = file, piece.patient, piece.licence, piece.file
      rows.append(dict(zip(FIELDS, values, strict=True)))
  seconds = time.monotonic() - begin
  return {
    "spec": spec._asdict(),
    "error": error,
    "seconds": seconds,
    "rows": rows,
  }


def repeat(spec: Spec, params, pieces: Sequence[Piece]) -> list[np.ndarray]:
  """uint8 (s, s) of each piece, by a trained network."""
  forward = jax.jit(spec.network().apply)
  found = [None] * len(pieces)
  for side in sorted({p.image.shape[0] for p in pieces}):
    those = [k for k, p in enumerate(pieces) if p.image.shape[0] == side]
    for first in range(0, len(those), BATCH):
      part = those[first : first + BATCH]
      x = np.zeros((BATCH, side, side, 1), np.float32)
      x[: len(part), ..., 0] = [pieces[k].image / 127.5 - 1 for k in part]
      y = np.asarray(forward(params, x, jax.random.key(first)))[..., 0]
      y = np.clip(np.rint((y + 1) * 127.5), 0, 255).astype(np.uint8)
      for k, image in zip(part, y, strict=False):
        found[k] = image
  return found


def train(config, i: int, spec: Spec, pieces: Sequence[Piece]):
  """Parameters after two fifths of the steps and after all; the mean error,
  gray levels, at both."""
  net, critic = spec.network(), networks.PatchCritic()
  x = jnp.zeros((1, config.crop, config.crop, 1))
  key = jax.random.key(config.seed + i)
  init = functools.partial(
    jax.jit, compiler_options=platform.run_once_options()
  )
  params = init(net.init)(key, x, key), init(critic.init)(key, x)
  opts = optax.adam(1e-3, 0.5, 0.9), optax.adam(5e-4, 0.5, 0.9)
  states = tuple(o.init(p) for o, p in zip(opts, params, strict=True))
  step = platform.jit(functools.partial(_step, spec.loss, net, critic, opts))
  rng = np.random.default_rng((config.seed, i, 1))
  stages, errors_ = [], []
  for k in range(1, config.steps + 1):
    batch = np.stack(
      [
        cut(pieces[rng.integers(len(pieces))].image, config.crop, rng)
        for _ in range(config.batch_size)
      ]
    )
    params, states, error = step(params, states, batch, jax.random.key(k))
    if k in (max(1, config.steps * 2 // 5), config.steps):
      stages.append(jax.tree.map(np.asarray, params[0]))
      errors_.append(float(error) * 127.5)
  return stages, errors_


def cut(image: np.ndarray, side: int, rng) -> np.ndarray:
  top, left = rng.integers(image.shape[0] - side + 1, size=2)
  return image[top : top + side, left : left + side]


def _step(loss: str, net, critic, opts, params, states, batch, key):
  """One step of the network and, under "adversarial", of its critic."""
  x = batch[..., None].astype(jnp.float32) / 127.5 - 1

  def of_network(p):
    y = net.apply(p, x, key)
    value = jnp.abs(x - y).mean()
    if loss != "l1":
      value += (0.1 if loss == "spectral" else 0.05) * spectral_distance(x, y)
    if loss == "adversarial":
      value -= 0.02 * critic.apply(params[1], y).mean()
    return value, y

  (_, y), gradient = jax.value_and_grad(of_network, has_aux=True)(params[0])
  update, state = opts[0].update(gradient, states[0])
  network, of_critic = optax.apply_updates(params[0], update), params[1]
  critic_state = states[1]
  if loss == "adversarial":  # Hinge (Lim and Ye, 2017, arXiv:1705.02894).
    y = jax.lax.stop_gradient(y)
    hinge = lambda p: (
      jax.nn.relu(1 - critic.apply(p, x)) + jax.nn.relu(1 + critic.apply(p, y))
    ).mean()
    update, critic_state = opts[1].update(jax.grad(hinge)(params[1]), states[1])
    of_critic = optax.apply_updates(params[1], update)
  return (network, of_critic), (state, critic_state), jnp.abs(x - y).mean()


def spectral_distance(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean difference of log amplitude, under a Hann window, of (b, s, s, 1)."""
  window = jnp.hanning(x.shape[1])
  window = (window[:, None] * window)[..., None]
  amplitude = lambda v: jnp.log(
    jnp.abs(jnp.fft.rfft2(v * window, axes=(1, 2))) + 0.05
  )
  return jnp.abs(amplitude(x) - amplitude(y)).mean()

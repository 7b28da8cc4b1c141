"""Data-parallel training on many chips, on paper: what the compiled step sends,
and how long that would take."""

import math
import statistics
import time
import types
from typing import Any, NamedTuple

from jaxfake.benchmarks import collectives

# Below so many bytes it is the wait for a message that counts. Of ours those
# are batch norm's statistics and the losses. What must be known before the next
# layer can go on cannot hide behind it.
SMALL = 2**16


class Step(NamedTuple):
  """One training step's program, as each device runs it."""

  chips: int
  flops: float
  parameters: dict[str, int]  # Of each network.
  sends: list[collectives.Collective]

  def large(self) -> list[collectives.Collective]:
    return [x for x in self.sends if x.bytes >= SMALL]

  def small(self) -> list[collectives.Collective]:
    return [x for x in self.sends if x.bytes < SMALL]


class Bounds(NamedTuple):
  worst: float
  best: float


class Speed(NamedTuple):
  """Bytes a second that a chip can send while all do: two bounds."""

  least: float
  most: float


class System(NamedTuple):
  """Chips and what joins them."""

  name: str
  flops: float | None  # A second and chip, at JAX's own precision; None: of the
  # machine at hand, whose step is measured.
  host: int  # So many chips are joined by the faster links.
  inside: Speed  # Over those,
  beyond: Speed  # and where a ring leaves them.
  hop: float  # Seconds until a small message has gone on by one hop.

  def seconds(self, sends: list[collectives.Collective], n: int) -> Bounds:
    """One after the other: as many hops as a tree to the root and back has,
    and the bytes of a ring, as fast as its slowest link."""
    if n == 1:
      return Bounds(0.0, 0.0)
    speed = self.inside if n <= self.host else self.beyond
    hops = 2 * math.ceil(math.log2(n)) * self.hop * len(sends)
    sent = sum(x.sent(n) for x in sends)
    return Bounds(hops + sent / speed.least, hops + sent / speed.most)


def efficiency(step: Step, system: System, seconds: float) -> Bounds:
  """Of chips with as many images each as one would have, whose step alone takes
  so many seconds: 1 is linear.

  At worst they wait for all that they send. At best what is large hides behind
  arithmetic as far as there is any.
  """
  large = system.seconds(step.large(), step.chips)
  small = system.seconds(step.small(), step.chips)
  return Bounds(
    seconds / (seconds + large.worst + small.worst),
    seconds / (max(seconds, large.best) + small.best),
  )


def measured(config_file: str, flags: list[str], images: int) -> float:
  """Seconds that this machine takes for a step of so many images: the median of
  five, by all that it has, as the one chip."""
  import jax
  import numpy as np

  from jaxfake.runtime import devices, xla

  step, state, batch = lowered(config_file, flags, images, 1)
  step = step.compile(compiler_options=xla.compiler_options())
  rng = np.random.default_rng(0)
  filled = lambda x: rng.integers(0, 2, x.shape).astype(x.dtype)
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
  _, by_batch, everywhere = devices.mesh_and_shardings()
  state = jax.device_put(state, everywhere)
  batch = jax.device_put(jax.tree.map(filled, batch), by_batch)
  seconds = []
  for _ in range(7):
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds[2:])


def compiled(
  config_file: str, flags: list[str], per_chip: int, chips: int
) -> Step:
  """The Step of a configuration on so many simulated CPU devices.

  For a fresh process: JAX must not have looked for devices yet.
  """
  import jax

  from jaxfake.nn import winograd
  from jaxfake.runtime import xla
  from jaxfake.training import loop

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", chips)
  with winograd.spared_none():
    step, state, _ = lowered(config_file, flags, per_chip, chips)
  # It is read, not run: what comes after XLA's own passes is a waste.
  options = xla.compiler_options() | xla.run_once_options()
  step = step.compile(compiler_options=options)
  cost, text = step.cost_analysis(), step.as_text()
  assert cost is not None and text is not None  # A CPU's compiler tells both.
  return Step(
    chips, cost["flops"], loop.parameters(state), collectives.read(text)
  )


def lowered(
  config_file: str, flags: list[str], per_chip: int, chips: int
) -> tuple[Any, Any, Any]:
  """A configuration's step before it is compiled, and its abstract state and
  batch."""
  import jax
  import numpy as np

  from jaxfake import configuration, errors
  from jaxfake.classifiers import neural
  from jaxfake.generators import gan
  from jaxfake.runtime import devices
  from jaxfake.training import loop

  batch = f"--config.batch_size={per_chip * chips}"
  config, _ = configuration.parse(
    ["", f"--config={config_file}", batch, *flags]
  )
  errors.check_choice("task", config.task, ("gan", "classifier"))
  # Of data, a step's program depends on the number of classes alone.
  train = types.SimpleNamespace(column=lambda name: [0, 1])
  data: Any = types.SimpleNamespace(classes=("0", "1"), train=train)
  if config.task == "gan":
    task = gan.make(config, data)
  else:
    task = neural.make(config, data, steps=1)
  _, by_batch, everywhere = devices.mesh_and_shardings()
  n, size = config.batch_size, config.data.size
  rows = lambda shape, dtype: jax.ShapeDtypeStruct(
    shape, dtype, sharding=by_batch
  )
  state = loop.abstract_state(task.init)
  batch = {
    "image": rows((n, size, size, 1), np.uint8),
    "label": rows((n,), np.int32),
  }
  step = jax.jit(
    task.step, donate_argnums=0, out_shardings=(everywhere, everywhere)
  )
  return step.lower(state, batch), state, batch

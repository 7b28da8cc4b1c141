"""Devices in a row, and what is sharded over them."""

from collections.abc import Callable, Sequence

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType
import numpy as np


def mesh_and_shardings(
  devices: Sequence | None = None,
) -> tuple[jax.sharding.Mesh, jax.NamedSharding, jax.NamedSharding]:
  """All devices, or those given, in a row; a sharding by rows of a batch, one
  for copies.

  Auto, not JAX's default Explicit: under that Linen's Dropout fails. By
  process, not by place in the machine as jax.make_mesh would have it: process
  p holds the p-th part of each batch.
  """
  devices = sorted(
    devices or jax.devices(), key=lambda d: (d.process_index, d.id)
  )
  mesh = jax.sharding.Mesh(
    np.array(devices), ("data",), axis_types=(AxisType.Auto,)
  )
  by_batch = jax.NamedSharding(mesh, jax.P("data"))
  everywhere = jax.NamedSharding(mesh, jax.P())
  return mesh, by_batch, everywhere


def gather_over(by_batch: jax.NamedSharding, batch_size: int) -> Callable:
  """Makes `gather(fn, source)`: see task.Task.

  The last batch is padded by its first row, and the padding cut off, so that
  one shape is compiled; host p computes the p-th part of each batch.
  """
  hosts, host = jax.process_count(), jax.process_index()
  part = batch_size // hosts

  def fetch(out):
    if hosts > 1:
      out = multihost_utils.process_allgather(out, tiled=True)
    return jax.tree.map(np.asarray, out)

  def gather(fn, source):
    outputs, computed = [], None
    for first in range(0, len(source), batch_size):
      mine = range(first + host * part, first + (host + 1) * part)
      rows = [source[i if i < len(source) else first] for i in mine]
      batch = jax.tree.map(lambda *x: np.stack(x), *rows)
      batch = jax.make_array_from_process_local_data(by_batch, batch)
      before, computed = computed, fn(batch)
      if before is not None:  # Fetched while the next is computed.
        outputs.append(fetch(before))
    outputs.append(fetch(computed))
    joined = jax.tree.map(lambda *x: np.concatenate(x), *outputs)
    return jax.tree.map(lambda x: x[: len(source)], joined)

  return gather

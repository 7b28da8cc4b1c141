"""What the training loop reads: batches that are a function of the step.

The train images stand in an endless stream, a new order each epoch, cut into
batches; hosts take equal parts of each batch in turn, so that 1, 2 or 4 hosts
see the same rows in the same order. No position is saved: batch n is computed
from (seed, n).

A set that fits lives on the device as uint8, and a batch is an array of indices
that the compiled step looks up. A larger one is decoded by worker processes and
streamed. Both give the same numbers.
"""

from collections.abc import Iterator
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfake import contracts
from jaxfake.data import pipeline, work
from jaxfake.runtime import xla

STREAMED_BYTES = 2**26  # Of the batches that go to the device at once.
MOST_WORKERS = 16
EPOCHS = 2**31  # As good as endless.


@functools.lru_cache(4)
def order(seed: int, epoch: int, n: int) -> np.ndarray:
  """A permutation of n, another one each epoch; the same with any NumPy, which
  promises the bits of a generator but not what it shuffles with them."""
  bits = np.random.Philox(key=[seed, epoch]).random_raw(n)
  return np.argsort(bits, kind="stable")


class Shuffled:
  """The endless stream over a source, for Grain."""

  def __init__(self, source: contracts.Examples, seed: int):
    self._source, self._seed = source, seed

  def __len__(self) -> int:
    return len(self._source) * EPOCHS

  def __repr__(self) -> str:  # Grain prints its sources; not every item.
    return f"Shuffled({self._source})"

  def __getitem__(self, index: int):
    epoch, i = divmod(index, len(self._source))
    return self._source[int(order(self._seed, epoch, len(self._source))[i])]


def indices(
  n: int, seed: int, batch_size: int, batch: int, host: int = 0, hosts: int = 1
) -> np.ndarray:
  """Which of n images this host's rows of a batch are, int32 (b / hosts,)."""
  part = batch_size // hosts
  first = batch * batch_size + host * part
  epoch, i = np.divmod(np.arange(first, first + part), n)
  orders = {e: order(seed, int(e), n) for e in np.unique(epoch)}
  return np.array(
    [orders[e][k] for e, k in zip(epoch, i, strict=True)], np.int32
  )


def batches(
  source: contracts.Examples,
  seed: int,
  batch_size: int,
  first: int,
  host: int = 0,
  hosts: int = 1,
  workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
  """This host's rows of the batches first, first + 1, ... without end, read
  ahead by threads or by so many processes."""
  from absl import flags
  import grain  # 1.5 seconds to import.

  # Grain asks absl's flags, which only absl's own way to start parses.
  flags.FLAGS.mark_as_parsed()

  stream = grain.MapDataset.source(Shuffled(source, seed))
  stream = stream.batch(batch_size // hosts)[host::hosts][first:]
  # Grain's own default reads 500 batches ahead, 2 GB of them at 256 px.
  ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
  stream = stream.to_iter_dataset(ahead)
  if workers:
    options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
    stream = stream.mp_prefetch(options, worker_init_fn=_end_with_parent)
  return iter(stream)


def _end_with_parent(worker: int, workers: int) -> None:
  work.end_with_parent()


class Feed:
  """`chunk(n)` gives the next n batches, `lookup(chunk, i)`, traced, the i-th.

  `most` is how many steps a chunk may hold; chunks have one shape whatever n
  is.
  """

  def __init__(
    self,
    source: contracts.Examples,
    config: contracts.Config,
    first: int,
    mesh: jax.sharding.Mesh,
  ):
    """Begins with batch `first`. Reads all images where they fit."""
    self._mesh, self._batch, self._config = mesh, first, config
    self._hosts = jax.process_index(), jax.process_count()
    self._count, self._item = len(source), source[0]
    an_image = sum(x.nbytes for x in self._item.values() if x.ndim)
    images = self._count * an_image
    on_device = config.data.feed == "device" or (
      config.data.feed == "auto" and images <= xla.resident_bytes()
    )
    self.most = xla.steps_per_dispatch()
    self._images = None
    if on_device:
      self._images = self._put(jax.P(), pipeline.arrays(source))
      self.about = f"{images / 1e6:,.1f} MB of images on the device"
      return
    workers = min(work.cores(), MOST_WORKERS)
    self.about = f"images streamed by {workers} processes"
    batch = config.batch_size * an_image
    self.most = min(self.most, max(1, STREAMED_BYTES // batch))
    self._stream = batches(
      source, config.seed, config.batch_size, first, *self._hosts, workers
    )

  @property
  def like(self) -> Any:
    """A chunk's shapes, types and places."""
    shape = self.most, self._config.batch_size
    by_row = jax.NamedSharding(self._mesh, jax.P(None, "data"))
    of = functools.partial(jax.ShapeDtypeStruct, sharding=by_row)
    if self._images is not None:
      return self._images, of(shape, np.int32)
    return None, {
      name: of((*shape, *x.shape), x.dtype) for name, x in self._item.items()
    }

  def chunk(self, n: int) -> Any:
    """The next n batches, on the devices."""
    if self._images is not None:
      upcoming = [self._indices(self._batch + k) for k in range(n)]
    else:
      upcoming = list(itertools.islice(self._stream, n))
    self._batch += n
    upcoming += [upcoming[-1]] * (self.most - n)  # Never looked up.
    stacked = jax.tree.map(lambda *x: np.stack(x), *upcoming)
    return self._images, self._put(jax.P(None, "data"), stacked)

  def _indices(self, batch: int) -> np.ndarray:
    c = self._config
    return indices(self._count, c.seed, c.batch_size, batch, *self._hosts)

  def _put(self, places, arrays):
    """Arrays of this host, or its parts of them, to the devices."""
    sharding = jax.NamedSharding(self._mesh, places)
    put = functools.partial(jax.make_array_from_process_local_data, sharding)
    return jax.tree.map(put, arrays)

  @staticmethod
  def lookup(chunk: tuple, i: jax.Array | int) -> dict[str, jax.Array]:
    """The i-th batch of a chunk; traced."""
    images, stacked = chunk
    batch = jax.tree.map(lambda x: x[i], stacked)
    if images is None:
      return batch
    take = lambda x: jnp.take(x, batch, 0, mode="clip")
    return jax.tree.map(take, images)

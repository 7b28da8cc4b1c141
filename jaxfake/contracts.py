"""What the parts of jaxfake promise each other.

Modules are found by the names that configurations give them (named.py): a new
one is one file, in one of the contract's ROOMS or in a package of one's own,
which defines what its contract asks for. NAMES in capitals are plain values, so
that they are known before anything is imported.
"""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
  import jax
  import numpy as np

# An ml_collections.ConfigDict, whose fields were checked when it was made.
Config = Any
# A pytree of arrays, such as a network's parameters.
Tree = Any


class Family(Protocol):
  """A module that trains one kind of model: what `config.task` names.

  FITS, where it has them, are the values of `data.fit` that a task of the loop
  takes, other than pipeline.FITS.
  """

  ROOMS: ClassVar = ("generators", "classifiers")
  # The file with all fields of its configuration: beside the module, or of ours
  # in configs/.
  CONFIG: str

  def check(self, config: Config) -> None:
    """Raises ConfigError for values that no run could use."""

  def prepare(
    self, config: Config, splits: "Splits", run: "Run"
  ) -> Callable[[], int]:
    """What trains and returns an exit code (loop.train does, for a Task).

    Raises DataError, ConfigError where nothing could be learnt.
    """
    ...

  def load(self, path: pathlib.Path) -> Any:
    """The trained model of a run's folder, from that folder alone: a Generator
    or a Detector. Raises ConfigError where there is none."""

  def summary(self, path: pathlib.Path, result: dict) -> str:
    """What a finished run reached, and where everything is."""
    ...


class Swept(Family, Protocol):
  """A family whose runs a sweep compares."""

  SHOWN: tuple[str, ...]  # Figures of result.json, where none is asked for.


class GeneratorFamily(Swept, Protocol):
  """A family that makes images."""

  ROOMS: ClassVar = ("generators",)

  def load(self, path: pathlib.Path, step: int | None = None) -> "Generator":
    """The generator of a run's last checkpoint, or of another step's."""
    ...

  def describe(self, config: Config) -> dict[str, Any]:
    """What tells its networks from others, a column of a report each."""
    ...


class DetectorFamily(Family, Protocol):
  """A family that calls images real or fake, or tells findings."""

  ROOMS: ClassVar = ("classifiers",)

  def load(self, path: pathlib.Path) -> "Detector":
    """The detector, or classifier of findings, of a finished run."""
    ...

  def files(self, path: pathlib.Path) -> list[str]:
    """The names of what `load` reads in a run's folder, beside result.json."""
    ...


class Experiment(Protocol):
  """A module that makes one result of several runs: what `task` may name
  too."""

  ROOMS: ClassVar = ("experiments", "generators")
  CONFIG: str

  def check(self, config: Config) -> None:
    """Raises ConfigError for values that it could not use."""

  def run(self, config: Config, path: pathlib.Path, train: Callable) -> int:
    """Does what is left of it in a folder; returns an exit code.

    `train(config, path)` does one run of a family and returns its exit code.
    """
    ...


class Adversaries(Protocol):
  """A module with the two networks of a GAN: what its `model.name` names."""

  ROOMS: ClassVar = ("models",)
  SIZES: tuple[int, ...]  # Pixels a side.

  def check(self, model: Config) -> None:
    """Raises ConfigError for values of a config's `model`."""

  def latents(self, model: Config, size: int) -> int:
    """How many normal deviates an image is made of: the length of its z."""
    ...

  def make(
    self,
    model: Config,
    num_classes: int,
    size: int,
    dtype: "jax.typing.DTypeLike",
  ) -> tuple[Any, Any]:
    """Linen modules: generator(z, label, *, train), discriminator(x, label, *,
    train)."""
    ...


class Source(Protocol):
  """A module that finds images: what `data.name` names.

  FINDINGS = True says that its images are originals whose classes are findings,
  READS_PATIENTS = True that it takes `data.patients`. `entries(data) -> (what
  it reads, classes)` lets `python -m jaxfake.data` look at it.
  """

  ROOMS: ClassVar = ("data",)
  ABOUT: str  # In one line.

  def prepare(self, data: Config) -> "Dataset":
    """The data set, ready to be read. Raises ConfigError, DataError."""
    ...


class Dataset(Protocol):
  """A prepared data set: data.Dataset."""

  @property
  def name(self) -> str: ...

  @property
  def classes(self) -> tuple[str, ...]: ...

  @property
  def facts(self) -> dict:
    """JSON-able: what a result says of its data."""
    ...

  def source(self, split: str) -> "Items":
    """The images of "train", "val" or "test". Raises DataError."""
    ...


class Examples(Protocol):
  """What batches are made of: [i] -> its features by name, a function of i
  alone; threads may read it."""

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> dict[str, Any]: ...


class Items(Examples, Protocol):
  """Images at random."""

  @property
  def features(self) -> Mapping[str, str]:
    """What items hold, by name: "image" (uint8 (h, w, 1), another such as
    "mask" alike), "integer" or "text". image, label, patient and id are in
    all."""
    ...

  def column(self, name: str) -> list:
    """One fact of every image, such as "label", without decoding any."""
    ...


class Splits(Protocol):
  """What a run learns from, chooses by and is measured on: pipeline.Splits."""

  @property
  def classes(self) -> tuple[str, ...]: ...

  @property
  def train(self) -> Items: ...

  @property
  def val(self) -> Items: ...

  @property
  def test(self) -> Items: ...

  @property
  def held_out(self) -> Items:
    """The larger of val and test."""
    ...


class Run(Protocol):
  """The folder of a run, to which its family writes: workdir.Workdir."""

  path: pathlib.Path
  writer: bool  # Whether this process writes files; the methods know.

  def keep(self, name: str, data: bytes) -> None:
    """A file that the trained model needs, written when the run begins."""

  def begin(self, step: int) -> None:
    """Writes what the run is; `step` is the one restored, 0 at the start."""

  def finish(self, step: int, facts: dict, conclusion: dict) -> None:
    """Writes result.json, and a conclusion's pictures and predictions."""


class Task(Protocol):
  """What a learning method is to the loop: task.Task, and all it may be."""

  def init(self, key: "jax.Array") -> Any:
    """The first state, a pytree of arrays with a scalar `step`. Traced."""

  def step(self, state: Tree, batch: dict) -> tuple[Any, dict]:
    """The next state, and scalars to report; pure and traced.

    A batch has the features that `splits` gives, (b, ...): images uint8
    (b, s, s, 1), all else int32 (b,).
    """
    ...

  def evaluate(self, state: Tree, gather: Callable) -> dict:
    """{name: float or picture}, a picture being uint8 (h, w) or (h, w, 3).

    `gather(fn, source)`, given by the loop, applies a jitted per-batch function
    to every example of a source exactly once, on all hosts and devices, and
    returns NumPy arrays in the source's order.
    """
    ...

  def preview(self, state: Tree, gather: Callable) -> dict:
    """{name: picture}."""
    ...


class Generator(Protocol):
  """A trained generator."""

  name: str  # Of its network, for the manifest of what it makes.
  size: int  # Pixels a side.
  classes: tuple[str, ...]  # Of its train images.
  conditional: bool  # On the class.
  step: int  # Of training.
  sha256: str  # Of its state.

  def sample(self, seed: int, index: "np.ndarray", label: "np.ndarray") -> Any:
    """uint8 (n, size, size, c) for indices and labels (n,), not waited for.

    Image i is a function of (seed, i) and its label alone; n is a multiple of
    the devices of this process, which do it alone.
    """


class Translator(Generator, Protocol):
  """A generator that makes each image of another: of held-out images that its
  run keeps, until it is given others."""

  def origins(
    self, seed: int, index: "np.ndarray", label: "np.ndarray"
  ) -> list[dict]:
    """What `sample` makes each of: `original`, its id, and `patient`."""
    ...

  def give(self, items: Items) -> None:
    """From now on image i is made of item i."""


class Inpainter(Generator, Protocol):
  """A generator that fills a region of a picture given its surroundings."""

  kind: str  # "inject" or "remove": what its fill does to a picture.

  def fill(
    self, image: "np.ndarray", mask: "np.ndarray", noise: "np.ndarray"
  ) -> "np.ndarray":
    """float32 (size, size) from -1 to 1 of a picture alike, what to fill (bool)
    and normal deviates (float32); what it gives elsewhere is of no use."""
    ...


class Detector(Protocol):
  """A trained detector of fakes."""

  classes: tuple[str, ...]  # ("real", "fake")

  @property
  def canonical(self) -> "Callable[[np.ndarray], np.ndarray]":
    """What a picture, uint8 gray (h, w), is put through first. Decoding workers
    call it: without JAX, and it can be pickled."""
    ...

  def judge(self, images: "Sequence[np.ndarray]") -> list[dict]:
    """p_fake, verdict and reason of each of some canonical images."""
    ...

  def about(self) -> dict:
    """What a list of verdicts says of it: name, real_at_most, fake_at_least,
    and more."""
    ...


class VerdictWriter(Protocol):
  """A file of verdicts, row by row: see writers.py."""

  def begin(self, *about: dict) -> None:
    """Opens the file. Raises ConfigError where it cannot be written."""

  def write(self, row: dict) -> None:
    """One picture's row, on disk when this returns."""

  def close(self) -> None: ...

"""The family `latent_diffusion`: a diffusion model of an autoencoder's latents
(Rombach et al., 2022, arXiv:2112.10752).

The autoencoder (vae.py) is trained first, inside the run's folder, unless the
field `autoencoder` names a finished run of one, which is copied there. From
then on it stays as it is. The diffusion model (edm.py) learns the latents of
train images, each channel shifted and scaled to mean 0 and deviation
`sigma_data`, as by Karras et al. (2024, arXiv:2312.02696); sampling ends with
the decoder.
"""

from collections.abc import Callable, Sequence
import pathlib
import shutil
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxfake import contracts, errors
from jaxfake.data import pipeline
from jaxfake.generators import common, edm, vae
from jaxfake.models import unet
from jaxfake.runtime import devices, disk, processes, progress, xla
from jaxfake.training import loop, workdir
from jaxfake.training.task import Task

CONFIG = "latent_diffusion.py"
SHOWN = ("frechet_random_filters", "kernel_random_filters")
summary = common.summary

# Fields that a run's own autoencoder shares with it.
SHARED = ("seed", "dtype", "only_class", "data", "tensorboard")
# Fields of `data` that change no image and no split.
FREE = ("dir", "patients", "feed")


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  errors.check_choice("data.size", config.data.size, unet.SIZES)
  edm.check_diffusion(config)
  if config.autoencoder:
    return  # The run may have its copy, and no need of the folder.
  autoencoder = own(config)
  try:
    loop.check(autoencoder)
    vae.check(autoencoder)
  except errors.ConfigError as error:
    raise errors.ConfigError(f"vae.{error}") from error
  check_latents(config, autoencoder)


def check_latents(
  config: contracts.Config, autoencoder: contracts.Config
) -> None:
  """Raises ConfigError where a diffusion model cannot work in the latents of an
  autoencoder, both by their configurations."""
  unet.check_side(config.model, vae.latent_shape(autoencoder)[0])
  if autoencoder.model.conditional and not config.model.conditional:
    raise errors.ConfigError(
      "model.conditional is False and the autoencoder's True: expected True,"
      " since its decoder must be told the class of what is sampled"
    )


def own(config: contracts.Config) -> ml_collections.ConfigDict:
  """The configuration of the autoencoder that a run trains itself."""
  fields = config.vae.to_dict() | {name: config[name] for name in SHARED}
  fields["task"] = "vae"
  fields["model"]["channels"] = config.model.channels
  return ml_collections.ConfigDict(fields)


def folder(config: contracts.Config, path: pathlib.Path) -> pathlib.Path:
  """Where in a run's folder its autoencoder is."""
  return path / ("autoencoder_copy" if config.autoencoder else "autoencoder")


def check_given(config: contracts.Config) -> None:
  """Raises ConfigError where `autoencoder` names no finished run of a `vae`, or
  one that a run of this configuration cannot use."""
  path = pathlib.Path(config.autoencoder)
  finished = (path / "result.json").exists()
  if not finished or (found := workdir.read_config(path)).task != "vae":
    raise errors.ConfigError(
      f"autoencoder is {config.autoencoder!r}: expected the folder of a"
      " finished run of python -m jaxfake.main --config configs/vae.py, or ''"
      " to train one within this run"
    )
  old, new = (disk.flatten(x.data.to_dict()) for x in (found, config))
  pairs = {f"data.{k}": (old.get(k), new[k]) for k in new.keys() - {*FREE}}
  pairs["model.channels"] = found.model.channels, config.model.channels
  for field, (its, ours) in sorted(pairs.items()):
    if its != ours:
      raise errors.ConfigError(
        f"{field} is {ours!r}, and {its!r} in the run {path} that autoencoder"
        " names: expected the same, so that it knows such images and none that"
        " are held out here"
      )
  check_latents(config, found)


class Sampled(struct.PyTreeNode):
  """What sampling uses."""

  network: Any  # The averaged parameters of the diffusion model.
  autoencoder: Any  # Its parameters, which stay as they are.
  mean: jax.Array  # Of the latents of train images, by channel.
  deviation: jax.Array


def initial(
  config: contracts.Config,
  classes: Sequence[str],
  autoencoder: contracts.Config,
) -> Callable:
  """`init(key) -> State`, whose `ema` is Sampled; `starting` puts in the
  autoencoder, whose configuration is given."""
  shape = vae.latent_shape(autoencoder)
  diffusion = edm.initial_of(config, classes, shape)
  unknown = jax.eval_shape(vae.initial(autoencoder, classes), jax.random.key(0))

  def init(key) -> common.State:
    state = diffusion(key)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), unknown.ema)
    moments = jnp.zeros(shape[-1:]), jnp.ones(shape[-1:])
    return state.replace(ema=Sampled(state.ema, params, *moments))

  return init


def starting(
  config: contracts.Config, dataset: pipeline.Splits, path: pathlib.Path
) -> Callable:
  """`start(state) -> state`, with the autoencoder of a folder and the moments
  of its latents: see task.Task."""

  def start(state: common.State) -> common.State:
    autoencoder, classes, trained = common.restored(path, vae.initial)
    encode = vae.encoder(autoencoder, classes)
    _, by_batch, _ = devices.mesh_and_shardings()
    gather = devices.gather_over(by_batch, config.batch_size)
    mean, deviation = moments(encode, trained.ema, dataset.train, gather)
    return state.replace(
      ema=state.ema.replace(
        autoencoder=trained.ema, mean=mean, deviation=deviation
      )
    )

  return start


def moments(
  encode: Callable,
  params: contracts.Tree,
  images: contracts.Items,
  gather: Callable,
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation by channel, each (latents,), of draws of the latents of
  a source's images."""

  @xla.jit
  def of_images(params, batch):
    mean, log_variance = encode(params, batch["image"], batch["label"])
    square = mean**2 + jnp.exp(log_variance)
    return mean.mean((1, 2)), square.mean((1, 2))

  first, second = gather(lambda batch: of_images(params, batch), images)
  mean = first.mean(0, np.float64)
  deviation = np.sqrt(second.mean(0, np.float64) - mean**2)
  return mean.astype(np.float32), deviation.astype(np.float32)


def stepper(
  config: contracts.Config,
  classes: Sequence[str],
  autoencoder: contracts.Config,
) -> Callable:
  """`step(state, batch) -> (state, metrics)`: edm.learner's, on a draw of the
  latents of each image."""
  encode = vae.encoder(autoencoder, classes)
  learn = edm.learner(config, classes)

  def step(state: common.State, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    k_latents, k_learn = jax.random.split(key)
    now, label = state.ema, batch["label"]
    z = vae.drawn(k_latents, *encode(now.autoencoder, batch["image"], label))
    x = config.sigma_data * (z - now.mean) / now.deviation
    state, seen = learn(state.replace(ema=now.network), x, label, k_learn)
    return state.replace(ema=now.replace(network=state.ema)), seen

  return step


def sampler(
  config: contracts.Config,
  classes: Sequence[str],
  autoencoder: contracts.Config,
) -> Callable:
  """`sample(variables, seed, index, label)` -> uint8 (n, s, s, c), by
  Sampled."""
  draw = edm.flow(config, classes, vae.latent_shape(autoencoder))
  decode = vae.decoder(autoencoder, classes)

  @xla.jit
  def end(variables: Sampled, x, label):
    z = variables.mean + variables.deviation * x / config.sigma_data
    return common.to_uint8(decode(variables.autoencoder, z, label))

  def sample(variables: Sampled, seed, index, label):
    x = draw(variables.network, seed, index, label)
    return end(variables, x, label)

  return sample


def make(
  config: contracts.Config, dataset: pipeline.Splits, path: pathlib.Path
) -> Task:
  """The task of training a diffusion model on the latents of a data set's train
  images, by the autoencoder of a folder.

  `dataset` are pipeline.Splits.
  """
  of = config, dataset.classes, workdir.read_config(path)
  task = common.task(config, dataset, initial(*of), stepper(*of), sampler(*of))
  return task._replace(start=starting(config, dataset, path))


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What trains the autoencoder, where none is given, then the diffusion model;
  returns an exit code, ready to be called."""
  common.require_classes(config, splits)
  splits = common.of_class(splits, config.only_class)
  begun = (run.path / "config.json").exists()
  if config.autoencoder and not begun:
    check_given(config)
  path = folder(config, run.path)

  def train() -> int:
    if not config.autoencoder:
      if code := train_own(own(config), splits, run, path):
        return code
    elif not begun:
      processes.together(lambda: copy(config, run, path))
    return loop.train(config, make(config, splits, path), splits.train, run)

  return train


def train_own(
  autoencoder: contracts.Config,
  splits: pipeline.Splits,
  run: workdir.Workdir,
  path: pathlib.Path,
) -> int:
  """Does what is left of the run of an autoencoder inside another run; returns
  an exit code."""
  if workdir.finished(path, autoencoder.to_dict()):
    return errors.FINISHED
  progress.say(f"the autoencoder first: {path}")
  inner = run.within(path.name, autoencoder.to_dict())
  try:
    return vae.prepare(autoencoder, splits, inner)()
  finally:
    inner.close()


def copy(
  config: contracts.Config, run: workdir.Workdir, path: pathlib.Path
) -> None:
  """Copies the given autoencoder's run into this one, which is not begun: a
  copy that is there already may be half of one. Raises ConfigError where it was
  trained on another data set."""
  if not run.writer:
    return
  given = pathlib.Path(config.autoencoder)
  content = disk.read_json(given / "dataset.json")["content_sha256"]
  if content != run.dataset["content_sha256"]:
    raise errors.ConfigError(
      f"autoencoder is {config.autoencoder!r}, a run on other images or of"
      " another split: expected one on this data set, so that it knows none"
      " that are held out here"
    )
  shutil.rmtree(path, ignore_errors=True)
  shutil.copytree(given, path, ignore=shutil.ignore_patterns(disk.LOCK))


def load(path: pathlib.Path, step: int | None = None) -> common.Generator:
  """The generator of a run's folder. Raises ConfigError: see
  common.restored."""
  autoencoder = workdir.read_config(folder(workdir.read_config(path), path))
  init = lambda config, classes: initial(config, classes, autoencoder)
  config, classes, state = common.restored(path, init, step)
  draw = sampler(config, classes, autoencoder)
  return common.Generator(draw, "latent_diffusion", config, classes, state)


def describe(config: contracts.Config) -> dict[str, Any]:
  """What tells one from another."""
  return edm.describe(config) | {"autoencoder": config.autoencoder or "own"}

"""What is measured of each generator, beside the reals of a comparison."""

from collections.abc import Callable
import functools
import hashlib
import pathlib

import numpy as np

from jaxfake import contracts, errors
from jaxfake.classifiers import registry as classifiers
from jaxfake.data import matching, pipeline
from jaxfake.evaluation import pictures
from jaxfake.experiments import jobs
from jaxfake.experiments.generator_comparison import figures, plan
from jaxfake.generators import guards, registry
from jaxfake.runtime import disk, progress

SHOWN = 32  # Images of a picture's half.
HELD = plan.Run(plan.HELD, None, pathlib.Path())


class Beside:
  """The reals, and figures of generators beside them."""

  def __init__(
    self,
    config: contracts.Config,
    path: pathlib.Path,
    dataset: contracts.Dataset,
  ):
    self._config, self._path, self._dataset = config, path, dataset
    self._place = path / "classifier"
    self._spaces = figures.spaces(
      plan.spaces(config), self._place, config.inception_weights
    )

  @functools.cached_property
  def _reals(self) -> tuple[figures.Seen, figures.Seen]:
    """Train and held-out reals: read when something is left to measure."""
    splits = pipeline.splits(self._dataset, self._config.data)
    found = figures.reals(splits, self._config.images, self._spaces)
    progress.say(f"measuring {len(found[0].images)} images of each")
    return found

  @functools.cached_property
  def _classifier(self) -> classifiers.Classifier | None:
    return classifiers.load(self._place) if self._has_classifier else None

  @property
  def _has_classifier(self) -> bool:
    return "classifier" in self._spaces

  def job(self, run: plan.Run, train: Callable) -> jobs.Job:
    """Trains a generator, where it is not there already, and measures it."""
    training = None
    if run.config is not None:
      training = jobs.of_run(run.name, run.config, run.path, train)

    def work() -> int:
      if training and not training.done and (code := training.work()):
        return code
      self._measure(run)
      return 0

    ended = training is None or training.done
    return jobs.Job(run.name, ended and self._row(run) is not None, work)

  def rows(self, runs: list[plan.Run]) -> list[dict]:
    """Of held-out reals, and of each generator that is measured."""
    if (held := self._row(HELD)) is None:
      held = {"generator": plan.HELD, "figures": self._figures(self._reals[1])}
      self._keep(HELD, held)
    return [held, *filter(None, map(self._row, runs))]

  def _figures(self, images: figures.Seen, told: bool = True) -> dict:
    c = self._config
    found = figures.of_sets(self._reals[0], images, c.resamples, c.seed)
    if self._classifier and told:
      found |= figures.agreement(self._classifier, images)
    return found

  def _measure(self, run: plan.Run) -> None:
    generator = registry.load(run.path)
    self._require_same(run, generator)
    train, held = self._reals
    progress.say(f"measuring {run.name}")
    fakes = figures.fakes(generator, train, self._config.seed, self._spaces)
    told = generator.conditional and len(generator.classes) > 1
    found = self._figures(fakes, told)
    found |= figures.out_of_range(train, held, fakes)
    result = disk.read_json(run.path / "result.json")
    self._draw(run.name, fakes)
    row = {
      "generator": run.name,
      "family": result["config"]["task"],
      "step": generator.step,
      "train_seconds": result["train_seconds"],
      "figures": found,
      "guard": guards.of_run(run.path, generator),
    }
    self._keep(run, row)

  def _require_same(self, run: plan.Run, generator) -> None:
    """Raises ConfigError where a run is of other images, or of another size."""
    theirs = disk.read_json(run.path / "dataset.json")["content_sha256"]
    if theirs != self._dataset.facts["content_sha256"]:
      raise errors.ConfigError(
        f"{run.path} learnt from other images: expected those of data, split"
        " alike"
      )
    if generator.size != self._config.data.size:
      raise errors.ConfigError(
        f"{run.path} makes images of {generator.size} px: expected data.size,"
        f" {self._config.data.size}"
      )

  def _draw(self, name: str, fakes: figures.Seen) -> None:
    shown = matching.evenly(np.arange(len(fakes.images)), SHOWN)
    halves = [
      (caption, pictures.sheet(x.images[shown, ..., 0], 8))
      for caption, x in (("real", self._reals[0]), (f"fake, {name}", fakes))
    ]
    text = {"Comment": "Contains synthetic images made by jaxfake"}
    pictures.save(
      self._path / "pictures" / f"{name}.png",
      pictures.captioned(halves, 2),
      text,
    )

  def _file(self, run: plan.Run) -> pathlib.Path:
    return self._path / "measured" / f"{run.name}.json"

  def _keep(self, run: plan.Run, row: dict) -> None:
    self._file(run).parent.mkdir(exist_ok=True)
    disk.write_json(self._file(run), {"of": self._key(run), "row": row})

  def _row(self, run: plan.Run) -> dict | None:
    """What was measured of the run as it is now."""
    if not self._file(run).exists():
      return None
    before = disk.read_json(self._file(run))
    return before["row"] if before["of"] == self._key(run) else None

  def _key(self, run: plan.Run) -> dict:
    """What figures are a function of."""
    folders = [] if run == HELD else [run.path]
    folders += [self._place] * self._has_classifier
    results = [(x / "result.json").read_bytes() for x in folders]
    fields = "seed", "images", "resamples", "spaces"
    return {x: self._config[x] for x in fields} | {
      "data": self._dataset.facts["content_sha256"],
      "results": [hashlib.sha256(x).hexdigest() for x in results],
    }

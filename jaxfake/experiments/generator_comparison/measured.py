"""What is measured of each generator, beside the reals of a comparison."""

import hashlib
import pathlib

import numpy as np

from jaxfake import errors
from jaxfake.classifiers import registry as classifiers
from jaxfake.data import matching, pipeline
from jaxfake.evaluation import pictures
from jaxfake.experiments import jobs
from jaxfake.experiments.generator_comparison import figures, plan
from jaxfake.generators import guards, registry
from jaxfake.runtime import disk, progress

SHOWN = 32  # Images of a picture's half.


class Beside:
  """The reals, and figures of generators beside them."""

  def __init__(self, config, path: pathlib.Path, dataset):
    self._config, self._path, self._facts = config, path, dataset.facts
    names, place = plan.spaces(config), path / "classifier"
    self._spaces = figures.spaces(names, place)
    self._classifier = None
    if "classifier" in names:
      self._classifier = classifiers.load(place)
    splits = pipeline.splits(dataset, config.data)
    found = figures.reals(splits, config.images, self._spaces)
    self._train, self._held = found
    progress.say(f"measuring {len(found[0].images)} images of each")
    self._floor = self._figures(self._held)

  def job(self, run: plan.Run, train) -> jobs.Job:
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
    held = {"generator": plan.HELD, "figures": self._floor}
    return [held, *filter(None, map(self._row, runs))]

  def _figures(self, images: figures.Seen, told: bool = True) -> dict:
    c = self._config
    found = figures.of_sets(self._train, images, c.resamples, c.seed)
    if self._classifier and told:
      found |= figures.agreement(self._classifier, images)
    return found

  def _measure(self, run: plan.Run) -> None:
    generator = registry.load(run.path)
    self._require_same(run, generator)
    progress.say(f"measuring {run.name}")
    seed = self._config.seed
    fakes = figures.fakes(generator, self._train, seed, self._spaces)
    told = generator.conditional and len(generator.classes) > 1
    found = self._figures(fakes, told)
    found |= figures.out_of_range(self._train, self._held, fakes)
    result = disk.read_json(run.path / "result.json")
    row = {
      "generator": run.name,
      "family": result["config"]["task"],
      "step": generator.step,
      "train_seconds": result["train_seconds"],
      "figures": found,
      "guard": guards.of_run(run.path, generator),
    }
    self._draw(run.name, fakes)
    file = self._file(run)
    file.parent.mkdir(exist_ok=True)
    disk.write_json(file, {"of": self._key(run), "row": row})

  def _require_same(self, run: plan.Run, generator) -> None:
    """Raises ConfigError where a run is of other images, or of another size."""
    theirs = disk.read_json(run.path / "dataset.json")["content_sha256"]
    if theirs != self._facts["content_sha256"]:
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
      for caption, x in (("real", self._train), (f"fake, {name}", fakes))
    ]
    text = {"Comment": "Contains synthetic images made by jaxfake"}
    pictures.save(
      self._path / "pictures" / f"{name}.png",
      pictures.captioned(halves, 2),
      text,
    )

  def _file(self, run: plan.Run) -> pathlib.Path:
    return self._path / "measured" / f"{run.name}.json"

  def _row(self, run: plan.Run) -> dict | None:
    """What was measured of the run as it is now."""
    if not self._file(run).exists():
      return None
    before = disk.read_json(self._file(run))
    return before["row"] if before["of"] == self._key(run) else None

  def _key(self, run: plan.Run) -> dict:
    """What a generator's figures are a function of."""
    results = [run.path / "result.json"]
    if self._classifier:
      results.append(self._path / "classifier" / "result.json")
    fields = "seed", "images", "resamples", "spaces"
    return {x: self._config[x] for x in fields} | {
      "data": self._facts["content_sha256"],
      "results": [hashlib.sha256(x.read_bytes()).hexdigest() for x in results],
    }

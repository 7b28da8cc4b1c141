"""The whole study, a chain of ordinary runs: classifiers on the originals,
deepfakes of the same train patients, what the classifiers make of them, and
detectors that tell the two apart, tested on generators they never saw.

classifiers/NAME, generators/NAME, detectors/NAME   runs
fakes/NAME                                          folders of jaxfake.sample
audit.json                                          what could leak
report.html, report.md, pictures/                   to read
result.json                                         all figures

A finished run is not run again: the same command goes on where it stopped.
"""

from collections.abc import Callable
import pathlib

import jax

from jaxfake import contracts, data, errors, sample
from jaxfake.classifiers import classifier
from jaxfake.data import generated_writer, pipeline
from jaxfake.experiments import jobs
from jaxfake.experiments.study import configs, figures, report
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

CONFIG = "study.py"
SHOWN_SEED, DETECTORS_SEED = 0, 1  # Of sampling: other fakes, by other latents.


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no study could use."""
  if jax.process_count() > 1:
    raise errors.ConfigError("task study runs in one process")
  data.check_originals("data.name", config.data.name)
  for group, needed in (
    ("generators", configs.SOURCE),
    ("generators", config.unseen),
    ("classifiers", "cnn"),
    ("detectors", "cnn"),
  ):
    if needed not in config[group]:
      raise errors.ConfigError(
        f"{group} are {', '.join(config[group])}: expected {needed} among them"
      )
  if config.unseen == configs.SOURCE:
    raise errors.ConfigError(
      f"unseen is {config.unseen!r}: expected a generator that detectors do"
      " not learn from"
    )
  for name in config.fakes:
    if config.fakes[name] < 2:
      raise errors.ConfigError(
        f"fakes.{name} is {config.fakes[name]}: expected at least 2"
      )
  for name in configs.generators(config):
    c = configs.generator(config, name)
    configs.family(config, name).check(c)
  for name in config.classifiers:
    classifier.check(configs.classifier(config, name))
  for name in config.detectors:
    classifier.check(configs.detector(config, name, pathlib.Path()))
  pipeline.check(configs.classifier(config, "cnn").data)


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Runs what is left and writes the report; returns an exit code.

  `train(config, path)` does one run and returns its exit code: another than 0
  ends the study, to be continued by the same command.
  """
  check(config)
  path = path.absolute()  # Runs name each other's folders.
  if (path / "generators" / "trained").exists():
    raise errors.ConfigError(
      f"{path} is of an older version, where the generator `source` was called"
      " `trained`: its report can be read, but it cannot go on. Give another"
      " --workdir"
    )
  with workdir.held(config, path):
    return _run(config, path, train)


def _run(config, path, train) -> int:
  dataset = data.prepare(configs.classifier(config, "cnn").data)
  progress.say(dataset.summary())
  if len(dataset.classes) != 2:
    raise errors.DataError(
      f"classes are {', '.join(dataset.classes)}: expected two"
    )
  before = steps(config, path, train, dataset)
  detectors = [
    jobs.of_run(f"detector {name}", c, path / "detectors" / name, train)
    for name in config.detectors
    for c in [configs.detector(config, name, path)]
  ]
  total = len(before) + len(detectors)
  if code := jobs.chain(before, 0, total):
    return code
  audit = figures.audit(configs.detector(config, "cnn", path))
  disk.write_json(path / "audit.json", audit)
  shown = not audit["leaks"] or config.show_leaking
  if shown:
    if code := jobs.chain(detectors, len(before), total):
      return code
  else:
    progress.say("\nno detectors: " + "; ".join(audit["leaks"]))
  progress.say("\nscoring what has been trained")
  result = figures.result(config, path, dataset, audit, shown)
  disk.write_json(path / "result.json", result)
  progress.say(report.write(path, result))
  return 0


def steps(
  config: contracts.Config,
  path: pathlib.Path,
  train: Callable,
  dataset: contracts.Dataset,
) -> list[jobs.Job]:
  """What comes before the detectors."""
  chain = [
    jobs.of_run(
      f"classifier {name}",
      configs.classifier(config, name),
      path / "classifiers" / name,
      train,
    )
    for name in config.classifiers
  ]
  for name in configs.generators(config):
    place = path / "generators" / name
    c = configs.generator(config, name)
    chain.append(jobs.of_run(f"generator {name}", c, place, train))
    out, count = configs.fakes(path, name), config.fakes.detectors
    chain.append(sampled(place, out, count, DETECTORS_SEED))
  place = path / "generators" / configs.SOURCE
  out, count = configs.fakes(path, "classifiers"), config.fakes.classifiers
  chain.append(sampled(place, out, count, SHOWN_SEED))
  c = configs.on_fakes(
    config, path, sum(dataset.facts["counts"]["train"].values())
  )
  place = path / "classifiers" / configs.ON_FAKES
  chain.append(jobs.of_run(configs.ON_FAKES, c, place, train))
  return chain


def sampled(
  place: pathlib.Path, out: pathlib.Path, count: int, seed: int
) -> jobs.Job:
  """A folder of fakes, by the generator trained in `place`."""
  flags = {"workdir": place, "out": out, "count": count, "seed": seed}
  argv = [x for k, v in flags.items() for x in (f"--{k}", str(v))]
  # They stay in the study, and sampler.json says whether they are copies.
  args = sample.parser().parse_args([*argv, "--allow-copies"])
  done = generated_writer.finished(out, count)
  return jobs.Job(f"{count} fakes, {out.name}", done, lambda: sample.run(args))

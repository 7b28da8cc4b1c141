"""Fewer than 100 train images: the reservoir beside other frozen features.

For each size, many draws of that many train images, half of each class, no two
of one patient; each program reads the same draws through the same closed-form
ridge and is scored on all test images. So what differs is the features alone:
the reservoir's states, a linear probe on a frozen CNN (random, or trained on
the phantom by an ordinary run under runs/), HOG, pixels.

table.md, table.csv, table.html, auc.png, result.json; draws.csv has every draw.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib

import jax
import numpy as np

from jaxfake import contracts, errors
from jaxfake.classifiers import features, neural, reservoir, ridge
from jaxfake.data import patients as whose
from jaxfake.data import pipeline, work
from jaxfake.evaluation import metrics, pictures, report
from jaxfake.experiments import jobs
from jaxfake.runtime import disk, progress, provenance
from jaxfake.training import workdir

CONFIG = "few_images.py"
PROGRAMS = ("reservoir", "cnn_random", "cnn_phantom", "hog", "pixels")


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no protocol could use."""
  if "reservoir" not in names(config):
    raise errors.ConfigError(
      f"programs is {config.programs!r}: expected reservoir among them"
    )
  for name in names(config):
    errors.check_choice("programs", name, PROGRAMS)
  for n in config.sizes:
    if n < 4 or n % 2:
      raise errors.ConfigError(f"sizes has {n}: expected even numbers from 4")
  if config.resamples < 2:
    raise errors.ConfigError(
      f"resamples is {config.resamples}: expected at least 2"
    )
  if jax.process_count() > 1:
    raise errors.ConfigError("task few_images runs in one process")


def names(config: contracts.Config) -> list[str]:
  return [x for x in config.programs.split(",") if x]


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Runs the protocol; `train(config, path)` does the phantom's run."""
  check(config)
  pipeline.check(config.data)
  with workdir.begun(config, path) as (_, dataset):
    phantom = path / "runs" / "phantom"
    if "cnn_phantom" in names(config):
      job = jobs.of_run("cnn_phantom", config.phantom_run, phantom, train)
      if code := jobs.chain([job]):
        return code
    splits = pipeline.splits(dataset, config.data)
    if len(splits.classes) != 2:
      raise errors.DataError(
        f"classes are {', '.join(splits.classes)}: expected two"
      )
    draws = _draws(config, splits, phantom, path)
    progress.say(write(config, path, dataset, splits, draws))
  return 0


def draw(
  labels: np.ndarray, patients: Sequence[str], n: int, rng: np.random.Generator
) -> np.ndarray:
  """Indices of n images, half of each of two classes, of n patients.

  Raises DataError where there are not so many patients.
  """
  chosen, seen = [], set()
  left = [n // 2, n // 2]
  for i in rng.permutation(len(labels)):
    if left[labels[i]] and patients[i] not in seen:
      left[labels[i]] -= 1
      seen.add(patients[i])
      chosen.append(i)
  if any(left):
    raise errors.DataError(
      f"{n} train images of {n} patients, half of each class: there are not as"
      f" many, {sum(left)} are missing"
    )
  return np.array(chosen)


def extractors(
  config: contracts.Config,
  splits_images: tuple[np.ndarray, np.ndarray],
  phantom: pathlib.Path,
) -> dict[str, Callable]:
  """{name: extract(chosen) -> (train, test) features}, of chosen train images.

  The reservoir and the random CNN take means and variances from the chosen
  images, without their labels; what the others see of an image is always the
  same, and computed once.
  """
  train, test = splits_images

  def reservoir_states(chosen):
    machine = reservoir.Reservoir(
      size=train.shape[1], seed=config.seed, **config.reservoir.to_dict()
    )
    moments = reservoir.filter_moments(machine, train[chosen])
    of = functools.partial(reservoir.states, machine, moments)
    return of(train[chosen]), of(test)

  def random_cnn(chosen):
    variables = features.random_network("cnn", config.seed, train[chosen])
    of = functools.partial(
      features.pooled, network=features.Network("cnn", variables)
    )
    return of(train[chosen]), of(test)

  @functools.cache
  def fixed(name):
    network = None
    if name == "cnn_phantom":
      network = features.Network("cnn", neural.load(phantom)[1])
      name = "network"
    return tuple(features.features(name, x, network) for x in (train, test))

  def lookup(name, chosen):
    of_train, of_test = fixed(name)
    return of_train[chosen], of_test

  changing = {"reservoir": reservoir_states, "cnn_random": random_cnn}
  return {
    name: changing.get(name) or functools.partial(lookup, name)
    for name in names(config)
  }


def _draws(config, splits, phantom, path) -> list[dict]:
  """Scores of every program on every draw, and draws.csv of them."""
  train, labels = pipeline.arrays(splits.train).values()
  patients = splits.train.column("patient")
  test, truth = pipeline.arrays(splits.test).values()
  extract = extractors(config, (train, test), phantom)
  draws = []
  total = len(config.sizes) * config.resamples
  with work.shown("draws", total) as advance:
    for n in config.sizes:
      for resample in range(config.resamples):
        rng = np.random.default_rng([config.seed, n, resample])
        chosen = draw(labels, patients, n, rng)
        for name in extract:
          of_train, of_test = extract[name](chosen)
          read = ridge.readout(of_train, labels[chosen])
          scores = judge(truth, of_test, *read[:2])
          row = {"images": n, "draw": resample, "program": name}
          draws.append(row | scores)
        advance()
  disk.write_csv(path / "draws.csv", draws)
  return draws


def judge(
  truth: np.ndarray, x: np.ndarray, coef: np.ndarray, intercept: np.ndarray
) -> dict[str, float]:
  """AUC and balanced accuracy of a readout, of test images' features.

  Half of the train images are of each class, so the middle is at 0.
  """
  score = (x @ coef + intercept) @ [-1, 1]
  recalls = (score > 0)[truth == 1].mean(), (score <= 0)[truth == 0].mean()
  return {
    "auc": metrics.auc(truth, score),
    "balanced_accuracy": float(np.mean(recalls)),
  }


def rows(draws: list[dict]) -> list[dict]:
  """Mean and 95 % interval over draws for each size and program, and of the
  reservoir's lead over it on the same draws."""
  table = []
  for n in dict.fromkeys(x["images"] for x in draws):
    of = {
      name: [x for x in draws if (x["images"], x["program"]) == (n, name)]
      for name in dict.fromkeys(x["program"] for x in draws)
    }
    ours = np.array([x["auc"] for x in of["reservoir"]])
    for name, scores in of.items():
      row = {"images": n, "program": name, "draws": len(scores)}
      for figure in ("auc", "balanced_accuracy"):
        row |= interval(figure, [x[figure] for x in scores])
      lead = ours - [x["auc"] for x in scores]
      row |= interval("lead", lead) if name != "reservoir" else {}
      table.append(row)
  return table


def interval(
  name: str, values: Sequence[float] | np.ndarray
) -> dict[str, float]:
  low, high = np.percentile(values, [2.5, 97.5])
  return {
    f"{name}_mean": float(np.mean(values)),
    f"{name}_low": float(low),
    f"{name}_high": float(high),
  }


def formatted(row: dict) -> dict[str, str]:
  """A row as people read it."""

  def text(name, sign=""):
    if f"{name}_mean" not in row:
      return "-"
    mean, low, high = (row[f"{name}_{x}"] for x in ("mean", "low", "high"))
    return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"

  return {
    "train images": str(row["images"]),
    "program": row["program"],
    "AUC": text("auc"),
    "balanced accuracy": text("balanced_accuracy"),
    "reservoir's lead in AUC": text("lead", "+"),
  }


def write(
  config: contracts.Config,
  path: pathlib.Path,
  dataset: contracts.Dataset,
  splits: pipeline.Splits,
  draws: list[dict],
) -> str:
  """Writes the table in its forms and result.json; returns it as Markdown."""
  numbers = rows(draws)
  table = [formatted(row) for row in numbers]
  keys = dict.fromkeys(key for row in numbers for key in row)
  disk.write_csv(path / "table.csv", [dict.fromkeys(keys) | r for r in numbers])
  lines = {
    name: [
      [row[key] for row in numbers if row["program"] == name]
      for key in ("images", "auc_mean", "auc_low", "auc_high")
    ]
    for name in names(config)
  }
  plot = path / "auc.png"
  pictures.save(plot, pictures.bands(lines, "train images", "test AUC"))
  test = splits.test
  about = (
    f"{dataset.name}, {config.data.split} split, {config.data.size} px:"
    f" {len(test):,} test images of {len(set(test.column('patient'))):,}"
    f" patients; {config.resamples} draws of train images a size, half of each"
    " class, each of another patient. Means and 95 % of the draws: they say"
    " what other train images would have given, not what other test patients"
    " would. Lead: on the same draws."
  )
  if note := whose.unknown(dataset.facts):
    about += f" {note[0].upper()}{note[1:]}."
  text = report.markdown(table)
  title, parts = "Fewer than 100 images", [about, table, plot]
  (path / "table.md").write_text(report.markdown_page(title, parts, path))
  (path / "table.html").write_text(report.page(title, parts))
  result = {
    "config": config.to_dict(),
    "dataset": dataset.facts,
    "environment": provenance.environment(),
    "rows": numbers,
  }
  disk.write_json(path / "result.json", result)
  return f"{text}\n  {path}/table.html, {plot}"

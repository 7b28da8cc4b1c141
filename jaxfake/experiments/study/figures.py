"""What a study's trained programs amount to, in figures."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from jaxfake import contracts, data
from jaxfake.classifiers import registry
from jaxfake.data import pipeline, reading
from jaxfake.evaluation import metrics
from jaxfake.evaluation.verdicts import VERDICTS, verdicts
from jaxfake.experiments.study import configs, leaks
from jaxfake.runtime import disk, provenance

CONTAINERS = 200  # Files of each class whose containers are compared.
REAL_OR_FAKE = ("real", "fake")


# Images, labels, patients, ids.
Tested = tuple[np.ndarray, np.ndarray, list, list]


def test_images(config: contracts.Config) -> Tested:
  """Of a configuration's test split."""
  return of_split(data.prepare(config.data), config.data, "test")


def of_split(
  dataset: contracts.Dataset, config_data: contracts.Config, split: str
) -> Tested:
  source = pipeline.Images(dataset.source(split), config_data)
  read = pipeline.arrays(source)
  facts = source.column("patient"), source.column("id")
  return read["image"], read["label"], *facts


def audit(config: contracts.Config) -> dict:
  """leaks.audit of a detector's data, as it is scored."""
  dataset = data.prepare(config.data)
  train, test = (
    of_split(dataset, config.data, split)[:3] for split in ("train", "test")
  )
  files = [
    [reading.png(x[..., 0]) for x in test[0][test[1] == c][:CONTAINERS]]
    for c in (0, 1)
  ]
  return leaks.audit(files, train, test)


def result(
  config: contracts.Config,
  path: pathlib.Path,
  dataset: contracts.Dataset,
  audit: dict,
  shown: bool,
) -> dict:
  """result.json of a study; writes detection.csv where detectors are shown."""
  classes = dataset.classes
  fakes_data = configs.on_fakes(config, path, 0).data
  fakes_data.dir = str(configs.fakes(path, "classifiers"))
  fakes_data.split = "official"  # All in one split, train.
  fakes = of_split(data.prepare(fakes_data), fakes_data, "train")
  originals = test_images(configs.classifier(config, "cnn"))
  detection, scores = None, []
  if shown:
    detection, scores = detected(config, path)
    disk.write_csv(path / "detection.csv", scores)
  return {
    "config": config.to_dict(),
    "environment": provenance.environment(),
    "dataset": dataset.facts,
    "fakes": {c: int((fakes[1] == i).sum()) for i, c in enumerate(classes)},
    "classifiers": [
      row(path / "classifiers" / name, name, classes, originals, fakes)
      for name in config.classifiers
    ],
    "grid": [
      {"trained_on": trained_on}
      | row(path / "classifiers" / name, "cnn", classes, originals, fakes)
      for trained_on, name in (
        ("originals", "cnn"),
        ("fakes", configs.ON_FAKES),
      )
    ],
    "generators": [
      quality(path / "generators" / name, name)
      | configs.family(config, name).describe(configs.generator(config, name))
      for name in configs.generators(config)
    ],
    "audit": audit,
    "detection": detection,
  }


def row(
  place: pathlib.Path,
  name: str,
  classes: Sequence[str],
  originals: Tested,
  fakes: Tested,
) -> dict:
  """A classifier's figures on originals and on fakes, threshold included."""
  program, run = registry.load(place), disk.read_json(place / "result.json")
  cells: dict[str, Any] = {"program": name} | spent(run)
  threshold = program.threshold
  assert threshold is not None  # A study has two classes.
  for what, (images, labels, patients, _) in (
    ("originals", originals),
    ("fakes", fakes),
  ):
    cells[what] = metrics.figures(
      labels,
      program.probabilities(images),
      patients,
      classes=classes,
      threshold=threshold,
    )
  # Fakes are independent of each other: their intervals can be exact.
  called = metrics.decide(program.probabilities(fakes[0]), threshold)
  right = called == fakes[1]
  exact = {"accuracy": right}
  exact |= {f"recall/{c}": right[fakes[1] == i] for i, c in enumerate(classes)}
  for figure, hits in exact.items():
    low, high = metrics.clopper_pearson(int(hits.sum()), len(hits))
    cells["fakes"][figure] = {
      "value": float(hits.mean()),
      "low": float(low),
      "high": float(high),
      "interval": "exact binomial",
    }
  return cells


def spent(run: dict) -> dict:
  """What a run's training used."""
  counts = sum(run["dataset"]["counts"]["train"].values())
  limit = run["config"]["data"]["train_images"]
  return {
    "train_images": min(counts, limit or counts),
    "epochs": run["config"]["epochs"] if run["step"] else None,
    "train_seconds": run["train_seconds"],
  }


def quality(place: pathlib.Path, name: str) -> dict:
  """How good a generator's fakes were at its last step, beside their floors."""
  run = disk.read_json(place / "result.json")
  measured = {
    k.removeprefix("eval/"): v
    for k, v in run["metrics"].items()
    if k.startswith("eval/")
  }
  return {
    "generator": name,
    "seed": run["config"]["seed"],
    "steps": run["step"],
    "train_seconds": run["train_seconds"],
  } | measured


def detected(
  config: contracts.Config, path: pathlib.Path
) -> tuple[list[dict], list[dict]]:
  """Figures of every detector on every generator's fakes beside the originals
  of test patients, and the scores they are from."""
  rows, scores = [], []
  for made_by in configs.generators(config):
    tested = test_images(configs.detector(config, "cnn", path, made_by))
    images, labels, patients, ids = tested
    for name in config.detectors:
      place = path / "detectors" / name
      program = registry.load(place)
      threshold, uncertain = program.threshold, program.uncertain
      assert threshold is not None and uncertain is not None  # Two classes.
      p = program.probabilities(images)
      figures = metrics.figures(
        labels, p, patients, classes=REAL_OR_FAKE, threshold=threshold
      )
      said = np.array(verdicts(p[:, 1], uncertain))
      rows.append(
        {"detector": name, "fakes_by": made_by}
        | spent(disk.read_json(place / "result.json"))
        | {
          "threshold": threshold,
          "uncertain": uncertain,
          "verdicts": {
            truth: {
              verdict: int(((said == verdict) & (labels == i)).sum())
              for verdict in VERDICTS
            }
            for i, truth in enumerate(REAL_OR_FAKE)
          },
          "confusion": metrics.confusion(
            labels, metrics.decide(p, threshold), 2
          ).tolist(),
          "figures": figures,
        }
      )
      scores += [
        {
          "detector": name,
          "fakes_by": made_by,
          "id": ids[i],
          "patient": patients[i],
          "label": REAL_OR_FAKE[labels[i]],
          "p_fake": f"{p[i, 1]:.6g}",
        }
        for i in range(len(labels))
      ]
  return rows, scores

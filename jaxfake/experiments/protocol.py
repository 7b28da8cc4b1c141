"""How a detector fares on generators and hospitals that it never saw.

Every hospital, every generator, and every pair of one and the other is left out
of training and of settling thresholds, and the detector tested on them: its
figures by (source of fakes) x (source of reals). The last, where both are
unseen, are its headline. Beside them: what is left after deliveries, what each
measure does alone, and what happens when parts of the method are taken away.

cells.csv       every pair of sources, by what was left out
report.html, report.md, pictures/   to read
result.json     all figures

Traces (generators/traces) are to learn from: they are never left-out sources,
but those made of a left-out hospital's pictures are left out with it.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import pathlib
from typing import NamedTuple

import numpy as np

from jaxfake import (
  data as datasets,
)
from jaxfake import (
  errors,
  metrics,
  pictures,
  progress,
  report,
  workdir,
)
from jaxfake.classifiers import forensic
from jaxfake.data import deliveries, pipeline, work

CONFIG = "protocol.py"
UNSEEN = "both unseen"
CONDITIONS = "generator unseen", "hospital unseen", UNSEEN
LEAST = 10  # Pictures of a source that is left out.
ALONE = {"score alone": 0, "distance alone": 1}


class Fold(NamedTuple):
  """What is left out together, and by which name that goes."""

  condition: str
  out: tuple[str, ...]


class Tested(NamedTuple):
  """Pictures with what a detector says of them."""

  of: forensic.Pictures
  evidence: np.ndarray
  measures: np.ndarray  # (n, 2)
  verdicts: np.ndarray
  probability: np.ndarray


def check(config) -> None:
  """Raises ConfigError for values no protocol could use."""
  forensic.check(config)
  for field, least in (("seeds", 1), ("most", LEAST), ("most_delivered", 2)):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )


def run(config, path: pathlib.Path, train) -> int:
  """Does all of it and writes the report; returns 0."""
  del (
    train
  )  # A detector is fitted in seconds, many times: no runs of their own.
  check(config)
  folder = workdir.Workdir(path)
  folder.claim()
  try:
    dataset = datasets.prepare(config.data)
    progress.say(dataset.summary())
    folder.open(config.to_dict(), dataset.facts)
    folder.begin(0)
    splits = pipeline.splits(dataset, config.data)
    found = figures(config, splits)
    cells = found["cells"]
    workdir.write_csv(path / "cells.csv", [flat(cell) for cell in cells])
    folder.finish(0, found, {})
    result = workdir.read_json(path / "result.json")
    progress.say(write(path, result))
  finally:
    folder.close()
  return 0


def flat(cell: dict) -> dict:
  """A cell with its interval in columns."""
  auc = cell["auc"]
  rest = {k: v for k, v in cell.items() if k != "auc"}
  return rest | {"auc": auc["value"], "low": auc["low"], "high": auc["high"]}


def figures(config, splits) -> dict:
  """All figures, JSON-able."""
  found = [
    forensic.parts(forensic.examples(seeded(config, seed), splits.train))
    for seed in range(config.seeds)
  ]
  held, test = whole(config, splits)
  folds = plan(test)
  cells, tested = [], {}
  with work.shown("folds", len(folds)) as advance:
    for fold in folds:
      tested[fold] = fitted(config, found[0], held, fold.out)
      said = tested_by(tested[fold], of_fold(test, held, fold))
      cells += [
        {"condition": fold.condition} | cell for cell in pairs(fold, said)
      ]
      advance()
  return {
    "cells": cells,
    "summary": summary(cells),
    "seeds": seeds(config, found, held, test, folds),
    "deliveries": delivered(config, splits, tested),
    "methods": ablations(config, splits, found[0], held, test, folds),
  }


def seeds(config, found, held, test, folds) -> dict:
  """Mean AUC where both are unseen by the seed of the crops, and their standard
  deviation; see `auc`."""
  values = [
    float(
      np.mean(
        [
          auc(config, parts, held, of_fold(test, held, fold), fold)
          for fold in folds
          if fold.condition == UNSEEN
        ]
      )
    )
    for parts in found
  ]
  sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {"auc": values, "sd": sd}


def seeded(config, seed: int):
  config = config.copy_and_resolve_references()
  config.seed = config.seed + seed
  return config


def whole(config, splits) -> tuple[forensic.Pictures, forensic.Pictures]:
  """Numbers of whole pictures: of train and validation, and of test."""
  parts = [
    forensic.pictures(source, forensic.chosen(source, config.most))
    for source in (splits.train, splits.val, splits.test)
  ]
  return forensic.joined(parts[:2]), parts[2]


def plan(test: forensic.Pictures) -> list[Fold]:
  """Which sources are left out together."""
  hospitals, generators = sources(test)
  if len(hospitals) < 2 or len(generators) < 1:
    raise errors.DataError(
      f"hospitals: {', '.join(hospitals) or 'none'}; generators:"
      f" {', '.join(generators) or 'none'}: expected two of the first"
      f" and one of the second at least, each with {LEAST} test pictures of 96"
      " px or more, beside traces"
    )
  return [
    *(Fold(CONDITIONS[0], (g,)) for g in generators),
    *(Fold(CONDITIONS[1], (h,)) for h in hospitals),
    *(Fold(UNSEEN, x) for x in itertools.product(generators, hospitals)),
  ]


def sources(test: forensic.Pictures) -> tuple[list[str], list[str]]:
  """Hospitals and generators large enough to be left out."""

  def of(label):
    names, counts = np.unique(
      test.sources[test.labels == label], return_counts=True
    )
    return [
      str(name)
      for name, n in zip(names, counts, strict=True)
      if n >= LEAST and not (label and forensic.is_trace(name))
    ]

  return of(0), of(1)


def fitted(config, found, held, out: Sequence[str]) -> forensic.Detector:
  """The detector without some sources."""
  used = held[forensic.kept(held, out)]
  model = forensic.fit(config, found, out)
  measures = forensic.left_out(config, found, used, out)
  return forensic.Detector(model, forensic.rule(config, measures, used))


def of_fold(test, held, fold: Fold) -> forensic.Pictures:
  """What a fold is tested on: left-out sources whole, of the others the test
  patients; no traces."""
  every = forensic.joined([test, held])
  is_test = np.arange(len(every.labels)) < len(test.labels)
  trace = np.array([forensic.is_trace(name) for name in every.sources])
  return every[(is_test | np.isin(every.sources, fold.out)) & ~trace]


def tested_by(detector, of: forensic.Pictures) -> Tested:
  measures = detector.model.measures(of.numbers)
  evidence = detector.rule.evidence(measures)
  compressed = detector.model.measures(of.compressed)
  both = zip(measures, compressed, strict=True)
  verdicts = np.array([detector.rule.verdict(*x)[0] for x in both])
  p = detector.rule.probability(evidence)
  return Tested(of, evidence, measures, verdicts, p)


def pairs(fold: Fold, said: Tested) -> list[dict]:
  """The cells of a fold: fakes of one source against reals of one."""
  hospitals, generators = sources(said.of)
  if fold.condition != CONDITIONS[0]:
    hospitals = [name for name in hospitals if name in fold.out]
  if fold.condition != CONDITIONS[1]:
    generators = [name for name in generators if name in fold.out]
  return [
    cell(said, fakes, reals)
    for fakes, reals in itertools.product(generators, hospitals)
  ]


def cell(said: Tested, fakes: str, reals: str) -> dict:
  """Figures of one pair of sources."""
  of = said.of
  fake, real = of.sources == fakes, of.sources == reals
  both = fake | real
  # Ranks, so that no rounding of probabilities makes ties.
  rank = np.argsort(np.argsort(said.evidence[both], kind="stable"))
  p = (rank + 1) / (both.sum() + 1)
  auc = metrics.figures(
    of.labels[both],
    np.stack([1 - p, p], 1),
    of.patients[both],
    classes=forensic.CLASSES,
    resamples=200,
  )["auc"]
  called = lambda which, verdict: float(
    (said.verdicts[which] == verdict).mean()
  )
  alone = {
    name: metrics.auc(of.labels[both], said.measures[both, k])
    for name, k in ALONE.items()
  }
  return {
    "fakes": fakes,
    "reals": reals,
    "images_fake": int(fake.sum()),
    "images_real": int(real.sum()),
    "auc": {k: auc[k] for k in ("value", "low", "high")},
    "fakes_called_fake": called(fake, "fake"),
    "fakes_called_real": called(fake, "real"),
    "reals_called_fake": called(real, "fake"),
    "reals_called_real": called(real, "real"),
  } | alone


def summary(cells: list[dict]) -> list[dict]:
  """By condition: means over cells, and the worst cell."""
  found = []
  for condition in CONDITIONS:
    those = [c for c in cells if c["condition"] == condition]
    aucs = np.array([c["auc"]["value"] for c in those])
    worst = those[int(aucs.argmin())]
    found.append(
      {
        "condition": condition,
        "cells": len(those),
        "auc": float(aucs.mean()),
        "worst": float(aucs.min()),
        "worst_cell": f"{worst['fakes']} against {worst['reals']}",
      }
      | rates(those)
      | {name: float(np.mean([c[name] for c in those])) for name in ALONE}
    )
  return found


def delivered(config, splits, detectors: dict[Fold, forensic.Detector]):
  """What is left where both are unseen, after each delivery."""
  unseen = {
    fold: d for fold, d in detectors.items() if fold.condition == UNSEEN
  }
  names = {name for fold in unseen for name in fold.out}
  places = []
  for source in (splits.test, splits.val, splits.train):
    of = source.column("source")
    chosen = forensic.chosen(source, config.most_delivered)
    places.append((source, [i for i in chosen if of[i] in names]))
  found = []
  for name, deliver in deliveries.DELIVERIES.items():
    progress.say(f"delivered: {name}")
    parts = [forensic.pictures(*place, deliver) for place in places]
    of = capped(forensic.joined(parts), config.most_delivered)
    cells = []
    for fold, detector in unseen.items():
      mine = of[np.isin(of.sources, fold.out)]
      if len(set(mine.labels)) == 2:
        cells.append(cell(tested_by(detector, mine), *fold.out))
    if not cells:  # All were too small then.
      found.append({"delivery": name, "pictures": len(of.labels), "auc": None})
      continue
    aucs = [c["auc"]["value"] for c in cells]
    found.append(
      {
        "delivery": name,
        "pictures": len(of.labels),
        "auc": float(np.mean(aucs)),
        "worst": min(aucs),
      }
      | rates(cells)
    )
  return found


def capped(of: forensic.Pictures, most: int) -> forensic.Pictures:
  """The first `most` of each source."""
  seen, kept = {}, []
  for i, name in enumerate(of.sources):
    seen[name] = seen.get(name, 0) + 1
    if seen[name] <= most:
      kept.append(i)
  return of[np.array(kept, int)]


def ablations(config, splits, found, held, test, folds) -> list[dict]:
  """AUC where both are unseen, with parts of the method taken away or added."""
  unseen = [fold for fold in folds if fold.condition == UNSEEN]
  flat = config.copy_and_resolve_references()
  flat.picture_scatter = 1e-9
  behind = config.copy_and_resolve_references()
  behind.delivered = 0 if config.delivered else config.each
  word = "without" if config.delivered else "with"
  delivered = forensic.parts(forensic.examples(behind, splits.train))
  n = forensic.spectral.FREQUENCIES
  every = np.arange(forensic.spectral.NUMBERS)
  numbers = {
    "the spectra's means": every[n:],
    "the spectra's deviations": np.r_[every[:n], every[2 * n :]],
    "the grid": every[: 2 * n],
  }
  cases = {
    "as it is": (config, found, every),
    "without the scatter of pictures": (flat, found, every),
    f"{word} deliveries in training": (config, delivered, every),
  } | {
    f"without {name}": (config, found, which) for name, which in numbers.items()
  }
  traces = {key.source for key in found if forensic.is_trace(key.source)}
  if len(sources(test)[1]) > 1:  # Else no fakes would be left.
    plain = {k: x for k, x in found.items() if k.source not in traces}
    cases["without aligned fakes"] = config, plain, every
  rows = []
  for name, (c, parts, which) in cases.items():
    of_numbers = {key: x.of_numbers(which) for key, x in parts.items()}
    of_held, of_test = (only(x, which) for x in (held, test))
    aucs = [
      auc(c, of_numbers, of_held, of_fold(of_test, of_held, fold), fold)
      for fold in unseen
    ]
    rows.append(
      {"method": name, "auc": float(np.mean(aucs)), "worst": min(aucs)}
    )
    progress.say(
      f"{name}: mean AUC {rows[-1]['auc']:.3f}, worst {rows[-1]['worst']:.3f}"
    )
  return rows


def auc(config, found, held, of: forensic.Pictures, fold: Fold) -> float:
  """AUC of a fold's two sources. Nothing is settled, for which all sources
  would have to be left out in turn: units are those of held-out reals."""
  model = forensic.fit(config, found, fold.out)
  those = held[forensic.kept(held, fold.out) & (held.labels == 0)]
  weight = np.ones(len(those.labels))
  units = forensic.units(model.measures(those.numbers), weight)
  of = of[np.isin(of.sources, fold.out)]
  evidence = forensic.in_units(model.measures(of.numbers), *units)
  return metrics.auc(of.labels, evidence)


def only(of: forensic.Pictures, which: np.ndarray) -> forensic.Pictures:
  """Pictures with some of their numbers."""
  numbers, compressed = of.numbers[:, which], of.compressed[:, which]
  return dataclasses.replace(of, numbers=numbers, compressed=compressed)


RATES = {
  "fakes_called_fake": "fakes called fake",
  "fakes_called_real": "fakes called real",
  "reals_called_fake": "reals called fake",
  "reals_called_real": "reals called real",
}


def rates(cells: list[dict]) -> dict[str, float]:
  """Means over cells."""
  return {name: float(np.mean([c[name] for c in cells])) for name in RATES}


def write(path: pathlib.Path, result: dict) -> str:
  """Writes report.html, report.md and pictures/; returns the gist as text."""
  parts = [
    "Every hospital, every generator and every pair of them was left out of"
    " training and of settling thresholds, and the detector tested on them."
    " Means are over pairs of a source of fakes and a source of reals; what is"
    " called neither real nor fake is uncertain. AUC's intervals are 95 %, over"
    " patients.",
    report.Heading("Summary"),
    gist(result),
    of_seeds(result),
    report.Heading("Generator and hospital unseen, pair by pair"),
    matrix(path, result),
    pair_rows(result),
    report.Heading("After deliveries, generator and hospital unseen"),
    [after(row) for row in result["deliveries"]],
    report.Heading("The method changed, generator and hospital unseen"),
    method_rows(result),
    report.Heading("Where this comes from"),
    report.origin([result]) + ".",
  ]
  title = "A detector on generators and hospitals that it never saw"
  (path / "report.html").write_text(report.page(title, parts))
  (path / "report.md").write_text(report.markdown_page(title, parts, path))
  text = report.markdown(gist(result))
  return f"\n{text}\n  {path}/report.html, {path}/result.json"


def gist(result: dict) -> list[dict[str, str]]:
  """The summary's rows."""
  return [
    {"left out": row["condition"], "pairs": str(row["cells"])}
    | {"mean AUC": f"{row['auc']:.3f}", "worst": f"{row['worst']:.3f}"}
    | {"worst pair": row["worst_cell"]}
    | percents(row)
    | {name: f"{row[name]:.3f}" for name in ALONE}
    for row in result["summary"]
  ]


def of_seeds(result: dict) -> str:
  """How far the seed of the crops moves the mean, as a sentence."""
  values = ", ".join(f"{x:.3f}" for x in result["seeds"]["auc"])
  sd = result["seeds"]["sd"]
  spread = f"; standard deviation {sd:.4f}" if sd is not None else ""
  return (
    "Both unseen, mean AUC by seed of the crops, in units of held-out reals of"
    f" the training sources: {values}{spread}."
  )


def method_rows(result: dict) -> list[dict[str, str]]:
  """The method as it is and changed."""
  return [
    {
      "method": row["method"],
      "mean AUC": f"{row['auc']:.3f}",
      "worst": f"{row['worst']:.3f}",
    }
    for row in result["methods"]
  ]


def after(row: dict) -> dict[str, str]:
  """A delivery's row of the page."""
  told = {"delivery": row["delivery"], "pictures": str(row["pictures"])}
  if row["auc"] is None:
    names = "mean AUC", "worst", *RATES.values()
    return told | dict.fromkeys(names, "-")
  told |= {"mean AUC": f"{row['auc']:.3f}", "worst": f"{row['worst']:.3f}"}
  return told | percents(row)


def percents(row: dict) -> dict[str, str]:
  return {title: f"{100 * row[name]:.0f}%" for name, title in RATES.items()}


def unseen(result: dict) -> list[dict]:
  """The cells where both are unseen."""
  return [c for c in result["cells"] if c["condition"] == UNSEEN]


def matrix(path: pathlib.Path, result: dict) -> pathlib.Path:
  """The pairs as a picture."""
  cells = unseen(result)
  fakes, reals = (
    sorted({c[name] for c in cells}) for name in ("fakes", "reals")
  )
  values = np.full((len(fakes), len(reals)), np.nan)
  for c in cells:
    values[fakes.index(c["fakes"]), reals.index(c["reals"])] = c["auc"]["value"]
  picture = path / "pictures" / "unseen.png"
  pictures.save(picture, pictures.matrix(values, fakes, reals, "AUC"))
  return picture


def pair_rows(result: dict) -> list[dict[str, str]]:
  """The same as a table."""
  return [
    {
      "fakes": f"{c['fakes']} ({c['images_fake']})",
      "reals": f"{c['reals']} ({c['images_real']})",
      "AUC": f"{c['auc']['value']:.3f} ({c['auc']['low']:.3f} to"
      f" {c['auc']['high']:.3f})",
    }
    | percents(c)
    for c in unseen(result)
  ]

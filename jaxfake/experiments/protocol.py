"""How a detector fares on generators and hospitals that it never saw.

Every hospital, every generator, and every pair of one and the other is left out
of training and of settling thresholds, and the detector tested on them: its
figures by (source of fakes) x (source of reals). The last, where both are
unseen, are its headline. Beside them: what is left after deliveries, what each
measure does alone, and what happens when parts of the method are taken away.

cells.csv       every pair of sources, by what was left out
report.html, report.md, pictures/   to read
result.json     all figures
folds/, deliveries/, methods/   what is done so far: not done again by the same
                command after an interruption

Traces (generators/traces) are to learn from: they are never left-out sources,
but those made of a left-out hospital's pictures are left out with it.
"""

from collections.abc import Callable, Sequence
import functools
import itertools
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from jaxfake import contracts, errors
from jaxfake.classifiers import forensic, peers, spectral
from jaxfake.data import deliveries, pipeline, work
from jaxfake.evaluation import metrics, pictures, report
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

CONFIG = "protocol.py"
UNSEEN = "both unseen"
CONDITIONS = "generator unseen", "hospital unseen", UNSEEN
LEAST = 10  # Pictures of a source that is left out.
ALONE = {"score alone": 0, "distance alone": 1}


class Fold(NamedTuple):
  """What is left out together, and by which name that goes."""

  condition: str
  out: tuple[str, ...]


class Method(NamedTuple):
  """The detector, changed: what it is fitted by and to, what its members see,
  and which of `ALONE` it is, if any."""

  config: object
  moments: Callable[[], forensic.Parts]
  views: forensic.Views = forensic.VIEWS
  alone: int | None = None


class Tested(NamedTuple):
  """Pictures with what a detector says of them."""

  of: forensic.Pictures
  evidence: np.ndarray
  scaled: np.ndarray  # (n, 2), score and distance.
  verdicts: np.ndarray
  probability: np.ndarray


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no protocol could use."""
  forensic.check(config)
  for field, least in (
    ("seeds", 1),
    ("most", LEAST),
    ("most_delivered", 2),
    ("peer_steps", 0),
  ):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Does all of it and writes the report; returns 0."""
  # A detector is fitted in seconds, many times: no runs of their own.
  del train
  check(config)
  with workdir.begun(config, path) as (folder, dataset):
    splits = pipeline.splits(dataset, config.data)
    outcome = figures(config, splits, path)
    table = [flat(cell) for cell in outcome["cells"]]
    disk.write_csv(path / "cells.csv", table)
    folder.finish(0, outcome, {})
    result = disk.read_json(path / "result.json")
    progress.say(write(path, result))
  return 0


def flat(cell: dict) -> dict:
  """A cell with its interval in columns."""
  auc = cell["auc"]
  rest = {k: v for k, v in cell.items() if k != "auc"}
  return rest | {"auc": auc["value"], "low": auc["low"], "high": auc["high"]}


def figures(
  config: contracts.Config, splits: pipeline.Splits, path: pathlib.Path
) -> dict:
  """All figures, JSON-able; `path` is the run's folder."""
  moments = [
    forensic.parts(forensic.examples(seeded(config, seed), splits.train))
    for seed in range(config.seeds)
  ]
  first = moments[0]
  held, test = whole(config, splits)
  folds = plan(test)
  done = [
    path / "folds" / fold.condition / ", ".join(fold.out) for fold in folds
  ]
  with work.shown("folds", len(folds)) as advance:
    for fold, place in zip(folds, done, strict=True):
      of_one = functools.partial(one, config, first, held, test, fold, place)
      once(place / "result.json", of_one)
      advance()
  detectors = dict(zip(folds, map(forensic.load, done), strict=True))
  cells = [
    {"condition": fold.condition} | cell
    for fold, place in zip(folds, done, strict=True)
    for cell in disk.read_json(place / "result.json")["cells"]
  ]
  return {
    "cells": cells,
    "summary": summary(cells),
    "seeds": seeds(config, moments, held, test, folds),
    "deliveries": delivered(config, splits, detectors, path / "deliveries"),
    "methods": [
      *ablations(config, splits, first, held, test, folds, path / "methods"),
      *peer_rows(config, splits, held, test, folds, path / "methods"),
    ],
  }


def once(path: pathlib.Path, make: Callable[[], object]) -> Any:
  """What a JSON file holds; where there is none, what `make` gives, kept
  there."""
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write_json(path, make())
  return disk.read_json(path)


def one(
  config: contracts.Config,
  moments: forensic.Parts,
  held: forensic.Pictures,
  test: forensic.Pictures,
  fold: Fold,
  place: pathlib.Path,
) -> dict:
  """What `place`/result.json says of a fold; the model goes beside it."""
  detector = fitted(config, moments, held, fold.out)
  forensic.save(detector.model, place / forensic.MODEL)
  said = tested_by(detector, of_fold(test, held, fold))
  return {"calibration": detector.rule.facts(), "cells": pairs(fold, said)}


def seeds(
  config: contracts.Config,
  moments: Sequence[forensic.Parts],
  held: forensic.Pictures,
  test: forensic.Pictures,
  folds: Sequence[Fold],
) -> dict:
  """Mean AUC where both are unseen by the seed of the crops, and their standard
  deviation; see `auc`."""
  unseen = [fold for fold in folds if fold.condition == UNSEEN]
  methods = [Method(config, lambda x=x: x) for x in moments]
  values = [float(np.mean(aucs(x, held, test, unseen))) for x in methods]
  sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {"auc": values, "sd": sd}


def seeded(config: contracts.Config, seed: int) -> contracts.Config:
  config = config.copy_and_resolve_references()
  config.seed = config.seed + seed
  return config


def whole(
  config: contracts.Config, splits: pipeline.Splits
) -> tuple[forensic.Pictures, forensic.Pictures]:
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


def fitted(
  config: contracts.Config,
  moments: forensic.Parts,
  held: forensic.Pictures,
  out: Sequence[str],
) -> forensic.Detector:
  """The detector without some sources."""
  used = held[forensic.kept(held, out)]
  model = forensic.fit(config, moments, out)
  measures = forensic.left_out(config, moments, used, out)
  return forensic.Detector(model, forensic.rule(config, measures, used))


def of_fold(
  test: forensic.Pictures, held: forensic.Pictures, fold: Fold
) -> forensic.Pictures:
  """What a fold is tested on: left-out sources whole, of the others the test
  patients; no traces."""
  every = forensic.joined([test, held])
  is_test = np.arange(len(every.labels)) < len(test.labels)
  trace = np.array([forensic.is_trace(name) for name in every.sources])
  return every[(is_test | np.isin(every.sources, fold.out)) & ~trace]


def tested_by(detector: forensic.Detector, of: forensic.Pictures) -> Tested:
  measures = detector.model.measures(of.numbers)
  scaled = detector.rule.scaled(measures)
  evidence = forensic.evidence_of(scaled)
  compressed = detector.model.measures(of.compressed)
  both = zip(measures, compressed, strict=True)
  verdicts = np.array([detector.rule.verdict(*x)[0] for x in both])
  p = detector.rule.probability(evidence)
  return Tested(of, evidence, scaled, verdicts, p)


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
    name: metrics.auc(of.labels[both], said.scaled[both, k])
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
  rows = []
  for condition in CONDITIONS:
    those = [c for c in cells if c["condition"] == condition]
    aucs = np.array([c["auc"]["value"] for c in those])
    worst = those[int(aucs.argmin())]
    rows.append(
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
  return rows


def delivered(
  config: contracts.Config,
  splits: pipeline.Splits,
  detectors: dict[Fold, forensic.Detector],
  path: pathlib.Path,
) -> list[dict]:
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

  def after_one(name, deliver) -> dict:
    progress.say(f"delivered: {name}")
    parts = [
      forensic.pictures(source, those, deliver) for source, those in places
    ]
    of = capped(forensic.joined(parts), config.most_delivered)
    cells = []
    for fold, detector in unseen.items():
      mine = of[np.isin(of.sources, fold.out)]
      if len(set(mine.labels)) == 2:
        cells.append(cell(tested_by(detector, mine), *fold.out))
    row = {"delivery": name, "pictures": len(of.labels)}
    if not cells:  # All were too small then.
      return row | {"auc": None}
    aucs = [c["auc"]["value"] for c in cells]
    return (
      row | {"auc": float(np.mean(aucs)), "worst": min(aucs)} | rates(cells)
    )

  return [
    once(file_of(path, name), functools.partial(after_one, name, deliver))
    for name, deliver in deliveries.DELIVERIES.items()
  ]


def file_of(path: pathlib.Path, name: str) -> pathlib.Path:
  """A JSON file's path in a folder, by the name of what it tells of."""
  return path / (re.sub(r"[^\w.]+", "_", name) + ".json")


def capped(of: forensic.Pictures, most: int) -> forensic.Pictures:
  """The first `most` of each source."""
  seen, kept = {}, []
  for i, name in enumerate(of.sources):
    seen[name] = seen.get(name, 0) + 1
    if seen[name] <= most:
      kept.append(i)
  return of[np.array(kept, int)]


def ablations(
  config: contracts.Config,
  splits: pipeline.Splits,
  moments: forensic.Parts,
  held: forensic.Pictures,
  test: forensic.Pictures,
  folds: Sequence[Fold],
  path: pathlib.Path,
) -> list[dict]:
  """AUC where both are unseen, with parts of the method taken away or added."""
  unseen = [fold for fold in folds if fold.condition == UNSEEN]
  generators = len(sources(test)[1])

  def row(name, method: Method) -> dict:
    return method_row(name, aucs(method, held, test, unseen))

  return [
    once(file_of(path, name), functools.partial(row, name, method))
    for name, method in methods(config, splits, moments, generators).items()
  ]


def method_row(name: str, aucs: Sequence[float]) -> dict:
  row = {"method": name, "auc": float(np.mean(aucs)), "worst": min(aucs)}
  progress.say(f"{name}: mean AUC {row['auc']:.3f}, worst {row['worst']:.3f}")
  return row


def methods(
  config: contracts.Config,
  splits: pipeline.Splits,
  moments: forensic.Parts,
  generators: int,
) -> dict[str, Method]:
  """By name: the method as it is, and changed."""
  as_it_is = Method(config, lambda: moments)
  flat = config.copy_and_resolve_references()
  flat.picture_scatter = 1e-9
  behind = config.copy_and_resolve_references()
  behind.delivered = 0 if config.delivered else config.each
  word = "without" if config.delivered else "with"
  delivered = lambda: forensic.parts(forensic.examples(behind, splits.train))
  every = np.arange(spectral.NUMBERS)
  spectra, grid = np.split(every, [spectral.FREQUENCIES])
  radial = spectral.radial()
  views = {f"the {name} view alone": [x] for name, x in forensic.VIEWS.items()}
  views |= {
    "without the spectra": [grid],
    "without the grid": [spectra, radial],
    "with the grid once more": [*forensic.VIEWS.values(), grid],
    "radial spectrum": [radial],
  }
  of = {
    "as it is": as_it_is,
    "without the scatter of pictures": as_it_is._replace(config=flat),
    f"{word} deliveries in training": Method(behind, delivered),
  } | {
    name: as_it_is._replace(views=dict(enumerate(those)))
    for name, those in views.items()
  }
  others = {k: x for k, x in moments.items() if not is_trace(k)}
  if any(map(is_trace, moments)):
    if generators > 1:  # Else no fakes would be left.
      of["without aligned fakes"] = as_it_is._replace(moments=lambda: others)
    shared = config.copy_and_resolve_references()
    shared.unaligned = 0.5
    of["aligned fakes half of the weight"] = as_it_is._replace(config=shared)
  distance = ALONE["distance alone"]
  of["distance, of reals alone"] = as_it_is._replace(alone=distance)
  of["radial spectrum's distance, of reals alone"] = as_it_is._replace(
    alone=distance, views={"radial": radial}
  )
  return of


def is_trace(key: forensic.Part) -> bool:
  return forensic.is_trace(key.source)


def aucs(
  method: Method,
  held: forensic.Pictures,
  test: forensic.Pictures,
  folds: Sequence[Fold],
) -> list[float]:
  """AUC of each fold's two sources. Nothing is settled, for which all sources
  would have to be left out in turn: units are those of held-out reals."""
  moments = method.moments()
  return [auc(method, moments, held, test, fold) for fold in folds]


def auc(
  method: Method,
  moments: forensic.Parts,
  held: forensic.Pictures,
  test: forensic.Pictures,
  fold: Fold,
) -> float:
  model = forensic.fit(method.config, moments, fold.out, method.views)
  of = of_fold(test, held, fold)
  of = of[np.isin(of.sources, fold.out)]
  those = held[forensic.kept(held, fold.out) & (held.labels == 0)]
  weight = np.ones(len(those.labels))
  units = forensic.units(model.measures(those.numbers), weight)
  scaled = forensic.in_units(model.measures(of.numbers), *units)
  if method.alone is not None:
    return metrics.auc(of.labels, scaled[:, method.alone])
  return metrics.auc(of.labels, forensic.evidence_of(scaled))


def peer_rows(
  config: contracts.Config,
  splits: pipeline.Splits,
  held: forensic.Pictures,
  test: forensic.Pictures,
  folds: Sequence[Fold],
  path: pathlib.Path,
) -> list[dict]:
  """AUC where both are unseen of detectors of other kinds (classifiers/peers).

  They take minutes to train. So they learn from aligned fakes alone, once for
  every hospital that is left out: no generator is known to them.
  """
  if not config.peer_steps:
    return []
  unseen = [fold for fold in folds if fold.condition == UNSEEN]
  hospitals = sorted({fold.out[1] for fold in unseen})
  place = {
    id: (source, i)
    for source in (splits.train, splits.val, splits.test)
    for i, id in enumerate(source.column("id"))
  }
  generators = sources(test)[1]
  of_folds = {}
  for hospital in hospitals:
    fold = Fold(UNSEEN, (*generators, hospital))
    of = of_fold(test, held, fold)
    of_folds[hospital] = of[np.isin(of.sources, fold.out)]
  drawn = functools.cache(lambda: peers.drawn(config, splits.train))

  def without(name, hospital) -> list[float]:
    crops = drawn()
    traces = np.array([forensic.is_trace(x) for x in crops.sources])
    learnt = forensic.kept(crops, [hospital]) & (traces | (crops.labels == 0))
    score = peers.fitted(name, crops[learnt], config.peer_steps, config.seed)
    of = of_folds[hospital]
    images = []
    for id in of.ids:
      source, i = place[id]
      images.append(peers.over(source[i]["image"][..., 0]))
    scores = peers.of_pictures(score, images)
    which = [
      np.isin(of.sources, fold.out)
      for fold in unseen
      if fold.out[1] == hospital
    ]
    return [metrics.auc(of.labels[k], scores[k]) for k in which]

  rows = []
  for name in peers.PEERS:
    aucs = []
    for hospital in hospitals:
      progress.say(f"{name}, without {hospital}")
      file = file_of(path, name).with_suffix("") / f"{hospital}.json"
      aucs += once(file, functools.partial(without, name, hospital))
    rows.append(method_row(name, aucs))
  return rows


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
  shown = {"delivery": row["delivery"], "pictures": str(row["pictures"])}
  if row["auc"] is None:
    names = "mean AUC", "worst", *RATES.values()
    return shown | dict.fromkeys(names, "-")
  shown |= {"mean AUC": f"{row['auc']:.3f}", "worst": f"{row['worst']:.3f}"}
  return shown | percents(row)


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

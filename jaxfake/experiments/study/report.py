"""A study's figures as a page to read: report.html and report.md."""

from collections.abc import Sequence
import pathlib

import numpy as np

from jaxfake import configuration, data
from jaxfake.data import patients, pipeline
from jaxfake.evaluation import metrics, pictures, report
from jaxfake.experiments.study import configs
from jaxfake.runtime import disk, progress

SHEET = 12  # Images of a class, real or fake, on the page.


def write(path: pathlib.Path, result: dict) -> str:
  """Writes report.html, report.md and pictures/; returns the gist as text."""
  parts = [
    *about(result),
    *drop(path, result),
    *grid(result),
    *deepfakes(path, result),
    *detection(path, result),
    *audit(result),
    *provenance(result),
  ]
  title = "Chest X-ray deepfakes: a study"
  (path / "report.html").write_text(report.page(title, parts))
  (path / "report.md").write_text(report.markdown_page(title, parts, path))
  tables = [report.markdown(part) for part in parts if isinstance(part, list)]
  shown = "\n\n".join(tables[: 4 if result["detection"] else 3])
  return f"\n{shown}\n  {path}/report.html, {path}/result.json"


def percent(figure: dict) -> str:
  """ "95.9% (94.7 to 97.0)"."""
  if figure["value"] is None:
    return "-"
  value, low, high = (100 * figure[k] for k in ("value", "low", "high"))
  return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def number(figure: dict) -> str:
  if figure["value"] is None:
    return "-"
  value, low, high = (figure[k] for k in ("value", "low", "high"))
  return f"{value:.3f} ({low:.3f} to {high:.3f})"


def budget(row: dict) -> str:
  epochs = "" if row["epochs"] is None else f" x {row['epochs']:g} epochs"
  return f"{row['train_images']:,} images{epochs}"


def about(result: dict) -> list:
  dataset = result["dataset"]
  counts = ", ".join(
    f"{split} {sum(n.values()):,} images of {dataset['patients'][split]:,}"
    " patients"
    for split, n in dataset["counts"].items()
  )
  # Split by patient, as far as patients are known.
  seen = "images" if patients.unknown(dataset) else "patients"
  size = result["config"]["data"]["size"]
  return [
    f"{dataset['name']} at {size} px, one split for everything: {counts};"
    f" {patients.overlap(dataset)}. Generators saw train {seen} only."
    " Intervals are 95 %: over patients where there are several images of one,"
    " exact where images are independent. Thresholds come from validation.",
  ]


def drop(path: pathlib.Path, result: dict) -> list:
  classes = result["dataset"]["classes"]
  count = sum(result["fakes"].values())
  figures = {"accuracy": "accuracy"} | {f"recall/{c}": c for c in classes}
  table = [
    {"classifier": row["program"]}
    | {
      f"{title}, {what}": percent(row[what][figure])
      for figure, title in figures.items()
      for what in ("originals", "fakes")
    }
    | {"budget": budget(row)}
    for row in result["classifiers"]
  ]
  points = {
    what: [
      (
        row["program"],
        *(100 * row[what]["accuracy"][k] for k in ("value", "low", "high")),
      )
      for row in result["classifiers"]
    ]
    for what in ("originals", "fakes")
  }
  picture = path / "pictures" / "drop.png"
  pictures.save(picture, pictures.intervals(points, "accuracy (%)"))
  spread = metrics.clopper_pearson(count / 2, count)
  return [
    report.Heading("Classifiers of findings, on originals and on deepfakes"),
    f"Trained on originals, tested on originals of test patients and on"
    f" {count} deepfakes, half of each class. What a deepfake shows is what its"
    " generator was told to draw; it may not have obeyed. A coin would be right"
    f" on {100 * spread[0]:.1f} to {100 * spread[1]:.1f} % of them.",
    table,
    picture,
  ]


def grid(result: dict) -> list:
  table = [
    {
      "cnn trained on": row["trained_on"],
      "tested on originals": percent(row["originals"]["balanced_accuracy"]),
      "AUC": number(row["originals"]["auc"]),
      "tested on deepfakes": percent(row["fakes"]["balanced_accuracy"]),
      "AUC ": number(row["fakes"]["auc"]),
    }
    for row in result["grid"]
  ]
  return [
    report.Heading("Trained on either, tested on either"),
    "Balanced accuracy, since the classes' shares differ. A generator that"
    " obeyed and drew what originals look like would give four equal cells.",
    table,
  ]


def deepfakes(path: pathlib.Path, result: dict) -> list:
  def beside(row, name, form):
    if name not in row:  # Of a family that is judged otherwise.
      return "-"
    return f"{row[name]:{form}} ({report.floor(row, name):{form}})"

  config = configuration.of(result["config"])
  families = {
    row["generator"]: configs.family(config, row["generator"])
    for row in result["generators"]
  }
  described = {
    name: family.describe(configs.generator(config, name))
    for name, family in families.items()
  }
  columns = dict.fromkeys(x for row in described.values() for x in row)
  table = [
    {"generator": row["generator"]}
    | {name: str(row.get(name, "-")) for name in columns}
    | {
      "seed": str(row["seed"]),
      "steps": f"{row['steps']:,}",
      "Fréchet": beside(row, "frechet_random_filters", ".1f"),
      "kernel": beside(row, "kernel_random_filters", ".3f"),
      "spectrum (dB)": beside(row, "spectrum_gap_db", ".2f"),
      "nearest train": beside(row, "nearest_train_rms", ".1f"),
      "training": progress.duration(row["train_seconds"]),
    }
    for row in result["generators"]
  ]
  picture = path / "pictures" / "real-and-fake.png"
  pictures.save(picture, side_by_side(path, result))
  return [
    report.Heading("The deepfakes"),
    "Distances to train images over random filters (not the Inception FID), and"
    " in brackets those of as many held-out originals: as near as anything"
    " could come. Nearest train: how far the nearest train image is, in gray"
    " levels; nearer than held-out originals would mean copies.",
    table,
    picture,
  ]


def side_by_side(path: pathlib.Path, result: dict) -> np.ndarray:
  """Originals of test patients and every generator's fakes, by class."""
  config = configuration.of(result["config"])
  cells = []
  base = configs.classifier(config, "cnn").data
  shown = {"originals": (base, "test")}
  for name in configs.generators(config):
    of = configs.on_fakes(config, path, 0).data
    of.dir = str(configs.fakes(path, name))
    shown[f"deepfakes, {name}"] = (of, "test")
  for i, label in enumerate(result["dataset"]["classes"]):
    for what, (of, split) in shown.items():
      source = data.prepare(of).source(split)
      chosen = np.flatnonzero(np.array(source.column("label")) == i)[:SHEET]
      images = pipeline.Images(source, of)
      stack = np.stack([images[int(j)]["image"][..., 0] for j in chosen])
      cells.append((f"{what}: {label}", pictures.sheet(stack, 6)))
  return pictures.captioned(cells, 2)


def detection(path: pathlib.Path, result: dict) -> list:
  heading = report.Heading("Detectors: real or deepfake")
  rows, leaking = result["detection"], result["audit"]["leaks"]
  if rows is None:
    return [
      heading,
      "Withheld, since the audit found a leak: "
      + "; ".join(leaking)
      + ". --config.show_leaking=True shows figures marked as leaking.",
    ]
  made_by = list(dict.fromkeys(row["fakes_by"] for row in rows))
  names = list(dict.fromkeys(row["detector"] for row in rows))
  of = {(row["detector"], row["fakes_by"]): row for row in rows}
  last = made_by[-1]

  def line(name):
    hardest = of[name, last]["figures"]
    return (
      {"detector": name}
      | {f"AUC, {g}": number(of[name, g]["figures"]["auc"]) for g in made_by}
      | {
        f"TPR at 1 % FPR, {last}": percent(hardest["tpr_at_1_percent_fpr"]),
        "originals called real": percent(hardest["recall/real"]),
      }
      | {
        f"called fake, {g}": percent(of[name, g]["figures"]["recall/fake"])
        for g in made_by
      }
      | {"budget": budget(of[name, last])}
    )

  table = [line(name) for name in names]
  drawn = curves(path, result, "cnn", made_by)
  warning = []
  if leaking:
    warning = [f"LEAKING, so these figures mean little: {'; '.join(leaking)}."]
  return [
    heading,
    *warning,
    f"Trained on originals of train patients beside fakes of {made_by[0]!r};"
    " tested on originals of test patients beside new fakes of it and of"
    " generators they never saw, the same mix of findings on both sides, both"
    f" through one canonical path. The figure that matters is {last!r}: a"
    " generator of another kind. A figure at home says little about deepfakes"
    " at large.",
    table,
    as_scored(path, result, last),
    drawn,
    verdicts(rows, made_by),
  ]


def as_scored(path: pathlib.Path, result: dict, made_by: str) -> pathlib.Path:
  """A picture of what detectors see of originals and of a generator's fakes."""
  config = configuration.of(result["config"])
  of = configs.detector(config, "cnn", path, made_by).data
  source = data.prepare(of).source("test")
  labels = np.array(source.column("label"))
  cells = []
  for i, what in enumerate(("originals", f"deepfakes, {made_by}")):
    chosen = np.flatnonzero(labels == i)
    chosen = chosen[np.arange(SHEET) * len(chosen) // SHEET]
    stack = np.stack([source[int(j)]["image"][..., 0] for j in chosen])
    cells.append((f"{what}, as scored", pictures.sheet(stack, 6)))
  file = path / "pictures" / "as-scored.png"
  pictures.save(file, pictures.captioned(cells, 2))
  return file


def curves(
  path: pathlib.Path, result: dict, name: str, made_by: Sequence[str]
) -> tuple[pathlib.Path, ...]:
  """ROC, reliability and confusion of one detector, over the generators."""
  scores = [
    row
    for row in disk.read_csv(path / "detection.csv")
    if row["detector"] == name
  ]
  roc, reliability = {}, {}
  for name_of_fakes in made_by:
    mine = [row for row in scores if row["fakes_by"] == name_of_fakes]
    labels = np.array([int(row["label"] == "fake") for row in mine])
    p = np.array([float(row["p_fake"]) for row in mine])
    roc[name_of_fakes] = metrics.roc(labels, p)[:2]
    both = np.stack([1 - p, p], 1)
    reliability[name_of_fakes] = metrics.reliability(labels, both)
  folder = path / "pictures"
  tables = {
    row["fakes_by"]: np.array(row["confusion"])
    for row in result["detection"]
    if row["detector"] == name
  }
  drawn = {
    f"{name}-roc": pictures.roc(roc),
    f"{name}-reliability": pictures.reliability(reliability),
    f"{name}-confusion-{made_by[-1]}": pictures.confusion(
      tables[made_by[-1]], ("real", "fake")
    ),
  }
  for stem, picture in drawn.items():
    pictures.save(folder / f"{stem}.png", picture)
  return tuple(folder / f"{stem}.png" for stem in drawn)


def verdicts(rows: list[dict], made_by: Sequence[str]) -> list[dict]:
  """What jaxfake.detect would have said: shares of each verdict."""

  def shares(counts):
    total = sum(counts.values())
    return " / ".join(f"{100 * n / total:.0f}" for n in counts.values())

  table = []
  for name in dict.fromkeys(row["detector"] for row in rows):
    mine = {r["fakes_by"]: r for r in rows if r["detector"] == name}
    line = {"real / uncertain / fake (%)": name}
    line["originals"] = shares(mine[made_by[0]]["verdicts"]["real"])
    line |= {
      f"fakes, {g}": shares(mine[g]["verdicts"]["fake"]) for g in made_by
    }
    table.append(line)
  return table


def audit(result: dict) -> list:
  answers = result["audit"]
  probe = "shortcut probe: border, histogram ends, 8x8 grid"
  rows = {
    probe: answers["shortcut_probe"],
    **{f"of it, {k}": v for k, v in answers["shortcuts"].items()},
    "null control: shuffled labels": answers["shuffled_labels"],
    "null control: reals against reals": answers["real_against_real"],
  }
  same = answers["containers"]
  said = "identical" if same["identical"] else "NOT identical"
  verdict = "; ".join(answers["leaks"]) or "no leak was found"
  return [
    report.Heading("Could anything but the picture give them away?"),
    f"Verdict: {verdict}. Containers of the images as scored are {said}. The"
    " shortcut probe may reach a lower end of 0.6; the null controls must hold"
    " 0.5.",
    [
      {
        "of the images as scored": k,
        "AUC": number(v),
        "interval": v["interval"],
      }
      for k, v in rows.items()
    ],
  ]


def provenance(result: dict) -> list:
  e, dataset = result["environment"], result["dataset"]
  return [
    report.Heading("Where this comes from"),
    f"Commit {(e['commit'] or 'unknown')[:12]}, {e['date'][:10]},"
    f" {e['cpu'] or e['devices'][0]} ({e['cpu_count']} cores,"
    f" {', '.join(e['devices'])}); data {dataset['name']}, fingerprint"
    f" {dataset['fingerprint']}. The whole configuration is in result.json."
    " Every deepfake here is synthetic and of no patient.",
  ]

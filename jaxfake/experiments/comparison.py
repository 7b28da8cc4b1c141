"""Programs side by side: each trained with each seed on one split, one table.

The runs are ordinary ones, under the workdir's runs/. A finished run is not
run again, so the same command goes on after an interruption, and adding
programs costs only theirs.

table.md, table.csv, table.html   sorted within each budget
accuracy-cost.png                 accuracy against the time to score an image
result.json                       the rows, with configuration and runs
"""

from collections.abc import Callable
import pathlib
import statistics
from typing import NamedTuple

import jax
import ml_collections

from jaxfake import configuration, contracts, errors
from jaxfake.classifiers import classifier
from jaxfake.data import patients
from jaxfake.evaluation import metrics, pictures, report
from jaxfake.experiments import jobs
from jaxfake.runtime import disk, progress, provenance
from jaxfake.training import workdir

CONFIG = "comparison.py"
SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "auc")


class Run(NamedTuple):
  """One training: a row's name, its budget's, the whole configuration."""

  name: str
  budget: str
  config: ml_collections.ConfigDict
  path: pathlib.Path

  def result(self) -> dict | None:
    """Its result, where it is finished. Raises ConfigError where what was run
    in its folder is something else."""
    return workdir.finished(self.path, self.config.to_dict())


def plan(config: contracts.Config, path: pathlib.Path) -> list[Run]:
  """Every run of a comparison, in order. Raises ConfigError."""
  names = [x.strip() for x in config.only.split(",") if x.strip()] or list(
    config.programs
  )
  runs = []
  for name in names:
    errors.check_choice("only", name, config.programs)
    budget, changes = budgeted(config, "programs", name)
    limits = config.budgets[budget]
    for seed in range(limits.seeds):
      limited = {
        "seed": seed,
        "epochs": limits.epochs,
        "data": {"train_images": limits.train_images},
      }
      c = configuration.changed(config.classifier, limited, f"budgets.{budget}")
      c = configuration.changed(c, changes, f"programs.{name}")
      classifier.check(c)
      place = path / "runs" / f"{name}-seed{seed}"
      runs.append(Run(name, budget, c, place))
  return runs


def budgeted(
  config: contracts.Config, group: str, name: str
) -> tuple[str, dict]:
  """The name of a row's budget, and the fields it changes besides."""
  row, place = config[group][name], f"{group}.{name}"
  changes = row.to_dict() if isinstance(row, ml_collections.ConfigDict) else row
  if not isinstance(changes, dict) or "budget" not in changes:
    raise errors.ConfigError(
      f"{place} is {changes!r}: expected dict(budget=...)"
    )
  budget = changes.pop("budget")
  errors.check_choice(f"{place}.budget", budget, config.budgets)
  return budget, changes


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no comparison could use."""
  plan(config, pathlib.Path())


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Runs what is left and writes the table; returns an exit code.

  `train(config, path)` does one run and returns its exit code: 75 and 130 end
  the comparison too. One that fails is reported, and the others go on.
  """
  check(config)
  with workdir.held(config, path, writer=jax.process_index() == 0):
    return _run(config, path, train)


def _run(config, path, train) -> int:
  runs = plan(config, path)
  writer = jax.process_index() == 0

  def after(failed):
    if writer:
      write(config, path, runs, failed)

  code, failed = jobs.each(
    [jobs.of_run(x.path.name, x.config, x.path, train) for x in runs], after
  )
  if writer and code in (0, 1):
    text = write(config, path, runs, failed)
    progress.say(f"\n{text}\n  {path}/table.html, {path}/accuracy-cost.png")
    for name, why in failed.items():
      progress.say(f"{name} failed: {why}")
  return code


def rows(runs: list[Run]) -> list[dict]:
  """A row of plain numbers for each program that has finished runs, the best
  accuracy first within each budget."""
  table = []
  for name in dict.fromkeys(x.name for x in runs):
    results = [x.result() for x in runs if x.name == name]
    results = [x for x in results if x]
    if not results:
      continue
    first = results[0]
    figures = metrics.across_seeds([x["figures"] for x in results])
    row = {
      "program": name,
      "budget": next(x.budget for x in runs if x.name == name),
      "train_images": _used(first),
      "epochs": first["config"]["epochs"] if first["step"] else None,
      "seeds": len(results),
    }
    for figure in SHOWN:
      for part in ("value", "low", "high", "sd"):
        row[f"{figure}_{part}"] = figures[figure][part]
    cost = first["cost"]
    row["parameters"] = cost["parameters"]
    row["trained_parameters"] = cost.get("trained_parameters")
    row["gflop_per_image"] = cost["gflop_per_image"]
    for key, values in (
      ("ms_per_image", [x["cost"]["ms_per_image"] for x in results]),
      ("train_seconds", [x["train_seconds"] for x in results]),
    ):
      row[key] = statistics.median(values)
    table.append(row)
  budgets = list(dict.fromkeys(x.budget for x in runs))
  table.sort(
    key=lambda r: (budgets.index(r["budget"]), -(r["accuracy_value"] or 0))
  )
  return table


def _used(result: dict) -> int:
  """How many train images a run learnt from."""
  have = sum(result["dataset"]["counts"]["train"].values())
  return min(have, result["config"]["data"]["train_images"] or have)


def formatted(row: dict) -> dict[str, str]:
  """A row as people read it."""

  def percent(name):
    value, low, high = (row[f"{name}_{x}"] for x in ("value", "low", "high"))
    if value is None:
      return "-"
    return f"{value:.1%} ({100 * low:.1f} to {100 * high:.1f})"

  sd, gflop = row["accuracy_sd"], row["gflop_per_image"]
  epochs = "" if row["epochs"] is None else f" x {row['epochs']:g} epochs"
  return {
    "program": row["program"],
    "accuracy": percent("accuracy"),
    "sd of seeds": "-" if sd is None else f"{100 * sd:.2f}",
    "macro-F1": percent("macro_f1"),
    "AUC": f"{row['auc_value']:.4f}",
    "parameters": report.count(row["parameters"]),
    "GFLOP": "-" if gflop is None else f"{gflop:.3g}",
    "ms/image": f"{row['ms_per_image']:.2g}",
    "training": progress.duration(row["train_seconds"]),
    "budget": f"{row['train_images']:,} images{epochs}, {row['seeds']} seed"
    + "s" * (row["seeds"] > 1),
  }


def write(
  config: contracts.Config, path: pathlib.Path, runs: list[Run], failed: dict
) -> str:
  """Writes the table in its forms and result.json; returns it as Markdown."""
  numbers = rows(runs)
  if not numbers:
    return "no run has finished"
  table = [formatted(row) for row in numbers]
  done = [result for x in runs if (result := x.result())]
  disk.write_csv(path / "table.csv", numbers)
  text = report.markdown(table)
  points = {budget: [] for budget in config.budgets}
  for row in numbers:
    y = (100 * row[f"accuracy_{x}"] for x in ("value", "low", "high"))
    points[row["budget"]].append((row["program"], row["ms_per_image"], *y))
  plot = pictures.scatter(points, "ms an image, scoring", "test accuracy (%)")
  pictures.save(path / "accuracy-cost.png", plot)
  title = "Classifiers compared"
  parts = [*about_lines(done, len(runs)), table, path / "accuracy-cost.png"]
  (path / "table.md").write_text(report.markdown_page(title, parts, path))
  (path / "table.html").write_text(report.page(title, parts))
  result = {
    "config": config.to_dict(),
    "environment": provenance.environment(),
    "rows": numbers,
    "runs": {str(x.path.relative_to(path)): bool(x.result()) for x in runs},
    "failed": failed,
  }
  disk.write_json(path / "result.json", result)
  return text


def about_lines(results: list[dict], planned: int) -> list[str]:
  """What was compared, on what, and how to read it; of the finished runs."""
  result = results[0]
  dataset, counts = result["dataset"], result["counts"]
  size = result["config"]["data"]["size"]
  return [
    f"{dataset['name']}, {dataset['split']} split, {size} px:"
    f" {counts['test']['images']:,} test images of"
    f" {counts['test']['patients']:,} patients, {patients.overlap(dataset)}."
    f" {len(results)} of {planned} runs, {report.origin(results)}.",
    "Intervals are over test patients, 95 %, means over the seeds of their"
    " ends; thresholds come from validation. Rows are sorted by accuracy within"
    " a budget; across budgets nothing is ranked. GFLOP: of scoring one image,"
    " as XLA counts. Training: the steps alone, median over seeds.",
  ]

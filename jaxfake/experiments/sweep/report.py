"""What a sweep found: one table and one plot of figures over swept values.

table.csv, table.md, table.html   a row for each setting
sweep.png                         a row of panels for each ablation
result.json                       the same rows, with every run's figures
"""

import itertools
import pathlib
import statistics

import numpy as np

from jaxfake import contracts, errors, named
from jaxfake.data import patients
from jaxfake.evaluation import pictures, report
from jaxfake.experiments.sweep.plan import Setting
from jaxfake.runtime import disk


def figures(result: dict) -> dict[str, dict]:
  """All figures of a run by name: {"value"}, with "low" and "high" where it has
  an interval. The conclusion's, of test images, before those of evaluations."""
  figures = {
    name.removeprefix("eval/"): {"value": value}
    for name, value in result["metrics"].items()
    if name.startswith("eval/")
  }
  figures["train_seconds"] = {"value": result["train_seconds"]}
  for name, figure in result.get("figures", {}).items():
    figures[name] = {k: figure.get(k) for k in ("value", "low", "high")}
  return figures


def metrics(results: list[dict], asked: str) -> list[str]:
  """The names to show. Raises ConfigError for one that a run has not."""
  names = [x for x in asked.split(",") if x]
  if not names:
    task = results[0]["config"]["task"]
    names = named.find("task", task, contracts.Swept).literal("SHOWN")
  for name in names:
    for result in results:
      errors.check_choice("--metric", name, figures(result))
  return list(names)


def across_seeds(figures: list[dict]) -> dict[str, float | None]:
  """Means of a figure's value, and of its ends; the values' sd (None for one
  seed), least and greatest. All None where it is undefined in a run, since the
  mean of the others would be of chosen runs."""
  values = [x["value"] for x in figures]
  if None in values:
    return dict.fromkeys(("value", "sd", "least", "greatest", *figures[0]))
  several = len(values) > 1
  return {
    "value": statistics.fmean(values),
    "sd": statistics.stdev(values) if several else None,
    "least": min(values),
    "greatest": max(values),
  } | {
    end: statistics.fmean(x[end] for x in figures)
    for end in figures[0].keys() - {"value"}
  }


def rows(settings: list[Setting], names: list[str]) -> list[dict]:
  """A row of plain numbers for each setting; None where no run has finished."""
  table, columns_of_all = [], {}
  for setting in settings:
    done = [figures(x) for run in setting.runs if (x := run.result())]
    row = {
      "ablation": setting.ablation,
      "setting": setting.label,
      "base": setting.base,
      "seeds": len(done),
      "planned": len(setting.runs),
    }
    for name in names if done else ():
      columns = {name: [each[name] for each in done]}
      if report.floor(done[0], name):
        columns[f"{name}_floor"] = [report.floor(each, name) for each in done]
      for column, values in columns.items():
        for part, value in across_seeds(values).items():
          row[f"{column}_{part}"] = value
    columns_of_all |= dict.fromkeys(row)
    table.append(row)
  return [columns_of_all | row for row in table]


def formatted(row: dict, names: list[str]) -> dict[str, str]:
  """A row as people read it."""

  def number(name):
    value, sd, low, high = (
      row.get(f"{name}_{part}") for part in ("value", "sd", "low", "high")
    )
    if value is None:
      return "-"
    spread = "" if sd is None else f" ± {sd:.2g}"
    if low is None:
      return f"{value:.4g}{spread}"
    return f"{value:.4f}{spread} ({low:.3f} to {high:.3f})"

  cells = {
    "changed": row["ablation"],
    "to": row["setting"] + " (as configured)" * row["base"],
  }
  for name in names:
    if f"{name}_floor_value" in row:
      floor = number(f"{name}_floor")
      cells[f"{name} (held-out real)"] = f"{number(name)} ({floor})"
    else:
      cells[name] = number(name)
  seeds, planned = row["seeds"], row["planned"]
  few = f" of {planned}" if seeds < planned else ""
  return cells | {"seeds": f"{seeds}{few}"}


def plot(settings: list[Setting], names: list[str]) -> np.ndarray:
  """Every seed's figure, means and their sd, as RGB (h, w, 3)."""
  panels = []
  for ablation, group in itertools.groupby(settings, lambda x: x.ablation):
    group = [
      (setting, done)
      for setting in group
      if (done := [figures(x) for r in setting.runs if (x := r.result())])
    ]
    if not group:
      continue
    values = [x for setting, _ in group for x in setting.values.values()]
    panels.append(
      [
        pictures.Panel(
          ablation,
          name,
          {
            setting.label + "\nas configured" * setting.base: [
              x[name]["value"] for x in done if x[name]["value"] is not None
            ]
            for setting, done in group
          },
          floors=[
            statistics.fmean(report.floor(x, name)["value"] for x in done)
            for _, done in group
            if report.floor(done[0], name)
          ],
          ordered=all(type(x) in (int, float) for x in values),
        )
        for name in names
      ]
    )
  return pictures.panels(panels)


def write(
  root: pathlib.Path, command: str, settings: list[Setting], asked: str
) -> str:
  """Writes the table of `settings` in its forms, the plot and result.json;
  returns what to say. Raises ConfigError where `asked` names what is no figure
  of the runs."""
  runs = {run.name: run for setting in settings for run in setting.runs}
  done = {name: x for name, run in runs.items() if (x := run.result())}
  if not done:
    return "no run has finished"
  results = list(done.values())
  names = metrics(results, asked)
  table = rows(settings, names)
  shown = [formatted(row, names) for row in table]
  about = [command, *about_lines(results, len(runs))]
  pictures.save(root / "sweep.png", plot(settings, names))
  disk.write_csv(root / "table.csv", table)
  text = report.markdown(shown)
  title, parts = f"Sweep: {root.name}", [*about, shown, root / "sweep.png"]
  (root / "table.md").write_text(report.markdown_page(title, parts, root))
  (root / "table.html").write_text(report.page(title, parts))
  of_runs = {
    name: {metric: figures(x)[metric] for metric in names}
    for name, x in done.items()
  }
  missing = sorted(runs.keys() - done.keys())
  disk.write_json(
    root / "result.json",
    {
      "command": command,
      "rows": table,
      "runs": of_runs,
      "not_finished": missing,
    },
  )
  return f"\n{text}\n  {root}/table.html, {root}/sweep.png"


def about_lines(results: list[dict], planned: int) -> list[str]:
  """What was run, on what, and how to read the table."""
  dataset = results[0]["dataset"]
  counts = ", ".join(
    f"{split} {sum(n.values()):,}" for split, n in dataset["counts"].items()
  )
  return [
    f"{dataset['name']}, {dataset['split']} split, images: {counts};"
    f" {patients.overlap(dataset)}."
    f" {len(results)} of {planned} runs, {report.origin(results)}.",
    "Means over seeds ± their standard deviation. In brackets 95 %"
    " intervals over test patients, the means of their ends; or, of distances,"
    " what as many held-out real images reach. Figures of test images say what"
    " a change does; whoever chooses by them flatters the choice.",
  ]

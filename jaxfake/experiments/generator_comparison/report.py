"""The tables: table.md, table.csv, table.html, and result.json."""

from collections.abc import Iterable
import pathlib

from jaxfake import contracts
from jaxfake.data import patients
from jaxfake.evaluation import report
from jaxfake.experiments.generator_comparison import plan
from jaxfake.runtime import disk, progress, provenance

# Columns of a table for each space, after its two distances.
OF_SPACE = {
  "precision": "precision",
  "recall": "recall",
  "density": "density",
  "coverage": "coverage",
  "out_of_range": "out of range",
}


def write(
  config: contracts.Config,
  path: pathlib.Path,
  facts: dict,
  rows: list[dict],
  failed: dict,
) -> str:
  """Writes them; returns the gist as Markdown."""
  tables = {
    space: [of_space(row, space) for row in rows]
    for space in plan.spaces(config)
  }
  parts: list = [about(config, facts)]
  for space, table in tables.items():
    heading = report.Heading(f"In the space {space.replace('_', ' ')}")
    parts += [heading, table]
  gist = [general(row) for row in rows]
  parts += [
    report.Heading("Spectra, classes, copies"),
    gist,
    reading_it(tables),
  ]
  shown = [path / "pictures" / f"{row['generator']}.png" for row in rows[1:]]
  parts += [report.Heading("What they look like"), *shown]
  title = "Generators compared"
  (path / "table.md").write_text(report.markdown_page(title, parts, path))
  (path / "table.html").write_text(report.page(title, parts))
  flat = [plain(row) for row in rows]
  columns = dict.fromkeys(key for row in flat for key in row)
  disk.write_csv(path / "table.csv", [columns | row for row in flat])
  result = {
    "config": config.to_dict(),
    "dataset": facts,
    "environment": provenance.environment(),
    "rows": rows,
    "failed": failed,
  }
  disk.write_json(path / "result.json", result)
  first, *_ = tables.values()
  return f"\n{report.markdown(first)}\n  {path}/table.html"


def about(config: contracts.Config, facts: dict) -> str:
  counts = ", ".join(
    f"{split} {sum(n.values()):,}" for split, n in facts["counts"].items()
  )
  return (
    f"{facts['name']}, {facts['split']} split, {config.data.size} px, images:"
    f" {counts}; {patients.overlap(facts)}. Of train reals, held-out reals and"
    f" fakes at most {config.images} each, equally many of each class. Every"
    " generator learnt for its own steps: the rows say what it reached, not"
    " what its family can."
  )


def reading_it(spaces: Iterable[str]) -> str:
  fid = "These distances compare rows of this table, and are not the FID or KID"
  if plan.INCEPTION in spaces:
    fid = (
      "FID and KID are the literature's, but FID falls as images are added:"
      " compare it with none of another number of images. All other distances"
      " compare rows of this table, and are not the FID or KID"
    )
  return (
    "All figures are beside train reals; held-out reals beside the same say"
    " what real images reach. In brackets 95 % of the resamples, of reals by"
    " patient, moved so that their mean is the figure; the balls of precision,"
    " recall, density and coverage stay as they are. Out of range: share of"
    " images further from train reals than 99 % of the held-out are. Agreement:"
    " how often the classifier of originals calls an image what it was meant to"
    " be. Membership: AUC of telling train images from held-out ones by their"
    f" nearest fake, in thumbnails. {fid} of the literature."
  )


def said(row: dict, name: str, digits: int = 3) -> str:
  """A figure with its interval."""
  if (x := row["figures"].get(name)) is None:
    return "-"
  value, low, high = (f"{x[k]:.{digits}g}" for k in ("value", "low", "high"))
  return f"{value} ({low} to {high})"


def of_space(row: dict, space: str) -> dict[str, str]:
  """A row of a space's table."""
  titles = "Fréchet distance", "kernel distance"
  if space == plan.INCEPTION:
    titles = "FID", "KID"
  columns = dict(zip(titles, plan.distances(space), strict=True))
  columns |= {title: f"{name}_{space}" for name, title in OF_SPACE.items()}
  cells = {title: said(row, name) for title, name in columns.items()}
  return {"generator": row["generator"]} | cells


def general(row: dict) -> dict[str, str]:
  """A row of the table of all else."""
  guard = row.get("guard", {})
  attack = guard.get("membership_auc", {}).get("thumbnails")
  seconds = row.get("train_seconds")
  return {
    "generator": row["generator"],
    "family": row.get("family", "-"),
    "steps": str(row.get("step", "-")),
    "training": "-" if seconds is None else progress.duration(seconds),
    "spectrum gap (dB)": said(row, "spectrum_gap_db"),
    "agreement": said(row, "agreement"),
    "copies": guard.get("verdict", "-"),
    "membership": said({"figures": {"auc": attack}}, "auc"),
  }


def plain(row: dict) -> dict:
  """A row of numbers."""
  flat = {
    k: row.get(k) for k in ("generator", "family", "step", "train_seconds")
  }
  for name, x in row["figures"].items():
    flat |= {f"{name}_{part}": x[part] for part in ("value", "low", "high")}
  guard = row.get("guard", {})
  flat["copies"] = guard.get("verdict")
  for space, x in guard.get("membership_auc", {}).items():
    flat[f"membership_{space}_value"] = x["value"]
  return flat

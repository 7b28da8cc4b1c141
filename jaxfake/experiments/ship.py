"""Makes the detector that comes with the program, and its model card.

traces/, detector/, protocol/   runs of their own
shipped/                        what goes into the package: the model, its rule
                                and figures, MODEL_CARD.md

Runs that are finished are not run again. The same data and configuration give
the same bytes of the model on the same kind of machine.
"""

from collections.abc import Callable
import pathlib
import shutil

from jaxfake import contracts, errors
from jaxfake.classifiers import detector, forensic
from jaxfake.evaluation import report
from jaxfake.evaluation.verdicts import VERDICTS
from jaxfake.experiments import jobs, protocol
from jaxfake.generators import traces
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

CONFIG = "ship.py"
# Another folder of sources is another run, whatever it holds.
FREE = tuple(name for name in workdir.FREE if name != "data.dir")
MOST_BYTES = 4 << 20  # Of a model that is shipped.
WEAK = 0.8  # AUC below which a pair of sources is named among failures.
INTENDED = (
  "To look through many chest radiographs for those that a generative network"
  " made or passed through itself: research, teaching, screening of data sets."
  " A verdict is no proof. Nobody should be accused or treated by it alone, and"
  " `real` does not mean that a picture shows a patient truly: swapped or"
  " retouched pictures, and small regions that were painted in, are not what it"
  " looks for."
)


def configs(config: contracts.Config) -> dict:
  """The configurations of the runs, each with the data it needs."""
  of_runs = {}
  for name in ("traces", "detector", "protocol"):
    c = config[name].copy_and_resolve_references()
    size = c.data.size
    c.data = config.data.copy_and_resolve_references()
    c.data.size = size
    of_runs[name] = c
  return of_runs


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run of these could use."""
  if config.data.name != "many_sources":
    raise errors.ConfigError(
      f"data.name is {config.data.name!r}: task ship learns from many_sources"
    )
  those = configs(config)
  traces.check(those["traces"])
  forensic.check(those["detector"])
  protocol.check(those["protocol"])


def run(config: contracts.Config, path: pathlib.Path, train: Callable) -> int:
  """Makes all; returns the exit code of the first run that did not finish."""
  check(config)
  places = [str(path / "traces"), config.data.dir, config.fakes]
  experiments = {"traces": traces.run, "protocol": protocol.run}
  wanted = configs(config)
  if not config.leave_out:
    del wanted["protocol"]
  chain = []
  for name, c in wanted.items():
    if name != "traces":
      c.data.dir = ",".join(place for place in places if place)
    done = workdir.finished(path / name, c.to_dict(), FREE) is not None

    def work(name=name, c=c):
      if name in experiments:
        return experiments[name](c, path / name, train)
      return train(c, path / name)

    chain.append(jobs.Job(name, done, work))
  if code := jobs.chain(chain):
    return code
  ship(path, config.leave_out)
  return 0


def ship(path: pathlib.Path, with_protocol: bool) -> None:
  """Writes shipped/ from the finished runs."""
  out = path / "shipped"
  out.mkdir(exist_ok=True)
  model = path / "detector" / forensic.MODEL
  size = model.stat().st_size
  if size > MOST_BYTES:
    raise errors.ConfigError(
      f"{model}: {size:,} bytes; expected at most {MOST_BYTES:,}"
    )
  shutil.copyfile(model, out / forensic.MODEL)
  trained = disk.read_json(path / "detector" / "result.json")
  tested = None
  if with_protocol:
    tested = disk.read_json(path / "protocol" / "result.json")
  config = {k: v for k, v in trained["config"].items() if k != "data"}
  kept = {k: trained[k] for k in ("calibration", "learnt_from", "by_source")}
  if tested:
    kept |= {k: tested[k] for k in ("summary", "deliveries")}
  disk.write_json(out / "result.json", {"config": config} | kept)
  (out / detector.CARD).write_text(card(trained, tested))
  progress.say(f"for jaxfake/shipped: {out}")


def card(trained: dict, tested: dict | None) -> str:
  """The model card, of the detector's result and the protocol's, if there."""
  learnt = {row["source"] for row in trained["learnt_from"]}
  calibration = trained["calibration"]
  config = trained["config"]
  parts = [
    "Written by `python -m jaxfake.main --config configs/ship.py` from its"
    " results; no figure is typed.",
    "## What it is for",
    INTENDED,
    *(left_out(tested) if tested else []),
    "## These very weights on whole sources that they did not learn from",
    never_seen(trained) or "There was no such source.",
    *aucs(trained, learnt),
    "On test patients of sources that they learnt from:",
    table(called([x for x in trained["by_source"] if x["source"] in learnt])),
    "## What it learnt from",
    table(
      [
        {
          "source": row["source"],
          "class": row["class"],
          "pictures": f"{row['images']:,}",
          "licences": "; ".join(x or "not stated" for x in row["licences"]),
        }
        for row in trained["learnt_from"]
      ]
    ),
    "Sources called trace_KIND are the reals above, repeated by small networks"
    " that this project trained.",
    "## How verdicts come about",
    "Two views of the spectra of 32 px blocks at the picture's own resolution;"
    " of each a closed-form discriminant and the distance to reals. `fake` from"
    " evidence"
    f" {calibration['fake_at_least']:.3g}, `real` up to"
    f" {calibration['real_at_most']:.3g}: at most"
    f" {config['reals_called_fake']:.0%} of any hospital's reals, left out of"
    " training in turn, were to be called `fake`, and at most"
    f" {config['fakes_called_real']:.0%} of any kind of fake `real`. That would"
    " hold for one more draw of the same kind; no new hospital or generator is."
    " A verdict that JPEG would turn round is `uncertain`, and so is what is"
    " unlike the reals it knows. Pictures under"
    f" {forensic.crops.SIDE} px a side get none.",
    "How often it is wrong beside what the thresholds promise, mean and worst:"
    " of test patients the promise holds as far as they are like those of"
    " training; under shift it may not, see the worst.",
    table(coverage(trained, tested)),
    "## Where this comes from",
    report.origin([trained, tested] if tested else [trained]) + ".",
  ]
  return (
    "# The detector that comes with jaxfake\n\n" + "\n\n".join(parts) + "\n"
  )


def left_out(tested: dict) -> list[str]:
  """What the protocol found."""
  return [
    "## How it does on generators and hospitals that it never saw",
    "Every hospital, every generator, and every pair was left out of training"
    " and of settling thresholds. Means over pairs of a source of fakes and one"
    " of reals; what is called neither is `uncertain`.",
    table(protocol.gist(tested)),
    protocol.of_seeds(tested),
    "Pair by pair, both left out (95 % intervals over patients):",
    table(protocol.pair_rows(tested)),
    "After deliveries, both left out:",
    table([protocol.after(row) for row in tested["deliveries"]]),
    "The method changed, both left out:",
    table(protocol.method_rows(tested)),
    "Where it fails:",
    *failures(tested),
  ]


def coverage(trained: dict, tested: dict | None) -> list[dict]:
  """What shares of either class get the wrong verdict, beside the level that
  the thresholds were settled for: of sources that were learnt from, and of
  those that were left out."""
  learnt = {row["source"] for row in trained["learnt_from"]}
  rows = []
  for right, wrong in (forensic.CLASSES, forensic.CLASSES[::-1]):
    name = f"{right}s_called_{wrong}"
    seen = {
      x["source"]: x[wrong] / x["images"]
      for x in trained["by_source"]
      if x["source"] in learnt and x["class"] == right
    }
    row = {
      "wrong verdict": name.replace("_", " "),
      "promised": f"{trained['config'][name]:.0%}",
      "test patients, sources learnt from": mean_and_worst(seen),
    }
    if tested:
      unseen = {
        f"{c['fakes']} against {c['reals']}": c[name]
        for c in protocol.unseen(tested)
      }
      delivered = {x["delivery"]: x.get(name, 0) for x in tested["deliveries"]}
      row["generator and hospital unseen"] = mean_and_worst(unseen)
      row["the same after deliveries"] = mean_and_worst(delivered)
    rows.append(row)
  return rows


def mean_and_worst(shares: dict[str, float]) -> str:
  worst = max(shares, key=lambda name: shares[name])
  mean = sum(shares.values()) / len(shares)
  return f"{mean:.1%}; {shares[worst]:.1%} of {worst}"


def aucs(trained: dict, learnt: set[str]) -> list[str]:
  """AUC of fakes that were not learnt from against each source of reals."""
  rows = {}
  for cell in trained["auc"]:
    if cell["fakes"] not in learnt:
      row = rows.setdefault(
        cell["fakes"], {"fakes, AUC against": cell["fakes"]}
      )
      row[cell["reals"]] = f"{cell['auc']:.3f}"
  return [table(list(rows.values()))] if rows else []


def never_seen(result: dict) -> str:
  """What sources that nothing was learnt from are called; "" of none."""
  learnt = {row["source"] for row in result["learnt_from"]}
  rows = [x for x in result["by_source"] if x["source"] not in learnt]
  return table(called(rows)) if rows else ""


def headline(result: dict) -> str:
  """The README's table, of what is shipped."""
  if "summary" not in result:
    return never_seen(result)
  return table(
    [
      {
        "never seen": row["condition"],
        "mean AUC": f"{row['auc']:.3f}",
        "worst pair": f"{row['worst']:.2f}",
      }
      | protocol.percents(row)
      for row in result["summary"]
    ]
  )


def table(rows: list[dict]) -> str:
  return report.markdown(rows)


def called(rows: list[dict]) -> list[dict]:
  return [
    {"source": row["source"], "class": row["class"], "pictures": row["images"]}
    | {v: f"{row[v] / row['images']:.0%}" for v in VERDICTS}
    for row in rows
  ]


def failures(tested: dict) -> list[str]:
  """Sentences and tables about what it does worst."""
  cells = protocol.unseen(tested)
  weak = sorted(
    (c for c in cells if c["auc"]["value"] < WEAK),
    key=lambda c: c["auc"]["value"],
  )
  texts = [
    f"{len(weak)} of {len(cells)} pairs of an unseen generator and an unseen"
    f" hospital have an AUC below {WEAK}."
  ]
  if weak:
    names = [f"{c['fakes']} against {c['reals']}" for c in weak]
    texts[0] += f" They are: {', '.join(names)}."
  known = [row for row in tested["deliveries"] if row["auc"] is not None]
  if known:
    first = known[0]["auc"]
    falls = sorted(known, key=lambda row: row["auc"])[:3]
    texts.append(
      "Deliveries cost most, of a mean AUC of"
      f" {first:.3f}: "
      + ", ".join(f"{row['delivery']} ({row['auc']:.3f})" for row in falls)
      + "."
    )
  return texts

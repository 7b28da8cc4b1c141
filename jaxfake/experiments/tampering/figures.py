"""From every picture's figures to a row of each way."""

import numpy as np

from jaxfake import contracts
from jaxfake.data import matching, pipeline, reading, sources
from jaxfake.evaluation import localization
from jaxfake.evaluation.localization import of
from jaxfake.experiments.study import leaks
from jaxfake.experiments.tampering import maps
from jaxfake.experiments.tampering.ways import NONE, names, ways


def figures(config: contracts.Config, rows: list[dict]) -> dict:
  """Figures of test pictures by map, way and delivery, and by map, way and
  size; and validation's thresholds of the maps that it was shown: localizers'
  are of their own runs."""
  first = names(config)[0]
  known = of(rows, split="val", delivery=first)
  altered = [x for x in known if x["way"] != NONE]
  best = {
    name: localization.best(of(altered, map=name))
    for name in dict.fromkeys(x["map"] for x in altered)
  }
  test = of(rows, split="test")
  outcome = {
    "thresholds": {k: float(maps.THRESHOLDS[i]) for k, i in best.items()},
    "ways": [],
    "sizes": [],
  }

  def add(table: str, **values):
    those = of(test, **values)
    if not those:
      return
    reals = []
    if values["way"] != NONE:  # By the same localizer.
      left_out = those[0]["left_out"]
      reals = of(test, **values | {"way": NONE, "left_out": left_out})
    chosen = best.get(values["map"], 0)
    outcome[table].append(values | localization.summary(those, chosen, reals))

  for name in dict.fromkeys(x["map"] for x in test):
    for way in map(str, ways(config)):
      for delivery in names(config):
        add("ways", map=name, way=way, delivery=delivery)
      for mm in config.sizes_mm:
        add("sizes", map=name, way=way, delivery=first, mm=mm)
  return outcome


def audit(config: contracts.Config, dataset: contracts.Dataset) -> dict:
  """leaks.audit of some pairs: what tells them apart without the region."""
  parts, each = [], 2
  for split in ("train", "test"):
    source = dataset.source(split)
    count = len(source) // each
    firsts = each * matching.evenly(
      np.arange(count), min(config.audited, count)
    )
    some = sources.Subset(source, np.stack([firsts, firsts + 1], 1).ravel())
    read = pipeline.arrays(pipeline.Images(some, config.data))
    parts.append((read["image"], read["label"], some.column("patient")))
  images, labels, _ = parts[1]
  files = [
    [reading.png(x[..., 0]) for x in images[labels == c]] for c in (0, 1)
  ]
  return leaks.audit(files, *parts)

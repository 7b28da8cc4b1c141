"""The detector that reads pictures at their own resolution.

It learns from crops of many sources (data.name=many_sources), real and fake, as
they are or behind the same random deliveries (data/crops). An ensemble of two
sees the numbers of `spectral`, the one all of them, the other a coarse summary:
they miss different fakes. Two things are fitted to each, in closed form: the
line that parts reals from fakes, and how reals scatter. The fakes are reals
that small networks repeated (generators/traces), where there are any: of other
fakes the line would learn what their radiographs show beside what the generator
left. A picture's evidence of a fake is the line's score and half of the
distance from reals, each in units of what reals of other hospitals show, summed
over the ensemble.

Where verdicts begin is settled on sources that the model did not learn from:
each hospital and each kind of fake is left out in turn, the model fitted
without it, and its whole pictures scored, as they are and compressed. `fake`
needs more evidence than 1 % of any hospital's reals have; `real` less than 10 %
of any kind of fake have; both need that the two measures do not contradict each
other, and that compressing the picture does not turn one into the other. All
else is uncertain.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from scipy import ndimage
import scipy.special

from jaxfake import contracts, errors
from jaxfake.classifiers import detector, discriminant, spectral
from jaxfake.data import crops, deliveries, pipeline, work
from jaxfake.evaluation import calibration, metrics
from jaxfake.evaluation.verdicts import VERDICTS
from jaxfake.runtime import disk, progress
from jaxfake.training import workdir

if TYPE_CHECKING:
  from jaxfake.classifiers import peers

CONFIG = "forensic.py"
CLASSES = "real", "fake"
MODEL = "model.safetensors"
BATCH = 64  # Crops at once: one shape, compiled once.
NOISE = 0.05  # At least, of numbers whose variance is 1.
HALF = 0.5  # Of the distance, beside the score.
SMALL = "too small"
BETWEEN = "between the thresholds"
COMPRESSED = "verdict changes when compressed"
QUALITY = 75  # Of the JPEG that a verdict has to outlast.
UNLIKE = "unlike the radiographs it knows"


View = np.ndarray | None  # See discriminant.of_numbers.
Views = Mapping[str, View]
# What members of the ensemble see of `spectral` numbers.
VIEWS: Views = {"fine": None, "coarse": spectral.coarse()}


@dataclasses.dataclass(frozen=True)
class Member:
  """What is fitted to one view: how real and fake differ, and what reals are
  like."""

  view: View
  line: discriminant.Discriminant
  reals: discriminant.Scatter

  def measures(self, numbers: np.ndarray) -> np.ndarray:
    """(n, 2) of `spectral` numbers (n, d): the score and the log distance."""
    x = discriminant.of_numbers(np.asarray(numbers, np.float64), self.view)
    return np.stack([self.line.score(x), self.reals.distance(x)], -1)


@dataclasses.dataclass(frozen=True)
class Model:
  """An ensemble, by the names of what its members see."""

  members: dict[str, Member]

  def measures(self, numbers: np.ndarray) -> np.ndarray:
    """(n, m, 2) of `spectral` numbers (n, d), by each of m members."""
    each = [member.measures(numbers) for member in self.members.values()]
    return np.stack(each, -2)


@dataclasses.dataclass(frozen=True)
class Rule:
  """From measures to evidence, to a probability, to a verdict."""

  # Of the measures of reals, (m, 2), and their spread.
  centre: np.ndarray
  spread: np.ndarray
  slope: float  # Of the logit of a fake, by evidence.
  intercept: float
  real_at_most: float  # Evidence.
  fake_at_least: float
  # In units, summed over members.
  score_of_fakes: float  # Below it a picture shows no sign that is known.
  distance_of_reals: float  # Above it, it is unlike the reals.

  def facts(self) -> dict:
    """JSON-able: what `Rule.of` takes."""
    return {
      name: value.tolist() if isinstance(value, np.ndarray) else value
      for name, value in dataclasses.asdict(self).items()
    }

  @classmethod
  def of(cls, facts: dict) -> "Rule":
    """Of `facts`; an older run's are of one member."""
    arrays: dict[str, Any] = {
      name: np.reshape(facts[name], (-1, 2)) for name in ("centre", "spread")
    }
    return cls(**facts | arrays)

  def scaled(self, measures: np.ndarray) -> np.ndarray:
    """(n, 2) of (n, m, 2): see `in_units`."""
    return in_units(measures, self.centre, self.spread)

  def evidence(self, measures: np.ndarray) -> np.ndarray:
    """(n,) of (n, m, 2)."""
    return evidence_of(self.scaled(measures))

  def probability(self, evidence: np.ndarray) -> np.ndarray:
    return scipy.special.expit(self.slope * evidence + self.intercept)

  def verdict(
    self, measures: np.ndarray, compressed: np.ndarray
  ) -> tuple[str, str | None]:
    """Of one picture's measures (m, 2), as it is and compressed: the verdict,
    and why it is uncertain."""
    said, reason = self._verdict(measures)
    if said != "uncertain":
      other = self._verdict(compressed)[0]
      if other not in (said, "uncertain"):
        return "uncertain", COMPRESSED
    return said, reason

  def _verdict(self, measures):
    (scaled,) = self.scaled(measures[None])
    (score, distance), evidence = scaled, evidence_of(scaled)
    if evidence >= self.fake_at_least:
      if score >= self.score_of_fakes:
        return "fake", None
      return "uncertain", UNLIKE
    if evidence <= self.real_at_most:
      if distance <= self.distance_of_reals:
        return "real", None
      return "uncertain", UNLIKE
    return "uncertain", BETWEEN


@dataclasses.dataclass(frozen=True)
class Examples:
  """Numbers of delivered crops (n, d), and whose they are."""

  numbers: np.ndarray
  labels: np.ndarray  # (n,), 1 of a fake.
  sources: np.ndarray  # (n,)
  origins: np.ndarray  # (n,), of a fake that was made of a real, the real's.
  groups: np.ndarray  # (n,)


class Part(NamedTuple):
  """Which examples have moments of their own."""

  label: int
  source: str
  origin: str


Parts = dict[Part, discriminant.Moments]


def _columns(of):
  return [getattr(of, field.name) for field in dataclasses.fields(of)]


def check(config: contracts.Config) -> None:
  """Raises ConfigError for values no run could use."""
  if jax.process_count() > 1:
    raise errors.ConfigError(
      f"task forensic is fitted by one process, not {jax.process_count()}"
    )
  if config.seed not in range(2**32):
    raise errors.ConfigError(f"seed is {config.seed}: expected 0 to 2**32 - 1")
  if config.data.name != "many_sources":
    raise errors.ConfigError(
      f"data.name is {config.data.name!r}: task forensic learns from"
      " many_sources"
    )
  errors.check_choice("data.fit", config.data.fit, (pipeline.NATIVE,))
  for field, least in (
    ("pictures", 2),
    ("each", 1),
    ("delivered", 0),
    ("rank", 1),
  ):
    if config[field] < least:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected at least {least}"
      )
  if config.delivered > config.each:
    raise errors.ConfigError(
      f"delivered is {config.delivered}: expected at most each, {config.each}"
    )
  if not 0 <= config.unaligned < 1:
    raise errors.ConfigError(
      f"unaligned is {config.unaligned}: expected at least 0, below 1"
    )
  for field in ("picture_scatter", "ridge"):
    if not config[field] > 0:
      raise errors.ConfigError(f"{field} is {config[field]}: expected above 0")
  for field in ("reals_called_fake", "fakes_called_real"):
    if not 0 < config[field] < 0.5:
      raise errors.ConfigError(
        f"{field} is {config[field]}: expected above 0, below 0.5"
      )


def chosen(source: contracts.Items, most: int) -> list[int]:
  """Indices of at most so many pictures of each source, evenly spread."""
  places = {}
  for i, name in enumerate(
    zip(source.column("label"), source.column("source"), strict=True)
  ):
    places.setdefault(name, []).append(i)
  those = []
  for _, indices in sorted(places.items()):
    n = min(most, len(indices))
    those += [indices[k * len(indices) // n] for k in range(n)]
  return sorted(those)


def drawn(
  config: contracts.Config, source: contracts.Items
) -> Iterator[tuple[int, int, np.ndarray]]:
  """The crops uint8 (s, s) that `config` draws from train images: index of the
  picture, group, crop."""
  indices = chosen(source, config.pictures)
  total = len(indices) * config.each
  with work.processes() as pool, work.shown("crops", total) as advance:
    wanted = crops.jobs(
      source, indices, config.each, config.seed, config.delivered
    )
    for job, delivered in work.in_order(pool, crops.delivered, wanted):
      advance()
      for row, crop in zip(job.rows, delivered, strict=True):
        yield row, job.group, crop


def examples(config: contracts.Config, source: contracts.Items) -> Examples:
  """Of the crops that `config` draws from train images."""
  rows, groups, waiting, numbers = [], [], [], []

  def flush():
    batch = np.stack(waiting)
    padded = np.zeros((BATCH, *batch.shape[1:]), np.uint8)
    padded[: len(batch)] = batch
    numbers.append(spectral.of_crops(padded)[: len(batch)])
    waiting.clear()

  for row, group, crop in drawn(config, source):
    rows.append(row)
    groups.append(group)
    waiting.append(crop)
    if len(waiting) == BATCH:
      flush()
  if waiting:
    flush()
  columns = source.column("label"), source.column("source"), origins(source)
  labels, names, of = (np.array([x[i] for i in rows]) for x in columns)
  return Examples(np.concatenate(numbers), labels, names, of, np.array(groups))


def origins(source: contracts.Items) -> list[str]:
  """Of fakes that were made of a real of this split, its source; else ""."""
  of = dict(zip(source.column("id"), source.column("source"), strict=True))
  return [of.get(id, "") for id in source.column("original")]


def parts(table: Examples) -> Parts:
  """Moments of the examples of each source, and of each hospital they were made
  of."""
  keys = list(
    map(
      Part,
      table.labels.tolist(),
      *(x.tolist() for x in (table.sources, table.origins)),
    )
  )
  places = {}
  for i, key in enumerate(keys):
    places.setdefault(key, []).append(i)
  return {
    key: discriminant.moments(table.numbers[those], table.groups[those])
    for key, those in sorted(places.items())
  }


def kept(of: "Pictures | peers.Crops", without: Sequence[str]) -> np.ndarray:
  """Which Pictures or peers.Crops are neither of some sources nor made of their
  reals: (n,)."""
  out = list(without)
  return ~np.isin(of.sources, out) & ~np.isin(of.origins, out)


def remaining(moments: Parts, without: Sequence[str]) -> Parts:
  """The parts that are neither of some sources nor made of their reals."""
  out = set(without)
  return {
    key: part
    for key, part in moments.items()
    if not out & {key.source, key.origin}
  }


def of_sources(moments: Parts) -> Parts:
  """One part for each source, whatever its fakes were made of."""
  together = {}
  for key, part in moments.items():
    together.setdefault(key._replace(origin=""), []).append(part)
  return {key: discriminant.pooled(those) for key, those in together.items()}


def weighted(
  config: contracts.Config, moments: Parts, label: int
) -> list[tuple[float, discriminant.Moments]]:
  """The parts of one class with their weights, which sum to 1/2: hospitals
  count by the root of their examples; of fakes, the sources of a kind alike."""
  those = {key: part for key, part in moments.items() if key.label == label}
  count = {}
  for key, part in those.items():
    count[key.source] = count.get(key.source, 0) + part.count
  names = np.array(sorted(count))
  if label:
    share = _fakes_shares(config, names)
  else:
    share = np.sqrt([count[name] for name in names])
  share = dict(zip(names.tolist(), share / share.sum() / 2, strict=True))
  return [
    (share[key.source] * part.count / count[key.source], part)
    for key, part in those.items()
    if share[key.source]
  ]


def _fakes_shares(config, names: np.ndarray) -> np.ndarray:
  traces = np.array([is_trace(name) for name in names])
  shares = _kinds_shares(config, set(traces.tolist()))
  return np.array([shares[kind] / (traces == kind).sum() for kind in traces])


def _kinds_shares(config, kinds: Iterable[bool]) -> dict[bool, float]:
  """Of aligned fakes (traces; True) and of others, where there are any."""
  if len(set(kinds)) == 1:
    return dict.fromkeys(kinds, 1.0)
  return {True: 1 - config.unaligned, False: config.unaligned}


def is_trace(source: str) -> bool:
  """Whether a source of fakes repeats reals; see generators/traces."""
  return source.startswith("trace_")


def fit(
  config: contracts.Config,
  moments: Parts,
  without: Sequence[str] = (),
  views: Views = VIEWS,
) -> Model:
  """The model, perhaps without some sources."""
  left = remaining(moments, without)

  def member(view) -> Member:
    seen = seen_by(view, left)
    parting = line(config, seen, weighted(config, seen, 1))
    return Member(view, parting, reals(config, seen))

  return Model({name: member(view) for name, view in views.items()})


def seen_by(view: View, moments: Parts) -> Parts:
  """Moments of what a view shows."""
  return {key: part.of_numbers(view) for key, part in moments.items()}


def line(
  config: contracts.Config, moments: Parts, fakes: discriminant.Weighted
) -> discriminant.Discriminant:
  """What parts reals from fakes."""
  return discriminant.discriminant(
    weighted(config, moments, 0),
    fakes,
    group_weight=config.picture_scatter,
    ridge=config.ridge,
  )


def reals(config: contracts.Config, moments: Parts) -> discriminant.Scatter:
  """How reals scatter, every example counting alike."""
  those = [(x.count, x) for key, x in moments.items() if not key.label]
  return discriminant.scatter(those, rank=config.rank, floor=NOISE)


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Whole pictures: their numbers (n, d), as they are and compressed, and facts
  (n,)."""

  numbers: np.ndarray
  compressed: np.ndarray
  labels: np.ndarray
  sources: np.ndarray
  origins: np.ndarray  # Of a fake that was made of a real, the real's source.
  patients: np.ndarray
  ids: np.ndarray

  def __getitem__(self, which: np.ndarray) -> "Pictures":
    return Pictures(*(x[which] for x in _columns(self)))


def pictures(
  source: contracts.Items,
  indices: Sequence[int],
  deliver: Callable | None = None,
) -> Pictures:
  """Numbers of whole pictures, those too small left out; perhaps delivered."""
  facts = [source.column("label"), source.column("source"), origins(source)]
  facts += [source.column(name) for name in ("patient", "id")]
  numbers, kept = [], []
  with work.shown("pictures", len(indices)) as advance:
    for i in indices:
      image = source[i]["image"][..., 0]
      image = deliver(image) if deliver else image
      if min(image.shape) >= crops.SIDE:
        numbers.append(numbers_of(image))
        kept.append(i)
      advance()
  numbers = np.array(numbers).reshape(-1, 2, spectral.NUMBERS)
  columns = [np.array([x[i] for i in kept]) for x in facts]
  return Pictures(numbers[:, 0], numbers[:, 1], *columns)


def numbers_of(image: np.ndarray) -> np.ndarray:
  """(2, NUMBERS) of a whole picture uint8 (h, w): as it is, and compressed."""
  compressed = deliveries.jpeg(image, (QUALITY,))
  return np.stack([spectral.of_picture(x) for x in (image, compressed)])


def left_out(
  config: contracts.Config,
  moments: Parts,
  held: Pictures,
  without: Sequence[str] = (),
  views: Views = VIEWS,
) -> np.ndarray:
  """Measures (2, n, m, 2) of pictures, as they are and compressed, by models
  that did not learn from their source, nor from those `without`; of the only
  source of a class, by the model itself."""
  used = remaining(moments, without)
  each = [
    _left_out_of(config, view, seen_by(view, used), held)
    for view in views.values()
  ]
  return np.stack(each, -2)


def _left_out_of(config, view: View, used: Parts, held: Pictures) -> np.ndarray:
  """The same of one member, (2, n, 2), by the moments of what it sees."""
  measures = np.zeros((2, len(held.labels), 2))
  merged = of_sources(used)  # Fewer parts, as good where no real is left out.
  hospitals = {key.source for key in used if not key.label}
  every = reals(config, merged)  # Whatever fakes are left out.
  fakes = _fakes_without(config, merged)
  for label, name in sorted(set(zip(held.labels, held.sources, strict=True))):
    if label:
      member = Member(view, line(config, merged, fakes(name)), every)
    else:
      left = remaining(used, [] if hospitals <= {name} else [name])
      parting = line(config, left, weighted(config, left, 1))
      member = Member(view, parting, reals(config, left))
    which = (held.labels == label) & (held.sources == name)
    for k, numbers in enumerate((held.numbers, held.compressed)):
      measures[k, which] = member.measures(numbers[which])
  return measures


def _fakes_without(
  config, merged: Parts
) -> Callable[[str], discriminant.Weighted]:
  """What gives `weighted(remaining(merged, [name]), 1)` for any one source of
  fakes by two sums that are made once, less that source; of the only one, or of
  none of these, all of them."""
  kinds = {}
  for key, part in merged.items():
    if key.label:
      kinds.setdefault(is_trace(key.source), {})[key.source] = part
  pools = {
    kind: discriminant.mixed([(1, part) for part in those.values()])
    for kind, those in kinds.items()
  }

  def without(name: str) -> discriminant.Weighted:
    count = {
      kind: len(those) - (name in those) for kind, those in kinds.items()
    }
    shares = _kinds_shares(config, [x for x in count if count[x]] or kinds)
    terms = []
    for kind, share in shares.items():
      if share:
        terms.append((share / 2, pools[kind]))
        if name in kinds[kind] and count[kind]:
          each = share / 2 / count[kind]
          terms += [(each, pools[kind]), (-each, kinds[kind][name])]
    return terms

  return without


def rule(
  config: contracts.Config, measures: np.ndarray, held: Pictures
) -> Rule:
  """Settled on measures (2, n, m, 2), as pictures are and compressed, by models
  that did not learn from the source."""
  measures = np.concatenate(measures)
  labels, sources = (np.tile(x, 2) for x in (held.labels, held.sources))
  real = labels == 0
  weight = _by_source(labels, sources)
  centre, spread = units(measures[real], weight[real])
  scaled = in_units(measures, centre, spread)
  evidence = evidence_of(scaled)

  def of_each(label, values, level, method):
    """A quantile of each source of a class."""
    return [
      np.quantile(
        values[(labels == label) & (sources == name)], level, method=method
      )
      for name in set(sources[labels == label])
    ]

  worst = lambda values: max(
    of_each(0, values, 1 - config.reals_called_fake, "higher")
  )
  fake_at = worst(evidence)
  real_at = min(of_each(1, evidence, config.fakes_called_real, "lower"))
  slope, intercept = calibration.fit_logistic(evidence, labels, weight)
  return Rule(
    centre,
    spread,
    slope,
    intercept,
    float(min(real_at, fake_at)),
    float(max(real_at, fake_at)),
    float(_quantiles(scaled[real, 0], weight[real], (0.9,))[0]),
    float(worst(scaled[:, 1])),
  )


def units(
  measures: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Centre and spread, (m, 2) each, of reals' measures (n, m, 2): the median,
  and half of what the middle 68 % span."""
  quantiles = lambda x: _quantiles(x, weight, (0.16, 0.5, 0.84))
  low, middle, high = np.apply_along_axis(quantiles, 0, measures)
  return middle, np.maximum((high - low) / 2, 1e-3)


def in_units(
  measures: np.ndarray, centre: np.ndarray, spread: np.ndarray
) -> np.ndarray:
  """Score and distance (n, 2) of measures (n, m, 2): sums over members, each in
  units of what reals show."""
  return ((measures - centre) / spread).sum(-2)


def evidence_of(scaled: np.ndarray) -> np.ndarray:
  """(...,) of scores and distances (..., 2), in units."""
  return scaled[..., 0] + HALF * scaled[..., 1]


def _by_source(labels: np.ndarray, sources: np.ndarray) -> np.ndarray:
  """Weights (n,): classes alike, and within one its sources."""
  weight = np.zeros(len(labels))
  for label in (0, 1):
    those = labels == label
    names, index, count = np.unique(
      sources[those], return_inverse=True, return_counts=True
    )
    weight[those] = 1 / (2 * len(names) * count[index])
  return weight


def _quantiles(values, weight, levels) -> np.ndarray:
  """Of weighted values."""
  order = np.argsort(values)
  share = np.cumsum(weight[order]) / weight.sum()
  at = np.searchsorted(share, levels)
  return values[order][np.minimum(at, len(values) - 1)]


def prepare(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> Callable[[], int]:
  """What fits the model and returns an exit code, ready to be called.

  Raises DataError where a class is missing.
  """
  for split in ("train", "test"):
    labels = set(getattr(splits, split).column("label"))
    for k, name in enumerate(CLASSES):
      if k not in labels:
        raise errors.DataError(
          f"no {split} picture is {name}: expected reals and fakes"
          " (python -m jaxfake.main --config configs/traces.py makes fakes)"
        )
  return lambda: train(config, splits, run)


def train(
  config: contracts.Config, splits: pipeline.Splits, run: workdir.Workdir
) -> int:
  """Fits, saves and judges; returns exit code 0."""
  run.begin(0)
  begin = time.monotonic()
  drawn = examples(config, splits.train)
  moments = parts(drawn)
  model = fit(config, moments)
  progress.say(
    f"fitted to {len(drawn.labels):,} crops in"
    f" {progress.duration(time.monotonic() - begin)}; settling where verdicts"
    " begin on sources left out"
  )
  held = joined(
    pictures(source, chosen(source, config.held))
    for source in (splits.train, splits.val)
  )
  settled = rule(config, left_out(config, moments, held), held)
  seconds = time.monotonic() - begin
  if run.writer:
    save(model, run.path / MODEL)
  progress.say("scoring test pictures")
  test = pictures(splits.test, range(len(splits.test)))
  facts = {"train_seconds": seconds, "crops": len(drawn.labels)}
  facts["learnt_from"] = learnt_from(splits.train, config.pictures)
  run.finish(0, facts, conclude(settled, model, test))
  return 0


def learnt_from(source: contracts.Items, most: int) -> list[dict]:
  """How many pictures of each source, and under which licences."""
  names = "label", "source", "licence"
  columns = [source.column(name) for name in names]
  licences = {}
  for i in chosen(source, most):
    label, name, licence = (column[i] for column in columns)
    licences.setdefault((label, name), []).append(licence)
  return [
    {
      "source": name,
      "class": CLASSES[label],
      "images": len(those),
      "licences": sorted(set(those)),
    }
    for (label, name), those in sorted(licences.items())
  ]


def joined(several: Iterable[Pictures]) -> Pictures:
  columns = zip(*map(_columns, several), strict=True)
  return Pictures(*(np.concatenate(x) for x in columns))


def conclude(settled: Rule, model: Model, test: Pictures) -> dict:
  """What result.json and predictions.csv say."""
  measures = model.measures(test.numbers)
  scaled = settled.scaled(measures)
  evidence = evidence_of(scaled)
  compressed = model.measures(test.compressed)
  verdicts = list(map(settled.verdict, measures, compressed))
  p = settled.probability(evidence)
  rows = [
    {
      "split": "test",
      "id": test.ids[i],
      "source": test.sources[i],
      "patient": test.patients[i],
      "label": CLASSES[test.labels[i]],
      "score": f"{scaled[i, 0]:.6g}",
      "distance": f"{scaled[i, 1]:.6g}",
      "evidence": f"{evidence[i]:.6g}",
      "p_fake": f"{p[i]:.6g}",
      "verdict": verdicts[i][0],
      "reason": verdicts[i][1] or "",
    }
    for i in range(len(p))
  ]
  return {
    "calibration": settled.facts(),
    "counts": {
      "test": {
        "images": len(p),
        "patients": len(set(test.patients)),
      }
    },
    "by_source": by_source(test, [v for v, _ in verdicts]),
    "auc": cells(test, evidence),
    "predictions": rows,
  }


def by_source(test: Pictures, verdicts: Sequence[str]) -> list[dict]:
  """How many of each source are called what."""
  said, rows = np.array(verdicts), []
  for label, name in sorted(set(zip(test.labels, test.sources, strict=True))):
    those = (test.labels == label) & (test.sources == name)
    called = {v: int((said[those] == v).sum()) for v in VERDICTS}
    rows.append(
      {"source": str(name), "class": CLASSES[label], "images": int(those.sum())}
      | called
    )
  return rows


def cells(test: Pictures, evidence: np.ndarray) -> list[dict]:
  """AUC of each source of fakes against each source of reals."""
  rows = []
  of = lambda label: sorted(set(test.sources[test.labels == label]))
  for fake in of(1):
    for real in of(0):
      those = np.where(
        test.labels == 1, test.sources == fake, test.sources == real
      )
      value = metrics.auc(test.labels[those], evidence[those])
      rows.append({"fakes": str(fake), "reals": str(real), "auc": value})
  return rows


def save(model: Model, path: pathlib.Path) -> None:
  arrays = {
    f"{name}.{part}.{field}": np.ascontiguousarray(value, np.float32)
    for name, member in model.members.items()
    for part, values in (("line", member.line), ("reals", member.reals))
    for field, value in values._asdict().items()
  }
  partial = path.with_name(path.name + ".part")
  safetensors.numpy.save_file(arrays, partial)
  partial.replace(path)


def load_model(path: pathlib.Path) -> Model:
  """Raises ConfigError where the file holds no such model."""
  try:
    arrays = safetensors.numpy.load_file(path)
    names = list(VIEWS)
    if "line.mean" in arrays:  # Older ones have the first alone, not named.
      names = names[:1]
      arrays = {f"{names[0]}.{key}": value for key, value in arrays.items()}
    part = lambda kind, name: kind(
      *(arrays[f"{name}.{field}"].astype(np.float64) for field in kind._fields)
    )
    member = lambda name: Member(
      VIEWS[name],
      part(discriminant.Discriminant, f"{name}.line"),
      part(discriminant.Scatter, f"{name}.reals"),
    )
    return Model({name: member(name) for name in names})
  except (OSError, KeyError, safetensors.SafetensorError) as error:
    raise errors.ConfigError(
      f"{path} is no detector's model: {error}"
    ) from error


@dataclasses.dataclass(frozen=True)
class Detector:
  """A fitted detector: whole pictures to verdicts."""

  model: Model
  rule: Rule

  classes = CLASSES
  canonical = staticmethod(detector.whole)

  def judge(self, images: Sequence[np.ndarray]) -> list[dict]:
    """Of uint8 (h, w) each: p_fake, verdict and reason, for rows of detect."""
    return [self._judged(image) for image in images]

  def _judged(self, gray: np.ndarray) -> dict:
    if min(gray.shape) < crops.SIDE:
      reason = f"{SMALL}: expected at least {crops.SIDE} pixels a side"
      return {"p_fake": None, "verdict": "uncertain", "reason": reason}
    measures = self.model.measures(numbers_of(gray))
    verdict, reason = self.rule.verdict(*measures)
    p = float(self.rule.probability(self.rule.evidence(measures))[0])
    return {"p_fake": p, "verdict": verdict, "reason": reason}

  def about(self) -> dict:
    """What a list of verdicts says of it; thresholds are of evidence, as
    probabilities."""
    ends = np.array([self.rule.real_at_most, self.rule.fake_at_least])
    low, high = map(float, self.rule.probability(ends))
    return {"name": "forensic", "real_at_most": low, "fake_at_least": high}

  def map(self, gray: np.ndarray) -> np.ndarray | None:
    """Where a uint8 (h, w) picture looks made: float32 (h, w), at or below 0 as
    a picture that is `real`, at or above 1 as one that is `fake`. None of one
    that is too small.

    A part alone has fewer blocks than a picture and so more evidence of
    anything: the mean over parts is set to the whole picture's evidence.
    """
    if min(gray.shape) < crops.SIDE:
      return None
    of = spectral.of_surroundings(gray)
    evidence = np.stack(
      [self.rule.evidence(self.model.measures(row)) for row in of.rows]
    )
    whole = self.model.measures(spectral.of_picture(gray)[None])
    evidence += self.rule.evidence(whole)[0] - evidence.mean()
    low, high = self.rule.real_at_most, self.rule.fake_at_least
    share = (evidence - low) / max(high - low, 1e-6)
    at = np.meshgrid(
      *(
        (np.arange(n) - first) / of.stride
        for n, first in zip(gray.shape, of.first, strict=True)
      ),
      indexing="ij",
      sparse=True,
    )
    return ndimage.map_coordinates(
      share.astype(np.float32),
      np.broadcast_arrays(*at),
      order=1,
      mode="nearest",
    )


def files(path: pathlib.Path) -> list[str]:
  """The names of what `load` reads in a run's folder, beside result.json."""
  return [MODEL]


def load(path: pathlib.Path) -> Detector:
  """Of a finished run's folder, or one that was shipped."""
  path = pathlib.Path(path)
  calibration = disk.read_json(path / "result.json")["calibration"]
  return Detector(load_model(path / MODEL), Rule.of(calibration))


def summary(path: pathlib.Path, result: dict) -> str:
  """What a finished run reached and where everything is."""
  lines = [
    f"  {'source':28}{'':6}{'images':>7}"
    + "".join(f"{v:>11}" for v in VERDICTS)
  ]
  for row in result["by_source"]:
    share = "".join(f"{row[v] / row['images']:>11.0%}" for v in VERDICTS)
    lines.append(
      f"  {row['source']:28}{row['class']:6}{row['images']:>7,}{share}"
    )
  auc = [x["auc"] for x in result["auc"]]
  return (
    "test pictures, called:\n"
    + "\n".join(lines)
    + f"\n  AUC over {len(auc)} pairs of sources: mean {np.mean(auc):.3f},"
    f" least {np.min(auc):.3f}\n  {path}/result.json, {path}/predictions.csv"
  )

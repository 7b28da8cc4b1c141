"""What could tell real from fake without looking at the picture.

A detector that reads such a trace scores well on its own test set and nowhere
else. Three questions, of the images as they are scored:

- do the containers differ: format, size, bit depth, encoder settings?
- shortcut probe: does a small model that sees the border, the ends of the
  histogram and the 8x8 grid, and nothing else, tell the two apart?
- does the machinery find a difference where there is none: with shuffled
  labels, and between two halves of the reals?
"""

from collections.abc import Callable, Iterable, Sequence
import io

import numpy as np
from PIL import Image

from jaxfake import errors
from jaxfake.classifiers import features, ridge
from jaxfake.evaluation import metrics

LIMIT = 0.6  # Of the lower end of the shortcut probe's AUC.
REPEATS = 20
BLOCK = 8  # Of JPEG, in pixels.


def container(file: bytes) -> dict:
  """The facts of an image file that have nothing to do with its picture."""
  with Image.open(io.BytesIO(file)) as image:
    tables = getattr(image, "quantization", None)
    facts = {
      "format": image.format,
      "size": image.size,
      "mode": image.mode,
      "bits": getattr(image, "bits", 8),
      "quantization": tables and {k: list(v) for k, v in tables.items()},
      "layers": getattr(image, "layer", None),
    }
    # Whatever else the file says: resolution, gamma, comments, progressive.
    return facts | {f"info {k}": v for k, v in sorted(image.info.items())}


def compare_containers(real: Iterable[bytes], fake: Iterable[bytes]) -> dict:
  """{"identical": bool, "facts": {name: value}, "differences": [name]}.

  A fact differs where the reals' values and the fakes' are not the same set,
  and where it varies within them.
  """
  seen = [{}, {}]
  for values, files in zip(seen, (real, fake), strict=True):
    for file in files:
      for name, value in container(file).items():
        values.setdefault(name, set()).add(repr(value))
  names = sorted(set(seen[0]) | set(seen[1]))
  differ = [
    name
    for name in names
    if seen[0].get(name) != seen[1].get(name) or len(seen[0][name]) > 1
  ]
  return {
    "identical": not differ,
    "facts": {
      name: [sorted(values.get(name, ()))[:3] for values in seen]
      for name in names
    },
    "differences": differ,
  }


def _line_steps(images: np.ndarray, axis: int) -> np.ndarray:
  """Mean absolute step between neighbouring lines: (n, s - 1)."""
  x = images.astype(np.float32)
  return np.abs(np.diff(x, axis=axis)).mean(3 - axis)


def border(images: np.ndarray) -> np.ndarray:
  """Of uint8 (n, s, s), on each side: the step from the outermost line to the
  next, and the outermost line's spread, both over those further in, in
  logarithms: (n, 8).

  Not how bright it is: that is the picture's.
  """
  x = images.astype(np.float32)
  ratios = []
  for axis in (1, 2):
    steps, spread = _line_steps(images, axis), x.std(3 - axis)
    for values, inside in ((steps, 3), (spread, 4)):
      for line in (values, values[:, ::-1]):
        ratios.append(_log_ratio(line[:, 0], line[:, 1:inside].mean(1), 1))
  return np.stack(ratios, 1)


def histogram_ends(images: np.ndarray) -> np.ndarray:
  """Of uint8 (n, s, s): the darkest and the brightest value, and the shares of
  pixels at 0 and at 255: (n, 4)."""
  x = images.reshape(len(images), -1)
  ends = [x.min(1), x.max(1), (x == 0).mean(1), (x == 255).mean(1)]
  return np.stack(ends, 1).astype(np.float32)


def blockiness(images: np.ndarray) -> np.ndarray:
  """Of uint8 (n, s, s): the steps across the edges of 8x8 blocks over those
  across their middles, along both axes, in logarithms: (n, 2).

  The middles, since a generator that doubles its maps may well have grids of 2
  and 4 pixels, which are its own and no leak; both kinds of line sit alike in
  them.
  """
  ratios = []
  for axis in (1, 2):
    # Not of the outermost blocks: those are the border's.
    steps = _line_steps(images, axis)[:, BLOCK:-BLOCK]
    at = np.arange(steps.shape[1]) % BLOCK
    edges = steps[:, at == BLOCK - 1].mean(1)
    ratios.append(
      _log_ratio(edges, steps[:, at == BLOCK // 2 - 1].mean(1), 0.1)
    )
  return np.stack(ratios, 1)


def _log_ratio(a, b, least):
  return np.log((a + least) / (b + least))


SHORTCUTS = {
  "border": border,
  "histogram ends": histogram_ends,
  "8x8 blocks": blockiness,
}


def shortcuts(images: np.ndarray) -> np.ndarray:
  """All of SHORTCUTS, of uint8 (n, s, s, 1): (n, d)."""
  return np.concatenate([f(images[..., 0]) for f in SHORTCUTS.values()], 1)


def shortcut_probe(
  train: tuple[np.ndarray, np.ndarray],
  test: tuple[np.ndarray, np.ndarray, list[str]],
  of: Callable = shortcuts,
) -> dict:
  """AUC of a ridge on `of(images)`: {"value", "low", "high", "interval"}.

  `train` is (images, labels), `test` (images, labels, patients).
  """
  coef, intercept, _ = ridge.readout(of(train[0]), train[1])
  images, labels, patients = test
  score = (of(images) @ coef + intercept) @ [-1, 1]
  p = 1 / (1 + np.exp(-score))
  figures = metrics.figures(
    labels, np.stack([1 - p, p], 1), patients, classes=("real", "fake")
  )
  return figures["auc"]


def null_control(
  train: tuple[np.ndarray, list[str]],
  test: tuple[np.ndarray, list[str]],
  of: Callable,
) -> dict:
  """AUCs where a coin decides for each patient what all of its images are.

  There is nothing to be learnt, unless a patient is in train and in test. Of
  REPEATS tosses the mean, and between what values 95 % lie: {"value", "low",
  "high", "interval"}; of fewer, where some give all test patients one side.
  `train` and `test` are (images, patients). Raises DataError for one test
  patient.
  """
  (x, patients), (y, others) = ((of(a), b) for a, b in (train, test))
  everyone = sorted({*patients, *others})
  if len(set(others)) < 2:
    raise errors.DataError(
      f"test has {len(set(others))} patients: expected at least 2 for an audit"
    )
  aucs = []
  for repeat in range(REPEATS):
    coins = np.random.default_rng(repeat).permutation(len(everyone)) % 2
    side = dict(zip(everyone, coins, strict=True))
    coef, intercept, _ = ridge.readout(x, np.array([side[p] for p in patients]))
    truth = np.array([side[p] for p in others])
    if len(set(truth)) < 2:
      continue
    aucs.append(metrics.auc(truth, (y @ coef + intercept) @ [-1, 1]))
  low, high = np.percentile(aucs, [2.5, 97.5])
  return {
    "value": float(np.mean(aucs)),
    "low": float(low),
    "high": float(high),
    "interval": f"{len(aucs)} tosses",
  }


def audit(
  files: Sequence[Sequence[bytes]],
  train: tuple[np.ndarray, np.ndarray, list[str]],
  test: tuple[np.ndarray, np.ndarray, list[str]],
) -> dict:
  """All three questions: {"containers", "shortcut_probe", "shortcuts",
  "shuffled_labels", "real_against_real", "leaks": [text]}.

  `files` are PNG or JPEG bytes of (reals, fakes); `train` and `test` are
  (images uint8 (n, s, s, 1), labels (n,) 1 of a fake, patients (n,)). No leaks
  were found where the list is empty.
  """
  answers = {"containers": compare_containers(*files)}
  answers["shortcut_probe"] = shortcut_probe(train[:2], test)
  answers["shortcuts"] = {
    name: shortcut_probe(train[:2], test, lambda x, f=f: f(x[..., 0]))
    for name, f in SHORTCUTS.items()
  }

  def of(images):
    return np.concatenate([shortcuts(images), features.spectrum(images)], 1)

  reals = [
    (x[labels == 0], [who[i] for i in np.flatnonzero(labels == 0)])
    for x, labels, who in (train, test)
  ]
  everything = [(x, who) for x, _, who in (train, test)]
  answers["shuffled_labels"] = null_control(everything[0], everything[1], of)
  answers["real_against_real"] = null_control(reals[0], reals[1], of)

  said = [
    f"the files differ in {name}: {' and '.join(map(str, values))}"
    for name in answers["containers"]["differences"]
    for values in [answers["containers"]["facts"][name]]
  ]
  probe = answers["shortcut_probe"]
  low = probe["low"]
  if low > LIMIT:
    worst = max(
      answers["shortcuts"], key=lambda k: answers["shortcuts"][k]["low"]
    )
    said.append(
      "a shortcut probe of border, ends of the histogram and 8x8 grid"
      f" tells fakes with AUC {probe['value']:.2f}, at least"
      f" {low:.2f}, above {LIMIT}; most of it by the {worst}"
    )
  for name, what in (
    ("shuffled_labels", "with shuffled labels"),
    ("real_against_real", "between reals and reals"),
  ):
    x = answers[name]
    if not x["low"] <= 0.5 <= x["high"]:
      said.append(
        f"{what} the AUC is {x['low']:.2f} to {x['high']:.2f}, not .5: are"
        " patients in train and in test?"
      )
  return answers | {"leaks": said}

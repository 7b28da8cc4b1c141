"""The detector's core: a stream of files to a stream of rows.

`score` holds a batch and nothing else, and shows nothing: a command, a page or
a listener consumes it row by row.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
import re
from typing import Any

import numpy as np

from jaxfake import errors
from jaxfake.classifiers import overlay
from jaxfake.data import decoders, image_error, image_file, work
from jaxfake.evaluation.verdicts import VERDICTS
from jaxfake.runtime import disk, litter

# What comes with the program, where no other is named.
SHIPPED = pathlib.Path(__file__).parent.with_name("shipped")
CARD = "MODEL_CARD.md"
FIELDS = (
  "file",
  "p_fake",
  "verdict",
  "reason",
  "error",
  "marked",
  "sha256",
  "model",
)


def load(path: pathlib.Path) -> tuple:
  """The detector in a run's folder, and the sha256 of all that it is.

  Raises ConfigError where there is none.
  """
  from jaxfake import contracts, named
  from jaxfake.classifiers import registry
  from jaxfake.runtime import disk

  result = disk.read_json(path / "result.json")
  task = result.get("config", {}).get("task", "")
  family = named.find("--model: task", task, contracts.DetectorFamily).load()
  detector = family.load(path)
  if detector.classes != VERDICTS[::2]:
    raise errors.ConfigError(
      f"--model {path} tells {' from '.join(detector.classes)}: expected a"
      " detector, of real and fake (data.name=real_or_fake, or task forensic,"
      " localizer or reconstruction)"
    )
  return detector, registry.sha256(path)


# What sample and tamper write beside their images, in a folder that has one of
# the first two.
MADE = frozenset({"sampler.json", "tampering.json"})
TABLES = MADE | {"manifest.jsonl", "sources.csv", disk.LOCK}


def listed(paths: list[str], but: Sequence[str] = ()) -> tuple[list[str], int]:
  """(all that is given or in a folder given, each once, in order; how much was
  passed over: litter of desktops, and `TABLES`).

  Whatever is no folder is in there, and so are folders that may not be listed
  and links to folders, which are not followed: each gets its row. `but` the
  command's own outputs, files or folders of files, found there by a second run.
  Raises ConfigError where a path does not exist, or nothing is found.
  """
  places, passed = {}, 0
  for path in paths:
    if not os.path.isdir(path):
      if not os.path.lexists(path):
        raise errors.ConfigError(f"{printable(path)}: no such file or folder")
      places[path] = None
      continue
    closed = lambda error: places.update({error.filename: None})
    for folder, folders, names in os.walk(path, onerror=closed):
      join = lambda name, folder=folder: os.path.join(folder, name)
      links = [x for x in folders if os.path.islink(join(x))]
      tables = TABLES if MADE & {*names} else frozenset()
      kept = [
        x
        for x in (*names, *links)
        if x not in tables and not litter.is_litter(x)
      ]
      opened = [x for x in folders if not litter.is_litter(x)]
      passed += len(names) + len(links) - len(kept)
      passed += len(set(folders) - set(opened) - set(links))
      folders[:] = sorted(set(opened) - set(links))
      places.update(dict.fromkeys(map(join, sorted(kept))))
  own = {os.path.realpath(path) for path in but}
  if own:
    real = {x: os.path.realpath(x) for x in places}
    mine = lambda path: path in own or os.path.dirname(path) in own
    places = {x: None for x, path in real.items() if not mine(path)}
  if not places:
    names = ", ".join(map(printable, paths))
    raise errors.ConfigError(f"{names}: no file in there")
  return list(places), passed


def printable(name: str) -> str:
  r"""A name of any bytes as one line of text: what is not UTF-8 or controls a
  terminal is written \xNN."""
  text = os.fsencode(name).decode("utf-8", "backslashreplace")
  return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda c: f"\\x{ord(c[0]):02x}", text)


def opened(path: str) -> bytes:
  """A file's bytes, or an ImageError that says what else is there."""
  if os.path.isdir(path):
    if os.path.islink(path):
      raise image_error.ImageError(path, "is a link to a folder, not followed")
    try:
      os.scandir(path).close()
    except OSError as error:
      reason = f"is a folder that cannot be listed: {error.strerror}"
      raise image_error.ImageError(path, reason) from error
  if os.path.islink(path) and not os.path.exists(path):
    raise image_error.ImageError(path, "is a link that leads nowhere")
  return image_file.read_bytes(path)


def sha256(path: str, data: bytes) -> str:
  """Of a file whose first bytes were read."""
  if len(data) <= image_file.MAX_BYTES:
    return hashlib.sha256(data).hexdigest()
  with open(path, "rb") as file:  # Too large to hold; only its start was read.
    return hashlib.file_digest(file, "sha256").hexdigest()


def whole(gray: np.ndarray) -> np.ndarray:
  """The picture as it is: the `canonical` of a program that looks at pixels."""
  return gray


def examine(
  path: str, canonical: Callable = whole
) -> tuple[dict, np.ndarray | None]:
  """What a file holds, (facts, canonical(gray) or None), in a worker."""
  from jaxfake.data import marks, radiograph

  facts = {}
  try:
    data = opened(path)
    facts["sha256"] = sha256(path, data)
    facts["marked"] = marks.marked(data)
    gray = image_file.read(data)
  except image_error.ImageError as error:
    return facts | {"error": error.reason}, None
  if reason := radiograph.no_radiograph(gray):
    return facts | {"verdict": "uncertain", "reason": reason}, None
  return facts, canonical(gray)


def start() -> None:
  """Starts what workers come from, while a model is loaded, say."""
  decoders.start(__name__, "jaxfake.data.real_or_fake")


def score(
  program: Any,
  files: Iterable[str],
  pool: decoders.Pool | None = None,
  maps: bool = False,
) -> Generator[dict, None, None]:
  """A row of FIELDS for each file, in order; some are read ahead, by workers.
  With `maps`, its map over it, uint8 (h, w, 3), or None, as `map` too.

  What is no radiograph is `uncertain` without a p_fake. `program.canonical`
  goes to the workers, so that a picture comes back as small as it may be;
  `program.judge` gives p_fake, verdict and reason of what they made.
  """
  from jaxfake.classifiers import registry

  look, waiting = functools.partial(examine, canonical=program.canonical), []
  paths, files = itertools.tee(files)
  with contextlib.ExitStack() as stack:
    readers = pool or stack.enter_context(decoders.Pool())
    answers = work.in_order(readers, look, files)
    for path, answer in zip(paths, answers, strict=True):
      row = dict.fromkeys(FIELDS) | {"file": printable(path)}
      if isinstance(answer, image_error.ImageError):
        facts, image = {"error": answer.reason} | _hash(path), None
      else:
        facts, image = answer
      waiting.append((row | facts, image))
      if len(waiting) == (1 if maps else registry.BATCH):
        yield from judged(program, waiting, maps)
        waiting = []
    yield from judged(program, waiting, maps)


def _hash(path):
  """The hash of a file that its decoder did not live to tell."""
  if not os.path.isfile(path):
    return {}
  try:
    with open(path, "rb") as file:
      return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
  except OSError:
    return {}  # Gone since; the row has an error already.


def judged(program: Any, items: list, maps: bool = False) -> Iterator[dict]:
  """The rows of some files with their verdicts."""
  said = iter(program.judge([image for _, image in items if image is not None]))
  for row, image in items:
    row = row if image is None else row | next(said)
    if maps:
      heatmap = None if image is None else program.map(image)
      seen = None
      if image is not None and heatmap is not None:
        seen = overlay.overlay(image, heatmap)
      row = row | {"map": seen}
    yield row

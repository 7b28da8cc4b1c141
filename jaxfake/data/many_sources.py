"""Reals of many hospitals and fakes of many generators, each a source by name.

`data.dir` names folders, separated by commas, each in one of two forms:

    FOLDER          FOLDER/{real,fake}/SOURCE/*, images at any depth
    NAME=FOLDER     reals of the source NAME, images at any depth; or fakes,
                    where jaxfake.sample made the folder

Either may hold sources.csv, whose columns are file (a path in FOLDER) and
patient, and perhaps licence, and original: the picture in FOLDER, or in another
of the folders, that this one was made from, always a real one. Elsewhere it is
named real/SOURCE/ and its path, or by the path in its folder, if no two have
it. It may have other columns; a patient's name there is the same patient in
every folder. A source may have pictures in several folders.

Whose a real picture is, is known from that file, DICOM, the names of public
sets or a folder's such as case_12, as elsewhere, within its source. A fake is
its original's patient's, without one nobody's.

Sources that are left out, and images of other licences than `licences` names,
are test images and nothing else; of the others splits are by patient, and the
patients of reals in test alone are test patients elsewhere too. A left-out
generator's fakes of training patients are dropped. So are
near-duplicates in several sources, but for those of one source; they are
searched among reals and among fakes of no original, since fakes of one original
are near-duplicates by design.
"""

import collections
from collections.abc import Sequence, Set
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import types
from typing import Any
import unicodedata

import numpy as np

from jaxfake import contracts, errors
from jaxfake import data as datasets
from jaxfake.data import (
  duplicates,
  folders,
  generated,
  grouping,
  patients,
  records,
)

REAL, FAKE = CLASSES = "real", "fake"
TABLE = "sources.csv"
LAYOUT = "FOLDER/{real,fake}/SOURCE/*.png, or NAME=FOLDER of reals"
ABOUT = f"folders, separated by commas, {LAYOUT}"
NOBODY = "synthetic:"  # The patient of a fake of no original; its id follows.


@dataclasses.dataclass(frozen=True)
class _File:
  """A picture, `path` beneath its source and `inner` in the folder `base`, with
  its row of the CSV file and where that stands."""

  base: pathlib.Path
  kind: str
  source: str
  path: str
  inner: str
  file: pathlib.Path
  row: dict
  where: str

  @property
  def name(self) -> str:
    """The id, where no other folder has the same."""
    return f"{self.kind}/{self.source}/{self.path}"


def listing(
  data: contracts.Config,
) -> tuple[folders.Listing, frozenset[str], dict]:
  """What `config.data` names, its `dir` and `many_sources`; the ids of those
  that are test images alone, of a source left out or of another licence; and
  facts: the sources left out, and how many are of other licences.

  Raises ConfigError, DataError.
  """
  walk, files = folders.Walk(), []
  for place in _split(data.dir):
    files += _files(place, walk)
  if not files:
    raise errors.ConfigError(
      f"data.dir is {data.dir!r}: expected folders, separated by commas:"
      f" {LAYOUT}"
    )
  names = sorted({file.source for file in files})
  out = left_out(data)
  for name in out:
    if name not in names:
      raise errors.ConfigError(
        f"data.many_sources.leave_out names {name!r}: expected some of"
        f" {', '.join(names)}{errors.nearest(name, names)}"
      )
  entries = sorted(_entries(files), key=folders.order)
  other = set()
  if allowed := _split(_option(data, "licences")):
    other = {e.id for e in entries} - _allowed(entries, allowed)
    if len(other) == len(entries):
      raise errors.DataError(
        f"{data.dir}: no image of the licences {', '.join(allowed)}"
        " (data.many_sources.licences)"
      )
  of_sources = {e.id for e in entries if e.extra["source"] in out}
  listed = folders.Listing(entries, CLASSES, walk.litter)
  facts = {"left_out": out, "of_other_licences": len(other)}
  return listed, frozenset(of_sources | other), facts


def left_out(data: contracts.Config) -> list[str]:
  """The names of the sources that stand in test alone."""
  return sorted(set(_split(_option(data, "leave_out"))))


def _option(data, name):
  """A field of data.many_sources; not every task's data has them."""
  return (data.get("many_sources") or {}).get(name, "")


def _split(text: str) -> list[str]:
  return [part.strip() for part in text.split(",") if part.strip()]


def _files(place: str, walk: folders.Walk) -> list[_File]:
  """The pictures of FOLDER or NAME=FOLDER."""
  name, equals, folder = place.partition("=")
  named = equals and not os.path.isdir(os.path.expanduser(place))
  if named and (not name.strip() or "/" in name):
    raise errors.ConfigError(
      f"data.dir names {place!r}: no such folder, and {name!r} is no name of a"
      f" source; expected {LAYOUT}"
    )
  base = folders.root(folder.strip() if named else place, f"expected {LAYOUT}")
  sampled = named and (base / generated.SAMPLER).exists()
  if sampled:
    _whole(base)
  if named:
    places = [(FAKE if sampled else REAL, folders.plain(name), base)]
  else:
    places = _sources(base, walk)
  rows, pictures = _rows(base), []
  for kind, source, top in places:
    for file in walk.files(top):
      if file == base / TABLE or (sampled and file.name in generated.TABLES):
        continue
      inner = _text(file.relative_to(base))
      where, row = rows.pop(_form(inner), ("", {}))
      path = _text(file.relative_to(top))
      pictures.append(_File(base, kind, source, path, inner, file, row, where))
  if rows:
    where, row = min(rows.values(), key=lambda x: int(x[0].rpartition(":")[2]))
    raise errors.DataError(
      f"{where}: {row['file']} is no image of {base}; {len(rows)} of the rows"
      " have none"
    )
  if not pictures:
    raise errors.DataError(f"{base}: no images; expected {LAYOUT}")
  return pictures


def _whole(base) -> None:
  """Raises DataError where the folder of a sampler's images is not whole."""
  place = types.SimpleNamespace(dir=str(base), split="patient")
  entries, _ = generated.entries(place)
  if any(entry.record is not None for entry in entries):
    raise errors.DataError(
      f"{base}: holds shards; expected PNG files (jaxfake.sample --format png)"
    )


def _sources(base, walk) -> list[tuple[str, str, pathlib.Path]]:
  """(class, source, folder) of a folder of sources."""
  sources = []
  for top in walk.folders(base):
    kind = folders.plain(top.name).casefold()
    if kind not in CLASSES:
      continue
    inside = walk.folders(top)
    if loose := [p for p in walk.held(top) if p not in inside]:
      raise errors.DataError(f"{loose[0]}: is of no source; expected {LAYOUT}")
    sources += [(kind, folders.plain(p.name), p) for p in inside]
  return sources


def _text(path) -> str:
  # A name that is not UTF-8 cannot be stored as it is.
  return os.fsencode(path).decode(errors="replace")


def _form(path: str) -> str:
  """Of one path, however a CSV file or a file system writes it."""
  return unicodedata.normalize("NFC", patients.slashed(path))


def _rows(base) -> dict[str, tuple[str, dict]]:
  """Path in the folder -> where its row stands, and the row."""
  path = base / TABLE
  rows = {}
  if path.exists():
    for number, row in patients.rows(path, ("file", "patient")):
      where, file = f"{path}:{number}", _form(row["file"])
      if not file:
        raise errors.DataError(f"{where}: no file")
      if file in rows:
        raise errors.DataError(f"{where}: {file} is at {rows[file][0]} too")
      rows[file] = where, row
  return rows


def _entries(files: Sequence[_File]) -> list[folders.Entry]:
  ids = _ids(files)
  made_from = _originals(files)
  entries = []
  for i, (file, id) in enumerate(zip(files, ids, strict=True)):
    patient, key, known = _whose(file, id)
    extra = {
      "source": file.source,
      "licence": file.row.get("licence", ""),
      "original": ids[made_from[i]] if i in made_from else "",
    }
    label = CLASSES.index(file.kind)
    entries.append(
      folders.Entry(
        split=folders.split_of(key),
        label=label,
        patient=patient,
        id=id,
        path=str(file.file),
        extra=extra,
        known=known,
        key=key,
      )
    )
  return _of_originals(entries)


def _ids(files) -> list[str]:
  """An id for each: class, source and path; before it the folder's name, where
  one before it has the same."""
  seen = {}
  for file in files:
    id = file.name
    if id in seen:
      id = f"{file.base.name}:{id}"
    if id in seen:
      raise errors.DataError(
        f"{seen[id].file} and {file.file}: the same picture twice, or the same"
        " name of folder, source and file (data.dir)"
      )
    seen[id] = file
  if len({file.file.resolve() for file in files}) < len(files):
    raise errors.ConfigError(
      f"data.dir names the same pictures twice: {files[0].base} and others"
    )
  return list(seen)


def _originals(files) -> dict[int, int]:
  """Index of a picture -> that of the real one that it was made from."""
  own, by_name = {}, collections.defaultdict(list)
  by_path = collections.defaultdict(list)
  for i, file in enumerate(files):
    if file.kind == REAL:
      own[file.base, _form(file.inner)] = i
      by_name[_form(file.name)].append(i)
      by_path[_form(file.inner)].append(i)
  originals = {}
  for i, file in enumerate(files):
    if not (text := file.row.get("original", "")):
      continue
    text = _form(text)
    those = [own.get((file.base, text), i), *by_name[text]]
    those = [k for k in those if k != i][:1] or by_path[text]
    if len(those) != 1:
      what = "a real image of several" if those else "no real image"
      raise errors.DataError(
        f"{file.where}: the original {text} is {what} of the folders (data.dir)"
      )
    originals[i] = those[0]
  return originals


def _whose(file: _File, id: str) -> tuple[str, str, str]:
  """Patient, key of the split, and by what it is known; see folders.Entry."""
  if patient := file.row.get("patient"):
    return patient, patient, patients.CSV if patients.known(patient) else ""
  if file.kind == FAKE:
    return NOBODY + id, NOBODY + id, ""
  parents = file.path.split("/")[:-1]
  # Folders of classes, splits and years are many here; a number is a patient's.
  several = {
    "/".join(parents[:depth])
    for depth, name in enumerate(parents, 1)
    if not patients.is_numbered(name)
  }
  patient, known = patients.named(file.path, several)
  if patient:
    patient = f"{file.source}:{patient}"
    return patient, patient, known
  key = f"{patients.UNKNOWN}{file.source}/{patients.without(file.path)}"
  return patients.UNKNOWN + id, key, ""


def _of_originals(entries) -> list[folders.Entry]:
  """The entries, those whose own patient no CSV file tells with that of their
  original, where it is there."""
  where = {entry.id: entry for entry in entries}
  amended = []
  for entry in entries:
    original = where.get(entry.extra["original"])
    if original and entry.known != patients.CSV:
      entry = dataclasses.replace(
        entry,
        patient=original.patient,
        key=original.key,
        known=original.known,
        split=original.split,
      )
    amended.append(entry)
  return amended


def _allowed(entries, licences) -> set[str]:
  """The ids of images whose licence begins with one of these, or whose source
  has one as its name; made from another, only where that one is allowed too.

  CC BY is not CC BY-NC: what adds NC, ND or SA is another licence.
  """
  plain = lambda text: re.sub(r"[\s_-]+", "-", text.strip().casefold())
  patterns = [
    re.compile(re.escape(plain(x)) + r"(?!\w)(?!-(?:nc|nd|sa|non))")
    for x in licences
  ]
  allowed = {
    e.id
    for e in entries
    if e.extra["source"] in licences
    or any(p.match(plain(e.extra["licence"])) for p in patterns)
  }
  return {
    e.id
    for e in entries
    if e.id in allowed and (e.extra["original"] or e.id) in allowed
  }


def settle(
  test_alone: Set[str],
  entries: Sequence[folders.Entry],
  seen: Sequence[grouping.Seen],
) -> tuple[dict[str, list[folders.Entry]], dict]:
  """The entries by split, and facts; see grouping.settle.

  `test_alone` are ids. Of near-duplicates in several sources those of one
  source stay: of one in test alone, where it is among them, else of the first
  by name.
  """
  entries = _of_originals(grouping.with_patients(entries, seen))
  copies = _between_sources(test_alone, entries, seen)
  # What is dropped takes part, so that what was made from it stays with what it
  # is a copy of.
  groups, near, alike = grouping.groups(entries, seen, _together(entries))
  kept, trained_on = {}, 0
  for those in groups:
    stay = [i for i in those if i not in copies]
    if not stay:
      continue
    split = _split_of([entries[i] for i in stay], test_alone)
    for i in stay:
      if split != "test" and entries[i].id in test_alone:
        trained_on += 1
      else:
        kept[i] = dataclasses.replace(entries[i], split=split)
  near = [[i for i in those if i in kept] for those in near]
  facts: dict[str, Any] = {
    "kept_together": grouping.kept_together(entries, near),
    "too_alike": alike,
    "dropped_between_sources": len(copies),
    "dropped_of_training_patients": trained_on,
  }
  entries = _with_originals_there(kept.values())
  by = collections.Counter(entry.known for entry in entries)
  facts["patients_by"] = {how: by[how] for how in patients.WAYS}
  splits = {
    name: [e for e in entries if e.split == name] for name in folders.SPLITS
  }
  counts = {
    name: collections.Counter(e.extra["source"] for e in those)
    for name, those in splits.items()
    if those
  }
  facts["sources"] = {
    name: dict(sorted(count.items())) for name, count in counts.items()
  }
  return splits, facts


def _between_sources(test_alone, entries, seen) -> set[int]:
  """Which entries have a near-duplicate in another source that stays, or are
  cut from one that has."""
  dropped = set()
  for label, kind in enumerate(CLASSES):
    those = [
      i
      for i, e in enumerate(entries)
      if e.label == label and (kind == REAL or not e.extra["original"])
    ]
    if not those:
      continue
    clusters, _ = duplicates.clusters(np.array([seen[i].bits for i in those]))
    for cluster in clusters:
      members = [those[i] for i in cluster]
      stays = min(
        (entries[i].id not in test_alone, entries[i].extra["source"])
        for i in members
      )[1]
      dropped |= {i for i in members if entries[i].extra["source"] != stays}
  ids = {entries[i].id for i in dropped}
  return dropped | {
    i
    for i, e in enumerate(entries)
    if CLASSES[e.label] == REAL and e.extra["original"] in ids
  }


def _together(entries) -> list[list[int]]:
  """Images of one patient, and each with its original."""
  where = {entry.id: i for i, entry in enumerate(entries)}
  groups = collections.defaultdict(list)
  for i, entry in enumerate(entries):
    groups["patient", entry.patient].append(i)
    if (original := where.get(entry.extra["original"])) is not None:
      groups["original", original] += [original, i]
  return list(groups.values())


def _split_of(group: Sequence[folders.Entry], test_alone) -> str:
  """The split of what must stand in one: test, where a real of test alone or
  nothing else is in it."""
  out = [e for e in group if e.id in test_alone]
  if len(out) == len(group) or any(CLASSES[e.label] == REAL for e in out):
    return "test"
  learnt = [e.key for e in group if e.id not in test_alone]
  return folders.split_of(grouping.leader(learnt))


def _with_originals_there(entries) -> list[folders.Entry]:
  """The entries in order, `original` empty where that picture has gone."""
  ids = {entry.id for entry in entries}
  amended = []
  for entry in sorted(entries, key=folders.order):
    if entry.extra["original"] not in ids:
      extra = {**entry.extra, "original": ""}
      entry = dataclasses.replace(entry, extra=extra)
    amended.append(entry)
  return amended


def notes(facts: dict) -> list[str]:
  """What a summary says of sources and of what was dropped."""
  names = {name for counts in facts["sources"].values() for name in counts}
  lines = [f"{len(names)} sources"]
  if facts["left_out"]:
    lines[0] += f", in test alone {', '.join(facts['left_out'])}"
  for field, what in (
    ("dropped_between_sources", "near-duplicates in another source"),
    ("dropped_of_training_patients", "test-only fakes of training patients"),
  ):
    if n := facts[field]:
      lines.append(f"{n:,} {what} dropped")
  if n := facts["of_other_licences"]:
    lines.append(f"{n:,} of other licences, in test alone")
  return lines


def entries(
  data: contracts.Config,
) -> tuple[list[folders.Entry], tuple[str, ...]]:
  """The folders' images, and the classes."""
  return listing(data)[0].entries, CLASSES


def prepare(data: contracts.Config) -> datasets.Dataset:
  """Always split by patient. Facts are also sources {split: {source: n}},
  left_out (names), dropped_between_sources, dropped_of_training_patients and
  of_other_licences."""
  listed, test_alone, facts = listing(data)
  key = folders.fingerprint(listed.entries)
  # Which are in test alone decides splits, and is no fact of any file.
  decides = repr((key, sorted(test_alone)))
  digest = hashlib.blake2b(decides.encode(), digest_size=8)
  recipe = records.of_entries(
    digest.hexdigest(),
    listed,
    data,
    features=dict.fromkeys(("source", "licence", "original"), "text"),
    look=grouping.picture,
    settle=functools.partial(settle, test_alone),
  )
  facts |= {"fingerprint": key, "split": "patient"}
  return records.prepare(data, recipe, facts, listed.litter, notes)

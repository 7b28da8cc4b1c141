r"""Reads a folder that `python -m jaxfake.sample` made. Its format:

    FOLDER/sampler.json     one object: {"classes": ["NORMAL", "PNEUMONIA"],
                            "size": 64, "model": "gan", "seed": 0,
                            "checkpoint_sha256": "...", "count": 20}
    FOLDER/manifest.jsonl   one object per image, in order:
                            {"file": "images/000000.png", "index": 0,
                            "label": 0, "class": "NORMAL", "seed": 0,
                            "model": "gan", "checkpoint_sha256": "..."}
    FOLDER/images/*.png     8-bit gray PNG, marked synthetic in a text chunk

or, in place of images/, FOLDER/NAME.array_record shards whose records are the
same PNG bytes; "file" then names the shard, and "record" the place in it.

"label" is an index into "classes", or null where the generator was told no
class; such an image has label -1. Each image is its own patient,
synthetic-SEED-INDEX. All are train, unless they are split by patient.
"""

import functools
import json
import pathlib

from array_record.python import array_record_data_source

from jaxfake import contracts, errors
from jaxfake import data as datasets
from jaxfake.data import folders, image_error, image_file, records

ABOUT = "a folder made by python -m jaxfake.sample"
FIELDS = "file", "index", "label", "class", "seed", "model", "checkpoint_sha256"
SAMPLER, MANIFEST = TABLES = "sampler.json", "manifest.jsonl"
_MADE_BY = "expected a folder made by python -m jaxfake.sample"
# How an image was made.
FEATURES = {
  "seed": "integer",
  "index": "integer",
  "model": "text",
  "checkpoint_sha256": "text",
}


def prepare(data: contracts.Config) -> datasets.Dataset:
  listing = folders.Listing(*entries(data), 0)
  key = folders.fingerprint(listing.entries)
  name = f"{data.split}-{key}"
  recipe = records.of_entries(name, listing, data, features=FEATURES)
  facts = {"fingerprint": key, "split": data.split}
  return records.prepare(data, recipe, facts)


def entries(
  data: contracts.Config,
) -> tuple[list[folders.Entry], tuple[str, ...]]:
  """The entries of `data.dir` in the manifest's order, and its classes.

  DataError names the file and line that is not as above, and a folder whose
  sampling was not finished.
  """
  root = folders.root(data.dir, _MADE_BY)
  general = _json(root / SAMPLER, _text(root / SAMPLER))
  manifest = root / MANIFEST
  for field in "classes", "count":
    if field not in general:
      raise errors.DataError(
        f"{root / SAMPLER}: no field {field!r}; {_MADE_BY}"
      )
  classes = tuple(general["classes"])
  listed = []
  for number, line in enumerate(_text(manifest).splitlines(), 1):
    where = f"{manifest}:{number}"
    fields = _json(where, line)
    listed.append(_entry(root, fields, where, classes, data.split))
  if len(listed) != general["count"]:
    raise errors.DataError(
      f"{manifest}: {len(listed)} images, but sampler.json promises"
      f" {general['count']}; run the same jaxfake.sample command to finish them"
    )
  listed.sort(key=lambda e: folders.SPLITS.index(e.split))
  return listed, classes


def read_bytes(entry: folders.Entry) -> bytes:
  """Returns an entry's PNG bytes, from its file or its place in a shard."""
  if entry.record is None:
    return image_file.read_bytes(entry.path)
  where = f"{entry.path}[{entry.record}]"
  try:
    return _shard(entry.path)[entry.record]
  except Exception as error:  # The reader's own, of many kinds.
    raise image_error.ImageError(where, f"cannot be read: {error}") from error


@functools.lru_cache(maxsize=64)
def _shard(path):
  return array_record_data_source.ArrayRecordDataSource(path)


def _entry(root, line, where, classes, policy):
  """Returns the Entry of one manifest line."""
  if missing := [field for field in FIELDS if field not in line]:
    raise errors.DataError(f"{where}: no field {missing[0]!r}; {_MADE_BY}")
  label = -1 if line["label"] is None else line["label"]
  if label != -1 and (
    label not in range(len(classes)) or line["class"] != classes[label]
  ):
    raise errors.DataError(
      f"{where}: label {label!r} is not class {line['class']!r} of"
      f" {', '.join(classes)}, the classes in sampler.json"
    )
  path = root / line["file"]
  if ".." in path.parts or not path.is_relative_to(root):
    raise errors.DataError(f"{where}: {line['file']!r} lies outside the folder")
  record = None
  if path.suffix == ".array_record":
    record = line.get("record")
    if not isinstance(record, int):
      raise errors.DataError(f"{where}: no place in the shard ('record')")
  id = f"synthetic-{line['seed']}-{line['index']}"
  patient = line.get("patient", id)
  extra = {
    "seed": line["seed"],
    "index": line["index"],
    "model": line["model"],
    "checkpoint_sha256": line["checkpoint_sha256"],
  }
  split = folders.split_of(patient) if policy == "patient" else "train"
  return folders.Entry(split, label, patient, id, str(path), extra, record)


def _text(path: pathlib.Path):
  try:
    return path.read_text()
  except OSError as error:
    raise errors.DataError(f"{path}: {error.strerror}; {_MADE_BY}") from error
  except UnicodeDecodeError as error:
    raise errors.DataError(f"{path}: is not text; {_MADE_BY}") from error


def _json(where, text):
  try:
    value = json.loads(text)
  except json.JSONDecodeError as error:
    raise errors.DataError(f"{where}: is not JSON ({error})") from error
  if not isinstance(value, dict):
    raise errors.DataError(f"{where}: is not a JSON object")
  return value

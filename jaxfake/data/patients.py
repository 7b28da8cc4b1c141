"""Whose each image is, as far as files tell, and what is said where they don't.

In this order: a CSV file of the user's (data.patients), DICOM's PatientID with
its issuer, the names of public sets, a folder a patient beneath a class. Where
none tells, the patient is not known: the image counts as a patient of its own,
and every summary says so. Names that merely look numbered ("a_001.png") tell
nothing.

PatientID is kept as a hash alone. Empty and stand-in values ("ANONYMOUS") tell
nothing, and neither does one value on more images than a patient has.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import csv
import dataclasses
import datetime
import io
import os
import pathlib
import re

from jaxfake import errors

UNKNOWN = "unknown:"  # Of a patient; the image's id follows.
CSV, DICOM, NAME, FOLDER = "data.patients", "PatientID", "file name", "folder"
WAYS = CSV, DICOM, NAME, FOLDER  # The best first.
# No patient has more images, of NIH's none more than 184; a folder or PatientID
# with more is of several.
MOST = 200
FEW = 10  # From here on, a PatientID on most of the images is a stand-in.

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_IN_PATH = (  # Anywhere in the path beneath the class.
  # CheXpert: patient00001/study1/view1_frontal.jpg; also joined by "_".
  re.compile(r"(?:^|[/_\- ])(patient[_\- ]?\d+)(?!\d)", re.IGNORECASE),
  # MIMIC-CXR: p10/p10000032/s50414267/02aa804e-....jpg; also joined by "_".
  re.compile(
    r"(?:^|/)p\d\d/(p\d{8})(?!\d)|(?:^|[/_\- ])(p\d{8})[/_\- ]+s\d{8}(?!\d)",
    re.IGNORECASE,
  ),
)
_AT_START = (  # Of the file's name.
  re.compile(r"(person\d+)_", re.IGNORECASE),  # Kaggle's person12_bacteria_34.
  # Mendeley's release: disease-patient-image; the patient is the number.
  re.compile(r"(?:NORMAL|PNEUMONIA|BACTERIA|VIRUS)-(\d+)-\d+", re.IGNORECASE),
  re.compile(r"(\d{8})_\d{3}(?!\d)"),  # NIH's 00000013_005.
)
_ALONE = (  # The same, where no folder tells: other programs name files so too.
  # Kaggle's IM-0115-0001 and NORMAL2-IM-0115-0001.
  re.compile(r"(?:NORMAL2-)?(IM-\d+)-", re.IGNORECASE),
  # RSNA's, which calls it the patient. VinDr's 32 digits are of an image.
  re.compile(rf"({_UUID})(?![0-9a-f])", re.IGNORECASE),
)
_NUMBERED = re.compile(
  r"(?:patient|pat|pt|subject|subj|sub|case|person|p)[_\- ]?\d+", re.IGNORECASE
)
_STUDY = re.compile(r"s\d{8}|\d+(?:\.\d+){4,}", re.IGNORECASE)
_MASKS = re.compile(
  r"(?:lung)?[_\- ]?(?:masks?|segmentations?|labels?|annotations?)",
  re.IGNORECASE,
)
# Of folders that hold images of several patients, or of one among others.
_GROUPS = (
  "adults? ap archive aug augmented batch(?:es)? cent(?:er|re)s? children"
  " chunks? clean clinics? crops? cropped cxrs? data dcm devices? dicoms?"
  " downloads? exams? exports? female files? films? filtered folds? frontal"
  " groups? hospitals? images? imgs? jpe?gs? jpg lateral left ll machines? male"
  " men misc new old originals? others? pa parts? pediatric photos? pictures?"
  " pngs? radiographs? raw resized right scanners? scans? selected series"
  " ses(?:sions?)? sets? shards? sites? splits? stud(?:y|ies) subsets? temp"
  " tests? tmp train val valid validation views? visits? volumes? wards? women"
  r" x[\W_]?rays?"
)
_GROUP = re.compile(
  rf"(?:{'|'.join(_GROUPS.split())})(?:[_\- .].*|\d*)", re.IGNORECASE
)
_VIEW_AND_NUMBER = re.compile(r"(?:ap|pa|ll)[_\- .]?\d+", re.IGNORECASE)


def known(patient: str) -> bool:
  """Whether a record's patient is one, and no unknown image's stand-in."""
  return not patient.startswith(UNKNOWN)


def stem(name: str) -> str:
  """A file's name without folders and suffix. ".1000" of a UID is no suffix."""
  return re.sub(r"(?<=.)\.[A-Za-z]\w*$", "", name.rsplit("/", 1)[-1]).strip()


def named(path: str, groups: Iterable[str] = ()) -> tuple[str, str]:
  """The patient that an image's path beneath its class tells, and by which.

  ("", "") where it tells none. `groups` are folders, by path, that are known
  to hold several patients.
  """
  if patient := _in_path(path) or _in_name(path, _AT_START):
    return patient, NAME
  parents = path.split("/")[:-1]
  # Paths from the class to each folder, without those of several patients.
  folders = [
    name
    for depth, name in enumerate(parents, 1)
    if "/".join(parents[:depth]) not in groups and not _several(name)
  ]
  folders.sort(key=lambda name: not _NUMBERED.fullmatch(name))
  if folders:
    return folders[0].strip().casefold(), FOLDER
  patient = _in_name(path, _ALONE)
  return (patient, NAME) if patient else ("", "")


def by_convention(path: str) -> str:
  """The patient that a public set's naming tells, or ""."""
  return _in_path(path) or _in_name(path, _AT_START + _ALONE)


def _in_path(path):
  path = re.sub(r"\s*/\s*", "/", path.strip())
  for pattern in _IN_PATH:
    if match := pattern.search(path):
      return re.sub(r"[_\- ]", "", next(filter(None, match.groups()))).lower()
  return ""


def _in_name(path, patterns):
  for pattern in patterns:
    if (match := pattern.match(stem(path))) and not _is_date(match[1]):
      patient = match[1].lower()
      return patient.upper() if patient.startswith("im") else patient
  return ""


def without(path: str) -> str:
  """What the split of an image of no known patient is decided by: its path
  beneath its class, or that of the study that it is in."""
  parents = path.split("/")[:-1]
  for depth, name in enumerate(parents, 1):
    if _STUDY.fullmatch(name):
      return "/".join(parents[:depth])
  return "/".join([*parents, stem(path)])


def groups(paths: Iterable[str]) -> set[str]:
  """Folders, by path beneath their class, of more images than one patient has,
  and years, where all folders of four digits are."""
  sizes = collections.Counter()
  for path in paths:
    parents = path.split("/")[:-1]
    sizes.update("/".join(parents[:i]) for i in range(1, len(parents) + 1))
  numbers = {x for x in sizes if re.fullmatch(r"\d{4}", x.rsplit("/", 1)[-1])}
  large = {folder for folder, n in sizes.items() if n > MOST}
  years = all(1980 <= int(x[-4:]) <= 2035 for x in numbers)
  return large | numbers if years else large


def is_numbered(name: str) -> bool:
  """Whether a folder's name is a patient's by itself, such as case_12."""
  return _NUMBERED.fullmatch(name.strip()) is not None


def is_masks(name: str) -> bool:
  """Whether a folder's name says that no radiographs are in it."""
  return _MASKS.fullmatch(name.strip()) is not None


def _several(name):
  """Whether a folder's name is not one of a patient's."""
  name = name.strip()
  if _VIEW_AND_NUMBER.fullmatch(name):
    return False
  digits = re.sub(r"[-_. ]", "", name)
  return bool(
    _GROUP.fullmatch(name)
    or _STUDY.fullmatch(name)
    or (len(digits) == 8 and _is_date(digits))
    or re.fullmatch(r"(?:19|20)\d\d[-_. ](?:0?[1-9]|1[0-2])", name)
  )


def _is_date(digits: str) -> bool:
  """Whether YYYYMMDD."""
  if not re.fullmatch(r"(?:19|20)\d{6}", digits):
    return False
  try:
    datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
  except ValueError:
    return False
  return True


@dataclasses.dataclass(frozen=True)
class Header:
  """What a DICOM header tells: hashes of the patient with and without issuer.

  Both are the same where no issuer is named.
  """

  patient: str
  bare: str


def stand_ins(headers: list[Header]) -> set[str]:
  """The patients (hashes) on more images than are one patient's."""
  counts = collections.Counter(header.patient for header in headers)
  return {
    patient
    for patient, n in counts.items()
    if n > MOST or (n >= FEW and n > len(headers) / 2)
  }


def read_csv(path: str, ids: Iterable[str]) -> dict[str, str]:
  """The patient of every image (by id: its path in the folder) from a CSV file
  with columns "file" and "patient".

  "file" is a path in the folder, or a name where one image alone has it. Raises
  DataError, which names file and line, unless every image has one row.
  """
  ids = list(ids)
  names = collections.defaultdict(list)
  for id in ids:
    names[id.rsplit("/", 1)[-1]].append(id)
  everyone, lines = set(ids), {}
  patient_of = {}
  for number, file, patient in _rows(path):
    where = f"{path}:{number}"
    file = slashed(file)
    if not file or not patient:
      what = "file" if not file else f"patient of {file}"
      raise errors.DataError(f"{where}: no {what}")
    those = [file] if file in everyone else names.get(file, [])
    if len(those) != 1:
      why = (
        f"is the name of {len(those)} images, such as {those[0]} and"
        f" {those[1]}: give the path in the folder"
        if those
        else "is no image of the folder (data.dir)"
      )
      raise errors.DataError(f"{where}: {file} {why}")
    if those[0] in patient_of:
      raise errors.DataError(
        f"{where}: {those[0]} is in line {lines[those[0]]} too"
      )
    patient_of[those[0]], lines[those[0]] = patient, number
  if missing := [id for id in ids if id not in patient_of]:
    raise errors.DataError(
      f"{path}: no row for {len(missing)} of {len(ids)} images, such as"
      f" {', '.join(missing[:3])}"
    )
  return patient_of


def slashed(file: str) -> str:
  """A path in a folder as a CSV file may write it, with / alone."""
  return re.sub(r"^(?:\./)+", "", file.replace("\\", "/"))


def _rows(path):
  """Yields (line, file, patient) of the user's CSV file."""
  for number, row in rows(path, ("file", "patient")):
    yield number, row["file"], row["patient"]


def rows(
  path: str | pathlib.Path, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields (line that it starts in, {column: cell}) of a CSV file's rows.

  Comma, semicolon or tab; names of columns in lower case. `columns` must be
  there, once. Raises DataError, which names file and line.
  """
  try:
    text = pathlib.Path(os.path.expanduser(path)).read_text("utf-8-sig")
  except OSError as error:
    raise errors.DataError(f"{path}: {error.strerror}") from error
  except UnicodeDecodeError as error:
    raise errors.DataError(f"{path}: is not text in UTF-8") from error
  first = text.split("\n", 1)[0]
  reader = csv.reader(
    io.StringIO(text, newline=""),
    delimiter=max(",;\t", key=first.count),
    strict=True,
  )
  number = 1
  try:
    header = [name.strip().casefold() for name in next(reader, [])]
    for name in columns:
      if header.count(name) != 1:
        raise errors.DataError(
          f"{path}:1: {header.count(name)} columns {name!r}: expected a header"
          f" with the columns {' and '.join(columns)}"
        )
    least = max(map(header.index, columns))
    number = reader.line_num + 1
    for row in reader:
      if any(cell.strip() for cell in row):
        if len(row) <= least:
          raise errors.DataError(
            f"{path}:{number}: {len(row)} columns: expected {len(header)}"
          )
        cells = (cell.strip() for cell in row)
        yield number, dict(zip(header, cells, strict=False))
      number = reader.line_num + 1
  except csv.Error as error:
    raise errors.DataError(f"{path}:{number}: {error}") from error


def unknown(facts: dict) -> str:
  """What a page says of a data set's patients that are not known; "" where all
  are. `facts` may be of a result made before they were counted."""
  if "patients_unknown" not in facts:
    return "how many images are of a patient not known is not recorded"
  n = sum(facts["patients_unknown"].values())
  if not n:
    return ""
  total = sum(sum(x.values()) for x in facts["counts"].values())
  return (
    f"patients not known for {n:,} of {total:,} images: each counts as one;"
    " give data.patients=FILE"
  )


def overlap(facts: dict) -> str:
  """How many patients stand in two splits, as far as that is known."""
  shared = sum(facts["patient_overlap"].values())
  if note := unknown(facts):
    return f"{shared} known patients in two splits, {note}" if shared else note
  return f"{shared} patients in two splits"


def kept(facts: dict) -> list[str]:
  """What is said of near-duplicates that a split by patient kept in one."""
  lines = []
  if n := facts.get("kept_together"):
    lines.append(f"{n:,} near-duplicates of several patients kept in one split")
  if n := facts.get("too_alike"):
    lines.append(
      f"{n:,} images are too much alike to tell near-duplicates: split by"
      " patient alone"
    )
  return lines

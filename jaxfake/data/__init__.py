"""Data sets, all alike: `prepare(config.data).source("train")[i]`.

Importing this is cheap; TFDS is imported by the sources' `prepare`.
"""

from collections.abc import Callable
import dataclasses

from jaxfake import contracts, errors, named
from jaxfake.data import patients

POLICIES = "official", "patient"
UNREADABLE = "stop", "skip"


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A prepared data set. `facts` is JSON-able: what a result says of its data.

  `facts` has name, fingerprint, content_sha256, split (the policy), classes,
  counts {split: {class: n}}, patients {split: n}, patients_unknown {split:
  images}, patient_overlap {"a-b": n}, patients_by {what told: images},
  kept_together and too_alike (near-duplicates, see grouping), image_sizes,
  skipped (count) and skipped_files. `litter` counts what was passed over.
  A source may add its own. `read(split)` gives its items.
  """

  name: str
  classes: tuple[str, ...]
  facts: dict = dataclasses.field(repr=False)
  read: Callable[[str], contracts.Items] = dataclasses.field(repr=False)
  litter: int = 0  # No fact: a desktop leaves some at any time.
  notes: tuple[str, ...] = ()  # Of its source, for the summary.

  def summary(self) -> str:
    """One line: images, how they were split, and what is wrong with that."""
    facts = self.facts
    counts = ", ".join(
      f"{split} {sum(n.values()):,} ({facts['patients'][split]:,} patients)"
      for split, n in facts["counts"].items()
    )
    text = f"{self.name}: {counts}; {facts['split']} split"
    if shared := {k: v for k, v in facts["patient_overlap"].items() if v}:
      text += "; patients in two splits: " + ", ".join(
        f"{k} {v}" for k, v in shared.items()
      )
    notes = [patients.unknown(facts), *patients.kept(facts)]
    if n := facts["patients_by"][patients.FOLDER]:
      notes.append(f"{n:,} images: each folder beneath a class is a patient")
    notes += self.notes
    if self.litter:
      notes.append(f"{self.litter:,} system or hidden files passed over")
    return "; ".join([text, *filter(None, notes)])

  def source(self, split: str) -> contracts.Items:
    """The images of "train", "val" or "test"."""
    if split not in self.facts["counts"]:
      raise errors.DataError(
        f"{self.name} has no {split} images, only"
        f" {', '.join(self.facts['counts'])}; it is too small, or split"
        " otherwise (data.split)"
      )
    return self.read(split)


def prepare(data: contracts.Config) -> Dataset:
  """Prepares what `config.data` names, once, and returns it to be read.

  `data` has name, dir, size, split, unreadable, patients, and what its source
  asks for. Written to TFDS_DATA_DIR or ~/tensorflow_datasets; a second process
  waits for the first. ConfigError and DataError say what to put right.
  """
  source = named.find("data.name", data.name, contracts.Source)
  errors.check_choice("data.split", data.split, POLICIES)
  errors.check_choice("data.unreadable", data.unreadable, UNREADABLE)
  if table(data) and not source.literal("READS_PATIENTS"):
    raise errors.ConfigError(
      f"data.patients is {data.patients!r}, but data.name={data.name} knows"
      " whose its images are: only chest_xray reads it"
    )
  return source.load().prepare(data)


def entries(data: contracts.Config) -> tuple[list, tuple[str, ...]]:
  """What the source that `data` names reads, and its classes."""
  return (
    named.find("data.name", data.name, contracts.Source).load().entries(data)
  )


def table(data: contracts.Config) -> str:
  """data.patients; runs made before there was one have none."""
  return data.get("patients") or ""


def findings() -> list[str]:
  """The names of our sources whose images are originals, by finding."""
  sources = named.every(contracts.Source)
  return [x.name for x in sources if x.literal("FINDINGS")]


def check_originals(field: str, name: str) -> None:
  """Raises ConfigError where a field does not name a source of originals."""
  if not named.find(field, name, contracts.Source).literal("FINDINGS"):
    errors.check_choice(field, name, findings())

"""A user's folder of radiographs in Kaggle's layout (folders.py)."""

import functools

from jaxfake import contracts
from jaxfake import data as datasets
from jaxfake.data import folders, records

ABOUT = f"a folder of radiographs, {folders.LAYOUT}"
FINDINGS = True
READS_PATIENTS = True


def entries(
  data: contracts.Config,
) -> tuple[list[folders.Entry], tuple[str, ...]]:
  """The folder's images, and its classes."""
  return folders.kaggle(data.dir, data.split, datasets.table(data))


def prepare(data: contracts.Config) -> datasets.Dataset:
  from jaxfake.data import grouping

  listing = folders.listing(data.dir, data.split, datasets.table(data))
  key = folders.fingerprint(listing.entries)
  recipe = records.of_entries(
    f"{data.split}-{key}",
    listing,
    data,
    look=grouping.header if data.split == "official" else grouping.picture,
    settle=functools.partial(grouping.settle, data.split),
  )
  facts = {"fingerprint": key, "split": data.split}
  return records.prepare(data, recipe, facts, listing.litter)

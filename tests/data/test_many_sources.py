"""Reals of many hospitals and fakes of many generators."""

import csv
import json
import pathlib

import ml_collections
import numpy as np
from PIL import Image
import pytest

from jaxfake import data as datasets
from jaxfake import errors
from jaxfake.data import folders, many_sources


def config(*places, leave_out="", licences=""):
  return ml_collections.ConfigDict(
    {
      "name": "many_sources",
      "dir": ",".join(map(str, places)),
      "split": "patient",
      "unreadable": "stop",
      "many_sources": {"leave_out": leave_out, "licences": licences},
    }
  )


def picture(path: pathlib.Path, seed: int) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (9, 9), dtype=np.uint8)
  Image.fromarray(small).resize((48, 40), Image.BICUBIC).save(path)


def table(folder: pathlib.Path, rows: list[dict]) -> None:
  with open(folder / "sources.csv", "w", newline="") as file:
    names = list(dict.fromkeys(k for row in rows for k in row))
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Two hospitals, two generators; 24 pictures each, patients of two."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
  root = tmp_path / "sources"
  for k, source in enumerate(
    ("real/north", "real/south", "fake/gan", "fake/vae")
  ):
    for i in range(24):
      picture(root / source / f"person{i // 2}_{i}.png", 100 * k + i)
  return root


def rows(dataset) -> dict[str, list[tuple]]:
  """(source, label, patient) of each split."""
  found = {}
  for split in dataset.facts["counts"]:
    source = dataset.source(split)
    columns = [source.column(x) for x in ("source", "label", "patient")]
    found[split] = list(zip(*columns, strict=True))
  return found


def test_items_have_their_source(folder):
  dataset = datasets.prepare(config(folder))
  assert dataset.classes == ("real", "fake")
  item = dataset.source("train")[0]
  assert item["image"].shape == (40, 48, 1)
  assert {"label", "patient", "id", "source", "licence", "original"} <= set(
    item
  )
  every = [row for those in rows(dataset).values() for row in those]
  assert {(source, label) for source, label, _ in every} == {
    ("north", 0),
    ("south", 0),
    ("gan", 1),
    ("vae", 1),
  }
  total = sum(n for x in dataset.facts["sources"].values() for n in x.values())
  assert total == len(every) == 96


def test_a_patient_is_of_its_hospital_and_in_one_split(folder):
  found = rows(datasets.prepare(config(folder)))
  of = {}
  for split, those in found.items():
    for source, label, patient in those:
      if not label:
        of.setdefault((source, patient), set()).add(split)
  assert len(of) == 24  # person0 of one hospital is not that of the other.
  assert all(len(splits) == 1 for splits in of.values())


def test_left_out_sources_are_test_and_nothing_else(folder):
  dataset = datasets.prepare(config(folder, leave_out="south, gan"))
  found = rows(dataset)
  for split in ("train", "val"):
    assert not {"south", "gan"} & {x[0] for x in found.get(split, [])}
  count = [x[0] for x in found["test"]].count
  assert count("south") == count("gan") == 24
  assert "in test alone gan, south" in dataset.summary()


def test_a_hospital_by_name_and_folder(folder, tmp_path):
  for i in range(12):
    picture(tmp_path / "ward" / "deep" / f"person{i}_1.png", 900 + i)
  dataset = datasets.prepare(config(folder, f"ward={tmp_path / 'ward'}"))
  sources = {x[0] for those in rows(dataset).values() for x in those}
  assert "ward" in sources


def test_a_fake_of_a_patients_picture_stays_with_the_patient(folder):
  reals = sorted((folder / "real").rglob("*.png"))
  made = []
  for i, real in enumerate(reals):
    file = folder / "fake" / "copier" / f"{i}.png"
    file.parent.mkdir(exist_ok=True)
    # Nearly its original: no near-duplicate to be dropped.
    image = np.asarray(Image.open(real)) // 2
    Image.fromarray(image).save(file)
    made.append(
      {
        "file": str(file.relative_to(folder)),
        "patient": "",
        "original": str(real.relative_to(folder)),
      }
    )
  table(folder, made)
  dataset = datasets.prepare(config(folder))
  place = {}
  for split in dataset.facts["counts"]:
    source = dataset.source(split)
    for id, original in zip(
      source.column("id"), source.column("original"), strict=True
    ):
      place[id] = split, original
  pairs = [(x, place[x[1]]) for x in place.values() if x[1]]
  assert len(pairs) == len(reals)
  assert all(fake[0] == real[0] for fake, real in pairs)


def test_images_of_other_licences_are_test_images_alone(folder):
  rows_ = [
    {
      "file": f"real/north/person{i // 2}_{i}.png",
      "patient": f"n{i}",
      "licence": ("CC BY 4.0", "CC BY-NC-SA 4.0", "not stated")[i % 3],
    }
    for i in range(24)
  ]
  table(folder, rows_)
  data = config(folder, licences="CC BY,south")
  found, test_alone, facts = many_sources.listing(data)
  kept = [e for e in found.entries if e.id not in test_alone]
  assert {e.extra["source"] for e in kept} == {"north", "south"}
  north = [e for e in kept if e.extra["source"] == "north"]
  assert len(north) == 8
  assert all(e.extra["licence"] == "CC BY 4.0" for e in north)
  assert len(test_alone) == facts["of_other_licences"] == 96 - 8 - 24
  dataset = datasets.prepare(data)
  for split in ("train", "val"):
    source = dataset.source(split)
    assert not test_alone & set(source.column("id"))
  ids = set(dataset.source("test").column("id"))
  reals = {id for id in test_alone if id.startswith("real")}
  assert reals and reals <= ids
  assert "in test alone" in dataset.summary()


def sampled(place, count, promised=None):
  """A folder as jaxfake.sample writes it."""
  lines = []
  for i in range(count):
    picture(place / "images" / f"{i:06}.png", 900 + i)
    facts = {"index": i, "label": None, "class": None, "seed": 0}
    facts |= {"model": "gan", "checkpoint_sha256": "0" * 64}
    lines.append(json.dumps({"file": f"images/{i:06}.png"} | facts))
  (place / "manifest.jsonl").write_text("\n".join(lines) + "\n")
  about = {"classes": [], "count": promised or count}
  (place / "sampler.json").write_text(json.dumps(about))
  return place


def test_what_the_sampler_made_is_a_source_of_fakes(folder, tmp_path):
  place = sampled(tmp_path / "samples", 12)
  dataset = datasets.prepare(config(folder, f"ours={place}"))
  labels = [
    x[1] for those in rows(dataset).values() for x in those if x[0] == "ours"
  ]
  assert labels == [1] * 12


def test_an_unfinished_sample_is_refused(folder, tmp_path):
  place = sampled(tmp_path / "samples", 3, promised=4)
  with pytest.raises(errors.DataError, match="promises 4"):
    datasets.prepare(config(folder, f"ours={place}"))


def test_copies_between_sources_are_dropped(folder):
  for i in range(5):
    picture(folder / "real" / "south" / f"copy{i}.png", i)  # North's first.
  dataset = datasets.prepare(config(folder))
  assert dataset.facts["dropped_between_sources"] == 5
  every = [row for those in rows(dataset).values() for row in those]
  assert [x[0] for x in every].count("north") == 24
  assert "dropped" in dataset.summary()


def test_of_copies_the_left_out_source_keeps_its_own(folder):
  for i in range(5):
    picture(folder / "real" / "south" / f"copy{i}.png", i)
  dataset = datasets.prepare(config(folder, leave_out="south"))
  count = [x[0] for those in rows(dataset).values() for x in those].count
  assert count("south") == 29 and count("north") == 19


@pytest.mark.parametrize(
  ("change", "told"),
  [
    (lambda f: config(f / "nowhere"), "no such folder"),
    (lambda f: config(), "data.dir"),
    (lambda f: config(f, leave_out="sout"), "south"),
    (lambda f: config(f, licences="MIT"), "MIT"),
    (lambda f: config(f, f), "twice"),
  ],
)
def test_mistakes_are_named(folder, change, told):
  with pytest.raises(errors.UserError, match=told):
    many_sources.listing(change(folder))


@pytest.mark.parametrize(
  ("row", "told"),
  [
    ({"file": "", "patient": "a"}, "sources.csv:2: no file"),
    (
      {"file": "real/north/none.png", "patient": "a"},
      "sources.csv:2.*no image",
    ),
    (
      {"file": "real/north/person0_0.png", "patient": "a", "original": "x.png"},
      "sources.csv:2.*original",
    ),
  ],
)
def test_rows_that_are_wrong_are_named_by_line(folder, row, told):
  table(folder, [row])
  with pytest.raises(errors.DataError, match=told):
    many_sources.listing(config(folder))


def test_older_configurations_without_the_field_are_read(folder):
  c = config(folder)
  del c["many_sources"]
  found, _, _ = many_sources.listing(c)
  assert len(found.entries) == 96


def test_splits_are_those_of_patients(folder):
  found, _, _ = many_sources.listing(config(folder))
  assert all(e.split == folders.split_of(e.key) for e in found.entries)

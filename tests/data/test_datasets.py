"""Folders, the phantom and generated sets, prepared and read again."""

import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import time

from array_record.python import array_record_module
import hypothesis
from hypothesis import strategies as st
import ml_collections
import numpy as np
from PIL import Image
from places import ROOT, TESTS
import pytest

from jaxfake import data, errors
from jaxfake.data import builders, folders, phantom, reading


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
  """Prepared data goes to a fresh folder."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
  return tmp_path / "prepared"


def config(name="chest_xray", dir="", **changes):
  c = ml_collections.ConfigDict(
    dict(
      name=name,
      dir=str(dir),
      size=32,
      split="official",
      unreadable="stop",
      phantom=dict(images=16, seed=0, nodules=False),
    )
  )
  c.update(changes)
  return c


NAMES = {
  "NORMAL": ["IM-{}-0001.jpeg", "NORMAL2-IM-{}-0001.jpeg"],
  "PNEUMONIA": ["person{}_bacteria_1.png", "person{}_virus_2.png"],
}


def kaggle(root, n=4, first=1):
  """Makes a folder in Kaggle's layout; the gray of an image tells its path."""
  gray = 0
  for split in folders.SPLITS:
    for label, names in NAMES.items():
      (root / split / label).mkdir(parents=True, exist_ok=True)
      for i in range(n):
        patient = f"{first + i // 2:04}"
        first += i % 2
        path = root / split / label / names[i % 2].format(patient)
        Image.fromarray(np.full((20 + i, 30), gray, np.uint8)).save(path)
        gray += 1
  return root


def test_a_folder_is_read_as_it_is(tmp_path):
  root = kaggle(tmp_path / "x")
  set_ = data.prepare(config(dir=root))
  assert set_.name == "chest_xray" and set_.classes == ("NORMAL", "PNEUMONIA")
  assert set_.facts["counts"] == {
    s: {"NORMAL": 4, "PNEUMONIA": 4} for s in folders.SPLITS
  }
  gray = 0
  for split in folders.SPLITS:
    source = set_.source(split)
    items = {item["id"]: item for item in (source[i] for i in range(8))}
    files = [
      p.relative_to(root).as_posix() for p in (root / split).rglob("*.*g")
    ]
    assert sorted(items) == sorted(files)
    for id, item in items.items():
      assert set(item) == {"image", "label", "patient", "id"}
      assert item["image"].dtype == np.uint8 and item["image"].shape[1:] == (
        30,
        1,
      )
      assert item["label"] == set_.classes.index(id.split("/")[1])
      assert type(item["label"]) is int and type(item["patient"]) is str
      with Image.open(root / id) as image:
        assert np.array_equal(
          np.asarray(image.convert("L")), item["image"][..., 0]
        )
    gray += 8
  assert set_.facts["image_sizes"]["height"] == [20, 21.5, 23]
  assert json.loads(json.dumps(set_.facts)) == set_.facts
  assert set_.facts["split"] == "official" and set_.facts["skipped"] == 0


def test_a_source_is_a_sequence_and_pickles(tmp_path):
  source = data.prepare(config(dir=kaggle(tmp_path / "x"))).source("train")
  assert len(source) == 8 and source[-1]["id"] == source[7]["id"]
  assert source[np.int64(3)]["id"] == source[3]["id"]
  assert len(list(source)) == 8
  with pytest.raises(IndexError, match="has 8 images; asked for 8"):
    source[8]
  again = pickle.loads(pickle.dumps(source))
  assert again[3]["id"] == source[3]["id"]
  items = list(source)
  for name in "label", "patient", "id":
    assert source.column(name) == [item[name] for item in items]
    source._records = None  # Read once, for all columns.
  with pytest.raises(errors.DataError, match="no extra images"):
    data.prepare(config(dir=kaggle(tmp_path / "x"))).source("extra")


def test_the_official_split_counts_its_patient_overlap(tmp_path):
  root = kaggle(tmp_path / "x")
  for split in "train", "test":
    path = root / split / "PNEUMONIA" / "person9999_virus_7.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
  facts = data.prepare(config(dir=root)).facts
  assert facts["patient_overlap"] == {
    "train-val": 0,
    "train-test": 1,
    "val-test": 0,
  }
  facts = data.prepare(config(dir=root, split="patient")).facts
  assert not any(facts["patient_overlap"].values())
  assert sum(sum(c.values()) for c in facts["counts"].values()) == 26


def test_classes_directly_beneath_are_pooled(tmp_path):
  for name in "A", "B", "C":
    (tmp_path / "x" / name).mkdir(parents=True)
    for i in range(20):
      Image.new("L", (8, 8)).save(tmp_path / "x" / name / f"{name}{i}.png")
  set_ = data.prepare(config(dir=tmp_path / "x", split="patient"))
  assert set_.classes == ("A", "B", "C")
  assert sum(sum(c.values()) for c in set_.facts["counts"].values()) == 60
  with pytest.raises(errors.DataError, match="no folder train or val or test"):
    data.prepare(config(dir=tmp_path / "x"))


@pytest.mark.parametrize(
  ("name", "patient"),
  [
    ("person12_bacteria_34.jpeg", "person12"),
    ("person1_virus_6.jpeg", "person1"),
    ("IM-0115-0001.jpeg", "IM-0115"),
    ("IM-0501-0001-0002.png", "IM-0501"),
    ("NORMAL2-IM-0115-0001.jpeg", "IM-0115"),
    ("NORMAL2-IM-1096-0001-0001.jpeg", "IM-1096"),
    ("NORMAL-1003233-0001.jpeg", "1003233"),
    ("BACTERIA-1003233-0002.jpeg", "1003233"),
    ("VIRUS-1003233-0001.jpeg", "1003233"),
    ("00000001_000.png", "00000001"),
    ("personal.png", "personal"),
    ("scan.of.a.chest.png", "scan.of.a.chest"),
  ],
)
def test_patients_from_names(name, patient):
  assert folders.patient_of(name) == patient
  assert folders.patient_of(f"train/NORMAL/{name}") == patient


def test_the_patient_split_is_pinned():
  """Should this change, every data set's splits would: raise VERSION."""
  names = [f"person{i}" for i in range(10_000)]
  splits = [folders.split_of(name) for name in names]
  assert splits[:6] == ["test", "test", "train", "train", "test", "train"]
  counts = [splits.count(s) for s in folders.SPLITS]
  assert counts == pytest.approx([7000, 1000, 2000], abs=120)


@hypothesis.settings(
  max_examples=40,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  st.lists(
    st.tuples(
      st.sampled_from(folders.SPLITS),
      st.sampled_from(["NORMAL", "PNEUMONIA"]),
      st.integers(1, 30),
      st.sampled_from(
        [
          "person{}_bacteria_{}",
          "person{}_virus_{}",
          "IM-{:04}-{:04}",
          "NORMAL2-IM-{:04}-{:04}",
          "VIRUS-{}-{}",
          "scan {} of {}",
        ]
      ),
      st.integers(1, 3),
    ),
    max_size=40,
  )
)
def test_no_patient_is_in_two_splits(tmp_path_factory, files):
  root = tmp_path_factory.mktemp("f")
  files = {(s, c, name.format(p, i)) for s, c, p, name, i in files} | {
    (s, c, "IM-0001-0001") for s in folders.SPLITS for c in NAMES
  }
  for split, label, name in files:
    (root / split / label).mkdir(parents=True, exist_ok=True)
    (root / split / label / f"{name}.png").touch()
  entries, _ = folders.kaggle(str(root), "patient")
  assert len(entries) == len(files)
  of = {}
  for e in entries:
    assert of.setdefault(e.patient, e.split) == e.split


def test_litter_is_left_alone(tmp_path):
  root = kaggle(tmp_path / "x")
  for name in ".DS_Store", "Thumbs.db", "._person1_virus_1.png", "desktop.ini":
    (root / "train" / "NORMAL" / name).write_text("x")
    (root / "train" / name).write_text("x")
  (root / "train" / "__MACOSX").mkdir()
  (root / "train" / ".cache").mkdir()
  (root / "__MACOSX" / "train").mkdir(parents=True)
  (root / "chest_xray").mkdir()  # Kaggle's archive holds itself once more.
  found = folders.listing(str(root), "official")
  assert len(found.entries) == 24
  assert found.litter == 11  # The four names twice, and three folders.
  set_ = data.prepare(config(dir=root))
  assert "11 system or hidden files passed over" in set_.summary()


def test_what_is_missing_is_named(tmp_path):
  root = kaggle(tmp_path / "x")

  def refused(match, **changes):
    with pytest.raises(errors.UserError, match=match):
      data.prepare(config(**{"dir": root, **changes}))

  refused("data.dir is empty: name the folder", dir="")
  refused("nowhere: no such folder .*CLASS", dir=tmp_path / "nowhere")
  for path in (root / "val" / "NORMAL").iterdir():
    path.unlink()
  refused("val/NORMAL: no images; each of .*NORMAL, PNEUMONIA")
  (root / "val" / "NORMAL").rmdir()
  refused("val/NORMAL: no images")
  assert data.entries(config(dir=root, split="patient"))[1] == (
    "NORMAL",
    "PNEUMONIA",
  )
  os.rename(root / "val", root / "valid")
  refused("no folder val; data.split=official expects .*CLASS")
  (root / "train" / "NORMAL" / "masks").mkdir()
  refused("NORMAL/masks: holds masks or labels", split="patient")
  (tmp_path / "y").mkdir()
  refused("no class folders found", dir=tmp_path / "y", split="patient")
  refused("data.name is 'xray': expected one of chest_xray", name="xray")
  refused("data.split is 'random': expected one of", split="random")
  refused("data.unreadable is 'no': expected one of", unreadable="no")


def spoil(root):
  bad = [
    root / "train/NORMAL/IM-7777-0001.jpeg",
    root / "test/PNEUMONIA/person7_virus_1.png",
  ]
  bad[0].write_bytes(b"")
  bad[1].write_text("not an image")
  return bad


def test_unreadable_files_are_all_listed_and_nothing_is_left(
  tmp_path, prepared
):
  root = kaggle(tmp_path / "x")
  bad = spoil(root)
  with pytest.raises(errors.DataError) as info:
    data.prepare(config(dir=root))
  assert "2 of 26 images cannot be read" in str(info.value)
  assert "data.unreadable=skip" in str(info.value)
  for path in bad:
    assert str(path) in str(info.value)
  assert not list(prepared.rglob("*.array_record*"))
  assert not list(prepared.rglob("incomplete*"))


def test_unreadable_files_can_be_skipped(tmp_path, monkeypatch):
  root = kaggle(tmp_path / "x")
  bad = spoil(root)
  for _ in range(2):  # Prepared, then reused.
    set_ = data.prepare(config(dir=root, unreadable="skip"))
    assert set_.facts["skipped"] == 2
    assert all(
      str(path) in line
      for path, line in zip(bad, set_.facts["skipped_files"], strict=True)
    )
    assert len(set_.source("train")) == len(set_.source("test")) == 8
  with pytest.raises(errors.DataError, match="2 of 26 images cannot be read"):
    data.prepare(config(dir=root))  # Prepared already, yet not as asked.


def test_a_shard_without_a_readable_image(tmp_path, monkeypatch):
  monkeypatch.setattr(builders, "SHARD", 2)
  root = kaggle(tmp_path / "x")
  for path in (root / "train" / "NORMAL").iterdir():
    path.write_bytes(b"")
  source = data.prepare(config(dir=root, unreadable="skip")).source("train")
  assert [item["label"] for item in source] == [1] * 4
  for path in (root / "train" / "PNEUMONIA").iterdir():
    path.write_bytes(b"")
  with pytest.raises(errors.DataError, match="none of the train images"):
    data.prepare(config(dir=root, unreadable="skip"))


def test_a_changed_folder_is_prepared_again(tmp_path, prepared):
  root = kaggle(tmp_path / "x")

  def ready():
    set_ = data.prepare(config(dir=root))
    return set_.facts["fingerprint"], set_.facts["content_sha256"]

  first = ready()
  times = {p: p.stat().st_mtime_ns for p in prepared.rglob("*.array_record*")}
  assert ready() == first
  assert times == {p: p.stat().st_mtime_ns for p in times}
  path = next((root / "train" / "NORMAL").iterdir())
  os.utime(path)  # Only the time: another key, the same content.
  touched = ready()
  assert touched[0] != first[0] and touched[1] == first[1]
  Image.new("L", (5, 5), 9).save(path)
  changed = ready()
  assert changed[1] != first[1]
  path.unlink()
  assert len({first[0], touched[0], changed[0], ready()[0]}) == 4
  moved = tmp_path / "y"
  os.rename(root, moved)
  root = moved
  assert ready()[1] not in (first[1], changed[1])


def child(code, **env):
  """Starts Python on `code`, with this file's helpers at hand."""
  code = "from test_datasets import *\n" + textwrap.dedent(code)
  path = os.pathsep.join(map(str, (ROOT, TESTS, TESTS / "data")))
  return subprocess.Popen(
    [sys.executable, "-c", code],
    env={**os.environ, "PYTHONPATH": path, **env},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


SLOW = """
from jaxfake.data import decoders, reading
def slow(pool, fn, item, call=decoders.Pool.call):
  # Not while near-duplicates are looked for: nothing is written by then.
  while fn is reading.read_entry and not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
  return call(pool, fn, item)
decoders.Pool.call = slow
"""


def test_a_second_process_waits_and_reuses(tmp_path, prepared):
  root, go = kaggle(tmp_path / "x"), tmp_path / "go"
  run = f"data.prepare(config(dir={str(root)!r}))\nprint('done')"
  first = child(SLOW + run, GO=str(go))
  while not list(prepared.rglob("incomplete*")):
    assert first.poll() is None
    time.sleep(0.02)
  second = child(run)
  assert "waiting: another process is" in second.stderr.readline()
  go.touch()
  out, err = second.communicate(timeout=60)
  assert out == "done\n" and "of 24" not in err  # It prepared nothing itself.
  assert first.communicate(timeout=60)[0] == "done\n"


@pytest.mark.parametrize("name", ["chest_xray", "phantom"])
def test_kill_9_while_preparing(tmp_path, prepared, name):
  root = kaggle(tmp_path / "x")
  folder = str(root) if name == "chest_xray" else ""
  c = f"config({name!r}, {folder!r}, phantom=dict(images=4000))"
  slow = child(SLOW + f"data.prepare({c})", GO=str(tmp_path / "never"))
  deadline = time.monotonic() + 60
  while not list(prepared.rglob("*.array_record*")):  # Some are written.
    assert slow.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  workers = children(slow.pid)
  slow.send_signal(signal.SIGKILL)
  slow.wait()
  left = list(prepared.rglob("*.array_record*"))
  assert left and all("incomplete." in str(path) for path in left)
  while any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers):
    assert time.monotonic() < deadline, "workers outlive their parent"
    time.sleep(0.1)
  if name == "chest_xray":
    assert len(data.prepare(config(name, root)).source("train")) == 8
    assert not list(prepared.rglob("incomplete*"))


def children(pid):
  path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
  return [int(p) for p in path.read_text().split()] if path.exists() else []


def test_a_full_disk_is_noticed(tmp_path, prepared):
  """A limit on file sizes stands in for a full disk."""
  root = kaggle(tmp_path / "x")
  rng = np.random.default_rng(0)
  for path in root.rglob("*.png"):
    noise = rng.integers(0, 255, (300, 300), np.uint8)
    Image.fromarray(noise).save(path)
  run = f"""
  import resource
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
  try:
    data.prepare(config(dir={str(root)!r}))
  except (errors.DataError, OSError) as error:
    print(error)
  """
  out, err = child(run).communicate(timeout=60)
  assert "cannot be written" in out and "is the disk full?" in out, out + err
  assert not list(prepared.rglob("*.0.0/dataset_info.json"))


def test_neither_tensorflow_nor_jax_is_imported(tmp_path):
  root = kaggle(tmp_path / "x")
  # No main guard: the phantom's processes must not run the script again.
  script = tmp_path / "script.py"
  script.write_text(f"""
import sys
from jaxfake import data
assert "tensorflow_datasets" not in sys.modules
from jaxfake.data import phantom
phantom.FEW = 0
import test_datasets
set_ = data.prepare(test_datasets.config(dir={str(root)!r}))
set_.source("train")[0]
data.prepare(test_datasets.config("phantom")).source("train")[0]
print([m for m in ("tensorflow", "jax", "cv2") if m in sys.modules])
""")
  path = os.pathsep.join(map(str, (ROOT, TESTS, TESTS / "data")))
  done = subprocess.run(
    [sys.executable, str(script)],
    env={**os.environ, "PYTHONPATH": path},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stdout == "[]\n", done.stdout + done.stderr
  assert "WARNING" not in done.stderr and "OpenCV" not in done.stderr


def test_the_phantom_is_the_same_every_time(tmp_path, monkeypatch):
  c = config("phantom", phantom=dict(images=40))
  first = data.prepare(c)
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "again"))
  monkeypatch.setattr(phantom, "FEW", 0)  # Processes now, threads before.
  again = data.prepare(c)
  assert (
    first.read.directory != again.read.directory and first.facts == again.facts
  )
  assert first.facts["patients"] == {"train": 7, "val": 1, "test": 2}
  assert not any(first.facts["patient_overlap"].values())
  for split in folders.SPLITS:
    a, b = first.source(split), again.source(split)
    for x, y in zip(a, b, strict=True):
      assert x["image"].shape == (32, 32, 1)
      assert np.array_equal(x.pop("image"), y.pop("image")) and x == y
  from jaxfake.data.phantom import anatomy

  assert anatomy.VIEWS_PER_PATIENT == phantom.VIEWS
  drawn = anatomy.radiograph(0, 5, size=32)["image"]
  by_id = {item["id"]: item for s in folders.SPLITS for item in first.source(s)}
  assert len(by_id) == 40
  assert np.array_equal(by_id["phantom-0-5"]["image"][..., 0], drawn)


def test_a_larger_phantom_keeps_the_splits():
  def of(n):
    set_ = data.prepare(config("phantom", phantom=dict(images=n)))
    return {i["id"]: s for s in folders.SPLITS for i in set_.source(s)}

  small, large = of(12), of(24)
  assert set(small.values()) == set(folders.SPLITS)
  assert small.items() <= large.items()
  with pytest.raises(errors.ConfigError, match="at least 12"):
    data.prepare(config("phantom", phantom=dict(images=11)))


def test_phantom_nodules_have_masks():
  c = config("phantom", phantom=dict(images=12, nodules=True), size=64)
  item = data.prepare(c).source("train")[0]
  assert item["mask"].shape == item["image"].shape == (64, 64, 1)
  assert set(np.unique(item["mask"])) <= {0, 1, 255}
  assert type(item["nodule_count"]) is int


def generated(root, shards=False, labels=True, n=12):
  (root / "images").mkdir(parents=True)
  lines, classes = [], ["NORMAL", "PNEUMONIA"] if labels else []
  writer = None
  if shards:
    path = str(root / "a.array_record")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
  for i in range(n):
    png = reading.png(np.full((8, 8), i, np.uint8))
    line = {
      "file": f"images/{i:06}.png",
      "index": i,
      "label": i % 2 if labels else None,
      "class": classes[i % 2] if labels else None,
      "seed": 3,
      "model": "gan",
      "checkpoint_sha256": "ab",
    }
    if shards:
      writer.write(png)
      line.update(file="a.array_record", record=i)
    else:
      (root / line["file"]).write_bytes(png)
    lines.append(json.dumps(line))
  if shards:
    writer.close()
  (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")
  general = dict(classes=classes, size=8, model="gan", seed=3, count=n)
  (root / "sampler.json").write_text(json.dumps(general))
  return root


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_a_generated_set(tmp_path, shards, labels):
  root = generated(tmp_path / "x", shards, labels)
  set_ = data.prepare(config("generated", root))
  assert set_.classes == (("NORMAL", "PNEUMONIA") if labels else ())
  source = set_.source("train")
  assert len(source) == 12 and list(set_.facts["counts"]) == ["train"]
  for i, item in enumerate(source):
    assert (item["image"] == i).all() and item["image"].shape == (8, 8, 1)
    assert item["label"] == (i % 2 if labels else -1)
    assert item["patient"] == item["id"] == f"synthetic-3-{i}"
    assert (item["seed"], item["index"], item["model"]) == (3, i, "gan")
    assert item["checkpoint_sha256"] == "ab"
  if not labels:
    assert set_.facts["counts"]["train"] == {builders.UNLABELLED: 12}
  pooled = data.prepare(config("generated", root, split="patient"))
  assert set(pooled.facts["counts"]) > {"train"}


def test_a_generated_set_that_is_not_right(tmp_path):
  root = generated(tmp_path / "x")
  manifest = root / "manifest.jsonl"
  lines = manifest.read_text().splitlines()

  def refused(match, *changed):
    manifest.write_text("\n".join([*changed, *lines[len(changed) :]]))
    with pytest.raises(errors.DataError, match=match):
      data.prepare(config("generated", root))

  refused("manifest.jsonl:1: is not JSON", "{")
  refused("manifest.jsonl:1: is not a JSON object", "3")
  refused("manifest.jsonl:2: no field 'file'", lines[0], "{}")
  refused("label 7 is not class", lines[0].replace('"label": 0', '"label": 7'))
  refused("lies outside", lines[0].replace("images/", "../../images/"))
  refused("no place in the shard", lines[0].replace(".png", ".array_record"))
  lines.pop()
  refused("11 images, but sampler.json promises 12")
  (root / "sampler.json").unlink()
  refused("sampler.json: No such file.*jaxfake.sample")

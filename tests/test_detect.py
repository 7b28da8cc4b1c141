"""A user's files: a row for each, whatever it is."""

import csv
import functools
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

from jaxfake import configuration, detect
from jaxfake import run as jaxfake_run
from jaxfake.classifiers import detector, registry
from jaxfake.data import generated_writer, pipeline
from jaxfake.runtime import disk, litter

# What refuses a file that the oracle's decoder could read.
STATED = (
  r"of modality (CT|MR|NM|PT|US|XC|SEG|RTDOSE): expected a radiograph",
  r"of \d+ frames: expected one",
  r"of (32|64) bits a pixel",
  r"in colour of \d+ bits",
  r"without a picture",  # Pixels as floating point.
  r"whose rescale slope is 0",
  r"whose picture is damaged: Corrupt JPEG data",
  r"whose window has no width",
)
DETECT_AND_SAY_MEMORY = """
import pathlib, sys
from jaxfake import detect
code = detect.main(sys.argv[1:])
print(pathlib.Path("/proc/self/status").read_text())  # VmHWM: the most it held.
sys.exit(code)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A detector of noise among phantoms: a decision tree."""
  place = tmp_path_factory.mktemp("detect")
  fakes, rng = place / "fakes", np.random.default_rng(0)
  facts = {"seed": 0, "model": "noise", "checkpoint_sha256": "0"}
  (fakes / "images").mkdir(parents=True)
  disk.write_json(
    fakes / "sampler.json",
    facts | {"classes": ["NORMAL", "PNEUMONIA"], "count": 160},
  )
  with open(fakes / "manifest.jsonl", "w") as manifest:
    for i in range(160):
      image = rng.integers(0, 256, (32, 32, 1), np.uint8)
      name, label = f"images/{i}.png", i % 2
      (fakes / name).write_bytes(generated_writer.png(image, facts))
      line = facts | {"file": name, "index": i, "label": label}
      line["class"] = ["NORMAL", "PNEUMONIA"][label]
      manifest.write(json.dumps(line) + "\n")
  flags = {
    "data.name": "real_or_fake",
    "data.real_or_fake.fakes": fakes,
    "model.name": "decision_tree",
  }
  argv = [f"--config.{k}={v}" for k, v in flags.items()]
  config = configuration.parse(
    ["", "--config=configs/classifier.py:tiny", *argv]
  )[0]
  assert jaxfake_run.train(config, place / "run") == 0
  return place


@pytest.fixture
def detected(tmp_path, capsys):
  """(exit code, rows of the CSV, what was printed) of a command."""

  def call(*argv):
    out = tmp_path / "out.csv"
    code = detect.main([*map(str, argv), f"--csv={out}"])
    with open(out, newline="") as file:
      return code, list(csv.DictReader(file)), capsys.readouterr().out

  return call


def test_a_row_for_each_file(model, tmp_path, detected):
  folder = tmp_path / "mine"
  (folder / "deep").mkdir(parents=True)
  rng = np.random.default_rng(1)
  noise = rng.integers(0, 256, (50, 40), np.uint8)
  Image.fromarray(noise).save(folder / "deep" / "b.png")
  Image.fromarray(noise).save(folder / "a.jpg", quality=90)
  (folder / ".hidden").write_text("no image")
  (folder / "z.dcm").write_bytes(bytes(128) + b"DICM")
  (folder / "link.png").symlink_to(folder / "deep" / "b.png")
  (folder / "loop").symlink_to(folder)
  code, rows, out = detected(folder, "--model", model / "run")
  assert code == 1
  names = [row["file"].removeprefix(f"{folder}/") for row in rows]
  assert names == [
    ".hidden",
    "a.jpg",
    "link.png",
    "loop",
    "z.dcm",
    "deep/b.png",
  ]
  of = dict(zip(names, rows, strict=True))
  assert list(rows[0]) == [
    "file",
    "p_fake",
    "verdict",
    "reason",
    "error",
    "marked",
    "sha256",
    "model",
  ]
  for name in (".hidden", "loop", "z.dcm"):
    assert of[name]["error"] and not of[name]["p_fake"]
    assert not of[name]["verdict"]
  for name in ("a.jpg", "deep/b.png"):
    assert 0 <= float(of[name]["p_fake"]) <= 1 and not of[name]["error"]
  data = (folder / "a.jpg").read_bytes()
  assert of["a.jpg"]["sha256"] == hashlib.sha256(data).hexdigest()
  assert "3 not read" in out


def test_verdicts_are_by_the_two_thresholds(model, tmp_path, detected):
  files = sorted((model / "fakes" / "images").iterdir())[:70]
  code, rows, out = detected(
    *files, "--model", model / "run", f"--json={tmp_path / 'out.json'}"
  )
  assert code == 0 and len(rows) == 70
  told = json.loads((tmp_path / "out.json").read_text())
  low, high = told["model"]["real_at_most"], told["model"]["fake_at_least"]
  result = json.loads((model / "run" / "result.json").read_text())
  assert [low, high] == result["calibration"]["uncertain"]
  for row in rows:
    p = float(row["p_fake"])
    want = "fake" if p >= high else "real" if p <= low else "uncertain"
    assert row["verdict"] == want
    assert row["marked"] == "True"  # By jaxfake.sample.
  assert told["model"]["sha256"] == registry.sha256(model / "run")
  assert told["counts"]["marked"] == 70
  assert len(told["rows"]) == 70
  assert "and 30 more" in out


class Program:
  """Says of an image what its mean is."""

  uncertain = (0.25, 0.75)

  canonical = staticmethod(
    functools.partial(pipeline.fit, size=1, how="stretch", kernel="box")
  )

  judge = registry.Classifier.judge

  def probabilities(self, images):
    p = images.mean((1, 2, 3)) / 255
    return np.stack([1 - p, p], 1)


def test_each_file_has_its_own_score_in_order(tmp_path):
  """More than a batch, with unreadable files among them."""
  grays, rng = [int(x) for x in np.linspace(30, 225, 80)], np.random.default_rng
  for i, gray in enumerate(grays):
    path = tmp_path / f"{i:03}.png"
    if i % 7 == 3:
      path.write_text("no image")
    else:
      noise = rng(i).integers(gray - 30, gray + 31, (40, 40), np.uint8)
      grays[i] = int(Program.canonical(noise)[0, 0])
      Image.fromarray(noise).save(path)
  files, _ = detector.listed([str(tmp_path)])
  rows = list(detector.score(Program(), files))
  assert [row["file"] for row in rows] == files
  for i, (row, gray) in enumerate(zip(rows, grays, strict=True)):
    if i % 7 == 3:
      assert row["error"] and row["p_fake"] is None
    else:
      assert row["p_fake"] == pytest.approx(gray / 255)
      said = 1 + (gray / 255 >= 0.75) - (gray / 255 <= 0.25)
      assert row["verdict"] == ("real", "uncertain", "fake")[said]
      assert row["reason"] == (registry.BETWEEN if said == 1 else None)


def test_where_both_thresholds_are_one_every_verdict_is_given():
  class Sharp(Program):
    uncertain = (0.5, 0.5)

  items = [({}, np.full((4, 4), v, np.uint8)) for v in (0, 127, 128, 255)]
  said = [row["verdict"] for row in detector.judged(Sharp(), items)]
  assert said == ["real", "real", "fake", "fake"]


@pytest.mark.parametrize(
  "argv, message",
  [
    (["nowhere.png"], "nowhere.png: no such file or folder"),
    (["."], "is not a run's folder"),
  ],
)
def test_mistakes_are_told_in_a_line(argv, message, tmp_path, capsys):
  code = detect.main([*argv, "--model", str(tmp_path)])
  said = capsys.readouterr().err
  assert code == 2 and message in said and said.count("\n") == 1


def test_an_empty_folder_is_a_mistake(tmp_path, capsys):
  assert detect.main([str(tmp_path), "--model", "x"]) == 2
  assert "no file in there" in capsys.readouterr().err


def test_a_classifier_of_findings_is_refused(tmp_path, capsys):
  flags = ["--config.model.name=decision_tree"]
  config = configuration.parse(
    ["", "--config=configs/classifier.py:tiny", *flags]
  )[0]
  jaxfake_run.train(config, tmp_path / "run")
  capsys.readouterr()
  assert detect.main([__file__, "--model", str(tmp_path / "run")]) == 2
  said = capsys.readouterr().err
  assert "tells NORMAL from PNEUMONIA: expected a detector" in said


def test_usage_is_exit_code_2(capsys):
  assert detect.main([]) == 2
  assert "FILE_OR_FOLDER" in capsys.readouterr().err
  with pytest.raises(SystemExit) as ended:
    detect.main(["a.png", "--mapps", "x"])
  assert ended.value.code == 2


def test_every_hostile_file_has_its_row(model, tmp_path):
  """Against what pydicom makes of each; in a process of its own, whose memory
  is measured.

  By itself: to its parent a process forked from one of 4 GB has used 4 GB.
  """
  if "JAXFAKE_DATA" not in os.environ:
    pytest.skip("JAXFAKE_DATA is not set: no hostile files to read")
  data = pathlib.Path(os.environ["JAXFAKE_DATA"])
  folders = [
    data / x for x in ("hostile_files", "dicom", "chest_xray_fullsize")
  ]
  out = tmp_path / "all.csv"
  command = [sys.executable, "-c", DETECT_AND_SAY_MEMORY, *map(str, folders)]
  command += ["--model", str(model / "run"), f"--csv={out}"]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert done.returncode == 1, done.stderr
  assert "Traceback" not in done.stderr
  peak = int(re.search(r"^VmHWM:\s+(\d+) kB$", done.stdout, re.M)[1])
  assert 100_000 < peak < 2_000_000
  with open(out, newline="") as file:
    rows = {row["file"]: row for row in csv.DictReader(file)}
  regular = {str(p) for x in folders for p in x.rglob("*") if p.is_file()}
  assert rows.keys() == regular
  for folder in folders[1:]:
    assert all(
      r["verdict"] for f, r in rows.items() if f.startswith(str(folder))
    )
  oracle = folders[0] / "ORACLE_pydicom.csv"
  with open(oracle, newline="") as file:
    told = {str(folders[0] / r["path"]): r for r in csv.DictReader(file)}
  seen = 0
  for path, row in rows.items():
    if path not in told:
      continue
    seen += 1
    if told[path]["pixels"] == "ok":
      assert row["verdict"] or re.search("|".join(STATED), row["error"]), row
    elif row["verdict"]:
      # Read as the oracle reads it when forced; or a PNG named .dcm.
      assert told[path]["read"] == "InvalidDicomError", row
    else:
      assert row["error"]
  assert seen == 330


def noise(path, seed=0):
  image = np.random.default_rng(seed).integers(0, 256, (40, 40), np.uint8)
  Image.fromarray(image).save(path)


def test_whatever_is_there_has_its_row(tmp_path, monkeypatch):
  folder = tmp_path / "mine"
  for name in ("closed", "deep", "__MACOSX"):
    (folder / name).mkdir(parents=True)
  noise(folder / "good.png")
  noise(folder / "deep" / "._real.png")
  noise(os.fsencode(folder) + b"/caf\xe9\n.png")
  (folder / "annex.png").symlink_to("nowhere/at/all")
  (folder / "linked").symlink_to(tmp_path)
  (folder / "Thumbs.db").write_text("x")
  os.mkfifo(folder / "pipe")
  scandir = os.scandir

  def refusing(path):
    if str(path).endswith("closed"):
      raise PermissionError(13, "Permission denied", str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refusing)  # As root reads everything.
  files, passed = detector.listed([str(folder)])
  assert passed == 3
  given, none = detector.listed([str(folder / "Thumbs.db")])
  assert len(given) == 1 and none == 0
  (folder / "good.png").rename(folder / "gone.png")  # Since it was found.
  rows = list(detector.score(Program(), files))
  told = {r["file"].rsplit("/", 1)[1]: r["error"] for r in rows}
  assert told == {
    "annex.png": "is a link that leads nowhere",
    "caf\\xe9\\x0a.png": None,
    "closed": told["closed"],
    "good.png": "cannot be opened: No such file or directory",
    "linked": "is a link to a folder, not followed",
    "pipe": "is not a file",
  }
  assert told["closed"]


def test_outputs_are_found_wanting_before_the_model_is_read(tmp_path, capsys):
  noise(tmp_path / "a.png")
  for flag in ("csv", "jsonl", "json"):
    out = tmp_path / "missing" / "out"
    argv = [str(tmp_path), "--model=nowhere", f"--{flag}={out}"]
    assert detect.main(argv) == 2
    assert "no such folder to write to" in capsys.readouterr().err


def test_what_was_interrupted_is_kept_and_gone_on_with(
  model, tmp_path, monkeypatch
):
  folder = tmp_path / "mine"
  folder.mkdir()
  for i in range(40):
    noise(folder / f"{i:02}.png", i)
  outs = {x: tmp_path / f"out.{x}" for x in ("csv", "jsonl", "json")}
  argv = [str(folder), f"--model={model / 'run'}"]
  flags = [f"--{x}={path}" for x, path in outs.items()]
  score = detector.score

  def interrupted(*args, **options):
    for i, row in enumerate(score(*args, **options)):
      if i == 35:
        raise KeyboardInterrupt
      yield row

  monkeypatch.setattr(detector, "score", interrupted)
  assert detect.main([*argv, *flags]) == 130
  monkeypatch.setattr(detector, "score", score)
  told = json.loads(outs["json"].read_text())
  assert told["complete"] is False and len(told["rows"]) == 35
  assert len(outs["jsonl"].read_text().splitlines()) == 35
  for x in ("csv", "jsonl"):  # As a kill leaves it.
    with open(outs[x], "a") as file:
      file.write(outs[x].read_text().splitlines()[-1][:30])
  noise(folder / "03.png", 99)  # Changed since.
  assert detect.main([*argv, *flags[:2], "--resume"]) == 0
  rows = disk.read_csv(outs["csv"])
  names = [pathlib.Path(r["file"]).name for r in rows]
  assert names[35:] == ["03.png"] + [f"{i}.png" for i in range(35, 40)]
  lines = [json.loads(x) for x in outs["jsonl"].read_text().splitlines()]
  assert [r["file"] for r in lines] == [r["file"] for r in rows]
  assert rows[3]["sha256"] != rows[35]["sha256"]
  changed = outs["csv"].read_text().replace(rows[0]["model"], "f" * 64)
  outs["csv"].write_text(changed)
  assert detect.main([*argv, flags[0], "--resume"]) == 2
  assert outs["csv"].read_text() == changed


def rest_of(folder, names, place):
  """A copy of the named files alone."""
  for name in names:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes((folder / name).read_bytes())
  return place


@pytest.mark.parametrize(
  "flags",
  [
    ["model.name=cnn"],
    ["model.name=decision_tree"],
    ["model.name=decision_tree", "classical.features=pixels,network"],
    ["model.name=reservoir"],
  ],
)
def test_the_hash_covers_all_that_a_score_depends_on(flags, tmp_path):
  argv = [f"--config.{x}" for x in flags]
  config = configuration.parse(
    ["", "--config=configs/classifier.py:tiny", *argv]
  )[0]
  run = tmp_path / "run"
  assert jaxfake_run.train(config, run) == 0
  names, digest = registry.files(run), registry.sha256(run)
  copy = rest_of(run, names, tmp_path / "copy")
  assert registry.sha256(copy) == digest
  size = config.data.size
  images = np.random.default_rng(0).integers(
    0, 256, (4, size, size, 1), np.uint8
  )
  whole, alone = (registry.load(x).probabilities(images) for x in (run, copy))
  np.testing.assert_array_equal(whole, alone)  # Nothing else was read.
  for name in filter(lambda x: (copy / x).stat().st_size, names):
    data = (copy / name).read_bytes()
    last = b" " if name.endswith(".json") else bytes([data[-1] ^ 1])
    (copy / name).write_bytes(data[:-1] + last)
    assert registry.sha256(copy) != digest
    (copy / name).write_bytes(data)
  for folder in {(copy / name).parent for name in names}:
    for name in (".DS_Store", "._best.json", "Thumbs.db"):
      assert litter.is_litter(name)
      (folder / name).write_text("x")
  assert registry.sha256(copy) == digest


DETECT_SLOWLY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored by nohup.
from jaxfake import detect
from jaxfake.classifiers import detector
def slowly(*args, score=detector.score, **options):
  for row in score(*args, **options):
    yield row
    time.sleep(0.2)
detector.score = slowly
sys.exit(detect.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_rows_outlive_their_process(sent, model, tmp_path):
  folder, out = tmp_path / "mine", tmp_path / "out.jsonl"
  folder.mkdir()
  for i in range(40):
    noise(folder / f"{i:02}.png", i)
  argv = [str(folder), f"--model={model / 'run'}", f"--jsonl={out}"]
  command = [sys.executable, "-c", DETECT_SLOWLY, *argv]
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
    while not out.exists() or out.read_text().count("\n") < 3:
      assert child.poll() is None
      time.sleep(0.02)
    child.send_signal(sent)
    said = child.communicate(timeout=60)[1]
  assert child.returncode == (130 if sent == signal.SIGINT else -9)
  assert "Traceback" not in said
  before = out.read_text().count("\n")
  assert before < 40
  assert detect.main([*argv, "--resume"]) == 0
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert [r["file"] for r in rows] == sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("how", ["headers", "bytes"])
def test_damaged_files_each_have_their_row(how, tmp_path):
  import fuzz_reader

  count = 1000
  wholes = fuzz_reader.samples()
  for i in range(count):
    rng = np.random.default_rng([i, len(how), 1])
    data = fuzz_reader.changed(wholes[i % len(wholes)], how, rng)
    (tmp_path / f"{i:04}").write_bytes(data)
  files, _ = detector.listed([str(tmp_path)])
  rows = list(detector.score(Program(), files))
  assert [row["file"] for row in rows] == files and len(files) == count
  for row in rows:
    assert (row["verdict"] is None) == (row["error"] is not None)
    assert row["sha256"]


@pytest.mark.parametrize("about", ["sampler.json", "tampering.json"])
def test_tables_of_ours_are_passed_over_beside_what_they_tell_of(
  tmp_path, about
):
  names = "manifest.jsonl", "sources.csv", ".lock", "notes.txt"
  for name in names:
    (tmp_path / name).write_text("x")
  noise(tmp_path / "0.png")
  assert len(detector.listed([str(tmp_path)])[0]) == 5
  (tmp_path / about).write_text("{}")
  files, passed = detector.listed([str(tmp_path)])
  assert [os.path.basename(x) for x in files] == ["0.png", "notes.txt"]
  assert passed == 4


def test_every_file_of_the_field_has_its_row(real_data):
  folder = real_data / "field"
  files, passed = detector.listed([str(folder)])
  there = [path for path in folder.rglob("*") if path.is_file()]
  assert len(files) + passed == len(there)
  rows = {row["file"]: row for row in detector.score(Program(), files)}
  assert len(rows) == len(files)
  of = lambda name: [row for file, row in rows.items() if f"/{name}/" in file]
  assert of("blank_is_fake") and of("jpeg_half_read") and of("gdcm_abort")
  for row in of("blank_is_fake"):
    assert row["verdict"] == "uncertain" and row["reason"]
  damaged = [x for x in of("jpeg_half_read") if x["file"].endswith(".jpg")]
  assert damaged and all("is damaged" in row["error"] for row in damaged)
  for row in of("deflate_bomb"):  # By the reader, not by a worker's limit.
    assert "inflates to more than" in row["error"]
  for name in "modality_DR", "no_sequence_delimiter", "empty_elements":
    assert of(name) and all(row["verdict"] for row in of(name))


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
  def interrupted(_):
    raise KeyboardInterrupt

  monkeypatch.setattr(detect, "run", interrupted)
  assert detect.main(["a.png", "--model", "nowhere"]) == 130
  assert "--resume" in capsys.readouterr().err

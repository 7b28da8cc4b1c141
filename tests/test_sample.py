"""Samples: marked, the same however made, resumable, and a data set."""

import json
import re
import shutil
import signal

from array_record.python import array_record_data_source
from in_processes import codes, start
import numpy as np
from PIL import Image
from places import ROOT
import pytest

from jaxfake import main, sample
from jaxfake.data import generated_writer
from jaxfake.runtime import disk

TINY = f"--config={ROOT}/configs/dcgan.py:tiny"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("trained")
  argv = ["", TINY, f"--workdir={path}", "--config.model.conditional=True"]
  # Fast, so that six steps make images that are not all gray.
  assert main.main([*argv, "--config.opt.lr=0.01", "--config.ema=0.5"]) == 0
  return path


def read_records(path):
  with array_record_data_source.ArrayRecordDataSource(str(path)) as source:
    return source.__getitems__(range(len(source)))


def make(trained, out, count, *flags):
  argv = ["--workdir", trained, "--out", out, "--count", count, "--batch", 4]
  return sample.main([str(x) for x in (*argv, *flags)])


def manifest(out):
  lines = (out / "manifest.jsonl").read_text().splitlines()
  return [json.loads(x) for x in lines]


def pixels(out):
  return [np.asarray(Image.open(out / x["file"])) for x in manifest(out)]


def test_every_image_is_marked(trained, tmp_path):
  assert make(trained, tmp_path, 5) == 0
  rows = manifest(tmp_path)
  checkpoint = json.loads((trained / "result.json").read_text())["state_sha256"]
  assert [x["index"] for x in rows] == [0, 1, 2, 3, 4]
  assert [x["class"] for x in rows] == ["NORMAL", "PNEUMONIA"] * 2 + ["NORMAL"]
  for row in rows:
    with Image.open(tmp_path / row["file"]) as image:
      assert image.format == "PNG"
      assert (image.mode, image.size) == ("L", (32, 32))
      assert "Synthetic" in image.text["Comment"]
      assert "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
      said = json.loads(image.text["jaxfake"])
    assert said == {k: v for k, v in row.items() if k != "file"}
    assert said["synthetic"] is True
    assert said["model"] == "dcgan"
    assert said["seed"] == 0
    assert said["checkpoint_sha256"] == checkpoint


def test_an_image_depends_on_seed_index_and_class_alone(trained, tmp_path):
  assert make(trained, tmp_path / "few", 3) == 0
  assert make(trained, tmp_path / "many", 9) == 0
  assert make(trained, tmp_path / "normal", 3, "--class", "NORMAL") == 0
  assert make(trained, tmp_path / "seed", 3, "--seed", 1) == 0
  few, many = pixels(tmp_path / "few"), pixels(tmp_path / "many")
  np.testing.assert_array_equal(few, many[:3])
  normal = pixels(tmp_path / "normal")
  np.testing.assert_array_equal(normal[0], few[0])
  assert (normal[1] != few[1]).any()  # Of class PNEUMONIA in the other.
  assert (pixels(tmp_path / "seed")[0] != few[0]).any()


@pytest.mark.parametrize("form", ["png", "array_record"])
def test_interrupted_anywhere_it_ends_the_same(
  form, trained, tmp_path, monkeypatch
):
  monkeypatch.setattr(generated_writer, "CHUNK", 3)
  monkeypatch.setattr(generated_writer, "SHARD", 3)
  flags = ("--format", form)
  assert make(trained, tmp_path / "straight", 10, *flags) == 0
  encode = generated_writer.png

  def interrupted(image, facts):
    if facts["index"] == 7:
      raise KeyboardInterrupt
    return encode(image, facts)

  with monkeypatch.context() as patch:
    patch.setattr(generated_writer, "png", interrupted)
    assert make(trained, tmp_path / "cut", 10, *flags) == 130
  kept = len(manifest(tmp_path / "cut"))
  assert kept in (3, 6)
  with open(tmp_path / "cut/manifest.jsonl", "a") as f:
    f.write('{"file": "ima')  # Killed in the middle of a line.
  assert make(trained, tmp_path / "cut", 10, *flags) == 0
  files = lambda out: {
    str(p.relative_to(out)): p.read_bytes()
    for p in out.rglob("*")
    if p.is_file() and p.suffix != ".array_record"
  }
  assert files(tmp_path / "cut") == files(tmp_path / "straight")
  records = lambda out: [
    x for p in sorted(out.glob("*.array_record")) for x in read_records(p)
  ]
  assert records(tmp_path / "cut") == records(tmp_path / "straight")
  assert len(records(tmp_path / "cut")) == (10 if form != "png" else 0)


def test_a_shard_half_in_the_manifest_is_made_again(
  trained, tmp_path, monkeypatch
):
  monkeypatch.setattr(generated_writer, "SHARD", 4)
  flags = ("--format", "array_record")
  assert make(trained, tmp_path / "straight", 10, *flags) == 0
  assert make(trained, tmp_path / "cut", 10, *flags) == 0
  lines = (tmp_path / "cut/manifest.jsonl").read_text().splitlines(True)
  (tmp_path / "cut/manifest.jsonl").write_text("".join(lines[:6]))
  assert make(trained, tmp_path / "cut", 10, *flags) == 0
  assert manifest(tmp_path / "cut") == manifest(tmp_path / "straight")
  shards = sorted((tmp_path / "cut").glob("*.array_record"))
  assert [len(read_records(p)) for p in shards] == [4, 4, 2]


# Runs sample in shards of three; a process dies when it comes to an index.
DIES = """
import os, signal, sys
from jaxfake import sample
from jaxfake.data import generated_writer
from jaxfake.runtime import processes
processes.HEARTBEAT = 5
generated_writer.SHARD = 3
encode = generated_writer.png
def png(image, facts):
  if facts["index"] == {index}:
    os.kill(os.getpid(), signal.SIGKILL)
  os.write(1, b"\\nmade %d\\n" % facts["index"])
  return encode(image, facts)
generated_writer.png = png
sys.exit(sample.main(sys.argv[1:]))
"""


def test_two_processes_then_three_make_what_one_makes(
  trained, tmp_path, monkeypatch
):
  monkeypatch.setattr(generated_writer, "SHARD", 3)
  one, many = tmp_path / "one", tmp_path / "many"
  assert make(trained, one, 20, "--format", "array_record") == 0
  argv = ["--workdir", trained, "--out", many, "--count", 20, "--batch", 4]
  argv += ["--format", "array_record"]
  # 9 is the second process's; by then each may have written a shard, or none.
  first, second = codes(start(2, DIES.format(index=9), *argv))
  assert second == -signal.SIGKILL
  assert first != 0
  assert not generated_writer.finished(many, 20)
  listed = many.glob("manifest*.jsonl")
  before = [x["index"] for p in listed for x in disk.read_lines(p)]
  started = start(3, DIES.format(index=-1), *argv)
  assert codes(started) == [0, 0, 0], started[0].err
  after = [
    int(i) for x in started for i in re.findall(r"^made (\d+)$", x.out, re.M)
  ]
  assert sorted(before + after) == list(range(20))  # Each once.
  assert generated_writer.finished(many, 20)
  names = lambda out: sorted(p.name for p in out.iterdir())
  assert names(many) == names(one)
  assert (many / "manifest.jsonl").read_bytes() == (
    one / "manifest.jsonl"
  ).read_bytes()
  for shard in one.glob("*.array_record"):
    assert read_records(many / shard.name) == read_records(shard)


def test_the_parts_of_a_manifest_are_joined(trained, tmp_path, monkeypatch):
  assert make(trained, tmp_path, 6) == 0
  whole = (tmp_path / "manifest.jsonl").read_text()
  lines = whole.splitlines(keepends=True)
  # As after kill -9 of two of three processes, one while joining the parts.
  (tmp_path / "manifest.jsonl").write_text(lines[5] + lines[1])
  (tmp_path / "manifest-1.jsonl").write_text(lines[1] + lines[2])
  (tmp_path / "manifest-2.jsonl").write_text(lines[4] + lines[0][:9])
  encode, again = generated_writer.png, []

  def png(image, facts):
    again.append(facts["index"])
    return encode(image, facts)

  monkeypatch.setattr(generated_writer, "png", png)
  assert make(trained, tmp_path, 6) == 0
  assert sorted(again) == [0, 3]
  assert (tmp_path / "manifest.jsonl").read_text() == whole
  assert not list(tmp_path.glob("manifest-*"))


def test_the_largest_seed(trained, tmp_path):
  assert make(trained, tmp_path / "a", 1, "--seed", 2**32 - 1) == 0
  assert make(trained, tmp_path / "b", 1, "--seed", 2**32) == 2


def test_images_of_no_class_cannot_teach_a_class(trained, tmp_path, capsys):
  run, out = tmp_path / "run", tmp_path / "out"
  assert main.main(["", TINY, f"--workdir={run}"]) == 0
  assert make(run, out, 24) == 0
  argv = [
    "",
    TINY,
    f"--workdir={tmp_path / 'again'}",
    "--config.data.name=generated",
    f"--config.data.dir={out}",
    "--config.data.split=patient",
  ]
  assert main.main(argv) == 0
  argv += [f"--workdir={tmp_path / 'conditional'}"]
  assert main.main([*argv, "--config.model.conditional=True"]) == 2
  assert "not every image of the data has a class" in capsys.readouterr().err


def test_a_run_of_before_dtype_was_a_field(trained, tmp_path):
  older = tmp_path / "older"
  shutil.copytree(trained, older)
  config = json.loads((older / "config.json").read_text())
  del config["dtype"]
  (older / "config.json").write_text(json.dumps(config))
  for path, out in ((trained, "a"), (older, "b")):
    assert make(path, tmp_path / out, 2) == 0
  np.testing.assert_array_equal(pixels(tmp_path / "a"), pixels(tmp_path / "b"))


def test_more_images_later(trained, tmp_path):
  assert make(trained, tmp_path / "a", 3) == 0
  assert make(trained, tmp_path / "a", 6) == 0
  assert make(trained, tmp_path / "b", 6) == 0
  np.testing.assert_array_equal(pixels(tmp_path / "a"), pixels(tmp_path / "b"))


@pytest.mark.parametrize("form", ["png", "array_record"])
def test_samples_are_a_data_set(form, trained, tmp_path):
  out = tmp_path / "out"
  assert make(trained, out, 24, "--format", form) == 0
  argv = [
    "",
    TINY,
    f"--workdir={tmp_path / 'run'}",
    "--config.data.name=generated",
    f"--config.data.dir={tmp_path}/x/../out",
    "--config.data.split=patient",
    "--config.total_steps=2",
  ]
  assert main.main(argv) == 0
  facts = json.loads((tmp_path / "run/dataset.json").read_text())
  assert sum(sum(x.values()) for x in facts["counts"].values()) == 24


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (["--class", "TUMOUR"], "NORMAL, PNEUMONIA"),
    (["--step", "77"], "no checkpoint of step 77"),
    (["--seed", "-1"], "--seed -1"),
    (["--count", "0"], "--count"),
  ],
)
def test_mistakes_are_one_line(flags, named, trained, tmp_path, capsys):
  assert make(trained, tmp_path / "out", 3, *flags) == 2
  error = capsys.readouterr().err
  assert named in error
  assert len(error.strip().splitlines()) == 1


def test_a_folder_of_something_else_is_refused(trained, tmp_path, capsys):
  (tmp_path / "mine.txt").write_text("precious")
  assert make(trained, tmp_path, 3) == 2
  assert "holds other files" in capsys.readouterr().err
  assert make(trained, tmp_path / "out", 3) == 0
  assert make(trained, tmp_path / "out", 3, "--seed", 1) == 2
  assert "seed 0, now 1" in capsys.readouterr().err
  assert make(tmp_path, tmp_path / "new", 3) == 2
  assert "not a run's folder" in capsys.readouterr().err

"""python -m jaxfake.data, as people run it."""

import json
import os
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest
from test_datasets import generated, kaggle, prepared, spoil

from jaxfake import data
from jaxfake.data import __main__ as command
from jaxfake.data import describe, folders

__all__ = ["prepared"]  # The fixture that keeps prepared data out of home.


def run(capsys, *args):
  """Returns exit code, stdout and stderr of one command."""
  try:
    code = command.main([str(a) for a in args])
  except SystemExit as exit:  # argparse's own.
    code = exit.code
  out, err = capsys.readouterr()
  return code, out, err


def test_help_is_quick():
  start = time.monotonic()
  done = subprocess.run(
    [sys.executable, "-m", "jaxfake.data", "describe", "--help"],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and "--picture" in done.stdout
  assert time.monotonic() - start < 2  # 0.1 s on an idle machine.


def test_list(capsys, tmp_path, prepared):
  code, out, _ = run(capsys, "list")
  assert code == 0 and "nothing yet" in out
  assert all(name in out for name in (*data.findings(), "generated"))
  run(capsys, "prepare", "chest_xray", "--dir", kaggle(tmp_path / "x"))
  assert "jaxfake_chest_xray/official-" in run(capsys, "list")[1]


def test_prepare(capsys, tmp_path, prepared):
  root = kaggle(tmp_path / "x")
  code, out, err = run(capsys, "prepare", "chest_xray", "--dir", root)
  assert code == 0 and "train  NORMAL 4  PNEUMONIA 4" in out
  assert str(prepared) in out.splitlines()[-1]
  assert "24 of 24" in err and "s left" in err
  spoil(root)
  code, out, err = run(capsys, "prepare", "chest_xray", "--dir", root)
  assert code == 2 and "2 of 26 images cannot be read" in err and not out
  code, out, _ = run(
    capsys, "prepare", "chest_xray", "--dir", root, "--unreadable", "skip"
  )
  assert code == 0 and "left out as unreadable: 2" in out


def test_check_lists_all_at_once(capsys, tmp_path):
  root = kaggle(tmp_path / "x")
  code, out, _ = run(capsys, "check", "chest_xray", "--dir", root)
  assert code == 0 and out == "24 images, 0 unreadable\n"
  bad = spoil(root)
  code, out, _ = run(capsys, "check", "chest_xray", "--dir", root)
  assert code == 1 and all(str(path) in out for path in bad)
  assert out.endswith("26 images, 2 unreadable\n")
  root = generated(tmp_path / "g", shards=True)
  path = root / "a.array_record"
  path.write_bytes(path.read_bytes()[:2000])
  code, out, _ = run(capsys, "check", "generated", "--dir", root)
  assert code == 1 and "a.array_record[11]: cannot be read" in out


@pytest.mark.parametrize(
  ("args", "match"),
  [
    (["describe", "xray"], "invalid choice: 'xray'"),
    (["describe", "chest_xray"], "data.dir is empty"),
    (["describe", "chest_xray", "--dir", "/none"], "/none: no such folder"),
    (["frobnicate"], "invalid choice"),
    ([], "required: COMMAND"),
    (["check", "generated", "--dir", "/"], "sampler.json"),
    (["prepare", "phantom", "--images", "3"], "images=3: at least 12"),
  ],
)
def test_misuse_is_exit_code_2(capsys, args, match):
  code, out, err = run(capsys, *args)
  assert code == 2 and match in err and not out and "Traceback" not in err


def radiographs(root):
  """Distinct pictures, one of them twice over the splits, in another form."""
  rng = np.random.default_rng(0)
  for split in folders.SPLITS:
    for label in "NORMAL", "PNEUMONIA":
      (root / split / label).mkdir(parents=True)
      for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 12), np.uint8))
        path = root / split / label / f"{split}{label}{i}.png"
        coarse.resize((96, 80), Image.Resampling.BICUBIC).save(path)
  with Image.open(root / "train/NORMAL/trainNORMAL0.png") as image:
    twin = image.resize((70, 70), Image.Resampling.LANCZOS)
    twin.save(root / "test/NORMAL/twin.jpg", quality=60)
  return root


def test_describe(capsys, tmp_path):
  root = radiographs(tmp_path / "x")
  picture = tmp_path / "sheet.png"
  args = ["describe", "chest_xray", "--dir", root]
  code, out, err = run(capsys, *args, "--picture", picture)
  assert code == 0 and str(picture) in err
  for line in (
    "chest_xray  split: official",
    "train                3             3             6",
    "patients in two splits: patients not known for 19 of 19 images",
    "width   min 70 median 96 max 96",
    "2 sizes; commonest: 96 x 80 (18), 70 x 70 (1)",
    "1 pairs, 1 across splits, 1 of different patients or ones not known",
    "train/NORMAL/trainNORMAL0.png  test/NORMAL/twin.jpg",
  ):
    assert line in out, out
  with Image.open(picture) as sheet:
    assert sheet.size == (1024, 540)
    # Each class has its strip: caption, three tiles, then black.
    pixels = np.asarray(sheet)
    assert pixels[14:142, :384].std() > 20 and not pixels[14:142, 384:].any()
    assert pixels[284:412, :384].std() > 20 and pixels[:14].max() > 200
  code, out, _ = run(capsys, *args, "--json")
  facts = json.loads(out)
  assert facts["counts"]["test"] == {"NORMAL": 4, "PNEUMONIA": 3}
  (pair,) = facts["near_duplicates"]["listed"]
  assert pair["splits"] == "train-test" and not pair["same_patient"]
  assert run(capsys, *args, "--picture", "/none/x.png")[0] == 2
  assert run(capsys, *args, "--picture", tmp_path / "x.nonsense")[0] == 2


def test_near_duplicates_agree_with_counting_bits():
  rng = np.random.default_rng(0)
  bits = rng.random((1500, 256)) < 0.5  # More than one block.
  bits[1400] = bits[3]
  bits[1400, :9] ^= True
  bits[1401] = bits[1402]
  n = len(bits)
  splits = np.array(["train", "test"])[np.arange(n) % 2]
  h = describe.Hashes(bits, splits, list(map(str, range(n))), ["p"] * n)
  near = describe.near_duplicates(h)
  assert [(p["a"], p["b"], p["distance"]) for p in near["listed"]] == [
    ("1401", "1402", 0),
    ("3", "1400", 9),
  ]
  assert (near["pairs"], near["pairs_across_splits"]) == (2, 2)
  assert near["pairs_of_different_patients"] == 0
  assert describe.near_duplicates(h, limit=8)["pairs"] == 1
  same = describe.Hashes(bits[:1].repeat(100, 0), splits, h.ids, h.patients)
  near = describe.near_duplicates(same)
  assert near["pairs"] == 4950 and len(near["listed"]) == 1000
  assert all(
    p["splits"] == "train-test" or p["splits"] == "test-train"
    for p in near["listed"]
  )


def test_describe_real_radiographs(capsys, tmp_path):
  if "JAXFAKE_DATA" not in os.environ:
    pytest.skip("JAXFAKE_DATA is not set: no radiographs to describe")
  root = os.path.join(os.environ["JAXFAKE_DATA"], "chest_xray")
  code, out, _ = run(capsys, "describe", "chest_xray", "--dir", root, "--json")
  facts = json.loads(out)
  assert code == 0 and facts["counts"] == {
    "train": {"NORMAL": 325, "PNEUMONIA": 450},
    "val": {"NORMAL": 38, "PNEUMONIA": 106},
    "test": {"NORMAL": 40, "PNEUMONIA": 134},
  }
  assert facts["near_duplicates"]["pairs"] == 0
  assert facts["patient_overlap"] == {
    "train-val": 4,
    "train-test": 4,
    "val-test": 0,
  }

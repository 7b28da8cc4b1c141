"""The README's commands run, in its order, on sets made small."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import numpy as np
from PIL import Image
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
LINES = [
  line
  for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S)
  for line in block.splitlines()
]
COMMANDS = [x for x in LINES if x.startswith(("python ", "launch/"))]
# What makes a command small. Every pattern must be in use.
SMALLER = {
  r"(dcgan|classifier|traces|forensic)\.py(:quick)?": r"\1.py:tiny",
  "runs/traces-quick": "runs/traces-tiny",
  r"comparison\.py:quick": "comparison.py:tiny --config.only=decision_tree",
  r"few_images\.py:quick": "few_images.py:tiny --config.programs=reservoir,hog",
  # Fakes of an untrained generator leak.
  r"study\.py:quick": "study.py:tiny --config.show_leaking=True"
  " --workdir runs/study-tiny",
  "runs/study-quick": "runs/study-tiny",
  "runs/dcgan-quick": "runs/dcgan-tiny",
  "--only loss --seeds 2": "--only loss --seeds 1",
  "--count 100": "--count 24",
  "--images 200": "--images 24",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder that looks like the repository's, with a FOLDER of radiographs."""
  place = tmp_path_factory.mktemp("readme")
  for name in ("configs", "launch"):
    (place / name).symlink_to(ROOT / name)
  rng = np.random.default_rng(0)
  for split in ("train", "val", "test"):
    for name in ("NORMAL", "PNEUMONIA"):
      folder = place / "FOLDER" / split / name
      folder.mkdir(parents=True)
      for i in range(8):
        blocks = rng.integers(0, 256, (8, 8), np.uint8)
        image = Image.fromarray(blocks.repeat(6, 0).repeat(5, 1))
        image.save(folder / f"{split}{name}{i}-1.png")
  return place


def test_the_first_commands_install_and_do_the_main_thing():
  first, second = LINES[:2]
  assert first.endswith("-m jaxfake.main --config configs/dcgan.py:quick")
  assert ".venv/bin/pip install -e . &&" in first
  assert ".venv/bin/pip install -e '.[test]' &&" in second
  assert second.endswith("-m pytest -q")
  ci = (ROOT / ".ci/run").read_text()
  assert "<!-- tests -->" in ci and "<!-- tests -->" in TEXT


def test_every_command_is_made_small():
  joined = "\n".join(COMMANDS)
  assert all(re.search(pattern, joined) for pattern in SMALLER)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, place):
  for pattern, small in SMALLER.items():
    command = re.sub(pattern, small, command)
  path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
  done = subprocess.run(
    shlex.split(command),
    cwd=place,
    env=os.environ | {"PATH": path},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert "Traceback" not in done.stderr


def test_files_and_extras_it_names_exist():
  for name in re.findall(r"\]\((?!http|#)([^)]+)\)", TEXT):
    assert (ROOT / name).exists(), name
  for name in re.findall(r"^    (jaxfake/\S+)", TEXT, re.M):
    assert (ROOT / name).exists(), name
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  extras = set(re.findall(r"`\.\[(\w+)\]`", TEXT))
  assert extras >= {"cuda", "tpu", "tensorboard"}
  assert extras <= project["optional-dependencies"].keys()

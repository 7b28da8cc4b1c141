"""The commands of README and docs run, in reading order, on sets made small."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import forked
import numpy as np
from PIL import Image
from places import ROOT
import pytest

# A page may use what the pages before it made.
TOPICS = ("train", "classify", "study", "many_sources", "detect", "data")
TOPICS += ("tampering",)
TOPICS += ("sweep", "clusters", "results", "performance", "architecture")
ORDER = "README.md", *(f"docs/{x}.md" for x in TOPICS), "CONTRIBUTING.md"
TEXTS = {name: (ROOT / name).read_text() for name in ORDER}
README = TEXTS["README.md"]


def lines(text, language):
  """Of the blocks of a language; of "", those that are shown and not run."""
  blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
  return [
    line
    for kind, block in blocks
    if kind == language
    for line in block.splitlines()
  ]


# What makes a command small. Every pattern must be in use.
SMALLER = {
  r"(dcgan|cyclegan|inpainter)\.py(:quick)?": r"\1.py:tiny",
  # What tests/generators compiles.
  r"(wgan_gp|pggan|stylegan2|edm|vae|latent_diffusion)\.py(:quick)?": (
    r"\1.py:tiny --config.model.conditional=True"
  ),
  r"(classifier|localizer|reconstruction)\.py(:quick)?": r"\1.py:tiny",
  r"(traces|forensic)\.py(:quick)?": r"\1.py:tiny",
  "runs/traces-quick": "runs/traces-tiny",
  r"comparison\.py:quick": "comparison.py:tiny --config.only=decision_tree",
  r"generators\.py:quick": "generators.py:tiny",
  r"few_images\.py:quick": "few_images.py:tiny --config.programs=reservoir,hog",
  # Fakes of an untrained generator leak.
  r"study\.py:quick": "study.py:tiny --config.show_leaking=True"
  " --workdir runs/study-tiny",
  "runs/study-quick": "runs/study-tiny",
  r"runs/(dcgan|inpainter|localizer|reconstruction)-quick": r"runs/\1-tiny",
  "--only loss --seeds 2": "--only loss --seeds 1",
  "--count 100": "--count 24",
  "--images 200": "--images 24",
}


def smaller(command):
  for pattern, small in SMALLER.items():
    command = re.sub(pattern, small, command)
  return command


GIVEN = [
  line
  for text in TEXTS.values()
  for line in lines(text, "bash")
  if line.startswith(("python ", "launch/"))
]
# Name of a file -> its text.
MODULES = dict(
  re.findall(
    r"^```python\n# (my_lab/\w+\.py)\n(.*?)^```$",
    TEXTS["CONTRIBUTING.md"],
    re.M | re.S,
  )
)
# Two pages may give the same command; it is run once.
COMMANDS = list(dict.fromkeys(map(smaller, GIVEN)))
SHOWN = [
  line
  for text in TEXTS.values()
  for line in lines(text, "")
  if line.startswith("python -m jaxfake.main ")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder that looks like the repository's, with a FOLDER and a WARD of
  radiographs and the modules that CONTRIBUTING shows."""
  place = tmp_path_factory.mktemp("readme")
  for name in ("configs", "launch"):
    (place / name).symlink_to(ROOT / name)
  for name, code in MODULES.items():
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text(code)
  rng = np.random.default_rng(0)
  rows = ["file,patient,finding"]
  for split in ("train", "val", "test"):
    for name in ("NORMAL", "PNEUMONIA"):
      for i in range(8):
        blocks = rng.integers(0, 256, (8, 8), np.uint8)
        image = Image.fromarray(blocks.repeat(6, 0).repeat(5, 1))
        file = f"{split}/{name}/{split}{name}{i}-1.png"
        rows.append(f"{file},{split}{name}{i},{name}")
        for folder in ("FOLDER", "WARD"):
          (place / folder / file).parent.mkdir(parents=True, exist_ok=True)
          image.save(place / folder / file)
  (place / "WARD" / "list.csv").write_text("\n".join(rows))
  return place


def test_the_first_commands_install_and_do_the_main_thing():
  first, second = lines(README, "bash")[:2]
  assert first.endswith("-m jaxfake.main --config configs/dcgan.py:quick")
  assert ".venv/bin/pip install -e . &&" in first
  assert ".venv/bin/pip install -e '.[test]' &&" in second
  assert second.endswith("-m pytest -q")
  ci = (ROOT / ".ci/run").read_text()
  assert "<!-- tests -->" in ci and "<!-- tests -->" in README


def test_readme_is_short_and_every_page_is_read_here():
  assert len(README.splitlines()) <= 130
  pages = {str(x.relative_to(ROOT)) for x in ROOT.glob("docs/*.md")}
  assert pages <= set(ORDER)
  assert all(page in README for page in pages)


def test_every_command_is_made_small():
  joined = "\n".join(GIVEN)
  assert all(re.search(pattern, joined) for pattern in SMALLER)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, place):
  argv = shlex.split(command)
  if argv[:2] == ["python", "-m"]:
    done = forked.command(*argv[2:], cwd=place)
  else:
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
      argv,
      cwd=place,
      env=os.environ | {"PATH": path},
      capture_output=True,
      text=True,
      timeout=900,
    )
  assert done.returncode == 0, done.stderr
  assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", SHOWN)
def test_command_that_takes_hours_names_fields_there_are(command, monkeypatch):
  from jaxfake import configuration

  monkeypatch.chdir(ROOT)
  configuration.parse(shlex.split(command)[2:])


def anchors(text):
  """The names that GitHub gives a page's headings."""
  heads = re.findall(r"^#+ (.+)$", text, re.M)
  return {re.sub(r"[^\w\- ]", "", x.lower()).replace(" ", "-") for x in heads}


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_names_exists(page):
  text = TEXTS[page]
  for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
    name, _, anchor = link.partition("#")
    file = (ROOT / page).parent / name if name else ROOT / page
    assert file.exists(), link
    assert not anchor or anchor in anchors(file.read_text()), link
  names = r"(?:jaxfake|configs|launch|docs)/[\w./]*\w"
  for name in re.findall(rf"`({names})`|^    ({names})", text, re.M):
    assert (ROOT / "".join(name)).exists(), name


def test_extras_exist():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  extras = {x for t in TEXTS.values() for x in re.findall(r"\.\[(\w+)\]", t)}
  assert extras >= {"bench", "cuda", "slurm", "tensorboard", "test", "tpu"}
  assert extras <= project["optional-dependencies"].keys()

"""jaxfake as `pip install .` leaves it, used from an empty folder.

Without the network: setuptools of this environment builds the wheel, pip
installs it alone into a new one, which finds what jaxfake needs in this one's.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

from places import ROOT
import pytest

from jaxfake.classifiers import detector

OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation"]
# Of a checkout that was not installed, and of pytest's workers.
HIDDEN = {"PYTHONPATH", "PYTHONHOME"}


def run(*command, cwd, **env):
  kept = {k: v for k, v in os.environ.items() if k not in HIDDEN}
  return subprocess.run(
    list(map(str, command)),
    cwd=cwd,
    env=kept | env,
    capture_output=True,
    text=True,
    timeout=300,
  )


def pip(*arguments, cwd):
  done = run(sys.executable, "-m", "pip", *arguments, cwd=cwd)
  assert done.returncode == 0, done.stderr


def copied(folder) -> pathlib.Path:
  """What a clone has, without what was built in this one."""
  for name in ("jaxfake", "configs", "tests", "launch"):
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / name, folder / name, ignore=ignored)
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, folder)
  return folder


def environment(folder) -> pathlib.Path:
  """A new environment's Python."""
  venv.create(folder, with_pip=False)
  site = next(folder.glob("lib/python*/site-packages"))
  ours = sysconfig.get_path("purelib")
  (site / "others.pth").write_text(f"{ours}\n")
  return folder / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp("wheel")
  pip("wheel", *OFFLINE, "-w", folder, copied(folder / "clone"), cwd=folder)
  return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
  """The Python of an environment that the wheel is installed in."""
  made = environment(tmp_path_factory.mktemp("installed"))
  pip("--python", made, "install", *OFFLINE, wheel, cwd=wheel.parent)
  return made


def test_the_wheel_has_all_modules_and_nothing_else(wheel):
  with zipfile.ZipFile(wheel) as file:
    names = {x for x in file.namelist() if ".dist-info/" not in x}
  ours = {str(x.relative_to(ROOT)) for x in ROOT.glob("jaxfake/**/*.py")}
  configs = {f"jaxfake/configs/{x.name}" for x in ROOT.glob("configs/*.py")}
  shipped = {f"jaxfake/shipped/{x.name}" for x in detector.SHIPPED.iterdir()}
  assert shipped and names == ours | configs | shipped


def test_its_detector_comes_with_it(python, tmp_path):
  done = run(python, "-m", "jaxfake.detect", "--card", cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stdout == (detector.SHIPPED / detector.CARD).read_text()


def test_the_first_command_works_from_an_empty_folder(python, tmp_path):
  command = ["-m", "jaxfake.main", "--config", "configs/dcgan.py:tiny"]
  done = run(python, *command, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  site = python.parent.parent.resolve()
  first = done.stdout.splitlines()[0]
  assert first.startswith(f"configuration: {site}/lib/")
  assert first.endswith("/site-packages/jaxfake/configs/dcgan.py:tiny")
  assert (tmp_path / "runs/dcgan-tiny/result.json").exists()
  assert [x.name for x in tmp_path.iterdir()] == ["runs"]


def test_every_configuration_is_found_and_a_file_that_exists_wins(
  python, tmp_path
):
  """Also those that build on another."""
  (tmp_path / "configs").mkdir()
  shutil.copy(ROOT / "configs/dcgan.py", tmp_path / "configs")
  names = sorted(x.name for x in ROOT.glob("configs/*.py"))
  code = f"""
from jaxfake import configuration
for name in {names}:
  for variant in ("", ":quick", ":tiny"):
    configuration.parse(["", f"--config=configs/{{name}}{{variant}}"])
  print(configuration.find(f"configs/{{name}}"))
"""
  done = run(python, "-c", code, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  found = dict(zip(names, done.stdout.splitlines(), strict=True))
  assert found.pop("dcgan.py") == "configs/dcgan.py"
  for name, path in found.items():
    assert path.endswith(f"/site-packages/jaxfake/configs/{name}")
  done = run(python, "-m", "jaxfake.main", "--config=configs/no", cwd=tmp_path)
  assert done.returncode == 2
  assert all(f"configs/{name}" in done.stderr for name in names)


def test_an_editable_installation_finds_them_too(tmp_path):
  clone, empty = copied(tmp_path / "clone"), tmp_path / "empty"
  empty.mkdir()
  made = environment(tmp_path / "environment")
  pip("--python", made, "install", *OFFLINE, "-e", clone, cwd=tmp_path)
  code = """
from jaxfake import configuration
configuration.parse(["", "--config=configs/study.py:tiny"])
print(configuration.find("configs/study.py"))
"""
  done = run(made, "-c", code, cwd=empty)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == f"{clone}/configs/study.py"


def test_all_packages_are_listed():
  told = tomllib.loads((ROOT / "pyproject.toml").read_text())
  listed = set(told["tool"]["setuptools"]["packages"])
  found = {
    ".".join(x.parent.relative_to(ROOT).parts)
    for x in ROOT.glob("jaxfake/**/*.py")
  }
  assert listed == found | {"jaxfake.configs"}

"""What docs/ and the files beside README promise."""

import json
import os
import re
import runpy
import subprocess
import sys

from places import ROOT
import yaml

draw = runpy.run_path(str(ROOT / "docs/architecture.py"))


def package(folder, **modules):
  """A package of modules, a__b for a/b.py, with their text."""
  for name, text in modules.items():
    file = folder / f"{name.replace('__', '/')}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.parent != folder:
      (file.parent / "__init__.py").touch()
    file.write_text(text)
  return draw["arrows"](folder)


def test_imports_are_counted_by_room(tmp_path):
  rooms, count = package(
    tmp_path,
    main="import json\nfrom jaxfake import errors, __version__, data",
    data__feed="from jaxfake.data import folders\nfrom jaxfake import errors",
    data__folders="def f():\n  import jaxfake.errors",
    errors="",
  )
  assert rooms == ["data/", "errors", "main"]
  assert count == {
    ("main", "errors"): 1,
    ("main", "data/"): 1,
    ("data/", "errors"): 2,
  }
  assert draw["levels"](rooms, count) == {"main": 2, "data/": 1, "errors": 0}
  assert draw["said"](rooms, count) == "3 rooms, 3 arrows, no circle"


def test_a_circle_is_named_and_red(tmp_path):
  found = package(
    tmp_path,
    a="from jaxfake import b",
    b="from jaxfake import c",
    c="from jaxfake import b",
  )
  assert draw["circles"](*found) == [["b", "c"]]
  red = [x for x in draw["svg"](*found).split("\n") if "#c22" in x]
  # Two import b, so it is below c. The first line has the arrow's head.
  assert len(red) == 2 and "b imports c" in red[1]


def test_the_picture_is_of_this_code():
  """python docs/architecture.py draws it again."""
  rooms, count = draw["arrows"](ROOT / "jaxfake")
  picture = (ROOT / "docs/architecture.svg").read_text()
  shown = re.findall(r"<title>(\S+) imports (\S+):", picture)
  assert set(shown) == set(count)
  assert set(re.findall(r"<text[^>]*>([^<]+)", picture)) == set(rooms)


def test_hooks_are_the_linters_of_ci():
  hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
  entries = [x["entry"] for repo in hooks["repos"] for x in repo["hooks"]]
  ci = (ROOT / ".ci/run").read_text()
  linters = re.findall(r"^\.venv/bin/(.+?) \.$", ci, re.M)
  assert linters
  for linter in linters:
    tool, command = linter.split()[:2]
    assert any(x.startswith(f".venv/bin/{tool} {command}") for x in entries)


def test_the_workflow_runs_ci():
  flow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
  steps = [x for job in flow["jobs"].values() for x in job["steps"]]
  assert any(".ci/run" in x.get("run", "") for x in steps)


def test_the_notebook_makes_and_catches(tmp_path):
  cells = json.loads((ROOT / "docs/make_and_catch.ipynb").read_text())["cells"]
  cells = [x for x in cells if x["cell_type"] == "code"]
  kept = [output for cell in cells for output in cell["outputs"]]
  assert all(x["output_type"] in ("stream", "display_data") for x in kept)
  assert any("image/png" in x.get("data", ()) for x in kept)
  code = "\n".join("".join(cell["source"]) for cell in cells)
  # The whole one takes a minute.
  small, steps = re.subn("=300", "=20", code)
  small, images = re.subn("(=|count )160", r"\g<1>80", small)
  assert (steps, images) == (4, 3)
  done = subprocess.run(
    [sys.executable, "-c", small],
    cwd=ROOT,
    env=os.environ | {"MPLBACKEND": "agg", "TMPDIR": str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  verdicts = r"'(?:real|uncertain|fake)': \d+"
  names = re.findall(rf"^(\w+) \{{{verdicts}", done.stdout, re.M)
  assert names == ["reals", "source", "unseen"]

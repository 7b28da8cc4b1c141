"""The comparison's plan, its table, and that finished runs are left alone."""

import csv
import json
import pathlib
import re
import shlex

from places import CONFIGS, ROOT
import pytest

from jaxfake import configuration, errors, main
from jaxfake.experiments import comparison
from jaxfake.training import loop

CONFIG = CONFIGS / "comparison.py"


def config(variant, *flags):
  return configuration.parse(["", f"--config={CONFIG}{variant}", *flags])[0]


def test_every_program_of_the_literature_is_in_the_plan():
  runs = comparison.plan(config(""), pathlib.Path())
  names = {(x.config.model.name, x.config.model.frozen) for x in runs}
  networks = {"densenet121", "densenet201", "resnet50", "resnet101", "vgg19"}
  assert names >= {(x, frozen) for x in networks for frozen in (True, False)}
  assert names >= {
    (x, False)
    for x in ("svm", "random_forest", "decision_tree", "reservoir", "cnn")
  }
  ten = {x for x, frozen in names if not frozen} - {"cnn", "reservoir"}
  assert ten >= {"vgg16", "inception_v3", "xception", "mobilenet_v1"}
  assert ten >= {"efficientnet_b0", "nasnet_mobile", "inception_resnet_v2"}


def test_the_eight_of_tampering_run_on_both_splits():
  """docs/tampering.md, Classifiers of whole pictures, names them."""
  page = (ROOT / "docs/tampering.md").read_text()
  commands = re.findall(r"^python.*comparison\.py.*tampered.*$", page, re.M)
  plans = []
  for command in commands:
    flags = shlex.split(command)[2:]
    c = configuration.parse(["", f"--config={CONFIG}", *flags[3:]])[0]
    comparison.check(c)
    plans.append(comparison.plan(c, pathlib.Path()))
  kept, leaky = ({x.name for x in runs} for runs in plans)
  frozen = ("densenet121", "densenet201", "resnet50", "resnet101", "vgg19")
  assert (
    kept
    == leaky
    == {
      *("svm", "random_forest", "decision_tree"),
      *(f"{name}_frozen" for name in frozen),
    }
  )
  splits = [{x.config.data.tampered.leaky for x in runs} for runs in plans]
  assert splits == [{False}, {True}]


def test_seeds_budgets_and_changes_reach_the_runs():
  c = config("", "--config.budgets.full.seeds=2", "--config.only=vgg19,cnn")
  runs = comparison.plan(c, pathlib.Path("w"))
  assert [(x.name, x.config.seed) for x in runs] == [
    ("vgg19", 0),
    ("cnn", 0),
    ("cnn", 1),
  ]
  vgg, cnn, _ = runs
  assert vgg.config.data.train_images == c.budgets.small.train_images
  assert (vgg.config.opt.lr, cnn.config.opt.lr) == (1e-4, 1e-3)
  assert cnn.path == pathlib.Path("w/runs/cnn-seed0")


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--config.only=cn", "only is 'cn': expected one of cnn"),
    ("--config.programs.cnn.budget=huge", "programs.cnn.budget is 'huge'"),
    ("--config.programs.cnn.model.name=vgg", "model.name is 'vgg'"),
  ],
)
def test_mistakes_are_found_before_anything_runs(flag, message):
  with pytest.raises(errors.ConfigError, match=message):
    comparison.check(config(":tiny", flag))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
  path = tmp_path_factory.mktemp("comparison") / "run"
  argv = ["", f"--config={CONFIG}:tiny", f"--workdir={path}"]
  # Stopped after its first run, as by Ctrl-C.
  begin, code = loop.train, []

  def interrupted(*args):
    code.append(begin(*args))
    return code[-1] if len(code) == 1 else loop.INTERRUPTED

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, "train", interrupted)
    assert main.main(argv) == loop.INTERRUPTED
  before = (path / "runs/cnn-seed0/result.json").stat().st_mtime_ns
  assert main.main(argv) == 0
  # What was finished was not run again.
  assert before == (path / "runs/cnn-seed0/result.json").stat().st_mtime_ns
  return path


def test_the_table_is_what_the_runs_measured(compared):
  rows = list(csv.DictReader((compared / "table.csv").open()))
  assert {x["program"] for x in rows} == {"cnn", "decision_tree"}
  accuracies = [float(x["accuracy_value"]) for x in rows]
  assert accuracies == sorted(accuracies, reverse=True)
  cnn = next(x for x in rows if x["program"] == "cnn")
  runs = [
    json.loads((compared / f"runs/cnn-seed{i}/result.json").read_text())
    for i in (0, 1)
  ]
  mean = sum(x["figures"]["auc"]["value"] for x in runs) / 2
  assert float(cnn["auc_value"]) == pytest.approx(mean)
  assert int(cnn["seeds"]) == 2
  assert int(cnn["parameters"]) == runs[0]["cost"]["parameters"]
  counts = runs[0]["dataset"]["counts"]["train"]
  assert int(cnn["train_images"]) == sum(counts.values())
  text = (compared / "table.md").read_text()
  assert f"| cnn | {100 * float(cnn['accuracy_value']):.1f}%" in text
  page = (compared / "table.html").read_text()
  assert "data:image/png;base64," in page
  assert "http" not in page  # Nothing to be fetched.


def test_finished_runs_of_another_configuration_are_refused(compared, capsys):
  argv = ["", f"--config={CONFIG}:tiny", f"--workdir={compared}"]
  assert main.main([*argv, "--config.classifier.classical.features=hog,pixels"])
  said = capsys.readouterr().err
  assert "was made by another config: classical.features was" in said


def test_a_failing_run_is_reported_and_the_others_go_on(tmp_path, capsys):
  path = tmp_path / "run"
  (path / "runs/cnn-seed0").mkdir(parents=True)
  (path / "config.json").write_text("{}")
  (path / "runs/cnn-seed0/notes.txt").write_text("not a run")
  argv = ["", f"--config={CONFIG}:tiny", f"--workdir={path}"]
  assert main.main([*argv, "--config.budgets.full.seeds=1"]) == 1
  said = capsys.readouterr().out
  assert "cnn-seed0 failed: --workdir" in said and "notes.txt" in said
  rows = json.loads((path / "result.json").read_text())["rows"]
  assert [x["program"] for x in rows] == ["decision_tree"]

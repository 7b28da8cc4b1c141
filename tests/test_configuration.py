"""Configurations: where they are found, and that no change slips through."""

from hypothesis import given
from hypothesis import strategies as st
import ml_collections
from places import ROOT
import pytest

from jaxfake import configuration, errors, main

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def written(tmp_path, name: str, changes: str, variant="tiny") -> list[str]:
  """A file of the user's that builds on one of ours."""
  path = tmp_path / "mine.py"
  path.write_text(f"""\
import runpy

def get_config(arg=""):
  c = runpy.run_path("{ROOT}/configs/{name}.py")["get_config"]("{variant}")
  {changes}
  return c
""")
  return ["", f"--config={path}", f"--workdir={tmp_path / 'run'}"]


@pytest.mark.parametrize(
  ("name", "changes", "named"),
  [
    # In the dictionaries of a study.
    ("study", "c.generators.trained = dict(los='hinge')", "trained.los"),
    ("study", "c.generators.new = dict(los='hinge')", "generators.new.los"),
    (
      "study",
      "c.generators.new = dict(model=dict(wdth=3))",
      "generators.new.model.wdth: there is no field 'wdth'; expected one of",
    ),
    ("study", "c.generators.new = dict(seed='one')", "generators.new.seed is"),
    ("study", "c.generators.new = dict(model=3)", "generators.new.model is 3"),
    ("study", "c.generators.new = 3", "generators.new is 3"),
    ("study", "c.classifiers.svm = dict(budgt='full')", "classifiers.svm is"),
    ("study", "c.classifiers.svm = dict(budget='ful')", "svm.budget is 'ful'"),
    (
      "study",
      "c.detectors.vgg19 = dict(budget='full', opt=dict(lrr=1e-4))",
      "detectors.vgg19.opt.lrr: there is no field 'lrr'",
    ),
    ("study", "c.detectors.vgg = dict(budget='full')", "model.name is 'vgg'"),
    ("study", "c.budgets.full.epoch = 3.0", "budgets.full.epoch: there is no"),
    ("study", "c.budgets.mine = dict(epochs=3.0)", "mine.train_images is miss"),
    ("study", "c.budgets.full.epochs = '3'", "line 5"),
    ("study", "c.data.kernal = 'box'", "data.kernal: there is no field"),
    ("study", "c.fakes.detector = 3", "fakes.detector: there is no field"),
    ("study", "c.generator.los = 'hinge'", 'line 5: Key "los" does not'),
    ("study", "c.classifier.opt.lrr = 1.0", "line 5"),
    # Of a comparison.
    ("comparison", "c.programs.cnn.optt = dict(lr=1.0)", "programs.cnn.optt"),
    (
      "comparison",
      "c.programs.cnn = dict(budget='full', opt=dict(lr='1'))",
      "programs.cnn.opt.lr is '1': expected a number",
    ),
    ("comparison", "c.only = 'cnn,sv'", "only is 'sv'"),
    ("comparison", "c.classifier.epoch = 3.0", "line 5"),
    ("comparison", "c.budgets.full.seed = 3", "budgets.full.seed"),
    # And of the others.
    ("few_images", "c.reservoir.unit = 30", "line 5"),
    ("few_images", "c.phantom_run.epoch = 3.0", "line 5"),
    ("few_images", "c.sizes = ('4', 8)", "sizes is ('4', 8)"),
    ("dcgan", "c.los = 'hinge'", "did you mean loss?"),
    ("dcgan", "c.opt = dict(lr=1e-3, b1=0.5)", "opt.b2 is missing"),
    ("dcgan", "c.opt.lr = 'small'", "field 'lr'"),
    ("dcgan", "c.model = 3", "field 'model'"),
    ("dcgan", "c.opt = dict(c.opt, lr='1')", "opt.lr is '1': expected a"),
    ("dcgan", "del c.ema", "ema is missing"),
    ("classifier", "c.model.freeze = True", "did you mean frozen?"),
    ("classifier", "c.model = dict(c.model, frozen=1)", "model.frozen is 1"),
    ("detector", "c.data.real_or_fake.fram = 0.0", "line 5"),
  ],
)
def test_a_wrong_field_is_named_before_anything_runs(
  name, changes, named, tmp_path, capsys
):
  assert main.main(written(tmp_path, name, changes)) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert named in line, line
  assert len(line) < 600
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["dcgan", "classifier", "study"])
def test_a_users_file_that_changes_values_is_taken(name, tmp_path):
  argv = written(tmp_path, name, "c.seed = 3" if name != "study" else "pass")
  assert configuration.parse(argv)[0].task


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("def get_config(:", "mine.py, line 1: SyntaxError"),
    ("import nothing_of_this_name", "line 1: ModuleNotFoundError: No module"),
    ("x = 1", "mine.py has no function get_config"),
    ("def get_config(): return {}", "expected a ConfigDict"),
    ("def get_config():\n  return 1 / 0", "line 2: ZeroDivisionError"),
  ],
)
def test_a_broken_file_is_a_line_that_says_where(text, told, tmp_path, capsys):
  path = tmp_path / "mine.py"
  path.write_text(text + "\n")
  assert main.main(["", f"--config={path}"]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert told in line


def test_a_field_of_a_flag_is_named_whole(capsys):
  flag = "--config.generators.unseen.los=hinge"
  assert main.main(["", "--config=configs/study.py", flag]) == 2
  assert "--config.generators.unseen.los: there" in capsys.readouterr().err


BASE = ml_collections.ConfigDict(
  dict(a=1, b=2.0, c="x", d=True, e=(1, 2), f=dict(g=1, h=dict(i="y")))
)
PATHS = [("a",), ("b",), ("c",), ("d",), ("e",), ("f", "g"), ("f", "h", "i")]
VALUES = st.one_of(
  st.integers(), st.floats(allow_nan=False), st.text(), st.booleans()
)


def nested(path, value):
  for name in reversed(path):
    value = {name: value}
  return value


@given(st.sampled_from(PATHS), VALUES)
def test_a_change_is_made_or_named(path, value):
  """Its type stays, all other fields too, and the base is left alone."""
  before = BASE.to_dict()
  try:
    made = configuration.changed(BASE, nested(path, value), "here")
  except errors.ConfigError as error:
    assert "here." + ".".join(path) in str(error)
    return
  finally:
    assert BASE.to_dict() == before
  old, new = before, made.to_dict()
  for name in path[:-1]:
    old, new = old[name], new[name]
  assert new[path[-1]] == value
  assert type(new[path[-1]]) is type(old[path[-1]])
  assert made.is_locked


@given(st.sampled_from(PATHS), st.text(min_size=1), VALUES)
def test_a_field_that_is_not_there_is_named(path, name, value):
  place = (*path[:-1], name)
  if any(x[: len(place)] == place for x in PATHS):
    return
  with pytest.raises(errors.ConfigError, match="there is no field"):
    configuration.changed(BASE, nested(place, value), "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda x: x.name)
def test_ours_are_found_from_any_folder(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  name = f"configs/{path.name}"
  assert configuration.find(f"{name}:tiny") == f"{path}:tiny"
  assert configuration.find(f"./{name}") == str(path)
  configuration.parse(["", "--config", f"{name}:tiny"])
  # A file that exists wins.
  (tmp_path / "configs").mkdir()
  (tmp_path / name).write_text("")
  assert configuration.find(name) == name


def test_where_there_is_no_file_it_says_what_there_is():
  for name in ("configs/dgan.py", "dcgan.py", "other/dcgan.py", ""):
    with pytest.raises(errors.ConfigError, match=r"configs/dcgan\.py") as told:
      configuration.find(name)
    assert all(f"configs/{x.name}" in str(told.value) for x in CONFIGS)

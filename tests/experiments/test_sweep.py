"""Sweeps: their plan, their runs here, what is skipped, stopped and retried,
and the table at the end."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

from places import ROOT
import pytest

from jaxfake import configuration, errors
from jaxfake.experiments import jobs
from jaxfake.experiments.sweep import plan, report, slurm
from jaxfake.runtime import disk

DCGAN = f"--config={ROOT}/configs/dcgan.py:tiny"


def config_file(path, changes: str) -> pathlib.Path:
  """A decision tree on the tiny phantom, with a sweep()."""
  path.write_text(f"""\
import runpy

def get_config(arg=""):
  c = runpy.run_path("{ROOT}/configs/classifier.py")["get_config"]("tiny")
  c.model.name = "decision_tree"
  c.classical.features = "hog"
  return c

{changes}
""")
  return path


DEPTHS = """
def sweep():
  for depth in (1, 4):
    yield {"classical.decision_tree.depth": depth}
"""


def test_ablations_stand_apart_and_share_their_runs():
  settings = plan.plan(configuration.parse, [DCGAN], pathlib.Path("w"), "", 2)
  ablations = list(dict.fromkeys(x.ablation for x in settings))
  assert ablations == ["model.width", "opt.lr", "augment", "ema", "loss"]
  # The configuration itself is yielded as {}, and once in each.
  assert [x.ablation for x in settings if x.base] == ablations
  widths = [x.label for x in settings if x.ablation == "model.width"]
  assert widths == ["4", "16", "32", "64", "128"]  # Numbers in order.
  runs = plan.unique(settings)
  assert len(runs) == 2 * (len(settings) - len(ablations) + 1)
  assert len({run.path for run in runs}) == len(runs)
  seeds = [run.seed for run in runs]
  assert seeds == sorted(seeds)
  run = next(x for x in runs if x.name == "opt.lr=0.0001-seed1")
  assert run.config["opt"]["lr"] == 1e-4 and run.config["seed"] == 1
  # The command is an ordinary one.
  config, path = configuration.parse(["", *run.arguments])
  assert config.to_dict() == run.config
  assert path == run.path == pathlib.Path("w/runs/opt.lr=0.0001-seed1")


def test_flags_reach_every_run_and_only_takes_some():
  flags = [DCGAN, "--config.seed=5", "--config.total_steps=9"]
  settings = plan.plan(
    configuration.parse, flags, pathlib.Path("w"), "ema,loss", 2
  )
  assert {x.ablation for x in settings} == {"ema", "loss"}
  for run in plan.unique(settings):
    assert run.config["total_steps"] == 9
    assert run.seed in (5, 6)


def test_folders_names_are_safe_and_apart():
  base = {"seed": 0, "a.b": "", "c": 1}
  names = {
    plan.folder(base, base | change)
    for change in ({"a.b": "/x/y"}, {"a.b": "/x_y"}, {"a.b": "x" * 200}, {})
  }
  assert len(names) == 4 and "base" in names
  assert all("/" not in x and len(x) < 100 for x in names)
  assert plan.folder(base, base | {"seed": 3}) == "base"


@pytest.mark.parametrize(
  ("text", "flags", "named"),
  [
    ('def sweep():\n  yield {"opt.lrr": 1}', [], "'opt.lrr': expected one of"),
    ('def sweep():\n  yield {"opt.lr": "x"}', [], "opt.lr"),
    ('def sweep():\n  yield {"seed": 1}', [], "seeds are --seeds"),
    ("def sweep():\n  yield 3", [], "yields 3: expected a dict"),
    ("", [], "has no sweep()"),
    (DEPTHS, ["--seeds=0"], "--seeds is 0"),
    (DEPTHS, ["--jobs=0"], "--jobs is 0"),
    (DEPTHS, ["--only=opt.lr"], "--only is 'opt.lr'"),
    (DEPTHS, ["--config.opt.lrr=1"], '"lr"'),
    (DEPTHS, ["--wrkdir=x"], "wrkdir"),
  ],
)
def test_a_mistake_is_one_line(text, flags, named, tmp_path):
  file = config_file(tmp_path / "c.py", text)
  done = launch(file, *flags, workdir=tmp_path / "w")
  assert done.returncode == 2
  assert done.stderr.startswith("jaxfake: ") and named in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", ["dcgan", "classifier", "detector"])
def test_every_ablation_that_ships_passes_its_checks(name):
  from jaxfake.classifiers import classifier
  from jaxfake.generators import gan

  for variant in ("", ":tiny"):
    flags = [f"--config={ROOT}/configs/{name}.py{variant}"]
    settings = plan.plan(configuration.parse, flags, pathlib.Path("w"), "", 1)
    for run in plan.unique(settings):
      config = configuration.parse(["", *run.arguments])[0]
      {"gan": gan, "classifier": classifier}[config.task].check(config)


class Script(jobs.Run):
  """A run that is a few lines of Python instead."""

  def command(self, python=sys.executable):
    return [python, "-c", *self.arguments]


def script(path: pathlib.Path, name: str, text: str) -> Script:
  return Script(name, 0, (text, str(path / name)), {}, path / name)


FINISH = """
import pathlib, sys
from jaxfake.runtime import disk
disk.write_json(pathlib.Path(sys.argv[1]) / "result.json", {"config": {}})
"""
SLOW = "import time; print('on', flush=True); time.sleep(0.4)\n" + FINISH
# As main does: saves, and leaves with 130.
WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("saved"), sys.exit(130)))
print("on", flush=True)
time.sleep(30)
"""


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
  monkeypatch.setattr(jobs, "POLL", 0.05)


def test_no_more_run_at_once_than_asked(tmp_path):
  runs = [script(tmp_path, str(i), SLOW) for i in range(5)]
  place = jobs.Here(runs, 2)
  most = 0
  while place.active:
    place.tick()
    at_once = list(place.active.values()).count("running")
    on = [x for x in runs if x.state() == "waiting" and x.last_lines(1)]
    assert len(on) <= 2
    most = max(most, at_once)
  assert most == 2
  assert all(run.state() == "finished" for run in runs)


def test_one_fails_the_rest_go_on_and_it_is_retried_on_request(
  tmp_path, capsys
):
  text = "for i in range(9): print('line', i)\nraise SystemExit(3)"
  runs = [script(tmp_path, "bad", text), script(tmp_path, "good", FINISH)]
  assert jobs.watch(jobs.Here(runs, 1), runs) == 1
  assert [run.state() for run in runs] == ["failed", "finished"]
  (text,) = jobs.failures(runs)
  assert "bad failed with exit code 3" in text
  assert text.splitlines()[1:] == [f"    line {i}" for i in range(4, 9)]
  out = capsys.readouterr().out.splitlines()
  assert out[0].startswith("2 runs: 1 running, 1 waiting")
  assert "bad  failed  line 8" in out and "good  finished" in out
  # Mended, and run again.
  runs[0] = script(tmp_path, "bad", FINISH)
  assert jobs.watch(jobs.Here(runs[:1], 1), runs) == 0
  assert jobs.failures(runs) == []


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_stopped_runs_save_and_can_go_on(tmp_path, number, code, capsys):
  text = WAITS.replace("SIGINT", signal.Signals(number).name)
  runs = [script(tmp_path, str(i), text) for i in range(3)]
  place = jobs.Here(runs, 2)

  def when_both_are_on():
    while sum("on" in x.last_lines(1) for x in runs) < 2:
      if done.wait(0.02):
        return
    os.kill(os.getpid(), number)

  done = threading.Event()
  thread = threading.Thread(target=when_both_are_on)
  thread.start()
  try:
    assert jobs.watch(place, runs) == code
  finally:
    done.set()
    thread.join()
  assert [x.state() for x in runs] == ["stopped", "stopped", "waiting"]
  assert runs[0].last_lines(1) == ["saved"]
  assert "stopping: runs save and leave" in capsys.readouterr().out


def test_a_slurm_job_that_is_warned_saves_and_asks_to_come_back(tmp_path):
  """submitit calls checkpoint() from a signal's handler."""
  pytest.importorskip("submitit")
  text = WAITS.replace("SIGINT", "SIGTERM").replace("130", "75")
  job = slurm.Job(run := script(tmp_path, "x", text))
  again = []

  def warn():
    while signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN or (
      not run.last_lines(1) and not done.wait(0.02)
    ):
      pass
    os.kill(os.getpid(), signal.SIGUSR2)

  done = threading.Event()
  before = signal.signal(
    signal.SIGUSR2, lambda *_: again.append(job.checkpoint())
  )
  thread = threading.Thread(target=warn)
  thread.start()
  try:
    assert job() == 75
  finally:
    done.set()
    thread.join()
    signal.signal(signal.SIGUSR2, before)
  assert run.state() == "stopped" and run.last_lines(1) == ["saved"]
  assert isinstance(again[0].function, slurm.Job)


def test_a_result_of_fewer_steps_or_of_other_fields_is_not_this_runs(tmp_path):
  def run(**config):
    return jobs.Run("x", 0, (), config, tmp_path)

  result = {"config": {"total_steps": 5, "lr": 1}}
  disk.write_json(tmp_path / "result.json", result)
  assert run(total_steps=5, lr=1).state() == "finished"
  assert run(total_steps=6, lr=1).state() == "waiting"
  with pytest.raises(errors.ConfigError, match="lr was 1, now 2"):
    run(total_steps=5, lr=2).state()


def test_seeds_spread_and_undefined_figures():
  found = [{"value": x, "low": x - 1, "high": x + 1} for x in (1.0, 2.0, 6.0)]
  told = report.across_seeds(found)
  assert (told["value"], told["low"], told["high"]) == (3, 2, 4)
  assert told["sd"] == pytest.approx(7**0.5)
  assert (told["least"], told["greatest"]) == (1, 6)
  assert report.across_seeds(found[:1])["sd"] is None
  none = dict.fromkeys(("value", "low", "high"))
  assert set(report.across_seeds([*found, none]).values()) == {None}


def launch(config, *flags, workdir):
  """launch/sweep.py, as from the repository."""
  return subprocess.run(
    [
      sys.executable,
      ROOT / "launch/sweep.py",
      str(config),
      f"--workdir={workdir}",
      *flags,
    ],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    timeout=300,
  )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """Two runs, of which one cannot begin at first."""
  place = tmp_path_factory.mktemp("sweep")
  file = config_file(place / "depths.py", DEPTHS)
  path = place / "w"
  stray = path / "runs/classical.decision_tree.depth=1-seed0/notes.txt"
  stray.parent.mkdir(parents=True)
  stray.write_text("mine")
  first = launch(file, "--seeds=1", "--jobs=2", workdir=path)
  stray.unlink()
  return file, path, first


def test_a_real_sweep_here(swept):
  file, path, first = swept
  assert first.returncode == 1
  name = "classical.decision_tree.depth=1-seed0"
  assert f"{name} failed with exit code 2" in first.stdout
  assert "holds other files, such as notes.txt" in first.stdout
  table = list(csv.DictReader((path / "table.csv").open()))
  assert [(x["setting"], x["seeds"]) for x in table] == [("1", "0"), ("4", "1")]
  # Its commands, before it is retried: those not to be run are comments.
  dry = launch(file, "--seeds=1", workdir=path).stdout.splitlines()
  assert dry[0].startswith("# failed: python -m jaxfake.main --config=")
  assert dry[1].startswith("# finished: python -m jaxfake.main --config=")
  assert dry[2].startswith("# 2 runs: 1 failed, 1 finished")
  result = path / "runs/classical.decision_tree.depth=4-seed0/result.json"
  before = result.stat().st_mtime_ns
  again = launch(file, "--seeds=1", "--jobs=2", workdir=path)
  assert again.returncode == 1 and "--retry runs them again" in again.stdout
  retried = launch(file, "--seeds=1", "--jobs=2", "--retry", workdir=path)
  assert retried.returncode == 0, retried.stdout + retried.stderr
  assert result.stat().st_mtime_ns == before


def test_the_table_is_what_the_runs_measured(swept):
  file, path, _ = swept
  done = launch(
    file, "--seeds=1", "--jobs=2", "--retry", "--metric=auc,eer", workdir=path
  )
  assert done.returncode == 0
  table = list(csv.DictReader((path / "table.csv").open()))
  name = "classical.decision_tree.depth"
  for row, depth in zip(table, ("1", "4"), strict=True):
    run = path / f"runs/{name}={depth}-seed0"
    figures = json.loads((run / "result.json").read_text())["figures"]
    assert (row["ablation"], row["setting"]) == (name, depth)
    assert float(row["auc_value"]) == figures["auc"]["value"]
    assert float(row["auc_low"]) == figures["auc"]["low"]
    assert float(row["eer_value"]) == figures["eer"]["value"]
  text = (path / "table.md").read_text()
  assert f"| {name} | 4 | {figures['auc']['value']:.4f} (" in text
  assert "![sweep](sweep.png)" in text
  page = (path / "table.html").read_text()
  assert "data:image/png;base64," in page and "http" not in page
  wrong = launch(file, "--seeds=1", "--jobs=1", "--metric=ac", workdir=path)
  assert wrong.returncode == 2 and "--metric is 'ac'" in wrong.stderr


def test_a_terminal_sees_a_live_table(monkeypatch):
  import io

  from rich import console

  from jaxfake.runtime import progress

  file = io.StringIO()
  terminal = console.Console(file=file, force_terminal=True, width=40)
  monkeypatch.setattr(progress, "_console", terminal)
  with progress.Board(("run", "state", "")) as board:
    board.show("2 runs", [("[a]", "running", "step " + "9" * 90)])
  drawn = file.getvalue()
  assert "[a]" in drawn and "running" in drawn and "2 runs" in drawn
  assert "step 99" in drawn and "9" * 40 not in drawn  # Cut to one line.

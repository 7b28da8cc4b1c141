"""The command line: what a mistake costs, and every config as `:tiny`."""

import json
import re
import subprocess
import sys

import numpy as np
from PIL import Image
from places import ROOT
import pytest

from jaxfake import configuration, contracts, main, named
from jaxfake.data import pipeline

CONFIGS = sorted(p.name for p in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    ("", "no --config"),
    ("--config", "Missing value"),
    ("--config configs/nope.py", "configs/nope.py: no such file"),
    ("--config jaxfake/errors.py", "get_config"),
    ("--config configs/dcgan.py:tyni", "tyni"),
    ("--config configs/dcgan.py --config.batchsize=3", "batch_size"),
    ("--config configs/dcgan.py --config.opt.lrr=3", '"lr"'),
    ("--config configs/dcgan.py --config.batch_size=x", "batch_size=x"),
    ("--config configs/dcgan.py --wrkdir=x", "wrkdir"),
    ("--config configs/dcgan.py extra", "'extra' is not a flag"),
  ],
)
def test_a_mistake_is_one_line_and_imports_no_jax(arguments, named):
  done = subprocess.run(
    f"{sys.executable} -X importtime -m jaxfake.main {arguments}".split(),
    capture_output=True,
    text=True,
    cwd=ROOT,
    timeout=60,
  )
  said = [x for x in done.stderr.splitlines() if "import time:" not in x]
  assert done.returncode == 2
  assert len(said) == 1, said
  assert said[0].startswith("jaxfake: ")
  assert named in said[0]
  # JAX takes seconds to import: that is what makes an answer slow.
  assert not re.search(r"\| +(jax|grain|tensorflow\w*)$", done.stderr, re.M)


def test_help_imports_no_jax():
  code = (
    "import sys; from jaxfake import main, sample;"
    "assert main.main(['jaxfake', '--help']) == 0;"
    "assert not {'jax', 'grain', 'tensorflow_datasets'} & set(sys.modules)"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  )
  assert "--workdir" in out.stdout


def test_a_run_imports_no_scipy_stats():
  """It would take a second of every start."""
  code = (
    "import sys; from jaxfake.generators import gan, guards;"
    "from jaxfake.training import loop; assert 'scipy.stats' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
  ("overrides", "named"),
  [
    (["--config.data.size=48"], "data.size is 48"),
    (["--config.data.name=xray"], "data.name"),
    (["--config.data.fit=squash"], "data.fit is 'squash'"),
    (["--config.task=gam"], "task is 'gam'"),
    (["--config.loss=mse"], "loss is 'mse'"),
    (["--config.augment=blur"], "augment is 'blur'"),
    (["--config.batch_size=0"], "batch_size is 0"),
    (["--config.every.log=0"], "every.log is 0"),
    (["--config.data.dir=FOLDER"], "data.name=phantom reads no files"),
    (["--config.seed=-1"], "seed is -1"),
    (["--config.data.phantom.seed=-1"], "data.phantom.seed"),
    (["--config.eval.images=1"], "eval.images is 1"),
    (["--config.model.width=0"], "model.width is 0"),
    (["--config.model.latents=0"], "model.latents is 0"),
    (["--config.opt.lr=0"], "opt.lr is 0"),
    (["--config.opt.b1=1.5"], "opt.b1 is 1.5"),
    (["--config.ema=1.5"], "ema is 1.5"),
    (["--config.model.channels=2"], "model.channels is 2"),
    (["--config.data.name=chest_xray"], "data.dir"),
    (
      ["--config.data.name=chest_xray", "--config.data.dir=/nowhere"],
      "/nowhere",
    ),
  ],
)
def test_a_bad_value_is_named_before_training(
  overrides, named, capsys, tmp_path
):
  argv = [f"--config={ROOT}/configs/dcgan.py:tiny", *overrides]
  assert main.main(["", *argv, f"--workdir={tmp_path}"]) == 2
  error = capsys.readouterr().err
  assert named in error
  assert "Traceback" not in error


def test_a_run_leaves_what_the_readme_says(tmp_path, capsys):
  """The GAN's; what the other tasks leave, their own tests look at."""
  path = tmp_path / "run"
  argv = [f"--config={ROOT}/configs/dcgan.py:tiny", f"--workdir={path}"]
  assert main.main(["", *argv]) == 0
  assert "Finished 6 steps" in capsys.readouterr().out
  result = json.loads((path / "result.json").read_text())
  assert result["step"] == 6
  assert result["dataset"]["split"]
  assert re.fullmatch("[0-9a-f]{64}", result["state_sha256"])
  assert all(np.isfinite(x) for x in result["metrics"].values())
  for picture in ("preview", "neighbours", "spectrum"):
    files = sorted((path / "pictures").glob(f"{picture}-*.png"))
    with Image.open(files[-1]) as image:
      assert min(image.size) > 50
      assert "synthetic" in image.text["Comment"]
  lines = [
    json.loads(x) for x in (path / "metrics.jsonl").read_text().splitlines()
  ]
  assert [x["step"] for x in lines if "train/g_loss" in x] == [2, 4, 6]
  assert [x["step"] for x in lines if "images_per_s" not in x] == [3, 6]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("variant", ["", ":quick", ":tiny"])
def test_every_variant_passes_its_checks(name, variant):
  from jaxfake.training import loop

  config, _ = configuration.parse(
    ["", f"--config={ROOT}/configs/{name}{variant}"]
  )
  kinds = contracts.Family, contracts.Experiment
  task = named.find("task", config.task, *kinds).load()
  generators = (
    *("cyclegan", "diffusion_inpainter", "edm", "gan", "inpainter"),
    *("latent_diffusion", "pggan", "stylegan2", "vae", "wgan_gp"),
  )
  maps = "localizer", "reconstruction"
  if config.task in (*generators, "classifier", *maps):
    loop.check(config)
  if config.task in (*generators, "classifier", "few_images"):
    pipeline.check(config.data)
  task.check(config)


def test_default_workdir_tells_runs_apart():
  def path(*overrides):
    argv = ["", f"--config={ROOT}/configs/dcgan.py:tiny", *overrides]
    return configuration.parse(argv)[1]

  assert str(path()) == "runs/dcgan-tiny"
  one = path("--config.seed=1")
  assert len({path(), one, path("--config.seed=2")}) == 3
  assert one == path("--config.seed=1", "--config.total_steps=9")


def test_another_config_is_refused_but_more_steps_go_on(tmp_path, capsys):
  argv = [
    f"--config={ROOT}/configs/dcgan.py:tiny",
    f"--workdir={tmp_path}",
  ]
  assert main.main(["", *argv, "--config.total_steps=2"]) == 0
  capsys.readouterr()
  assert main.main(["", *argv, "--config.opt.lr=0.1"]) == 2
  assert "opt.lr was 0.0002, now 0.1" in capsys.readouterr().err
  assert main.main(["", *argv, "--config.total_steps=1"]) == 2
  assert "more than the 1 asked for" in capsys.readouterr().err
  assert main.main(["", *argv, "--config.total_steps=4"]) == 0
  assert "continuing after step 2" in capsys.readouterr().out


def test_a_workdir_with_other_files_is_refused(tmp_path, capsys):
  (tmp_path / "scan.png").write_text("precious")
  argv = ["", f"--config={ROOT}/configs/dcgan.py:tiny"]
  assert main.main([*argv, f"--workdir={tmp_path}"]) == 2
  assert "holds other files, such as scan.png" in capsys.readouterr().err
  assert [p.name for p in tmp_path.iterdir()] == ["scan.png"]
  assert main.main([*argv, f"--workdir={tmp_path}/scan.png"]) == 2
  assert "expected a folder that can be written" in capsys.readouterr().err


def test_tensorboard_without_tensorflow(tmp_path):
  argv = [f"--config={ROOT}/configs/dcgan.py:tiny", f"--workdir={tmp_path}"]
  code = (
    "import sys; from jaxfake import main; code = main.main(sys.argv);"
    "assert 'tensorflow' not in sys.modules; sys.exit(code)"
  )
  subprocess.run(
    [sys.executable, "-c", code, *argv, "--config.tensorboard=True"], check=True
  )
  events = next((tmp_path / "tensorboard").glob("events.*")).read_bytes()
  for name in (b"train/g_loss", b"eval/frechet_random_filters", b"preview"):
    assert name in events

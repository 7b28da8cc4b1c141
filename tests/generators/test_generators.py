"""What families that learn step by step must do, each by its `:tiny` run."""

import json
import signal

import forked
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from places import ROOT
import pytest

from jaxfake import configuration, errors, main, sample
from jaxfake.experiments.sweep import plan
from jaxfake.training import loop

FAMILIES = (
  *("cyclegan", "diffusion_inpainter", "edm", "inpainter"),
  *("latent_diffusion", "pggan", "stylegan2", "vae", "wgan_gp"),
)
# The class, where they are asked to be.
TOLD = set(FAMILIES) - {"cyclegan", "diffusion_inpainter", "inpainter"}
# Runs main, but dies at step 3; or has four devices, measures nothing, and
# samples of another run.
KILLED = """
import os, signal, sys
from jaxfake import main
from jaxfake.training import loop
add = loop.Window.add
def patched(self, steps, metrics):
  if 3 in steps:
    os.kill(os.getpid(), signal.SIGKILL)
  add(self, steps, metrics)
loop.Window.add = patched
sys.exit(main.main(sys.argv))
"""
BOTH = """
import sys
import jax
import numpy as np
from jaxfake import main, sample
from jaxfake.generators import measure
measure.Measures.evaluate = lambda *_: {"images": 8.0}
measure.Measures.preview = lambda *_: {"preview": np.zeros((8, 8), np.uint8)}
jax.config.update("jax_num_cpu_devices", 4)
trained, out, *flags = sys.argv[1:]
code = main.main(["", *flags])
argv = f"--workdir={trained} --out={out} --count=6 --batch=4".split()
sys.exit(code or sample.main(argv))
"""


def flags(family, path, *more):
  config = f"--config={ROOT}/configs/{family}.py:tiny"
  told = ["--config.model.conditional=True"] * (family in TOLD)
  return [config, *told, f"--workdir={path}", *more]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
  return request.param


@pytest.fixture(scope="module")
def run(family, tmp_path_factory):
  """The folder of a run that nothing happened to."""
  path = tmp_path_factory.mktemp(family) / "run"
  assert main.main(["", *flags(family, path)]) == 0
  return path


@pytest.fixture(scope="module")
def fakes(run, tmp_path_factory):
  out = tmp_path_factory.mktemp("fakes") / "out"
  argv = f"--workdir={run} --out={out} --count=6 --batch=4".split()
  assert sample.main(argv) == 0
  return out


def result(path):
  return json.loads((path / "result.json").read_text())


def metrics(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  return [json.loads(x) for x in lines]


def pixels(out):
  lines = (out / "manifest.jsonl").read_text().splitlines()
  rows = [json.loads(x) for x in lines]
  return np.stack([np.asarray(Image.open(out / x["file"])) for x in rows])


def test_it_is_measured_and_shown(run):
  found = result(run)
  assert found["step"] == 6
  for name in ("frechet_random_filters", "kernel_random_filters"):
    assert np.isfinite(found["metrics"][f"eval/{name}"])
    assert np.isfinite(found["metrics"][f"eval/{name}_test"])
  lines = metrics(run)
  assert [x["step"] for x in lines if "images_per_s" in x] == [2, 4, 6]
  assert [x["step"] for x in lines if "images_per_s" not in x] == [3, 6]
  for picture in ("preview", "neighbours", "spectrum"):
    assert len(list((run / "pictures").glob(f"{picture}-*.png"))) == 2


def test_kill_9_ends_bit_equal(family, run, tmp_path):
  path = tmp_path / "run"
  done = forked.code(KILLED, *flags(family, path))
  assert done.returncode == -signal.SIGKILL, done.stderr
  assert main.main(["", *flags(family, path)]) == 0
  assert result(path)["state_sha256"] == result(run)["state_sha256"]


def test_four_devices_agree(family, run, fakes, tmp_path):
  path, out = tmp_path / "run", tmp_path / "out"
  two = flags(family, path, "--config.total_steps=2")
  done = forked.code(BOTH, run, out, *two)
  assert done.returncode == 0, done.stderr
  assert "4 device(s)" in done.stdout
  one, four = metrics(run)[0], metrics(path)[0]
  assert one.keys() == four.keys()
  for name in one.keys() - {"images_per_s", "seconds"}:
    near = 0.1 if name.endswith("gradient") else 1e-2
    assert four[name] == pytest.approx(one[name], rel=near, abs=1e-3), name
  apart_by = np.abs(pixels(out).astype(int) - pixels(fakes))
  assert apart_by.max() <= 1


def test_an_image_depends_on_seed_index_and_class_alone(
  family, run, fakes, tmp_path
):
  def made(name, *more):
    out = tmp_path / name
    argv = f"--workdir={run} --out={out} --batch=4".split()
    assert sample.main([*argv, *more]) == 0
    return pixels(out)

  few = made("few", "--count=3")
  np.testing.assert_array_equal(few, pixels(fakes)[:3])
  if family in {*TOLD, "cyclegan"}:
    of_one = made("one", "--count=2", "--class=NORMAL")
    np.testing.assert_array_equal(of_one[0], few[0])
    assert (of_one[1] != few[1]).any()  # Of class PNEUMONIA in the other.
  assert (made("seed", "--count=1", "--seed=1")[0] != few[0]).any()


def test_a_nan_stops_the_run_and_names_the_term(
  family, tmp_path, monkeypatch, capsys
):
  begin = loop.begin

  def spoilt(*arguments):
    nan = lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(nan, begin(*arguments))

  monkeypatch.setattr(loop, "begin", spoilt)
  path = tmp_path / "run"
  assert main.main(["", *flags(family, path)]) == 1
  assert "diverged at step 1: " in (said := capsys.readouterr().err)
  assert "loss" in said and "= nan" in said
  assert not (path / "result.json").exists()


def test_it_is_swept(family, tmp_path):
  config = f"--config={ROOT}/configs/{family}.py:tiny"
  settings = plan.plan(configuration.parse, [config], tmp_path, "", 1)
  assert len({x.ablation for x in settings}) > 2
  kind = configuration.family(configuration.parse(["", config])[0])
  for run in plan.unique(settings):
    kind.check(configuration.parse(["", *run.arguments])[0])
    assert kind.describe(configuration.parse(["", *run.arguments])[0])


BAD = {
  "cyclegan": [
    ("data.size=48", "data.size is 48"),
    ("to_class=NORMAL", "from_class and to_class are 'NORMAL'"),
    ("model.width=0", "model.width is 0"),
    ("model.blocks=0", "model.blocks is 0"),
    ("model.patch=35", "model.patch is 35"),
    ("model.channels=2", "model.channels is 2"),
    ("cycle=-1", "cycle is -1"),
    ("identity=nan", "identity is nan"),
    ("history=0", "history is 0"),
    ("opt.b1=1", "opt.b1 is 1"),
    ("ema=1", "ema is 1"),
    ("dtype=float8", "dtype is 'float8'"),
  ],
  "diffusion_inpainter": [
    ("data.size=48", "data.size is 48"),
    ("data.name=phantom", "task diffusion_inpainter learns from the windows"),
    ("data.inpainting.fill=lung", "data.inpainting.fill is 'lung'"),
    ("model.smallest=32", "model.smallest is 32"),
    ("model.patch=3", "model.patch is 3"),
    ("sigma_data=0", "sigma_data is 0"),
    ("noise.mean=nan", "noise.mean is nan"),
    ("sampler.steps=1", "sampler.steps is 1"),
    ("sampler.sigma_max=inf", "sampler.sigma_max is inf"),
    ("opt.warmup=-1", "opt.warmup is -1"),
    ("ema=1", "ema is 1"),
    ("dtype=float8", "dtype is 'float8'"),
  ],
  "edm": [
    ("data.size=48", "data.size is 48"),
    ("parametrisation=vp", "parametrisation is 'vp'"),
    ("model.patch=3", "model.patch is 3"),
    ("model.width=6", "model.width is 6"),
    ("model.blocks=0", "model.blocks is 0"),
    ("model.smallest=32", "model.smallest is 32"),
    ("model.dropout=1", "model.dropout is 1"),
    ("model.channels=2", "model.channels is 2"),
    ("sigma_data=0", "sigma_data is 0"),
    ("noise.deviation=-1", "noise.deviation is -1"),
    ("noise.mean=nan", "noise.mean is nan"),
    ("sampler.steps=1", "sampler.steps is 1"),
    ("sampler.sigma_min=0", "sampler.sigma_min is 0"),
    ("sampler.sigma_max=0.001", "sampler.sigma_max is 0.001"),
    ("sampler.rho=0.5", "sampler.rho is 0.5"),
    ("sampler.guidance=-1", "sampler.guidance is -1"),
    ("unlabelled=1", "unlabelled is 1"),
    ("opt.warmup=-1", "opt.warmup is -1"),
    ("opt.b2=1", "opt.b2 is 1"),
    ("ema=1", "ema is 1"),
    ("only_class=NORMAL", "only_class is 'NORMAL' and model.conditional"),
  ],
  "inpainter": [
    ("data.size=48", "data.size is 48"),
    ("data.inpainting.fill=lung", "data.inpainting.fill is 'lung'"),
    ("model.width=0", "model.width is 0"),
    ("model.patch=35", "model.patch is 35"),
    ("l1=-1", "l1 is -1"),
    ("l1=nan", "l1 is nan"),
    ("opt.lr=0", "opt.lr is 0"),
    ("ema=1", "ema is 1"),
    ("dtype=float8", "dtype is 'float8'"),
  ],
  "pggan": [
    ("data.size=48", "data.size is 48"),
    ("model.width=0", "model.width is 0"),
    ("model.latents=0", "model.latents is 0"),
    ("model.group=3", r"batch_size is 8: expected .* model.group \(3\)"),
    ("critic_steps=0", "critic_steps is 0"),
    ("critic_steps=3", r"batch_size is 8: expected .* critic_steps \(3\)"),
    ("grow.first=64", "grow.first is 64: expected one of 4, 8, 16, 32"),
    ("grow.fade=-1", "grow.fade is -1"),
    ("grow.hold=0", "grow.hold is 0"),
    ("grow.hold=6", "total_steps is 6: expected above 6, where 32 px begin"),
    ("penalty=0", "penalty is 0"),
    ("drift=nan", "drift is nan"),
    ("ema=1", "ema is 1"),
    ("augment=blur", "augment is 'blur'"),
  ],
  "stylegan2": [
    ("data.size=48", "data.size is 48"),
    ("model.width=0", "model.width is 0"),
    ("model.mapping_layers=0", "model.mapping_layers is 0"),
    ("model.latents=0", "model.latents is 0"),
    ("model.group=3", r"batch_size is 8: expected .* model.group \(3\)"),
    ("r1.weight=-1", "r1.weight is -1"),
    ("r1.weight=nan", "r1.weight is nan"),
    ("r1.every=0", "r1.every is 0"),
    ("path.weight=-1", "path.weight is -1"),
    ("path.every=0", "path.every is 0"),
    ("path.decay=1", "path.decay is 1"),
    ("ada.target=1", "ada.target is 1"),
    ("ada.every=0", "ada.every is 0"),
    ("ada.images=0", "ada.images is 0"),
    ("augment=blur", "augment is 'blur'"),
  ],
  "latent_diffusion": [
    ("data.size=48", "data.size is 48"),
    ("parametrisation=vp", "parametrisation is 'vp'"),
    ("model.smallest=16", "model.smallest is 16: expected one of 4, 8"),
    ("model.patch=4", "model.smallest is 4"),
    ("sigma_data=0", "sigma_data is 0"),
    ("vae.model.halvings=4", "vae.model.halvings is 4: expected 1 to 3"),
    ("vae.model.latents=0", "vae.model.latents is 0"),
    ("vae.batch_size=0", "vae.batch_size is 0"),
    ("vae.kl=-1", "vae.kl is -1"),
    ("only_class=NORMAL", "only_class is 'NORMAL' and model.conditional"),
  ],
  "vae": [
    ("data.size=48", "data.size is 48"),
    ("model.halvings=0", "model.halvings is 0: expected 1 to 3 at 32 px"),
    ("model.latents=0", "model.latents is 0"),
    ("model.width=0", "model.width is 0"),
    ("model.channels=2", "model.channels is 2"),
    ("reconstruction=l3", "reconstruction is 'l3'"),
    ("spectral=-1", "spectral is -1"),
    ("kl=nan", "kl is nan"),
    ("ema=1", "ema is 1"),
    ("only_class=NORMAL", "only_class is 'NORMAL' and model.conditional"),
  ],
  "wgan_gp": [
    ("data.size=48", "data.size is 48"),
    ("model.norm=batch", "model.norm is 'batch'"),
    ("model.latents=0", "model.latents is 0"),
    ("model.width=0", "model.width is 0"),
    ("model.channels=2", "model.channels is 2"),
    ("critic_steps=0", "critic_steps is 0"),
    ("critic_steps=3", r"batch_size is 8: expected .* critic_steps \(3\)"),
    ("penalty=0", "penalty is 0"),
    ("penalty=nan", "penalty is nan"),
    ("eval.images=1", "eval.images is 1"),
    ("opt.lr=0", "opt.lr is 0"),
    ("opt.b1=1.5", "opt.b1 is 1.5"),
    ("ema=1.5", "ema is 1.5"),
    ("dtype=float8", "dtype is 'float8'"),
    ("augment=blur", "augment is 'blur'"),
    ("only_class=NORMAL", "only_class is 'NORMAL' and model.conditional"),
  ],
}


@pytest.mark.parametrize(
  ("name", "change", "named"),
  [(name, *case) for name, cases in BAD.items() for case in cases],
)
def test_a_bad_value_is_named(name, change, named):
  argv = flags(name, "unused", f"--config.{change}")
  config, _ = configuration.parse(["", *argv])
  with pytest.raises(errors.ConfigError, match=named):
    configuration.family(config).check(config)

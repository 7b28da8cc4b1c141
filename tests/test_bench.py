"""The benchmark: its peers are the same networks, its figures what they say."""

import io
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
import pytest

from jaxfake import bench, errors, models
from jaxfake.benchmarks import cases, compare, folder, machine
from jaxfake.benchmarks import ours as ours_side
from jaxfake.benchmarks.cases import CASES, Case
from jaxfake.classifiers import neural
from jaxfake.data import pipeline
from jaxfake.data.phantom import anatomy
from jaxfake.generators import edm, gan
from jaxfake.models import dcgan
from jaxfake.models.weights import weights_names

torch = pytest.importorskip("torch", reason="PyTorch, the peer, is missing")
import torch_layers  # noqa: E402

from jaxfake.benchmarks import (  # noqa: E402
  peers,
  peers_edm,
  peers_stylegan2,
  peers_wgan_gp,
  torch_peers,
)
from jaxfake.benchmarks.torch_place import Place  # noqa: E402

# More threads wait for each other at these sizes, at others' cost.
torch.set_num_threads(1)

FIELDS = {
  "case",
  "images_per_s",
  "images_per_s_range",
  "peer_images_per_s",
  "ratio",
  "ratio_range",
  "ceiling_fraction",
  "peak_mb",
  "peer_peak_mb",
  "compile_seconds",
  "batch",
  "precision",
  "device",
  "torch_mode",
  "flops_per_image",
  "foreign_load",
}


DISCRIMINATOR = ["Conv_0", "Conv_1", "BatchNorm_0", "Conv_2", "BatchNorm_1"]
DISCRIMINATOR.append("Conv_3")


def same_outputs(network, peer, order, x, theirs_x):
  variables = torch_layers.randomised(torch_layers.shapes_of(network, x.shape))
  torch_layers.carried(variables, order, peer)
  ours = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)
  with torch.no_grad():
    theirs = peer.eval()(torch.as_tensor(theirs_x)).numpy()
  if theirs.ndim == 4:
    theirs = theirs.transpose(0, 2, 3, 1)
  spread = np.abs(theirs[0] - theirs[1]).max()
  assert spread > 1e-3 * np.abs(theirs).max()
  tolerance = 1e-4 * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name, channels", [("cnn", 1), ("mobilenet_v2", 3)])
def test_classifiers_give_our_logits(name, channels):
  x = np.random.default_rng(1).standard_normal((2, 65, 65, channels), "f4")
  peer = torch_peers.make(name, 5, channels)
  network = models.MODELS[name](num_classes=5)
  order = weights_names.creation_order(name)
  same_outputs(network, peer, order, x, x.transpose(0, 3, 1, 2))


def test_dcgan_gives_our_images_and_logits():
  widths = dcgan.widths(32, 8, 1024)
  assert torch_peers.dcgan_widths(32, 8) == widths
  generator, discriminator = (
    dcgan.Generator(widths),
    dcgan.Discriminator(widths),
  )
  rng = np.random.default_rng(1)
  z = rng.standard_normal((2, 100), "f4")
  peer = torch_peers.Generator(widths, 100)
  same_outputs(generator, peer, torch_layers.GENERATOR, z, z)
  x = rng.standard_normal((2, 32, 32, 1), "f4")
  peer = torch_peers.Discriminator(widths)
  images = x.transpose(0, 3, 1, 2)
  same_outputs(discriminator, peer, DISCRIMINATOR, x, images)


def test_a_classifiers_steps_are_ours(monkeypatch):
  monkeypatch.setattr(peers, "STEPS", 20)
  case = Case("train", "cnn", 65, 4, 4, classes=3)
  labels = ours_side.Labelled(label=np.arange(3))
  splits = pipeline.Splits(("a", "b", "c"), labels, (), ())
  task = neural.make(cases.config(case, "cpu"), splits, 20)
  state = jax.jit(task.init)(jax.random.key(0))
  network = torch_peers.make("cnn", 3, 1).train()
  order = weights_names.creation_order("cnn")
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  torch_layers.carried(variables, order, network)
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (4, 65, 65, 1)).astype(np.uint8)
  label = np.array([0, 1, 2, 0], np.int32)
  step, ours = jax.jit(task.step), []
  for _ in range(4):
    state, metrics = step(state, {"image": image, "label": label})
    ours.append(metrics)
  step = peers.classifier_step(
    case,
    Place(case, "cpu", "eager"),
    network,
    torch.as_tensor(image.transpose(0, 3, 1, 2)),
    torch.as_tensor(label).long(),
  )
  torch_layers.same_steps(ours, [step() for _ in range(4)])


def test_a_gans_steps_are_ours(monkeypatch):
  case = cases.tiny(CASES["dcgan64_train"])
  c = cases.config(case, "cpu")
  task = gan.make(c, pipeline.Splits((), (), (), ()))
  state = jax.jit(task.init)(jax.random.key(0))
  widths = torch_peers.dcgan_widths(32, case.width)
  generator = torch_peers.Generator(widths, 100)
  discriminator = torch_peers.Discriminator(widths)
  for network, peer, order in (
    (state.generator, generator, torch_layers.GENERATOR),
    (state.discriminator, discriminator, DISCRIMINATOR),
  ):
    variables = network.variables
    torch_layers.carried(variables, order, peer)
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (4, 32, 32, 1)).astype(np.uint8)
  batch = {"image": image, "label": np.zeros(4, np.int32)}
  latents, ours, step = [], [], jax.jit(task.step)
  for i in range(4):
    key = jax.random.fold_in(jax.random.key(c.seed), i)
    z = jax.random.normal(jax.random.split(key, 4)[0], (4, 100))
    latents.append(torch.tensor(np.asarray(z)))
    state, metrics = step(state, batch)
    loss = metrics["d_loss_real"] + metrics["d_loss_fake"]
    ours.append(metrics | {"loss": loss})
  monkeypatch.setattr(torch, "randn", lambda *_, **__: latents.pop(0))
  place = Place(case, "cpu", "eager")
  image = torch.as_tensor(image.transpose(0, 3, 1, 2))
  step = peers.gan_step(place, generator.train(), discriminator.train(), image)
  torch_layers.same_steps(ours, [step() for _ in range(4)])


def ours_of(case):
  """Our networks of a case, each with its inputs' shapes."""
  c = cases.config(case, "cpu")
  square = (1, case.size, case.size, case.channels)
  if case.family == "edm":
    return [(edm.network(c, ()), square, (1,))]
  if case.family:
    generator, discriminator = gan.networks(c, ())
    return [(generator, (1, gan.latents(c))), (discriminator, square)]
  return [(models.MODELS[case.model](num_classes=case.classes), square)]


THEIRS = {
  "gan": peers.dcgan,
  "wgan_gp": peers_wgan_gp.networks,
  "stylegan2": peers_stylegan2.networks,
  "edm": lambda *of: [peers_edm.network(*of)],
  None: lambda *of: [peers.classifier(*of)],
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_as_many(name):
  case = CASES[name]
  if not case.model:
    pytest.skip("no network")
  ours = [
    sum(x.size for x in jax.tree.leaves(torch_layers.shapes_of(*of)["params"]))
    for of in ours_of(case)
  ]
  theirs = [
    sum(p.numel() for p in network.parameters())
    for network in THEIRS[case.family](case, Place(case, "meta", "eager"))
  ]
  assert ours == theirs


@pytest.mark.parametrize(
  "model, giga",  # Multiplications of an image of 224 px, as published.
  [
    ("resnet50", 4.09),
    ("densenet121", 2.83),
    ("vgg16", 15.47),
    ("mobilenet_v2", 0.30),
  ],
)
def test_flops_are_those_published(model, giga):
  score = cases.published("score", model, 1, 1)
  forward = peers.flops(score)
  assert forward == pytest.approx(2e9 * giga, rel=0.02)
  # Thrice that, without the gradient of the images.
  step = peers.flops(score._replace(kind="train"))
  assert 2.9 * forward < step < 3 * forward


def test_a_gans_step_is_two_passes_of_one_player_and_eight_of_the_other():
  case = CASES["dcgan64_train"]
  layers = [100 * 512 * 16]  # 1x1 to 4x4.
  layers += [4**i * 16 * 16 * c * c // 2 for i, c in enumerate((512, 256, 128))]
  layers += [32 * 32 * 16 * 64]
  forward = 2 * sum(layers)
  assert peers.flops(case._replace(kind="gan_sample")) == forward


def test_the_command_writes_a_row(tmp_path, capsys):
  out = tmp_path / "rows.json"
  argv = "--case dcgan64_train --tiny --torch eager --rounds 3 --seconds 0"
  assert bench.main([*argv.split(), "--markdown", f"--json={out}"]) == 0
  (row,) = json.loads(out.read_text())
  assert row.keys() >= FIELDS
  assert row["case"] == "dcgan64_train" and row["torch_mode"] == "eager"
  assert row["ratio"] == row["images_per_s"] / row["peer_images_per_s"]
  for side in ("", "peer_"):
    low, high = row[f"{side}images_per_s_range"]
    assert 0 < low <= row[f"{side}images_per_s"] <= high
    assert 100 < row[f"{side}peak_mb"] < 4000
    assert 0 < row[f"{side}ceiling_fraction"] < 1
  text = capsys.readouterr().out
  assert "| dcgan64_train | 4 x 32 px | float32 |" in text


def test_the_folder_is_of_radiographs():
  name, data = folder.jpeg(0)
  image = Image.open(io.BytesIO(data))
  assert (image.format, image.mode, image.size) == ("JPEG", "L", (224, 224))
  drawn = anatomy.radiograph(0, 0, size=224, nodules=False)
  assert name == ("NORMAL", "PNEUMONIA")[drawn["label"]]
  off = np.asarray(image, float) - drawn["image"]
  assert np.abs(off).mean() < 3  # Gray levels, of 256.


def test_images_come_from_files(tmp_path, capsys):
  out = tmp_path / "rows.json"
  argv = "--case input_pipeline,detect_folder --tiny --torch eager"
  argv = [*argv.split(), "--rounds=1", "--seconds=0", f"--json={out}"]
  assert bench.main(argv) == 0
  rows = json.loads(out.read_text())
  assert [row["case"] for row in rows] == ["input_pipeline", "detect_folder"]
  assert rows[0]["ceiling_fraction"] is None and rows[1]["flops_per_image"] > 0
  assert all(row["images_per_s"] > 0 for row in rows)


class Measured:
  """A worker that has had its turns."""

  peak_mb, first_seconds = 1.0, 2.0

  def __init__(self, mode, *rates):
    self.mode, self.rates = mode, rates
    self.cpu = [1 / x for x in rates]


def test_figures_are_medians_against_the_better_peer():
  ours = Measured("", 8.0, 12.0, 10.0)
  modes = Measured("eager", 4.0, 6.0, 5.0), Measured("compile", 9.0, 4.0, 4.0)
  row = compare.figures(ours, modes, 3.0, 100.0)
  assert row["images_per_s"] == 10 and row["images_per_s_range"] == [8, 12]
  assert row["peer_images_per_s"] == 5 and row["torch_mode"] == "eager"
  assert row["torch_modes"] == {"eager": 5, "compile": 4}
  assert row["ratio"] == 2 and row["ratio_range"] == [2, 2]
  assert row["cpu_ms_per_image"] == 100
  assert row["peer_cpu_ms_per_image"] == 200 and row["cpu_ratio"] == 2
  assert row["ceiling_fraction"] == 0.3
  assert row["peer_ceiling_fraction"] == 0.15
  assert compare.figures(ours, modes, None, None)["ceiling_fraction"] is None


class OneAhead:
  """A worker that has one batch ready wherever it had time to make it."""

  def __init__(self, case, folder, env, *side):
    self.mode, self.rates, self.cpu = " ".join(side[1:]), [], []
    self.peak_mb, self.batches = 1.0, []

  def answer(self):
    about = {"platform": "cpu", "device": "cpu", "version": "0"}
    return about | {"environment": {"cpu": "cpu"}, "flops_per_image": None}

  def turn(self, batches, before):
    self.batches.append(batches)
    computed = batches - (not before)
    self.rates.append(batches / max(computed, 1e-6))
    return max(computed, 1e-6)  # A second each.

  def close(self):
    pass


@pytest.mark.parametrize("kind", ["gan_sample", "input", "train"])
def test_a_batch_that_was_ready_does_not_pass_for_a_fast_one(monkeypatch, kind):
  made = []

  class Worker(OneAhead):
    def __init__(self, *args):
      super().__init__(*args)
      made.append(self)
      if kind == "train":  # These are made when they are asked for.
        self.turn = lambda batches, before: OneAhead.turn(self, batches, 1)

  monkeypatch.setattr(compare, "Worker", Worker)
  case = next(c for c in CASES.values() if c.kind == kind)
  effort = compare.Effort(2, 40.0, ("eager",), {})
  row = compare.measure(kind, case, pathlib.Path(), effort, lambda text: None)
  assert [max(worker.batches) for worker in made] == [40, 40]
  assert row["images_per_s"] == row["peer_images_per_s"] == 1


# Half a second of a child that ends, and of one that lives.
FAMILY = """
import subprocess, sys
spin = "import time\\nwhile time.process_time() < 0.5: pass\\n"
input()
subprocess.run([sys.executable, "-c", spin])
last = spin + "print('done', flush=True)\\ninput()"
subprocess.run([sys.executable, "-c", last])
"""


def test_what_others_compute_is_seen_and_what_we_compute_is_not():
  options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  spinner = subprocess.Popen([sys.executable, "-c", FAMILY], **options)
  other = subprocess.Popen([sys.executable, "-c", "input()"], **options)
  look = lambda: [machine.busy(p.pid) for p in (spinner, other)]
  before = look()
  spinner.stdin.write("\n")
  spinner.stdin.flush()
  assert spinner.stdout.readline() == "done\n"
  after = look()
  ours, foreign = (
    machine.foreign_load(*pair, 1.0) for pair in zip(before, after, strict=True)
  )
  for process in (spinner, other):
    process.communicate("\n")
  assert foreign - ours == pytest.approx(1, abs=0.2)
  assert machine.foreign_load(None, after[0], 1.0) is None


def test_a_loaded_machine_is_told():
  row = {"case": "x", "foreign_load": 0.5}
  told = bench.warning(row | {"cpu_ratio": 1.25}, 2)
  assert "x: others kept 0.50 processors busy of 2" in told
  assert "by processor time is 1.25" in told
  assert "processor time" not in bench.warning(row | {"cpu_ratio": None}, 2)
  assert bench.warning(row, 16) is None
  assert bench.warning(row | {"foreign_load": None}, 2) is None


def test_peak_memory_is_a_processs_own():
  def peak(held):
    code = "from jaxfake.benchmarks import machine; "
    code += f"x = b'1' * {held}; del x; "
    done = subprocess.run(
      [sys.executable, "-c", code + "print(machine.peak_mb())"],
      capture_output=True,
      text=True,
      check=True,
    )
    return float(done.stdout)

  big = bytearray(b"1") * 500_000_000  # Ours, which is not theirs.
  assert 190 < peak(200_000_000) - peak(1) < 210
  assert peak(1) < 100 < len(big)


def test_libraries_are_imported_where_they_are_measured():
  code = """if True:
    import sys
    from jaxfake import bench
    from jaxfake.benchmarks import compare
    assert not {"jax", "torch"} & sys.modules.keys()
    from jaxfake.benchmarks import peers
    assert "jax" not in sys.modules
  """
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
  "argv, message",
  [
    ("--case dcgan64_train,nonesuch", "--case is 'nonesuch': expected one of"),
    ("--rounds 0", "--rounds is 0: expected at least 1"),
    ("--data nowhere", "--data nowhere: no such folder"),
    ("--json nowhere/rows.json", "--json nowhere/rows.json: no such folder"),
  ],
)
def test_mistakes_are_told_in_a_line(argv, message, capsys):
  assert bench.main(argv.split()) == 2
  said = capsys.readouterr().err
  assert message in said and said.count("\n") == 1


def test_without_pytorch_it_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setattr(bench.importlib.util, "find_spec", lambda _: None)
  assert bench.main([]) == 2
  assert "pip install 'jaxfake[bench]'" in capsys.readouterr().err


def test_a_side_that_fails_ends_the_run(tmp_path):
  effort = compare.Effort(1, 0.0, ("eager",), {"cpu": 8})
  case = Case("score", "nonesuch", 32, 4, 4)
  with pytest.raises(errors.RunError, match="ours failed: KeyError"):
    compare.measure("x", case, tmp_path, effort, print)


def test_a_process_that_dies_is_told_with_its_last_words(tmp_path):
  case = Case("nonesuch", "cnn", 32, 4, 4)
  worker = compare.Worker(case, tmp_path, {}, "peers", "eager")
  with pytest.raises(errors.RunError, match=r"(?s)died:.*KeyError: 'nonesuch'"):
    worker.answer()
  with pytest.raises(errors.RunError, match="died"):
    worker.ask("run", 1, 0)
  worker.close()

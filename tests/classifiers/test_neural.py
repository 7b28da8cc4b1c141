"""How networks learn labels: one golden step, the textbook's, freezing."""

import functools
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from places import CONFIGS
import pytest

from jaxfake import configuration, errors, main
from jaxfake.classifiers import classifier, neural, registry
from jaxfake.data import pipeline
from jaxfake.data.sources import Rows

CONFIG = CONFIGS / "classifier.py:tiny"
STEPS = 20


class Labelled(Rows):
  """Images in memory that look like a prepared split."""

  def __init__(self, image, label):
    super().__init__(image=image, label=label)
    self._columns = {
      "label": list(map(int, label)),
      "patient": [f"p{i // 2}" for i in range(len(label))],
      "id": [f"i{i}" for i in range(len(label))],
    }

  def column(self, name):
    return self._columns[name]


@functools.cache
def images(n=16):
  """Class 1 is bright, on noise."""
  rng = np.random.default_rng(0)
  label = np.arange(n, dtype=np.int32) % 2
  image = (
    rng.integers(0, 120, (n, 32, 32, 1)) + 100 * label[:, None, None, None]
  )
  return Labelled(image.astype(np.uint8), label)


def splits():
  return pipeline.Splits(("dark", "bright"), images(), images(), images())


def config(**changes):
  argv = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return configuration.parse(["", f"--config={CONFIG}", *argv])[0]


def batch(n=8):
  rows = [images()[i] for i in range(n)]
  return jax.tree.map(lambda *x: np.stack(x), *rows)


@functools.cache
def compiled(**changes):
  c = config(**changes)
  task = neural.make(c, splits(), STEPS)
  return task, jax.jit(task.init)(jax.random.key(c.seed)), jax.jit(task.step)


def gather(fn, source):
  rows = [source[i] for i in range(len(source))]
  out = fn(jax.tree.map(lambda *x: np.stack(x), *rows))
  return jax.tree.map(np.asarray, out)


PLAIN = dict(augment="", model__dropout=0.0)


def test_golden_step():
  """If this fails and you meant to change what a step computes, put in the
  values it prints, and say in the commit why they changed."""
  task, state, _ = compiled()
  # conftest.py's flags round otherwise, and Adam's first step makes more of it:
  # it takes the sign of gradients that are nearly 0.
  emitters = {"xla_cpu_use_fusion_emitters": True}
  step = jax.jit(task.step, compiler_options=emitters)
  for _ in range(2):
    state, metrics = step(state, batch())
  total = lambda tree: sum(
    float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree)
  )
  seen = {k: float(v) for k, v in metrics.items()} | {
    "params": total(state.params),
    "batch_stats": total(state.batch_stats),
  }
  golden = {
    "accuracy": 0.375,
    "gradient": 29.21787,
    "loss": 1.300780,
    "params": 20632.90,
    "batch_stats": 1039.7886,
  }
  assert seen == pytest.approx(golden, rel=1e-4), repr(seen)


def test_step_is_the_textbook_one():
  """Weighted cross-entropy against smoothed labels, clipping, AdamW."""
  c = config(**PLAIN)
  _, state, step = compiled(**PLAIN)
  net = neural.network(c, 2)
  x = batch()["image"].astype(np.float32) / 127.5 - 1
  label = batch()["label"]
  weight = neural.class_weights(np.asarray(images().column("label")), 2)[label]
  target = np.where(np.arange(2) == label[:, None], 1 - 0.025, 0.025)

  def loss(params):
    variables = {"params": params, "batch_stats": state.batch_stats}
    logits, _ = net.apply(variables, x, train=True, mutable=["batch_stats"])
    return (
      -(weight[:, None] * target * jax.nn.log_softmax(logits)).sum(1).mean()
    )

  @jax.jit
  def expected(params):
    # The first step of a warm-up from 0 has rate 0; the second is compared.
    gradient = jax.grad(loss)(params)
    norm = optax.tree.norm(gradient)
    clip = jnp.minimum(1, c.opt.clip / norm)
    return jax.tree.map(lambda g: g * clip, gradient)

  rate = c.opt.lr / int(c.opt.warmup * STEPS)
  once, _ = step(state, batch())
  jax.tree.map(np.testing.assert_array_equal, once.params, state.params)
  twice, _ = step(once, batch())
  want = expected(state.params)
  # Adam of two equal gradients is their sign, but for rounding and epsilon.
  layer = "stem_conv"
  g, p = want[layer]["kernel"], state.params[layer]["kernel"]
  step_ = g / (jnp.abs(g) + 1e-8) + c.opt.weight_decay * p
  got = twice.params[layer]["kernel"] - p
  np.testing.assert_allclose(got, -rate * step_, rtol=1e-3, atol=1e-8)
  norm = twice.params["stem_bn"]["scale"] - state.params["stem_bn"]["scale"]
  g = want["stem_bn"]["scale"]  # Does not decay.
  np.testing.assert_allclose(
    norm, -rate * g / (jnp.abs(g) + 1e-8), rtol=1e-3, atol=1e-8
  )


def test_what_is_judged_is_the_average_of_the_steps():
  """By hand over three steps; with average=0 it is the last weights."""
  for average in (0.15, 0.0):
    task, state, step = compiled(opt__average=average)
    want = state.params["head"]["bias"]
    for i in range(3):
      state, _ = step(state, batch())
      decay = min(average, (i + 1) / (i + 10))
      want = decay * want + (1 - decay) * state.params["head"]["bias"]
    judged = task.model(state)
    np.testing.assert_allclose(judged["params"]["head"]["bias"], want, 1e-5)
  last = {"params": state.params, "batch_stats": state.batch_stats}
  jax.tree.map(np.testing.assert_array_equal, judged, last)


def test_class_weights_by_hand():
  weights = neural.class_weights(np.array([0, 0, 0, 1]), 2)
  np.testing.assert_allclose(weights, [4 / 6, 2])
  np.testing.assert_allclose(weights[[0, 0, 0, 1]].mean(), 1)


def test_learns_what_is_obvious():
  task, state, step = compiled(**PLAIN)
  before = task.evaluate(state, gather)
  for _ in range(STEPS):
    state, _ = step(state, batch(16))
  after = task.evaluate(state, gather)
  assert after["accuracy"] == after["balanced_accuracy"] == 1
  assert after["loss"] < before["loss"] / 2


def test_frozen_moves_the_head_alone_and_follows_batch_statistics():
  _, state, step = compiled(model__frozen=True)
  new = state
  for _ in range(3):
    new, _ = step(new, batch())
  for layer, arrays in state.params.items():
    for name, old in arrays.items():
      same = bool((old == new.params[layer][name]).all())
      assert same == (layer != "head"), (layer, name)
  stats = new.batch_stats["stem_bn"]["mean"]
  assert (stats != state.batch_stats["stem_bn"]["mean"]).all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(model__name="resnet51"), "model.name is 'resnet51': expected one of"),
    (dict(model__name="xception"), "data.size is 32: xception takes images"),
    (dict(model__input="zero"), "model.input is 'zero'"),
    (dict(model__channels=2), "model.channels is 2"),
    (dict(model__weights="nowhere.h5"), "nowhere.h5: no such file"),
    (dict(dtype="float16"), "dtype is 'float16'"),
    (dict(augment="affine,rotate"), "augment is 'rotate'"),
    (dict(opt__lr=0.0), "opt.lr is 0.0: expected above 0"),
    (dict(label_smoothing=1.0), "label_smoothing is 1.0"),
    (dict(model__name="svm", classical__features="hogs"), "is 'hogs'"),
  ],
)
def test_bad_values_are_refused_by_name(changes, message):
  with pytest.raises(errors.ConfigError, match=message):
    classifier.check(config(**changes))


def test_a_split_without_a_class_is_refused():
  one = Labelled(np.zeros((4, 32, 32, 1), np.uint8), np.zeros(4, int))
  bad = splits()._replace(val=one)
  with pytest.raises(errors.DataError, match="no val image is bright"):
    classifier.prepare(config(), bad, None)


def run(path, *flags):
  argv = ["", f"--config={CONFIG}", f"--workdir={path}", *flags]
  assert main.main(argv) == 0
  return json.loads((path / "result.json").read_text())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """A finished run's folder and result."""
  path = tmp_path_factory.mktemp("straight") / "run"
  return path, run(path)


def predictions(path):
  lines = (path / "predictions.csv").read_text().splitlines()
  names = lines[0].split(",")
  return [dict(zip(names, x.split(","), strict=True)) for x in lines[1:]]


def test_a_run_says_what_it_is(straight):
  path, result = straight
  assert result["initial"] == "random weights, all trained"
  assert result["cost"]["parameters"] > 1e5
  assert result["cost"]["gflop_per_image"] > 0
  assert result["train_seconds"] > 0
  steps = result["step"]
  assert result["compiled"]["parameters"]["network"] > 1e5
  pictures = {x.name for x in (path / "pictures").iterdir()}
  assert {f"{x}-{steps:08}.png" for x in ("roc", "confusion")} <= pictures
  rows = predictions(path)
  counts = {s: sum(r["split"] == s for r in rows) for s in ("val", "test")}
  assert counts["test"] == result["counts"]["test"]["images"]
  assert counts["val"] == result["counts"]["val"]["images"]


def test_the_best_model_is_the_one_of_least_validation_loss(straight):
  path, result = straight
  lines = (path / "metrics.jsonl").read_text().splitlines()
  losses = {
    x["step"]: x["eval/loss"]
    for x in map(json.loads, lines)
    if "eval/loss" in x
  }
  assert result["best"]["loss"] == min(losses.values())
  assert losses[result["best"]["step"]] == min(losses.values())


def test_the_folder_alone_scores_images(straight, tmp_path, monkeypatch):
  from jaxfake import data

  path, result = straight
  source = data.prepare(registry.load(path).config.data).source("test")
  shots = pipeline.Images(source, registry.load(path).config.data)
  image = np.stack([shots[i]["image"] for i in range(len(shots))])
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # No data set here.
  got = registry.load(path).probabilities(image)
  rows = [r for r in predictions(path) if r["split"] == "test"]
  want = np.array(
    [float(r[f"p_{result['calibration']['positive']}"]) for r in rows]
  )
  np.testing.assert_allclose(got[:, 1], want, atol=1e-4)


def test_kill_9_ends_equal(straight, tmp_path):
  code = """
import os, signal, sys
from jaxfake import main
from jaxfake.training import loop
add = loop.Window.add
def patched(self, steps, metrics):
  if {step} in steps:
    os.kill(os.getpid(), signal.SIGKILL)
  add(self, steps, metrics)
loop.Window.add = patched
sys.exit(main.main(sys.argv))
"""
  command = [f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}"]
  done = subprocess.run(
    [sys.executable, "-c", code.format(step=20), *command],
    env=os.environ,
    capture_output=True,
    timeout=300,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  result = run(tmp_path / "run")
  for name in ("state_sha256", "figures", "calibration"):
    assert result[name] == straight[1][name]
  assert result["best"] == straight[1]["best"]


def test_weights_of_another_run_are_taken_but_for_the_head(straight, tmp_path):
  path, _ = straight
  flags = (f"--config.model.weights={path}", "--config.model.frozen=True")
  result = run(tmp_path / "run", *flags)
  assert result["initial"] == f"{path} weights, frozen but for the head"
  (_, old), (_, new) = neural.load(path), neural.load(tmp_path / "run")
  for kind in ("params", "batch_stats"):
    for layer, arrays in old[kind].items():
      for name, value in arrays.items():
        same = bool((value == new[kind][layer][name]).all())
        assert same == (layer != "head"), (kind, layer, name)


def test_weights_of_another_network_are_refused(straight):
  message = "are of cnn: expected some of mobilenet_v2"
  with pytest.raises(errors.ConfigError, match=message):
    neural.initial(str(straight[0]), "mobilenet_v2", {})


def test_weights_of_another_variant_are_refused(straight):
  path, _ = straight
  flags = {"model__weights": path, "model__variant": "keras"}
  with pytest.raises(errors.ConfigError, match=r"'keras': .* needs 'torch'"):
    neural.check_variant(config(**flags))

"""Traces, the detector that learns from them, and its protocol: from pictures
of two drawn hospitals and one drawn generator to verdicts."""

import functools
import json
import pathlib
import re

import jax
import ml_collections
import numpy as np
from PIL import Image
from places import ROOT
import pytest
import safetensors.numpy
from scipy import ndimage

from jaxfake import configuration, errors, main
from jaxfake.classifiers import discriminant, forensic, peers, spectral
from jaxfake.evaluation import metrics
from jaxfake.runtime import disk, xla

HOSPITALS = {"north": 1.0, "south": 0.6}  # Sharpness.


@pytest.fixture(scope="module", autouse=True)
def optimised():
  """The numbers of thousands of pictures: without XLA's passes, which
  conftest.py leaves out, they are ten times as slow. Peers, whose convolutions
  are slow too, see a crop of each picture and not nine."""
  options = xla.compiler_options() | {"xla_backend_optimization_level": 3}
  jitted = functools.cache(lambda fn: jax.jit(fn, compiler_options=options))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(spectral, "_jitted", jitted)
    patch.setattr(peers, "SPREAD", 1)
    yield


def radiograph(rng, sharpness: float, size: int = 128) -> np.ndarray:
  """Soft shapes and the noise of a detector."""
  shapes = ndimage.gaussian_filter(rng.standard_normal((size, size)), 12)
  shapes = 128 + 50 * shapes / shapes.std()
  noise = ndimage.gaussian_filter(
    rng.standard_normal((size, size)), 1 - sharpness
  )
  return (shapes + 6 * noise / noise.std()).clip(0, 255).astype(np.uint8)


def painted(rng, size: int = 128) -> np.ndarray:
  """Enlarged by two, as a generator's last layer does."""
  small = radiograph(rng, 1.0, size // 2)
  return np.asarray(Image.fromarray(small).resize((size, size), 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  root = tmp_path_factory.mktemp("sources")
  rng = np.random.default_rng(0)
  for name, sharpness in HOSPITALS.items():
    place = root / "real" / name
    place.mkdir(parents=True)
    for i in range(60):
      image = radiograph(rng, sharpness)
      Image.fromarray(image).save(place / f"person{i}_x.png")
  place = root / "fake" / "painter"
  place.mkdir(parents=True)
  for i in range(60):
    Image.fromarray(painted(rng)).save(place / f"{i:03}.png")
  return root


def run(config: str, workdir, **changes) -> int:
  argv = ["main", "--config", f"configs/{config}", "--workdir", str(workdir)]
  return main.main(argv + [f"--config.{k}={v}" for k, v in changes.items()])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
    yield


@pytest.fixture(scope="module")
def traces(folder, prepared, tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "traces"
  changes = {"data.name": "many_sources", "data.dir": folder}
  assert run("traces.py:tiny", path, **changes) == 0
  return path


@pytest.fixture(scope="module")
def trained(folder, traces):
  path = traces.with_name("forensic")
  changes = {"data.dir": f"{folder},{traces}", "pictures": 12}
  assert run("forensic.py:tiny", path, **changes) == 0
  return path


def test_traces_are_a_folder_of_sources(folder, traces):
  from jaxfake import data

  config = configuration.load(configuration.find("configs/forensic.py:tiny"))
  config.data.dir = str(traces)
  dataset = data.prepare(config.data)
  train = dataset.source("train")
  assert dataset.classes == ("real", "fake")
  sources = set(train.column("source"))
  assert sources == {"north", "south", "trace_transpose2"}
  place = {id: i for i, id in enumerate(train.column("id"))}
  patients, originals = train.column("patient"), train.column("original")
  made = [i for i, original in enumerate(originals) if original]
  assert made
  for i in made:
    real, fake = train[place[originals[i]]], train[i]
    assert fake["label"] == 1 and real["label"] == 0
    assert patients[i] == real["patient"]
    assert fake["image"].shape == real["image"].shape
    assert not np.array_equal(fake["image"], real["image"])


def test_traces_say_that_they_are_synthetic(traces):
  from jaxfake.data import marks

  fake = next((traces / "fake").rglob("*.png"))
  real = next((traces / "real").rglob("*.png"))
  assert marks.marked(fake.read_bytes()) and not marks.marked(real.read_bytes())


def test_traces_that_are_there_are_not_made_again(folder, traces):
  """After a kill between networks: the same bytes, and the first untouched."""
  files = {p: p.read_bytes() for p in sorted((traces / "fake").rglob("*.png"))}
  first = traces / "networks" / "000.json"
  before = first.stat().st_mtime_ns
  for name in ("networks/001.json", "sources.csv", "result.json"):
    (traces / name).unlink()
  changes = {"data.name": "many_sources", "data.dir": folder}
  assert run("traces.py:tiny", traces, **changes) == 0
  again = {p: p.read_bytes() for p in sorted((traces / "fake").rglob("*.png"))}
  assert again == files
  assert first.stat().st_mtime_ns == before


def test_its_figures(trained):
  result = json.loads((trained / "result.json").read_text())
  assert {x["source"] for x in result["by_source"]} >= {
    "north",
    "south",
    "painter",
  }
  for row in result["by_source"]:
    assert row["real"] + row["uncertain"] + row["fake"] == row["images"]
  auc = {(x["fakes"], x["reals"]): x["auc"] for x in result["auc"]}
  assert auc["painter", "north"] > 0.95 and auc["painter", "south"] > 0.95


def test_the_same_bits_again(folder, traces, trained):
  path = trained.with_name("again")
  changes = {"data.dir": f"{folder},{traces}", "pictures": 12}
  assert run("forensic.py:tiny", path, **changes) == 0
  model = lambda folder: (folder / forensic.MODEL).read_bytes()
  assert model(path) == model(trained)
  told = lambda folder: json.loads((folder / "result.json").read_text())
  assert told(path)["calibration"] == told(trained)["calibration"]


def test_a_loaded_detector_judges_pictures_of_any_size(trained):
  detector = forensic.load(trained)
  rng = np.random.default_rng(9)
  sizes = 112, 128, 300
  real = detector.judge([radiograph(rng, 1.0, n) for n in sizes])
  fake = detector.judge([painted(rng, n) for n in sizes])
  p = lambda rows: [row["p_fake"] for row in rows]
  assert max(p(real)) < min(p(fake))
  assert all(row["verdict"] != "fake" for row in real)
  assert all(row["verdict"] != "real" for row in fake)
  (small,) = detector.judge([radiograph(rng, 1.0, 64)])
  assert small["verdict"] == "uncertain" and "too small" in small["reason"]


def test_it_serves_detect(trained, folder, tmp_path, capsys):
  from jaxfake import detect

  out = tmp_path / "verdicts.csv"
  files = [str(folder / "real" / "north"), str(folder / "fake")]
  argv = [*files, "--model", str(trained), "--csv", str(out)]
  assert detect.main(argv) == 0
  rows = disk.read_csv(out)
  assert len(rows) == 120
  p = {
    name: np.median([float(r["p_fake"]) for r in rows if name in r["file"]])
    for name in ("north", "painter")
  }
  assert p["north"] < p["painter"]
  assert "by forensic in" in capsys.readouterr().out


def test_a_map_is_higher_where_a_fake_was_put_in(trained):
  detector = forensic.load(trained)
  rng = np.random.default_rng(3)
  image = radiograph(rng, 1.0, 320)
  image[:, 160:] = painted(rng, 320)[:, 160:]
  found = detector.map(image)
  assert found.shape == image.shape
  assert np.median(found[:, 200:]) > np.median(found[:, :120])
  assert detector.map(image[:, :90]) is None


def test_maps_of_detect(trained, folder, tmp_path):
  from jaxfake import detect

  maps = tmp_path / "maps"
  (place := tmp_path / "in").mkdir()
  rng = np.random.default_rng(4)
  image = radiograph(rng, 1.0, 320)
  image[:, 160:] = painted(rng, 320)[:, 160:]
  Image.fromarray(image).save(place / "half.png")
  Image.fromarray(image[:90, :90]).save(place / "small.png")
  (place / "none.txt").write_text("no picture")
  argv = [str(place), "--model", str(trained), "--maps", str(maps)]
  assert detect.main(argv) == 1  # One file was not read.
  (one,) = maps.iterdir()
  assert one.name.startswith("half-") and one.suffix == ".png"
  seen = np.asarray(Image.open(one)).astype(int)
  assert seen.shape == (320, 320, 3)
  coloured = (seen.max(-1) - seen.min(-1)) > 20
  assert coloured[:, 200:].mean() > coloured[:, :120].mean()
  # Its own pictures are not looked at by a second run.
  argv = [str(tmp_path), "--model", str(trained), "--maps", str(maps)]
  assert detect.main([*argv, "--csv", str(tmp_path / "rows.csv")]) == 1
  assert len(disk.read_csv(tmp_path / "rows.csv")) == 3


def test_maps_need_a_detector_that_makes_them(tmp_path, monkeypatch, capsys):
  from jaxfake import detect
  from jaxfake.classifiers import detector

  class Plain:
    def about(self):
      return {"name": "svm"}

  monkeypatch.setattr(detector, "load", lambda path: (Plain(), "0"))
  argv = [__file__, "--model", "x", "--maps", str(tmp_path / "maps")]
  assert detect.main(argv) == 2
  assert "svm" in capsys.readouterr().err
  assert not (tmp_path / "maps").exists()


def test_a_rule_says_why_it_is_uncertain():
  units = np.zeros((1, 2)), np.ones((1, 2))
  rule = forensic.Rule(*units, 1.0, 0.0, -1.0, 2.0, 1.0, 1.5)
  verdict = lambda *x: rule.verdict(np.array([x]), np.array([x]))
  assert verdict(-2.0, 0.0) == ("real", None)
  assert verdict(3.0, 0.0) == ("fake", None)
  assert verdict(0.0, 0.0) == ("uncertain", forensic.BETWEEN)
  assert verdict(0.5, 9.0) == ("uncertain", forensic.UNLIKE)
  assert verdict(-9.0, 2.0) == ("uncertain", forensic.UNLIKE)
  real, fake = np.array([[-2.0, 0.0]]), np.array([[3.0, 0.0]])
  for a, b in ((real, fake), (fake, real)):
    assert rule.verdict(a, b) == ("uncertain", forensic.COMPRESSED)
  assert rule.verdict(real, np.zeros((1, 2))) == ("real", None)


def test_evidence_is_summed_over_members_in_units_of_each():
  rng = np.random.default_rng(0)
  scale = np.array([[2.0, 0.5], [30.0, 4.0]])
  measures = rng.standard_normal((1000, 2, 2)) * scale + 7
  centre, spread = forensic.units(measures, np.ones(1000))
  assert np.allclose(centre, 7, atol=0.1 * scale)
  assert np.allclose(spread, scale, rtol=0.1)
  rule = forensic.Rule(centre, spread, 1.0, 0.0, -1.0, 2.0, 1.0, 1.5)
  expected = sum(
    (measures[:, m, 0] - centre[m, 0]) / spread[m, 0]
    + (measures[:, m, 1] - centre[m, 1]) / spread[m, 1] / 2
    for m in (0, 1)
  )
  assert np.allclose(rule.evidence(measures), expected)
  again = forensic.Rule.of(json.loads(json.dumps(rule.facts())))
  assert np.array_equal(again.evidence(measures), rule.evidence(measures))


def test_a_detector_of_before_has_one_member(trained, tmp_path):
  """Its arrays had no member's name, its units one row."""
  arrays = safetensors.numpy.load_file(trained / forensic.MODEL)
  fine = {k[5:]: v for k, v in arrays.items() if k.startswith("fine.")}
  safetensors.numpy.save_file(fine, tmp_path / forensic.MODEL)
  told = json.loads((trained / "result.json").read_text())
  for name in ("centre", "spread"):
    told["calibration"][name] = told["calibration"][name][0]
  (tmp_path / "result.json").write_text(json.dumps(told))
  old, new = forensic.load(tmp_path), forensic.load(trained)
  numbers = np.random.default_rng(0).standard_normal((3, 583))
  found = old.model.measures(numbers)
  assert np.array_equal(found, new.model.measures(numbers)[:, :1])
  assert old.rule.evidence(found).shape == (3,)
  del fine["line.offset"]
  safetensors.numpy.save_file(fine, tmp_path / forensic.MODEL)
  with pytest.raises(errors.ConfigError, match=r"line\.offset"):
    forensic.load(tmp_path)


def test_a_rule_keeps_its_word_on_what_it_was_settled_on():
  rng = np.random.default_rng(0)
  n = 400
  measures = rng.standard_normal((2 * n, 1, 2))
  measures[n:] += 2
  sources = np.repeat(["a", "b", "f", "g"], n // 2)
  labels = np.repeat([0, 1], n)
  held = forensic.Pictures(
    *[np.zeros((2 * n, 1))] * 2, labels, sources, sources, sources, sources
  )
  config = configuration.load(configuration.find("configs/forensic.py:tiny"))
  rule = forensic.rule(config, np.stack([measures, measures]), held)
  verdicts = np.array([rule.verdict(x, x)[0] for x in measures])
  for name in "ab":
    called = (verdicts[sources == name] == "fake").mean()
    assert called <= config.reals_called_fake
  assert (verdicts[n:] == "real").mean() <= config.fakes_called_real + 1 / n
  assert (verdicts == "real").any() and (verdicts == "fake").any()


def test_fakes_of_a_left_out_hospital_are_left_out_with_it():
  of = forensic.Examples(
    np.zeros((4, 1)),
    np.array([0, 0, 1, 1]),
    np.array(["north", "south", "trace_shuffle", "painter"]),
    np.array(["", "", "north", ""]),
    np.arange(4),
  )
  parts = forensic.parts(of)
  assert len(parts) == 4
  config = ml_collections.ConfigDict({"unaligned": 0.0})
  weights = forensic.weighted(config, parts, 1)
  assert [(weight, part.count) for weight, part in weights] == [(0.5, 1)]
  aligned = parts[forensic.Part(1, "trace_shuffle", "north")]
  assert weights[0][1] is aligned
  config.unaligned = 0.2
  weights = [weight for weight, _ in forensic.weighted(config, parts, 1)]
  assert sorted(weights) == pytest.approx([0.1, 0.4])
  left = forensic.remaining(parts, ["north"])
  assert {key.source for key in left} == {"south", "painter"}
  for label in (0, 1):
    weights = [weight for weight, _ in forensic.weighted(config, left, label)]
    assert sum(weights) == pytest.approx(0.5)


@pytest.mark.parametrize("unaligned", [0.0, 0.5])
@pytest.mark.parametrize(
  "fakes",
  [("trace_a", "trace_b", "gan", "vae"), ("trace_a", "gan"), ("gan",)],
)
def test_a_kind_of_fake_left_out_by_sums_is_as_if_it_had_not_been_there(
  fakes, unaligned
):
  config = ml_collections.ConfigDict({"unaligned": unaligned})
  rng = np.random.default_rng(0)
  sources = np.repeat(["north", *fakes], 20)
  n = len(sources)
  numbers = (
    rng.standard_normal((n, 5)) + np.repeat(np.arange(n // 20), 20)[:, None]
  )
  labels, origins = (sources != "north").astype(int), np.full(n, "")
  of = forensic.Examples(numbers, labels, sources, origins, np.arange(n) // 2)
  parts = forensic.parts(of)
  without = forensic._fakes_without(config, parts)
  for name in (*fakes, "trace_new", "new"):
    left = forensic.remaining(parts, [name] * (len(fakes) > 1))
    exact = discriminant.mixed(forensic.weighted(config, left, 1))
    for a, b in zip(
      discriminant.mixed(without(name))[1:3], exact[1:3], strict=True
    ):
      assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("data.name", "phantom"),
    ("rank", 0),
    ("ridge", 0.0),
    ("each", 0),
    ("delivered", 5),
    ("unaligned", 1.0),
  ],
)
def test_bad_values_are_named(field, value):
  config = configuration.load(configuration.find("configs/forensic.py:tiny"))
  config.update_from_flattened_dict({field: value})
  with pytest.raises(errors.ConfigError, match=field):
    forensic.check(config)


def test_protocol(folder, traces, capsys):
  path = traces.with_name("protocol")
  changes = {"data.dir": f"{folder},{traces}", "pictures": 12}
  assert run("protocol.py:tiny", path, **changes) == 0
  result = json.loads((path / "result.json").read_text())
  conditions = [x["condition"] for x in result["summary"]]
  assert conditions == ["generator unseen", "hospital unseen", "both unseen"]
  unseen = [x for x in result["cells"] if x["condition"] == "both unseen"]
  pairs = {(x["fakes"], x["reals"]) for x in unseen}
  assert pairs == {("painter", "north"), ("painter", "south")}
  for x in result["cells"]:
    assert x["auc"]["low"] <= x["auc"]["value"] <= x["auc"]["high"]
  assert len(result["seeds"]["auc"]) == 1 and result["seeds"]["sd"] is None
  page = (path / "report.html").read_text()
  assert "both unseen" in page and "JPEG 75" in page
  assert (path / "pictures" / "unseen.png").exists()
  assert len((path / "cells.csv").read_text().splitlines()) > len(unseen)
  names = {row["method"] for row in result["methods"]}
  for name in ("NPR network", "SRM network", "as it is"):
    assert name in names
  assert any("reconstruction error" in name for name in names)
  assert any("radial spectrum" in name for name in names)

  # After an interruption what is there is not made again, and the rest is.
  left = sorted(path.glob("*/**/*.json"))
  again = [left[0], next(path.glob("folds/both*/painter, north/*.json"))]
  before = {p: p.stat().st_mtime_ns for p in left if p not in again}
  for gone in (*again, path / "result.json"):
    gone.unlink()
  assert run("protocol.py:tiny", path, **changes) == 0
  assert {p: p.stat().st_mtime_ns for p in before} == before
  repeated = json.loads((path / "result.json").read_text())
  for key in ("cells", "summary", "seeds", "deliveries", "methods"):
    assert repeated[key] == result[key]


def test_a_linear_map_of_moments_is_that_of_examples():
  rng = np.random.default_rng(0)
  x, groups = rng.standard_normal((40, 7)), np.arange(40) // 2
  which = rng.standard_normal((3, 7))
  mapped = discriminant.moments(x, groups).of_numbers(which)
  expected = discriminant.moments(x @ which.T, groups)
  for a, b in zip(mapped, expected, strict=True):
    assert np.allclose(a, b, atol=1e-4)
  some = discriminant.moments(x, groups).of_numbers(np.array([4, 1]))
  for a, b in zip(
    some, discriminant.moments(x[:, [4, 1]], groups), strict=True
  ):
    assert np.allclose(a, b, atol=1e-5)


def test_the_radial_spectrum_is_a_mean_over_frequencies_of_one_length():
  block = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
  numbers = spectral.of_picture(block)
  window = np.outer(*2 * (np.hanning(34)[1:-1],))
  window /= np.sqrt(np.square(window).sum())
  power = np.abs(np.fft.fft2((block - block.mean()) * window)) ** 2
  logs = np.log(power + 1)
  at = np.fft.fftfreq(32, 1 / 32)
  length = np.hypot(at[:, None], at).round().astype(int)
  expected = np.array([logs[length == r].mean() for r in range(24)])
  found = spectral.radial() @ numbers
  difference = found - expected  # The mean over half of them is taken off.
  assert np.allclose(difference, difference.mean(), atol=1e-3)


@pytest.mark.parametrize("kind", ["npr", "srm"])
def test_residuals_are_as_their_papers_have_them(kind):
  from scipy import signal

  from jaxfake.models import residual

  x = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.float32)
  found = np.asarray(residual.RESIDUALS[kind](x[None, ..., None]))[0]
  if kind == "npr":
    for top in range(0, 8, 2):
      for left in range(0, 8, 2):
        square = x[top : top + 2, left : left + 2]
        expected = (square - square[0, 0]) / 32
        assert np.allclose(found[top : top + 2, left : left + 2, 0], expected)
    return
  for k, (kernel, divisor) in enumerate(residual.FILTERS):
    assert kernel.shape == (5, 5) and kernel.sum() == 0
    expected = signal.correlate(x, kernel / divisor, "same").clip(-2, 2)
    assert np.allclose(found[..., k], expected, atol=1e-4)


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_peers_learn_what_is_easy(name):
  """Smooth reals and noisy fakes; no fake where only reals are looked at."""
  rng = np.random.default_rng(0)
  noise = rng.standard_normal((80, 96, 96))
  smooth = ndimage.gaussian_filter(noise, (0, 8, 8))
  images = 128 + 40 * smooth / smooth.std()
  labels = np.arange(80) % 2
  images += 25 * noise * labels[:, None, None]
  images = images.clip(0, 255).astype(np.uint8)
  names = np.full(80, "a")
  of = peers.Crops(images, labels, names, names)
  score = peers.fitted(name, of[:60], 30, seed=0)
  found = score(images[60:])
  assert metrics.auc(labels[60:], found) > 0.95


def test_ship(folder, prepared, tmp_path, capsys):
  """All runs, the folder for the package, and nothing again by a second run."""
  from jaxfake import detect

  # Networks beside it are in the protocol's own test.
  changes = {"data.dir": folder, "protocol.peer_steps": 0}
  assert run("ship.py:tiny", tmp_path / "ship", **changes) == 0
  shipped = tmp_path / "ship" / "shipped"
  assert {p.name for p in shipped.iterdir()} == {
    "model.safetensors",
    "result.json",
    "MODEL_CARD.md",
  }
  card = (shipped / "MODEL_CARD.md").read_text()
  for text in ("north", "painter", "JPEG 75", "both unseen", "not stated"):
    assert text in card
  trained, tested = (
    json.loads((tmp_path / "ship" / name / "result.json").read_text())
    for name in ("detector", "protocol")
  )
  from jaxfake.experiments import ship

  reals, fakes = ship.coverage(trained, tested)
  assert (reals["promised"], fakes["promised"]) == ("1%", "10%")
  cells = [c for c in tested["cells"] if c["condition"] == "both unseen"]
  worst = max(c["fakes_called_real"] for c in cells)
  told = fakes["generator and hospital unseen"]
  assert f"; {worst:.1%} of painter against " in told
  seen = [
    x["fake"] / x["images"]
    for x in trained["by_source"]
    if x["class"] == "real" and x["source"] in HOSPITALS
  ]
  told = reals["test patients, sources learnt from"]
  assert told.startswith(f"{np.mean(seen):.1%}; {max(seen):.1%} of ")
  assert str(tmp_path) not in card + (shipped / "result.json").read_text()
  runs = "traces", "detector", "protocol"
  results = [tmp_path / "ship" / name / "result.json" for name in runs]
  before = [path.stat().st_mtime_ns for path in results]
  capsys.readouterr()
  assert run("ship.py:tiny", tmp_path / "ship", **changes) == 0
  assert [path.stat().st_mtime_ns for path in results] == before
  assert capsys.readouterr().out.count("done before") == 3
  files = [str(folder / "real" / "north"), "--model", str(shipped)]
  assert detect.main(files) == 0
  assert detect.main(["--card", "--model", str(shipped)]) == 0
  assert card in capsys.readouterr().out
  other = changes | {"detector.rank": 19}
  assert run("ship.py:tiny", tmp_path / "ship", **other) == 2


def test_the_detector_that_comes_with_the_program(folder, tmp_path, capsys):
  """Small, of licences that allow it, and no paths of a machine in it."""
  from jaxfake import detect
  from jaxfake.classifiers import detector

  size = sum(p.stat().st_size for p in detector.SHIPPED.iterdir())
  assert size <= 4 << 20
  told = json.loads((detector.SHIPPED / "result.json").read_text())
  licences = {
    x
    for row in told["learnt_from"]
    for x in row["licences"]
    if row["source"] != "dcgan_128"  # Our own generator's.
  }
  assert licences
  assert all(re.match(r"(CC BY|MIT)( |$)", x) for x in licences), licences
  out = tmp_path / "rows.csv"
  assert detect.main([str(folder / "fake"), "--csv", str(out)]) == 0
  rows = disk.read_csv(out)
  assert len(rows) == 60 and all(row["verdict"] for row in rows)
  assert "comes with the program" in capsys.readouterr().out
  assert detect.main(["--card"]) == 0
  assert "What it learnt from" in capsys.readouterr().out


def test_the_readme_says_what_the_shipped_detector_reached():
  from jaxfake.classifiers import detector
  from jaxfake.experiments import ship

  told = json.loads((detector.SHIPPED / "result.json").read_text())
  readme = ROOT / "README.md"
  assert ship.headline(told) in readme.read_text()
  card = (detector.SHIPPED / detector.CARD).read_text()
  assert ship.never_seen(told) in card

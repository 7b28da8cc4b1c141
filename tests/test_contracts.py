"""A family and a source from outside the package: trained, sampled, studied.

They are in toys/; nothing of jaxfake knows them.
"""

import inspect
import json
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
from places import TESTS
import pytest

from jaxfake import configuration, contracts, data, errors, main, named, sample
from jaxfake.classifiers import (
  forensic,
  localizer,
  reconstruction,
  registry,
  writers,
)
from jaxfake.data import pipeline
from jaxfake.generators import gan
from jaxfake.training import task, workdir

TOYS = TESTS / "toys"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("toys") / "run"
  flags = [f"--config={TOYS}/average_config.py", f"--workdir={path}"]
  assert main.main(["", *flags]) == 0
  return path


def test_a_family_and_a_source_of_the_users_train_and_sample(trained, tmp_path):
  out = tmp_path / "fakes"
  flags = [f"--workdir={trained}", f"--out={out}", "--count=6"]
  assert sample.main(flags) == 0
  rows = [json.loads(x) for x in (out / "manifest.jsonl").open()]
  assert [x["class"] for x in rows] == ["THIN", "THICK"] * 3
  images = [np.array(Image.open(out / x["file"]), float) for x in rows]
  # Stripes of two pixels, and of six.
  assert images[0][2:4].mean() > images[0][:2].mean() + 50
  assert np.abs(images[1][:5].mean() - images[1][:2].mean()) < 10
  found = data.prepare(gan_data(name="generated", dir=str(out)))
  assert found.facts["counts"]["train"] == {"THIN": 3, "THICK": 3}


def gan_data(**changes):
  argv = [f"--config.data.{k}={v}" for k, v in changes.items()]
  return configuration.parse(["", "--config=configs/dcgan.py:tiny", *argv])[
    0
  ].data


def test_masks_and_patients_reach_the_step_by_name(trained):
  from toys import average

  _, _, state = average.restored(trained)
  where = np.asarray(state.mask) / np.asarray(state.count)[:, None, None, None]
  want = [np.indices((32, 32))[0] // width % 2 for width in (2, 6)]
  np.testing.assert_array_equal(where[..., 0], want)
  assert int(state.patients) == 23  # 24 train patients.


def test_a_feature_that_the_data_lack_is_named():
  c = gan_data()
  splits = pipeline.splits(data.prepare(c), c)
  with pytest.raises(errors.ConfigError, match="=phantom is 'mask'"):
    splits.reading("image", "mask")
  c.phantom.nodules = True
  splits = pipeline.splits(data.prepare(c), c).reading("image", "mask", "id")
  item = splits.train[0]
  assert item["mask"].shape == (32, 32, 1) and item["mask"].dtype == np.uint8
  assert set(np.unique(item["mask"])) <= {0, 255}
  assert item["id"].dtype == np.int32


def test_they_take_part_in_a_study(tmp_path):
  flags = [f"--config={TOYS}/study_config.py", f"--workdir={tmp_path / 'run'}"]
  assert main.main(["", *flags]) == 0
  result = json.loads((tmp_path / "run/result.json").read_text())
  rows = {row["generator"]: row for row in result["generators"]}
  assert rows["unseen"]["noise"] == 5 and "noise" not in rows["other_seed"]
  assert rows["other_seed"]["upsample"] == "transpose"
  assert {x["fakes_by"] for x in result["detection"]} == rows.keys()
  assert result["dataset"]["name"] == "toys.stripes"
  text = (tmp_path / "run/report.md").read_text()
  assert "| generator | noise | upsample | width | loss |" in text


@pytest.mark.parametrize(
  ("flag", "named"),
  [
    (
      "--config.task=gam",
      "task is 'gam': expected one of cyclegan, diffusion_inpainter, edm, gan,",
    ),
    ("--config.task=no.such", "task is 'no.such': there is no such module"),
    ("--config.task=toys.stripes", "does not define CONFIG, check, load"),
    ("--config.data.name=xray", "data.name is 'xray': expected one of chest"),
    ("--config.data.name=toys.average", "does not define ABOUT of a Source"),
    ("--config.model.name=dcgam", "model.name is 'dcgam': expected one of dc"),
  ],
)
def test_an_unknown_name_is_a_line_that_lists_what_there_is(
  flag, named, capsys, tmp_path
):
  argv = ["", "--config=configs/dcgan.py:tiny", f"--workdir={tmp_path / 'run'}"]
  assert main.main([*argv, flag]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert named in line, line


def test_listing_and_finding_import_nothing():
  code = (
    "import sys; from jaxfake import contracts as c, named;"
    "found = [x.name for x in named.every(c.Family, c.Experiment, c.Source)];"
    "named.find('task', 'gan', c.Family); print(*found);"
    "assert not {'jax', 'numpy'} & set(sys.modules), sys.modules"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  )
  assert out.stdout.split() == [
    *("cyclegan", "diffusion_inpainter", "edm", "gan", "inpainter"),
    *("latent_diffusion", "pggan", "stylegan2", "vae", "wgan_gp"),
    *("classifier", "forensic", "localizer", "reconstruction"),
    *("comparison", "few_images", "generator_comparison", "protocol", "ship"),
    *("study", "tampering", "traces"),
    *("chest_xray", "generated", "inpainting", "many_sources", "phantom"),
    *("real_or_fake", "tampered"),
  ]


MODULES = [
  (contract, found)
  for contract in (
    contracts.Swept,
    contracts.GeneratorFamily,
    contracts.DetectorFamily,
    contracts.Experiment,
    contracts.Adversaries,
    contracts.Source,
  )
  for found in named.every(contract)
]


@pytest.mark.parametrize(
  ("contract", "found"),
  MODULES,
  ids=lambda x: getattr(x, "__name__", getattr(x, "module", "")),
)
def test_functions_take_what_their_contract_says(contract, found):
  module = found.load()
  for name in named.members(contract):
    promised, given = getattr(contract, name, None), getattr(module, name)
    if not inspect.isfunction(promised):
      assert isinstance(given, str | tuple), name
      continue
    _, *want = inspect.signature(promised).parameters
    assert [*inspect.signature(given).parameters][: len(want)] == want, name


@pytest.mark.parametrize(
  ("contract", "made"),
  [
    (contracts.Task, task.Task),
    (contracts.Detector, forensic.Detector),
    (contracts.Detector, localizer.Detector),
    (contracts.Detector, reconstruction.Detector),
    (contracts.Detector, registry.Classifier),
    (contracts.VerdictWriter, writers.Csv),
    (contracts.VerdictWriter, writers.JsonLines),
    (contracts.VerdictWriter, writers.Json),
    (contracts.Dataset, data.Dataset),
    (contracts.Splits, pipeline.Splits),
  ],
)
def test_classes_have_what_their_contract_says(contract, made):
  has = {*dir(made), *getattr(made, "__annotations__", ())}
  assert named.members(contract) <= has


def test_a_runs_folder_has_what_its_contract_says(tmp_path):
  folder = workdir.Workdir(tmp_path)
  assert named.members(contracts.Run) <= {*dir(folder)}


def test_generators_have_what_their_contract_says(trained):
  from toys import average

  config = configuration.parse(["", "--config=configs/dcgan.py:tiny"])[0]
  state = jax.jit(gan.initial(config, ()))(jax.random.key(0))
  for made in average.load(trained), gan.generator(config, (), state):
    assert named.members(contracts.Generator) <= {*dir(made)}

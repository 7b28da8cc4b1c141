r"""Generators side by side: how real their images are, how varied, and whether
they are copies.

    python -m jaxfake.main --config configs/generators.py:quick
    python -m jaxfake.main --config configs/generators.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER

`--config.only=dcgan,edm` takes some of the generators. Instead of them
`--config.runs=NAME=FOLDER,NAME=FOLDER` takes runs that are finished; with both
flags, those and these.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "generator_comparison"
  c.seed = 0  # Of what is sampled, and of the resamples.

  # Of every run; patients are split once, and so alike everywhere.
  c.data = ml_collections.ConfigDict()
  c.data.name = "phantom"  # Or chest_xray.
  c.data.dir = ""  # The folder, where the name needs one.
  c.data.size = 32 if tiny else 64
  c.data.fit = "crop"  # Or pad, stretch.
  c.data.kernel = "bicubic"
  c.data.split = "patient"
  c.data.unreadable = "stop"  # Or skip.
  c.data.patients = ""  # A CSV file of whose images are: file, patient.
  c.data.train_images = 0  # So many, spread evenly over the set; 0: all.
  c.data.phantom = dict(
    images=160 if tiny else 2000 if quick else 8000, seed=0, nodules=False
  )

  # Each a configuration of a family, and the fields to change: its own
  # total_steps are its budget.
  c.generators = ml_collections.ConfigDict()
  names = ("dcgan", "wgan_gp", "pggan", "stylegan2")
  names += ("vae", "edm", "latent_diffusion")
  for name in names[:1] if tiny else names:
    file = f"configs/{name}.py" + f":{arg}" * bool(arg)
    c.generators[name] = dict(config=file, model=dict(conditional=True))
  if not tiny:  # It needs classes to translate between, and is told no other.
    c.generators.cyclegan = dict(
      config="configs/cyclegan.py" + f":{arg}" * bool(arg)
    )
  c.runs = ""  # NAME=FOLDER of finished runs of the same data, by commas.
  c.only = ""  # Names of generators, by commas; "": all, or none beside runs.

  # Features that distances are taken in: random_filters; classifier, those of a
  # network that learns the findings of the train images; inception, the
  # literature's, for which you give pytorch-fid's file of weights.
  c.spaces = "random_filters,classifier"
  c.inception_weights = ""
  c.classifier = runpy.run_path(str(SIBLING))["get_config"](arg).lock()

  # At most so many of train reals, held-out reals and fakes each.
  c.images = 32 if tiny else 512 if quick else 1024
  c.resamples = 5 if tiny else 50 if quick else 200  # For the intervals.
  return c

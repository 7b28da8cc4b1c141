"""A small study of two toys and a GAN, on stripes."""

from jaxfake import configuration


def get_config(arg=""):
  c = configuration.load(f"{configuration.shipped()}/study.py:tiny")
  c.data.name = "toys.stripes"
  c.generators = dict(
    source=dict(task="toys.average"),
    other_seed=dict(seed=1),  # A GAN's.
    unseen=dict(task="toys.average", noise=5.0),
  )
  c.fakes = dict(detectors=60, classifiers=8)
  c.detectors = dict(cnn=dict(budget="full"))
  c.show_leaking = True
  return c

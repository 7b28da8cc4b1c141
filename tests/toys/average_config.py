"""The configuration of the family `toys.average`, on stripes."""

import ml_collections

from jaxfake import configuration


def get_config(arg=""):
  c = ml_collections.ConfigDict()
  c.task, c.seed, c.batch_size, c.total_steps = "toys.average", 0, 8, 4
  c.noise = 20.0
  c.data = configuration.load(f"{configuration.shipped()}/dcgan.py:tiny").data
  c.data.name = "toys.stripes"
  c.every = dict(log=2, preview=4, evaluate=4, checkpoint=2)
  c.tensorboard = False
  return c

"""A comparison of a toy that it trains, in one space."""

import pathlib

from jaxfake import configuration

TOY = pathlib.Path(__file__).with_name("memoriser.py")


def get_config(arg=""):
  c = configuration.load(f"{configuration.shipped()}/generators.py:tiny")
  c.generators = {"means": dict(config=str(TOY), mixed=8)}
  c.spaces = "random_filters"
  return c

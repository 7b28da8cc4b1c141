r"""Every classifier side by side, on one split, in one table.

    python -m jaxfake.main --config configs/comparison.py:quick
    python -m jaxfake.main --config configs/comparison.py \
      --config.classifier.data.name=chest_xray \
      --config.classifier.data.dir=FOLDER

`--config.only=cnn,svm` takes some of the programs. Measured: see
docs/results.md, Classifiers compared.
"""

import pathlib
import runpy

import ml_collections

SIBLING = pathlib.Path(__file__).with_name("classifier.py")


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "comparison"
  # Whose fields each row starts from: all of them are flags too.
  c.classifier = runpy.run_path(str(SIBLING))["get_config"](arg).lock()
  if not (quick or tiny):
    c.classifier.data.size = 80  # The Inceptions take images from 75.
  c.only = ""  # Names of rows, separated by commas; "" takes all.

  # What a program may use, in images (0: all), epochs and seeds. Networks that
  # would take hours on two CPU cores get the small one; with a GPU make it as
  # the full one.
  c.budgets = ml_collections.ConfigDict()
  c.budgets.full = dict(train_images=0, epochs=12.0, seeds=3)
  c.budgets.small = dict(train_images=512, epochs=2.0, seeds=1)
  if quick or tiny:
    epochs = 2.0 if tiny else 5.0
    c.budgets.full = dict(train_images=0, epochs=epochs, seeds=2)

  c.programs = ml_collections.ConfigDict()

  def add(row, budget, name=None, frozen=False, **changes):
    changes["model"] = dict(name=name or row, frozen=frozen)
    if budget == "small":  # Scoring costs them as much as training.
      changes["every"] = dict(evaluate=2.0, checkpoint=2.0)
    c.programs[row] = dict(budget=budget) | changes

  add("cnn", "full")
  if tiny:
    add("decision_tree", "full")
    return c
  for name in ("svm", "random_forest", "decision_tree", "reservoir"):
    add(name, "full")
  add("mobilenet_v2", "small")
  if quick:
    return c

  for name in ("resnet50", "resnet101", "densenet121", "densenet201", "vgg19"):
    # Without batch norm, VGG diverges at the others' rate.
    add(name, "small", opt=dict(lr=1e-4 if name == "vgg19" else 1e-3))
    frozen = f"{name}_frozen"
    add(frozen, "small", name, frozen=True, opt=dict(lr=1e-2), augment="")
  add("vgg16", "small", opt=dict(lr=1e-4))
  for name in (
    "resnet18",
    "mobilenet_v1",
    "efficientnet_b0",
    "nasnet_mobile",
    "inception_v3",
    "xception",
    "inception_resnet_v2",
  ):
    add(name, "small")
  return c

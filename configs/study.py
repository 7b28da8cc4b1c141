r"""The whole study: classifiers, deepfakes, what they do to them, detectors.

    python -m jaxfake.main --config configs/study.py:quick
    python -m jaxfake.main --config configs/study.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER

A chain of ordinary runs, each under the workdir; the same command goes on where
it was interrupted. `:quick`, on the phantom, takes 11 minutes on two cores of
an AMD EPYC (Zen 4) with nothing compiled before; `:tiny` is for tests.
"""

import pathlib
import runpy

import ml_collections


def sibling(name, arg):
  path = pathlib.Path(__file__).with_name(name)
  return runpy.run_path(str(path))["get_config"](arg).lock()


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = ml_collections.ConfigDict()
  c.task = "study"

  # Of every run; patients are split once, and so alike everywhere.
  c.data = ml_collections.ConfigDict()
  c.data.name = "phantom"  # Or chest_xray.
  c.data.dir = ""  # The folder, where the name needs one.
  c.data.size = 32 if tiny else 64  # 32, 64, 128 or 256 pixels a side.
  c.data.fit = "crop"  # Or pad, stretch.
  c.data.kernel = "bicubic"
  c.data.unreadable = "stop"  # Or skip.
  c.data.patients = ""  # A CSV file of whose images are: file, patient.
  c.data.phantom = dict(
    images=160 if tiny else 1200 if quick else 8000, seed=0, nodules=False
  )

  # What the runs start from: all of their fields are flags too.
  c.classifier = sibling("classifier.py", arg)
  c.generator = sibling("dcgan.py", arg)
  c.generator.model.conditional = True
  if tiny:  # A frame of 2 pixels would be too narrow.
    c.classifier.data.real_or_fake.frame = 1 / 8
  else:
    c.generator.total_steps = 400 if quick else 4000
    c.generator.model.width = 32

  # `source` made the fakes that detectors learn from; the others' are new to
  # them, and those of `unseen`, made by other means, are what matters. Each has
  # fields to change of c.generator, or of its own file where it names one:
  # dict(config="configs/edm.py:quick").
  c.generators = ml_collections.ConfigDict()
  c.generators.source = dict(seed=0)
  c.generators.other_seed = dict(seed=1)
  c.generators.unseen = dict(
    seed=2,
    loss="hinge",
    model=dict(upsample="resize", width=6 if tiny else 24),
  )
  c.unseen = "unseen"
  # How many are made: of each generator for the detectors, of which about 70,
  # 10 and 20 % are for train, val and test; and for the classifiers.
  c.fakes = dict(
    detectors=160 if tiny else 2000 if quick else 10000,
    classifiers=20 if tiny else 500,
  )

  # What a program may use, in images (0: all) and epochs. Networks that would
  # take hours on two CPU cores get the small one.
  c.budgets = ml_collections.ConfigDict()
  epochs = 2.0 if tiny else 6.0 if quick else 8.0
  c.budgets.full = dict(train_images=0, epochs=epochs)
  c.budgets.small = dict(train_images=1024, epochs=3.0)

  full = lambda *names: {name: dict(budget="full") for name in names}
  small = lambda *names: {name: dict(budget="small") for name in names}
  if tiny:
    classifiers = full("cnn")
    detectors = full("cnn", "decision_tree")
  elif quick:
    classifiers = full("cnn", "mobilenet_v1", "mobilenet_v2", "resnet18")
    detectors = full(
      "cnn", "svm", "random_forest", "decision_tree", "reservoir"
    )
  else:
    classifiers = full("cnn", "resnet18", "mobilenet_v2")
    classifiers |= small("densenet121")
    detectors = full(
      "cnn", "svm", "random_forest", "decision_tree", "reservoir"
    )
    detectors |= small("densenet121", "densenet201", "resnet50", "resnet101")
    # Without batch norm, VGG diverges at the others' rate.
    detectors["vgg19"] = dict(budget="small", opt=dict(lr=1e-4))
  c.classifiers = ml_collections.ConfigDict(classifiers)
  c.detectors = ml_collections.ConfigDict(detectors)

  # Detection figures even where the audit finds a leak, marked as leaking.
  c.show_leaking = False
  return c

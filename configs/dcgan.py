r"""DCGAN at 64 px (Radford et al. 2015), on the phantom unless told otherwise.

    python -m jaxfake.main --config configs/dcgan.py:quick
    python -m jaxfake.main --config configs/dcgan.py
    python -m jaxfake.main --config configs/dcgan.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER

`:quick` is for people: two minutes of training on two Zen 3 cores, 220 images a
second. `:tiny` is for tests: seconds. The whole one ran at 0.95 s a step there
while the machine was free; its 5,000 steps were not run through. What 2,000
reached on real radiographs stands in docs/results.md. launch/sweep.py ablates
it.
"""

import ml_collections


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  if arg not in ("", "quick", "tiny"):
    raise ValueError(f"variant {arg!r}: expected quick, tiny or none")
  c = ml_collections.ConfigDict()
  c.task = "gan"
  c.seed = 0
  c.batch_size = 4 if tiny else 32 if quick else 64  # Over all devices.
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.
  c.total_steps = 6 if tiny else 800 if quick else 5000

  c.data = ml_collections.ConfigDict()
  c.data.name = "phantom"  # Or chest_xray, generated.
  c.data.dir = ""  # The folder, where the name needs one.
  c.data.size = 32 if tiny else 64  # 32, 64, 128 or 256 pixels a side.
  c.data.fit = "crop"  # Or pad, stretch: how a picture becomes square.
  c.data.kernel = "bicubic"  # Pillow's, antialiased; or box, bilinear, lanczos.
  c.data.split = "official"  # The folders' own; patient: pooled, regrouped.
  c.data.unreadable = "stop"  # Or skip.
  c.data.patients = ""  # A CSV file of whose images are: file, patient.
  c.data.train_images = 0  # So many, spread evenly over the set; 0: all.
  c.data.feed = "auto"  # On the device where the set fits; or device, stream.
  c.data.phantom = dict(
    images=40 if tiny else 2000 if quick else 8000, seed=0, nodules=False
  )

  c.model = ml_collections.ConfigDict()
  c.model.name = "dcgan"
  c.model.latents = 100
  c.model.width = 4 if tiny else 32 if quick else 64  # At the largest map.
  c.model.max_width = 1024
  c.model.upsample = "transpose"  # Or resize.
  c.model.channels = 1
  c.model.conditional = False  # On the class.

  c.opt = dict(lr=2e-4, b1=0.5, b2=0.999)
  c.loss = "bce"  # Non-saturating; or hinge.
  c.augment = ""  # Of brightness,contrast,translation,cutout (DiffAugment),
  # affine,exposure,noise,flip.
  # Decay of the averaged generator, which sampling uses.
  c.ema = 0.99 if quick else 0.999

  c.eval = dict(images=32 if tiny else 512 if quick else 2048)
  c.every = dict(  # Steps.
    log=2 if tiny else 20,
    preview=3 if tiny else 200 if quick else 500,
    evaluate=3 if tiny else 400 if quick else 1000,
    checkpoint=2 if tiny else 200 if quick else 500,
  )
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for width in (16, 32, 64, 128):
    yield {"model.width": width}
  for lr in (5e-5, 1e-4, 2e-4, 4e-4):
    yield {"opt.lr": lr}
  for augment in ("", "translation,cutout", "brightness,contrast,translation"):
    yield {"augment": augment}
  yield {"augment": "brightness,contrast,translation,cutout"}
  for ema in (0.0, 0.9, 0.99, 0.999):
    yield {"ema": ema}
  for loss in ("bce", "hinge"):
    yield {"loss": loss}

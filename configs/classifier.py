r"""A classifier of chest X-rays: any network, or a classical program.

    python -m jaxfake.main --config configs/classifier.py:quick
    python -m jaxfake.main --config configs/classifier.py \
      --config.data.name=chest_xray --config.data.dir=FOLDER
    python -m jaxfake.main --config configs/classifier.py \
      --config.model.name=random_forest

The labels are whatever the data set's classes are. `:tiny` is for tests.
launch/sweep.py ablates it.
"""

import ml_collections


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  if arg not in ("", "quick", "tiny"):
    raise ValueError(f"variant {arg!r}: expected quick, tiny or none")
  c = ml_collections.ConfigDict()
  c.task = "classifier"
  c.seed = 0
  c.batch_size = 8 if tiny else 32  # Over all devices.
  c.epochs = 2.0 if tiny else 8.0 if quick else 15.0
  c.dtype = "float32"  # Of the arithmetic; or bfloat16, for GPU and TPU.

  c.data = ml_collections.ConfigDict()
  # Or chest_xray, generated, real_or_fake, many_sources, tampered.
  c.data.name = "phantom"
  c.data.dir = ""  # The folder, where the name needs one.
  c.data.size = 32 if tiny else 64 if quick else 96  # Pixels a side.
  c.data.fit = "crop"  # Or pad, stretch: how a picture becomes square.
  c.data.kernel = "bicubic"  # Pillow's, antialiased; or box, bilinear, lanczos.
  c.data.split = "patient"  # Pooled and regrouped; official: the folders' own.
  c.data.unreadable = "stop"  # Or skip.
  c.data.patients = ""  # A CSV file of whose images are: file, patient.
  c.data.train_images = 0  # So many, spread evenly over the set; 0: all.
  c.data.feed = "auto"  # On the device where the set fits; or device, stream.
  c.data.phantom = dict(
    images=160 if tiny else 1200 if quick else 8000, seed=0, nodules=False
  )

  # Of real_or_fake: the kind of the reals, which `dir` holds; a folder that
  # jaxfake.sample made; the size that images take before data.size (0: none);
  # the share of the side that a black frame covers; whether histograms are made
  # uniform.
  c.data.real_or_fake = dict(
    real="phantom", fakes="", via=0, frame=1 / 16, equalise=True
  )

  # Of many_sources, whose classes are real and fake, and whose folders `dir`
  # lists by commas: those that are test images alone, and the licences to learn
  # from ("": all; images of others are test images alone), both by commas.
  c.data.many_sources = dict(leave_out="", licences="")

  # Of tampered: the kind of the originals, which `dir` holds; methods by commas
  # ("": all); the folders of inpainters, of which learnt is one more method
  # ("": none); sizes of the altered box; the share of pictures whose noise is
  # touched up; how often a train original is altered, each time in another way;
  # the JPEG quality that all pictures take (0: none); two classes, untampered
  # and tampered, instead of three, or TB, TM, FB and FM; pixels a side of the
  # square about the region that an item is (0: the whole picture); pictures in
  # splits one by one, so that patients and pairs stand in several, to see what
  # that hides.
  c.data.tampered = dict(
    real="phantom",
    inject="",
    remove="",
    inject_model="",
    remove_model="",
    least_mm=8.0,
    most_mm=40.0,
    touch_up=0.5,
    draws=1,
    jpeg=0,
    binary=False,
    four=False,
    region=0,
    leaky=False,
    seed=0,
  )

  c.model = ml_collections.ConfigDict()
  # cnn; resnet18, 34, 50, 101, 152; densenet121, 169, 201; vgg16, 19;
  # inception_v3, xception, inception_resnet_v2; mobilenet_v1, mobilenet_v2;
  # efficientnet_b0; nasnet_mobile. Or svm, random_forest, decision_tree;
  # reservoir.
  c.model.name = "cnn"
  # A .weights.h5 or .safetensors file, or the folder of a run; else random.
  c.model.weights = ""
  c.model.frozen = False  # Only the head learns.
  # ResNet and DenseNet as PyTorch's or Keras's weights need them.
  c.model.variant = "torch"
  c.model.channels = 1  # 3 repeats the gray image, for weights that need it.
  c.model.input = "centred"  # Or imagenet, caffe: what weights were made for.
  c.model.dropout = 0.2

  # Of the networks.
  # The weights that are judged are averaged over about 1 / (1 - average) steps.
  c.opt = dict(lr=1e-3, weight_decay=1e-2, warmup=0.1, clip=1.0, average=0.99)
  c.class_weights = True  # Each class counts the same, whatever its share.
  c.label_smoothing = 0.05
  # And brightness,contrast,translation,cutout; flip, which mirrors the heart.
  c.augment = "affine,exposure,noise"

  # Of the classical programs.
  c.classical = ml_collections.ConfigDict()
  c.classical.features = "pixels,hog,spectrum"  # Any of these, and network:
  c.classical.network = "cnn"  # whose frozen features, and
  c.classical.weights = ""  # the folder of a run of it; else random.
  # Gamma in units of 1 / features.
  c.classical.svm = dict(c=3.0, gamma=1.0)
  c.classical.random_forest = dict(trees=30 if tiny else 300, leaf=2)
  c.classical.decision_tree = dict(depth=10, leaf=10)

  # Of the convolutional reservoir: a bank of filters for each kernel, pooled
  # to map x map; two reservoirs of so many units read each.
  c.reservoir = dict(
    kernels=(3, 5, 7, 9),
    strides=(2, 2, 2, 2),
    width=4 if tiny else 16,
    map=8 if tiny else 16,
    units=30 if tiny else 300,
    leak=0.1,
    radius=0.9,  # Spectral.
    density=0.1,
    gain=1.0,
    bias=0.1,
  )

  c.every = dict(log=0.1, preview=1.0, evaluate=1.0, checkpoint=1.0)  # Epochs.
  c.tensorboard = False  # Needs the extra of that name.
  return c


def sweep():
  yield {}
  for name in ("cnn", "resnet18", "mobilenet_v2", "densenet121", "svm"):
    yield {"model.name": name}
  for augment in ("", "affine", "exposure", "noise", "affine,exposure,noise"):
    yield {"augment": augment}
  # With model.weights, and model.name as they need it; else a random network's
  # head alone learns.
  yield {"model.frozen": True, "opt.lr": 1e-2}
  for size in (64, 96, 128):
    yield {"data.size": size}

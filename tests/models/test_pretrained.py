"""Weights of Keras and of PyTorch come through files whole, or are refused.

That the names are right is shown by logits: here against Keras, in
test_models_torch.py against PyTorch.
"""

import functools
import hashlib
import pathlib
import pickle
import re

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxfake import errors, models
from jaxfake.models.weights import pretrained, weights_names

CLASSES = 4


@functools.cache
def shapes_of(name, channels=3):
  network = models.MODELS[name](num_classes=CLASSES)
  x = jnp.zeros((1, network.smallest, network.smallest, channels))
  init = functools.partial(network.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), x)


def zeros(name, channels=3):
  shapes = shapes_of(name, channels)
  return jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)


def random(name, channels=3):
  rng = np.random.default_rng(0)
  draw = lambda x: rng.random(x.shape, np.float32) / 10
  return jax.tree.map(draw, shapes_of(name, channels))


def merged(variables):
  layers = {}
  for collection in variables.values():
    for layer, leaves in collection.items():
      layers.setdefault(layer, {}).update(leaves)
  return layers


def torch_tensors(name, variables):
  """A state_dict in NumPy, with PyTorch's order of axes."""
  layers, tensors = merged(variables), {}
  family = name.rstrip("0123456789")
  for layer, (module, *_) in weights_names.TORCH[family](layers).items():
    for leaf, x in layers[layer].items():
      suffix = {"mean": "running_mean", "var": "running_var", "bias": "bias"}
      x = x.transpose((3, 2, 0, 1) if x.ndim == 4 else range(x.ndim)[::-1])
      full_name = f"{module}.{suffix.get(leaf, 'weight')}"
      tensors[full_name] = np.ascontiguousarray(x)
  return tensors


def keras_lists(variables):
  """{layer: its arrays in Keras's order}."""
  order = ("kernel", "scale", "bias", "mean", "var")
  return {
    layer: [leaves[leaf] for leaf in order if leaf in leaves]
    for layer, leaves in merged(variables).items()
  }


def save_keras3(path, layers):
  with h5py.File(path, "w") as file:
    for i, (layer, arrays) in enumerate(layers.items()):
      group = file.create_group(f"layers/some_{i}/vars")
      group.attrs["name"] = layer
      for j, x in enumerate(arrays):
        group[str(j)] = x


def save_keras2(path, layers, root="/"):
  with h5py.File(path, "w") as file:
    root = file.require_group(root)
    names = [layer.encode() for layer in layers]
    half = len(names) // 2  # As Keras splits what is long for HDF5.
    root.attrs["layer_names0"], root.attrs["layer_names1"] = (
      names[:half],
      names[half:],
    )
    for layer, arrays in layers.items():
      group = root.create_group(layer)
      weights = [f"{layer}/v{i}:0" for i in range(len(arrays))]
      group.attrs["weight_names"] = [x.encode() for x in weights]
      for weight, x in zip(weights, arrays, strict=True):
        group[weight] = x


def require_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def resnet18():
  """Variables, and the same as PyTorch's tensors."""
  variables = random("resnet18")
  return variables, torch_tensors("resnet18", variables)


@pytest.fixture
def torch_path(tmp_path):
  return tmp_path / "some.safetensors"


@pytest.fixture
def keras_path(tmp_path):
  return tmp_path / "some.weights.h5"


# Keras itself.


def randomise(model):
  """Gives a Keras model weights that keep activations near one."""
  rng = np.random.default_rng(0)
  for weight in model.weights:
    shape, kind = weight.shape, weight.path.rsplit("/", 1)[-1]
    if "kernel" in kind:
      depthwise = "depthwise" in kind
      fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
      value = rng.random(shape, np.float32) - np.float32(0.5)
      value *= np.sqrt(24 / fan_in, dtype=np.float32)
    elif kind in ("gamma", "moving_variance"):
      value = rng.uniform(0.5, 1.5, shape)
    else:
      value = rng.normal(0, 0.1, shape)
    weight.assign(value)


def keras_file(function, size, path):
  """A Keras model, and its weights in a file; skips without Keras."""
  oracle = pytest.importorskip("keras_oracle", reason="Keras is missing")
  model = getattr(oracle.keras.applications, function)(
    weights=None,
    classes=CLASSES,
    input_shape=(size, size, 3),
    classifier_activation=None,
  )
  randomise(model)
  model.save_weights(path)
  return model


def test_a_file_of_keras_gives_its_logits(keras_path):
  """The original ResNet, whose convolutions have biases."""
  model = keras_file("ResNet50", 33, keras_path)
  variables, report = pretrained.load(keras_path, "resnet50", zeros("resnet50"))
  assert "53 biases moved" in report and "stride_in=1" in report
  network = models.MODELS["resnet50"](
    num_classes=CLASSES, **pretrained.options(keras_path, "resnet50")
  )
  x = np.random.default_rng(1).standard_normal((2, 33, 33, 3), np.float32)
  ours = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)
  theirs = np.asarray(model(x, training=False))
  assert np.abs(theirs[0] - theirs[1]).max() > 1e-3 * np.abs(theirs).max()
  tolerance = 1e-4 * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_separable_and_numbered_layers_of_keras(keras_path):
  model = keras_file("Xception", 75, keras_path)
  variables, _ = pretrained.load(keras_path, "xception", zeros("xception"))
  params, statistics = variables["params"], variables["batch_stats"]
  depthwise, pointwise = model.get_layer("block2_sepconv1").get_weights()
  ours = params["block2_sepconv1_depthwise"]["kernel"]
  np.testing.assert_array_equal(ours, depthwise.swapaxes(2, 3))
  ours = params["block2_sepconv1_pointwise"]["kernel"]
  np.testing.assert_array_equal(ours, pointwise)
  numbered = {"conv2d": [], "batch_normalization": []}
  for layer in model.layers:  # By depth, which is their order here.
    for stem, found in numbered.items():
      if layer.name.startswith(stem):
        found.append(layer.get_weights())
  for i, block in enumerate((2, 3, 4, 13)):
    kernel = params[f"block{block}_residual"]["kernel"]
    np.testing.assert_array_equal(kernel, numbered["conv2d"][i][0])
    mean = statistics[f"block{block}_residual_bn"]["mean"]
    np.testing.assert_array_equal(mean, numbered["batch_normalization"][i][2])


# What is adapted.


def test_every_tensor_arrives_and_the_report_says_so(resnet18, torch_path):
  variables, tensors = resnet18
  save_file({**tensors, "bn1.num_batches_tracked": np.int64([3])}, torch_path)
  before = zeros("resnet18")
  loaded, report = pretrained.load(torch_path, "resnet18", before)
  require_same(loaded, variables)
  require_same(before, zeros("resnet18"))
  sha = hashlib.sha256(torch_path.read_bytes()).hexdigest()
  assert report.splitlines() == [
    f"{torch_path}: 102 tensors of PyTorch's resnet18",
    f"sha256 {sha}",
  ]
  assert pretrained.options(torch_path, "resnet18") == {}


def test_gray_images_give_what_their_colour_copies_give(resnet18, torch_path):
  save_file(resnet18[1], torch_path)
  colour, _ = pretrained.load(torch_path, "resnet18", zeros("resnet18"))
  gray, report = pretrained.load(torch_path, "resnet18", zeros("resnet18", 1))
  assert "first kernel: summed over three channels" in report
  x = np.random.default_rng(0).standard_normal((1, 40, 40, 1), np.float32)
  network = models.MODELS["resnet18"](num_classes=CLASSES)
  logits = jax.jit(lambda v, x: network.apply(v, x, train=False))
  expected = logits(colour, x.repeat(3, 3))
  np.testing.assert_allclose(logits(gray, x), expected, rtol=1e-5)

  save_file(torch_tensors("resnet18", gray), torch_path)
  again, report = pretrained.load(torch_path, "resnet18", zeros("resnet18"))
  assert "first kernel: its one channel repeated" in report
  np.testing.assert_allclose(logits(again, x.repeat(3, 3)), expected, rtol=1e-5)


@pytest.mark.parametrize("classes", [0, 7])
def test_another_head_is_left_out(resnet18, classes, torch_path):
  variables, tensors = resnet18
  tensors = {k: x for k, x in tensors.items() if not k.startswith("fc.")}
  if classes:
    tensors["fc.weight"] = np.ones((classes, 512), np.float32)
    tensors["fc.bias"] = np.ones(classes, np.float32)
  save_file(tensors, torch_path)
  fresh = zeros("resnet18")
  fresh["params"]["head"]["bias"] += 5
  loaded, report = pretrained.load(torch_path, "resnet18", fresh)
  require_same(loaded["params"]["head"], fresh["params"]["head"])
  require_same(loaded["batch_stats"], variables["batch_stats"])
  text = "4 classes; the file has 7" if classes else "for the file has none"
  assert "100 tensors" in report and f"head: fresh, {text}" in report


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(resnet18, dtype, torch_path):
  variables, tensors = resnet18
  save_file({k: x.astype(dtype) for k, x in tensors.items()}, torch_path)
  loaded, _ = pretrained.load(torch_path, "resnet18", zeros("resnet18"))
  rounded = lambda x: x.astype(dtype).astype(np.float32)
  require_same(loaded, jax.tree.map(rounded, variables))
  assert {x.dtype for x in jax.tree.leaves(loaded)} == {np.dtype("float32")}


@pytest.mark.parametrize("root", ["/", "model_weights"])
def test_files_of_keras_2(root, resnet18, keras_path):
  layers = keras_lists(resnet18[0])
  layers["fc1000"] = layers.pop("head")
  save_keras2(keras_path, {**layers, "conv1_relu": []}, root)
  loaded, report = pretrained.load(keras_path, "resnet18", zeros("resnet18"))
  require_same(loaded, resnet18[0])
  assert "102 tensors of Keras's resnet18" in report


def test_options_make_the_network_of_the_file(keras_path, torch_path):
  for path in (keras_path, torch_path):
    path.touch()
  options = pretrained.options
  assert options(keras_path, "resnet50") == dict(stride_in=1, epsilon=1.001e-5)
  assert options(keras_path, "densenet201") == dict(epsilon=1.001e-5)
  assert options(keras_path, "vgg16") == options(torch_path, "resnet50") == {}


def test_numbered_layers_go_by_number(keras_path):
  """Neither by the order in the file, nor by letters: 9 comes before 10."""
  variables = random("xception")
  layers = keras_lists(variables)
  numbered = {"predictions": layers.pop("head")}
  for i, block in enumerate((2, 3, 4, 13)):
    conv, norm = f"block{block}_residual", f"block{block}_residual_bn"
    numbered[f"conv2d_{8 + i}"] = layers.pop(conv)
    numbered[f"batch_normalization_{98 + i}"] = layers.pop(norm)
  for layer in list(layers):
    if layer.endswith("_depthwise"):
      depthwise = layers.pop(layer)[0].swapaxes(2, 3)
      layer = layer.removesuffix("_depthwise")
      layers[layer] = [depthwise, *layers.pop(f"{layer}_pointwise")]
  save_keras3(keras_path, dict(sorted({**numbered, **layers}.items())))
  loaded, _ = pretrained.load(keras_path, "xception", zeros("xception"))
  require_same(loaded, variables)


def test_depthwise_kernels_and_keras_own_scaling(keras_path):
  variables = random("efficientnet_b0")
  layers = keras_lists(variables)
  for layer in layers:
    if layer.endswith("_dwconv"):  # (kh, kw, c, 1) in Keras.
      layers[layer][0] = layers[layer][0].swapaxes(2, 3)
  layers["normalization"] = [np.zeros(3, "f4"), np.ones(3, "f4"), np.int32(0)]
  save_keras3(keras_path, layers)
  loaded, report = pretrained.load(
    keras_path, "efficientnet_b0", zeros("efficientnet_b0")
  )
  require_same(loaded, variables)
  assert "normalization: left out" in report


# What is refused.


def drop(name):
  return lambda tensors: tensors.pop(name)


def put(name, shape=None, fill=1.0, dtype=np.float32):
  def edit(tensors):
    tensors[name] = np.full(shape or tensors[name].shape, fill, dtype)

  return edit


def prefix(tensors):
  for name in list(tensors):
    tensors[f"module.{name}"] = tensors.pop(name)


REFUSED = {
  "missing": (
    drop("layer1.0.conv1.weight"),
    r"1 missing: conv2_block1_1_conv/kernel \(3, 3, 64, 64\)",
  ),
  "superfluous": (
    put("layer5.0.conv1.weight", (1, 2)),
    r"1 superfluous: layer5.0.conv1.weight \(1, 2\)",
  ),
  "both names": (prefix, r"100 missing: .* 102 superfluous: module\."),
  "shape": (
    put("layer1.0.conv1.weight", (64, 64, 5, 5)),
    r"conv1.weight is \(64, 64, 5, 5\), expected \(64, 64, 3, 3\)",
  ),
  "same size": (
    put("layer2.0.conv1.weight", (64, 128, 3, 3)),
    r"is \(64, 128, 3, 3\), expected \(128, 64, 3, 3\)",
  ),
  "a norm's shape": (
    put("bn1.weight", (63,)),
    r"bn1.weight is \(63,\), expected \(64,\)",
  ),
  "channels": (
    put("conv1.weight", (64, 2, 7, 7)),
    r"conv1.weight is \(64, 2, 7, 7\), expected \(64, 3, 7, 7\)",
  ),
  "the head's depth": (
    put("fc.weight", (4, 100)),
    r"fc.weight is \(4, 100\), expected \(4, 512\)",
  ),
  "half a head": (drop("fc.bias"), "1 missing: head/bias"),
  "nan": (put("bn1.bias", fill=np.nan), "1 broken: bn1.bias is not finite"),
  "overflow": (
    put("bn1.bias", fill=1e300, dtype=np.float64),
    "bn1.bias is not finite",
  ),
  "variance": (put("bn1.running_var", fill=-1), "bn1.running_var has negative"),
  "integers": (
    put("bn1.bias", dtype=np.int32),
    "bn1.bias is not of floating-point",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tensors_of_another_network_are_refused(case, resnet18, torch_path):
  edit, message = REFUSED[case]
  tensors = dict(resnet18[1])
  edit(tensors)
  save_file(tensors, torch_path)
  with pytest.raises(errors.DataError, match=message) as error:
    pretrained.load(torch_path, "resnet18", zeros("resnet18"))
  assert str(torch_path) in str(error.value)


def test_only_the_first_kernel_takes_other_channels(keras_path):
  layers = keras_lists(zeros("mobilenet_v1"))
  layers["conv_dw_1"] = [np.zeros((3, 3, 3, 32), np.float32)]
  save_keras3(keras_path, layers)
  with pytest.raises(errors.DataError, match="conv_dw_1/vars/0 is"):
    pretrained.load(keras_path, "mobilenet_v1", zeros("mobilenet_v1"))


def test_numbered_layers_too_few_are_refused(keras_path):
  layers = keras_lists(zeros("xception"))
  layers.pop("block2_residual")
  for i, block in enumerate((3, 4, 13)):
    layers[f"conv2d_{i}"] = layers.pop(f"block{block}_residual")
  save_keras3(keras_path, layers)
  message = "4 missing: .* 3 superfluous: conv2d_0/vars/0"
  with pytest.raises(errors.DataError, match=message):
    pretrained.load(keras_path, "xception", zeros("xception"))


@pytest.mark.parametrize(
  "file, message",
  [
    ("a.pt", "safetensors.torch.save_file"),
    ("a.pth", "safetensors.torch.save_file"),
    ("a.bin", "safetensors.torch.save_file"),
    ("a.npz", "safetensors.numpy.save_file"),
    ("a.keras", "save_weights"),
    ("a.txt", "neither"),
    ("a.safetensors", "cannot be read"),
    ("a.weights.h5", "cannot be read"),
  ],
)
def test_pickles_are_refused_and_never_run(file, message, tmp_path):
  path, trap = tmp_path / file, tmp_path / "it ran"

  class Evil:
    def __reduce__(self):
      return pathlib.Path.touch, (trap,)

  for content in (pickle.dumps(Evil()), b""):
    path.write_bytes(content)
    with pytest.raises(errors.DataError, match=message) as error:
      pretrained.load(path, "resnet18", zeros("resnet18"))
    assert str(path) in str(error.value) and not trap.exists()


def test_no_file(tmp_path):
  for path in (tmp_path, tmp_path / "none.safetensors"):
    with pytest.raises(errors.DataError, match=f"{path} is not a file"):
      pretrained.load(path, "resnet18", zeros("resnet18"))


def test_a_cut_file_is_refused(resnet18, torch_path, keras_path):
  save_file(resnet18[1], torch_path)
  save_keras3(keras_path, keras_lists(resnet18[0]))
  for path in (torch_path, keras_path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(errors.DataError, match=f"{path} cannot be read"):
      pretrained.load(path, "resnet18", zeros("resnet18"))


def test_safetensors_are_for_networks_with_pytorchs_names(torch_path):
  save_file({}, torch_path)
  with pytest.raises(errors.DataError, match="resnet, densenet, vgg"):
    pretrained.load(torch_path, "xception", zeros("xception"))


def external_link(group, path):
  with h5py.File(path, "w") as other:
    other["0"] = np.zeros((7, 7, 3, 64), np.float32)
  group["0"] = h5py.ExternalLink(path, "0")


def soft_link(group, path):
  group["0"] = h5py.SoftLink("/layers")


def external_storage(group, path):
  pathlib.Path(path).write_bytes(b"secret" * 10_000)
  group.create_dataset(
    "0", (7, 7, 3, 64), "f4", external=[(path, 0, 7 * 7 * 3 * 64 * 4)]
  )


def virtual(group, path):
  layout = h5py.VirtualLayout((7, 7, 3, 64), "f4")
  layout[:] = h5py.VirtualSource(path, "0", (7, 7, 3, 64))
  group.create_virtual_dataset("0", layout)


def packed(group, path):
  zeros = np.zeros((7, 7, 3, 64), np.float32)
  group.create_dataset("0", data=zeros, compression="gzip")


def huge(group, path):
  group.create_dataset("0", (10**6, 10**6, 3, 64), "f4")  # 768 TB, unwritten.


def group_for_array(group, path):
  group.create_group("0")


def empty(group, path):
  group["0"] = h5py.Empty("f4")


def text(group, path):
  group["0"] = "weights"


def nameless(group, path):
  del group.attrs["name"]
  group["0"] = np.zeros((7, 7, 3, 64), np.float32)


def name_twice(group, path):
  group.attrs["name"] = "conv1_bn"
  group["0"] = np.zeros((7, 7, 3, 64), np.float32)


def nested(group, path):
  group["0"] = np.zeros((7, 7, 3, 64), np.float32)
  group.parent.create_group("layers")


def wrong_numbers(group, path):
  group["7"] = np.zeros((7, 7, 3, 64), np.float32)


@pytest.mark.parametrize(
  "make, message",
  [
    (external_link, "is a link"),
    (soft_link, "is a link"),
    (external_storage, "in another file"),
    (virtual, "in another file"),
    (packed, "h5repack"),
    (huge, r"is \(1000000, 1000000, 3, 64\), expected \(7, 7, 3, 64\)"),
    (group_for_array, "is not an array"),
    (empty, "is not an array"),
    (text, "not of floating-point"),
    (nameless, "has the layer name None"),
    (name_twice, "has the layer name 'conv1_bn'"),
    (nested, "a model within the model"),
    (wrong_numbers, "0 is missing"),
  ],
)
def test_hostile_hdf5_is_refused(make, message, resnet18, keras_path, tmp_path):
  layers = keras_lists(resnet18[0])
  layers["conv1_conv"] = []
  layers = dict(sorted(layers.items()))
  save_keras3(keras_path, layers)
  with h5py.File(keras_path, "a") as file:
    place = f"layers/some_{list(layers).index('conv1_conv')}/vars"
    make(file[place], str(tmp_path / "other.h5"))
  with pytest.raises(errors.DataError, match=message) as error:
    pretrained.load(keras_path, "resnet18", zeros("resnet18"))
  assert re.match(re.escape(str(keras_path)), str(error.value))


def test_keras_2_without_its_lists_is_refused(keras_path):
  with h5py.File(keras_path, "w") as file:
    file["x"] = 1
  with pytest.raises(errors.DataError, match="nor layer_names"):
    pretrained.load(keras_path, "resnet18", zeros("resnet18"))

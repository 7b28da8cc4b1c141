"""What is compared: a case is data, from which either side makes its program.

Both sides do the same convolutions of the same number of images at the same
precision, and end with the same things updated. Operations are counted as these
are defined, of which either may need fewer. What is given to both:

- gan_train: the GAN's step as jaxfake.main runs it: one generator pass for both
  updates, the discriminator's on real and fake, its update, another pass for
  the generator's; Adam, the averaged generator, gradient norms.
- wgan_gp_train: one generator pass for the fakes of the critic's five updates,
  each with its gradient penalty on a fifth of the batch; another for the
  generator's update. Else as gan_train.
- stylegan2_train: as gan_train, with R1 at one step in 16.
- edm_train: a diffusion model's step: noise, dropout, the weighted error, Adam
  on a warm-up, the averaged network, the gradient's norm.
- train: the classifier's step as jaxfake.main runs it: label smoothing,
  dropout, clipping, AdamW on a warm-up and cosine with decay of kernels alone,
  averaged weights. Without augmentation, which PyTorch's users leave to their
  loader.
- score, gan_sample: uint8 images to logits; latents to uint8 images, in NumPy.
- edm_sample: noise to uint8 images, by 18 steps of Heun's method.
- input: JPEG files to shuffled uint8 batches of another size, nothing kept
  from one epoch to the next.
- detect: files to probabilities, as jaxfake.detect reads, canonicalises and
  scores them.

Images of the training and scoring cases lie on the device before the clock
starts; our training steps gather their shuffled batches from them, a batch of
PyTorch's is ready.
"""

from typing import Any, NamedTuple

from jaxfake import contracts

# The configuration of each family of generators.
FILES = {
  "gan": "dcgan.py",
  "wgan_gp": "wgan_gp.py",
  "stylegan2": "stylegan2.py",
  "edm": "edm.py",
}
# Steps after which a kind's work repeats: turns are of whole ones.
CYCLE = {"stylegan2_train": 16}


class Case(NamedTuple):
  """Sizes of one case; `cpu` and `gpu` are batch sizes."""

  kind: str
  model: str
  size: int  # Pixels a side.
  cpu: int
  gpu: int
  channels: int = 1
  classes: int = 2
  dropout: float = 0.0
  width: int = 64  # Of a generator, at its largest map.

  @property
  def family(self) -> str | None:
    """Of generators; None for other cases."""
    family = self.kind.rpartition("_")[0]
    return family if family in FILES else None

  def batch(self, platform: str) -> int:
    return self.cpu if platform == "cpu" else self.gpu

  def precision(self, platform: str) -> str:
    """Of the arithmetic; parameters are float32."""
    if self.kind == "input":
      return "uint8"
    if platform == "cpu":
      return "float32"
    return "tf32" if self.family else "bfloat16"


def published(kind: str, model: str, cpu: int, gpu: int, **more: Any) -> Case:
  """A network as it was published, for ImageNet."""
  return Case(kind, model, 224, cpu, gpu, channels=3, classes=1000, **more)


CASES = {
  "dcgan64_train": Case("gan_train", "dcgan", 64, 64, 128),
  "dcgan64_sample": Case("gan_sample", "dcgan", 64, 64, 256),
  "dcgan128_train": Case("gan_train", "dcgan", 128, 16, 128),
  # A batch is five of the critic's.
  "wgan_gp64_train": Case("wgan_gp_train", "wgan", 64, 80, 320),
  "stylegan2_64_train": Case(
    "stylegan2_train", "stylegan2", 64, 8, 32, width=32
  ),
  "edm64_train": Case("edm_train", "unet", 64, 8, 128, dropout=0.1),
  "edm64_sample": Case("edm_sample", "unet", 64, 2, 128, dropout=0.1),
  "cnn_train": Case("train", "cnn", 96, 32, 256, dropout=0.2),
  "resnet50_train": published("train", "resnet50", 16, 256),
  "resnet50_score": published("score", "resnet50", 16, 256),
  "densenet121_train": published("train", "densenet121", 16, 128),
  "vgg16_train": published("train", "vgg16", 8, 128, dropout=0.5),
  "mobilenet_v2_train": published(
    "train", "mobilenet_v2", 16, 256, dropout=0.2
  ),
  "input_pipeline": Case("input", "", 128, 64, 128),
  "detect_folder": Case("detect", "cnn", 96, 32, 32, dropout=0.2),
}


def config(case: Case, platform: str, **changes: Any) -> contracts.Config:
  """The configuration that a user has for the case."""
  from jaxfake import configuration  # The command itself parses nothing of it.

  changes |= {"data.size": case.size, "batch_size": case.batch(platform)}
  if case.model:
    changes["model.channels"] = case.channels
  if case.family:
    changes["model.width"] = case.width
  elif case.model:
    changes["model.name"] = case.model
  if case.family != "edm":
    changes["augment"] = ""
  if case.family in (None, "edm"):
    changes["model.dropout"] = case.dropout
  if case.precision(platform) == "bfloat16":
    changes["dtype"] = "bfloat16"
  flags = [f"--config.{k}={v}" for k, v in changes.items()]
  file = FILES.get(case.family or "", "classifier.py")
  config = f"--config={configuration.shipped() / file}"
  return configuration.parse(["", config, *flags])[0]


def tiny(case: Case) -> Case:
  """The same in seconds, for tests: its figures mean nothing."""
  n = 10 if case.family == "wgan_gp" else 4
  width = 16 if case.family == "edm" else 4
  return case._replace(size=32, cpu=n, gpu=n, classes=2, width=width)

"""Networks: pure Linen, arrays in, arrays out; no loss, no optimiser."""

from jaxfake.models import (
  cnn,
  densenet,
  efficientnet,
  inception_resnet_v2,
  inception_v3,
  mobilenet_v1,
  mobilenet_v2,
  nasnet,
  resnet,
  vgg,
  xception,
)

# Classifiers: MODELS[name](num_classes=n). One line for each family.
MODELS = {
  "cnn": cnn.CNN,
  "resnet18": resnet.ResNet18,
  "resnet34": resnet.ResNet34,
  "resnet50": resnet.ResNet50,
  "resnet101": resnet.ResNet101,
  "resnet152": resnet.ResNet152,
  "densenet121": densenet.DenseNet121,
  "densenet169": densenet.DenseNet169,
  "densenet201": densenet.DenseNet201,
  "vgg16": vgg.VGG16,
  "vgg19": vgg.VGG19,
  "mobilenet_v1": mobilenet_v1.MobileNetV1,
  "mobilenet_v2": mobilenet_v2.MobileNetV2,
  "efficientnet_b0": efficientnet.EfficientNetB0,
  "xception": xception.Xception,
  "inception_v3": inception_v3.InceptionV3,
  "inception_resnet_v2": inception_resnet_v2.InceptionResNetV2,
  "nasnet_mobile": nasnet.NASNetMobile,
}


def smallest(name: str) -> int:
  """Pixels a side of the smallest images that MODELS[name] takes."""
  network = MODELS[name]
  return getattr(network, "func", network).smallest

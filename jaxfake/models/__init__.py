"""Networks: pure Linen, arrays in, arrays out; no loss, no optimiser."""

from jaxfake.models import cnn

# Classifiers: MODELS[name](num_classes=n). One line for each family.
MODELS = {
  "cnn": cnn.CNN,
}

"""BatchNorm: folded into the convolution before it, or an op of its own."""

from typing import Any

from experiments.quantization.keras3.kind import Kind, Role, compute_plain, register
from experiments.system.tensorflow import keras_3

layers = keras_3().layers


def _obstacle(layer: Any) -> str | None:
    if layer.axis not in (-1, layer.input_spec.ndim - 1):
        return "BatchNormalization along another axis than the last"
    return None


def _role(layer: Any) -> Role | None:
    return "batchnorm" if _obstacle(layer) is None else None


register(Kind(compute_plain, _obstacle, _role), layers.BatchNormalization)

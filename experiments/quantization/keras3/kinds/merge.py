"""Layers that take several values."""

from experiments.quantization.keras3.kind import Kind, compute_plain, register
from experiments.system.tensorflow import keras_3

layers = keras_3().layers

register(Kind(compute_plain, fuses=frozenset({"relu"})), layers.Add)
register(Kind(compute_plain), layers.Concatenate)

"""Layers that average values, and those that hand them on."""

from experiments.quantization.keras3.kind import PASSING, Kind, compute_plain, register
from experiments.system.tensorflow import keras_3

layers = keras_3().layers

# Dropout is among them for another reason: it scales while training, so the range must be learned before it.
register(
    PASSING,
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D,
    layers.ActivityRegularization, layers.Identity,
    layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector,
    layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D,
    layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D, layers.Cropping2D,
)  # fmt: skip
register(Kind(compute_plain), layers.GlobalAveragePooling2D, layers.AveragePooling2D)

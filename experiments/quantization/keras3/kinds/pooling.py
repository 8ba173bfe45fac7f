"""Layers that average values, and those that pass them on."""

from typing import Any

from experiments.quantization.keras3.kind import PASSING, Kind, register
from experiments.quantization.keras3.wrapper import Run, compute_plain
from experiments.quantization.survey import PASSING_LAYERS
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any


def _scale_kept(run: Run, inputs: Tensor) -> Tensor:
    """Return the layer's outputs, which have the scale of its inputs: TFLite's op cannot change the scale."""
    return run.in_range_of_inputs(run.inner(inputs))


def _upsampling(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    if layer.interpolation == "bilinear":
        return _scale_kept(run, inputs)
    size = [side * factor for side, factor in zip(inputs.shape[1:3], layer.size, strict=True)]
    return tf.compat.v1.image.resize_nearest_neighbor(inputs, size)


def _upsampling_obstacle(layer: Any) -> str | None:
    if layer.data_format != "channels_last":
        return "UpSampling2D with channels first; TFLite requires channels last"
    if layer.interpolation not in ("nearest", "bilinear"):
        return f"UpSampling2D with {layer.interpolation} interpolation; supported: nearest, bilinear"
    return None


def _upsampling_1d(run: Run, inputs: Tensor) -> Tensor:
    size = (1, inputs.shape[1] * run.layer.size)
    return tf.squeeze(tf.compat.v1.image.resize_nearest_neighbor(tf.expand_dims(inputs, 1), size), 1)


register(PASSING, *(getattr(layers, name) for name in PASSING_LAYERS))
register(  # further ones, which TFMOT does not support
    PASSING,
    layers.SpatialDropout1D, layers.SpatialDropout3D, layers.GaussianNoise, layers.GaussianDropout,
    layers.AlphaDropout, layers.ActivityRegularization, layers.Identity, layers.RepeatVector, layers.MaxPooling1D,
    layers.GlobalMaxPooling1D, layers.ZeroPadding1D, layers.Cropping1D,
)  # fmt: skip
register(Kind(compute_plain), layers.GlobalAveragePooling2D, layers.GlobalAveragePooling1D)
register(Kind(_scale_kept, keeps_scale=True), layers.AveragePooling2D, layers.AveragePooling1D)
register(Kind(_upsampling, _upsampling_obstacle, keeps_scale=True), layers.UpSampling2D)
register(Kind(_upsampling_1d, keeps_scale=True), layers.UpSampling1D)

"""Layers that scale and shift each channel: BatchNorm, unless it is folded, and what adapts the input of a model."""

from typing import Any

import numpy as np

from experiments.quantization.keras3.kind import Kind, Role, register
from experiments.quantization.keras3.wrapper import Run, batchnorm_as_affine
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any


def _batchnorm_obstacle(layer: Any) -> str | None:
    if layer.axis not in (-1, layer.input_spec.ndim - 1):
        return "BatchNormalization along another axis than the last"
    if layer.renorm:
        return "BatchNormalization with renormalization"
    return _rank_obstacle(layer, layer.input_spec.ndim)


def _rank_obstacle(layer: Any, axes: int) -> str | None:
    return None if axes in (2, 3, 4) else f"{type(layer).__name__} of values with {axes} axes; supported: 2 to 4"


def _role(layer: Any) -> Role | None:
    return "batchnorm" if _batchnorm_obstacle(layer) is None else None


def _batchnorm(run: Run, inputs: Tensor, **kwargs: Any) -> Tensor:
    if run.training or run.wrapper.folded == "by the converter":
        return run.output(run.inner(inputs, **kwargs))
    if run.wrapper.folded == "before":
        return run.output(inputs)
    return run.output(_scaled(run, inputs, *batchnorm_as_affine(run.layer)))


def _scaled(run: Run, inputs: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    """Values times a factor, plus an offset, for each channel: a depthwise convolution of kernels of one weight.

    TFLite's MUL and ADD take one scale for all channels; this one has a scale for each, so that no factor is rounded,
    and offsets in 32 bits.
    """
    channels = inputs.shape[-1]
    flat = tf.reshape(tf.broadcast_to(factors, (channels,)), (1, 1, 1, channels))
    kernel = tf.reshape(run.weight(flat, axis=-1), (1, 1, channels, 1))
    offsets = tf.broadcast_to(offsets, (channels,))
    match len(inputs.shape):
        case 2:
            images = tf.reshape(inputs, (-1, 1, 1, channels))
            return tf.reshape(tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID") + offsets, (-1, channels))
        case 3:
            lines = tf.nn.depthwise_conv2d(tf.expand_dims(inputs, 1), kernel, (1, 1, 1, 1), "VALID") + offsets
            return tf.squeeze(lines, 1)
        case _:
            return tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "VALID") + offsets


def _rescaling(run: Run, inputs: Tensor) -> Tensor:
    factors, offsets = (
        np.array(np.broadcast_to(np.asarray(each, np.float32), inputs.shape[-1:]))
        for each in (run.layer.scale, run.layer.offset)
    )
    # Of an offset that is the same for all channels the converter takes the scale of the first channel for all.
    offsets[-1] = np.nextafter(offsets[-1], np.float32(np.inf))
    return run.output(_scaled(run, inputs, tf.constant(factors), tf.constant(offsets)))


def _rescaling_obstacle(layer: Any) -> str | None:
    if max(np.ndim(layer.scale), np.ndim(layer.offset)) > 1:
        return "Rescaling by other than one factor, or one for each channel"
    return None


def _normalization(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    deviation = tf.maximum(tf.sqrt(tf.reshape(layer.variance, (-1,))), keras_3().backend.epsilon())
    return run.output(_scaled(run, inputs, 1 / deviation, -tf.reshape(layer.mean, (-1,)) / deviation))


def _normalization_obstacle(layer: Any) -> str | None:
    if layer.invert or layer.mean is None:
        return "Normalization that is inverted, or not adapted"
    axes = len(layer.mean.shape)
    if layer.axis not in ((), (-1,), (axes - 1,)):
        return "Normalization along another axis than the last"
    return _rank_obstacle(layer, axes) if layer.axis else None


register(Kind(_batchnorm, _batchnorm_obstacle, _role, fuses=frozenset({"relu"})), layers.BatchNormalization)
register(Kind(_rescaling, _rescaling_obstacle), layers.Rescaling)
register(Kind(_normalization, _normalization_obstacle), layers.Normalization)

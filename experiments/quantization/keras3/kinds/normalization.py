"""Layers that scale and shift each channel: unfolded BatchNorm, Rescaling and Normalization."""

from functools import partial
from typing import Any

import numpy as np

from experiments.quantization.keras3.kind import Kind, Role, Scaling, register
from experiments.quantization.keras3.wrapper import Run, batchnorm_as_affine
from experiments.quantization.scaling import scaled
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
    return scaled(inputs, factors, offsets, partial(run.weight, axis=-1))


def _scaling(run: Run, inputs: Tensor) -> Tensor:
    if run.wrapper.folded == "behind":
        return inputs
    scales = run.wrapper.kind.scales
    assert scales is not None
    factors, offsets = scales(run.layer)
    return run.output(_scaled(run, inputs, factors, 0.0 if offsets is None else offsets))


def _rescaling(layer: Any) -> Scaling:
    factors, offsets = (np.asarray(each, np.float32) for each in (layer.scale, layer.offset))
    return Scaling(factors, offsets if np.any(offsets) else None)


def _rescaling_obstacle(layer: Any) -> str | None:
    if max(np.ndim(layer.scale), np.ndim(layer.offset)) > 1:
        return "Rescaling by other than one factor, or one for each channel"
    return None


def _normalization(layer: Any) -> Scaling:
    deviation = tf.maximum(tf.sqrt(tf.reshape(layer.variance, (-1,))), keras_3().backend.epsilon())
    return Scaling(1 / deviation, -tf.reshape(layer.mean, (-1,)) / deviation)


def _normalization_obstacle(layer: Any) -> str | None:
    if layer.invert or layer.mean is None:
        return "Normalization that is inverted, or not adapted"
    axes = len(layer.mean.shape)
    if layer.axis not in ((), (-1,), (axes - 1,)):
        return "Normalization along another axis than the last"
    return _rank_obstacle(layer, axes) if layer.axis else None


register(Kind(_batchnorm, _batchnorm_obstacle, _role, fuses=frozenset({"relu"})), layers.BatchNormalization)
register(Kind(_scaling, _rescaling_obstacle, scales=_rescaling), layers.Rescaling)
register(Kind(_scaling, _normalization_obstacle, scales=_normalization), layers.Normalization)

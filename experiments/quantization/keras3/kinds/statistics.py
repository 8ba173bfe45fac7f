"""Normalization by the statistics of each example, computed in integers."""

from collections.abc import Sequence
from typing import Any

from experiments.quantization.keras3.calls import shapes_taken
from experiments.quantization.keras3.kind import Kind, register
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any
LEAST_SQUARE = 1e-12  # of the sum in UnitNormalization, as in Keras


def _normalized(run: Run, values: Tensor, axes: Sequence[int], centering: bool = True) -> Tensor:
    """Return the values minus their mean, divided by their standard deviation."""
    if centering:
        values = run.range(values - run.range(tf.reduce_mean(values, axes, keepdims=True), "mean"), "centered")
    variance = run.range(tf.reduce_mean(run.range(values * values, "squares"), axes, keepdims=True), "variance")
    inverse = _inverse_root(run, variance + run.layer.epsilon, run.layer.epsilon)
    return run.range(values * inverse, "normalized")


def _inverse_root(run: Run, values: Tensor, least: float) -> Tensor:
    """Return 1 / sqrt(values), for values of at least `least`."""
    shifted = run.range(values, "shifted")
    if run.training:  # a small value may round to zero, for which the file uses the largest inverse of its range
        shifted = tf.where(shifted > 0, shifted, tf.maximum(tf.reduce_max(shifted) / 255, least))
    return run.range(tf.math.rsqrt(shifted), "inverse")


def _scaled(run: Run, values: Tensor, scale: Any, offset: Any) -> Tensor:
    """Return the values times a scale plus an offset, if the layer has them, in the range of its outputs."""
    if scale is not None:
        values = run.range(values * run.constant(scale), "scaled")
    return run.output(values if offset is None else values + run.constant(offset))


def _layer(run: Run, values: Tensor) -> Tensor:
    layer = run.layer
    axes = [axis % len(values.shape) for axis in keras_3().tree.flatten(layer.axis)]
    return _scaled(run, _normalized(run, values, axes, not layer.rms_scaling), layer.gamma, layer.beta)


def _root_mean_square(run: Run, values: Tensor) -> Tensor:
    axes = [axis % len(values.shape) for axis in keras_3().tree.flatten(run.layer.axis)]
    return _scaled(run, _normalized(run, values, axes, centering=False), run.layer.scale, None)


def _unit(run: Run, values: Tensor) -> Tensor:
    """Return the values divided by their L2 norm."""
    axes = [axis % len(values.shape) for axis in keras_3().tree.flatten(run.layer.axis)]
    squares = run.range(tf.reduce_sum(run.range(values * values, "squares"), axes, keepdims=True), "sum")
    return run.output(values * _inverse_root(run, tf.maximum(squares, LEAST_SQUARE), LEAST_SQUARE))


def _groups_obstacle(layer: Any) -> str | None:
    if any(layer.axis not in (-1, len(shape) - 1) or None in shape[1:] for shape in shapes_taken(layer)):
        return f"{type(layer).__name__} along another axis than the last, or of values of an unknown shape"
    return None


def _groups(run: Run, values: Tensor) -> Tensor:
    layer = run.layer
    *others, channels = values.shape[1:]
    split = tf.reshape(values, (-1, *others, layer.groups, channels // layer.groups))
    axes = [*range(1, 1 + len(others)), len(others) + 2]
    normalized = tf.reshape(_normalized(run, split, axes), (-1, *others, channels))
    return _scaled(run, normalized, layer.gamma, layer.beta)


register(Kind(_layer, no_int16="ADD"), layers.LayerNormalization)
register(Kind(_unit, no_int16="SUM"), layers.UnitNormalization)
register(Kind(_root_mean_square, no_int16="ADD"), layers.RMSNormalization)
register(Kind(_groups, _groups_obstacle, no_int16="ADD"), layers.GroupNormalization)

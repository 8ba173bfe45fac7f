"""Convolutions: a scale for each output channel."""

from typing import Any

from experiments.quantization.keras3.kind import Kind, Role, register
from experiments.quantization.keras3.kinds.activation import activation_obstacle
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3

layers = keras_3().layers

Tensor = Any
TAKES_IN = frozenset[Role]({"batchnorm", "relu"})


def _obstacle(layer: Any) -> str | None:
    if layer.data_format != "channels_last":
        return f"{type(layer).__name__} with channels first; TFLite requires channels last"
    if getattr(layer, "lora_enabled", False):
        return f"{type(layer).__name__} with LoRA weights"
    return activation_obstacle(layer)


def _convolution(run: Run, inputs: Tensor) -> Tensor:
    kernel = run.layer.kernel
    return run.output(run.inner(inputs, weights=[(kernel, run.weight(kernel, axis=-1))]))


def _depthwise(run: Run, inputs: Tensor) -> Tensor:
    kernel = run.layer.kernel  # height, width, channels, multiplier
    *_, channels, multiplier = kernel.shape
    if multiplier == 1:
        return run.output(run.inner(inputs, weights=[(kernel, run.weight(kernel, axis=-2))]))
    flat = keras_3().ops.reshape(kernel.value, (*kernel.shape[:2], channels * multiplier))
    weight = keras_3().ops.reshape(run.weight(flat, axis=-1), kernel.shape)
    return run.output(run.inner(inputs, weights=[(kernel, weight)]))


register(Kind(_convolution, _obstacle, fuses=TAKES_IN, splits_activation=True), layers.Conv2D)
register(Kind(_depthwise, _obstacle, fuses=TAKES_IN, splits_activation=True), layers.DepthwiseConv2D)

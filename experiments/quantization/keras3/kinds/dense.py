"""Dense layers: one scale for the kernel, since the converter transposes it and then allows none per channel."""

from typing import Any

from experiments.quantization.keras3.kind import Kind, Role, register
from experiments.quantization.keras3.kinds.activation import activation_obstacle
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any


def _obstacle(layer: Any) -> str | None:
    if layer.lora_enabled:
        return "Dense with LoRA weights"
    if layer.quantization_mode is not None:
        return f"Dense is quantized already ({layer.quantization_mode})"
    return activation_obstacle(layer)


def _dense(run: Run, inputs: Tensor) -> Tensor:
    kernel, bias = run.affine(run.layer.kernel.value, run.layer.bias)
    *places, width = inputs.shape[1:]
    if not places:
        return run.output(run.fused(tf.matmul(inputs, kernel), bias))
    rows = run.fused(tf.matmul(tf.reshape(inputs, (-1, width)), kernel), bias)
    return run.output(tf.reshape(rows, (-1, *places, kernel.shape[-1])))


FUSES = frozenset[Role]({"batchnorm", "relu"})
register(
    Kind(_dense, _obstacle, fuses=FUSES, folds=True, splits_activation=True, takes_scaling=lambda _, __: True),
    layers.Dense,
)

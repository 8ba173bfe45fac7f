"""Dense layers: one scale for the kernel, for the converter turns it round, and takes no scales by channel there."""

from typing import Any

from experiments.quantization.keras3.kind import Kind, register
from experiments.quantization.keras3.kinds.activation import activation_obstacle
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3

layers = keras_3().layers

Tensor = Any


def _obstacle(layer: Any) -> str | None:
    if layer.lora_enabled:
        return "Dense with LoRA weights"
    if layer.quantization_mode is not None:
        return f"Dense is quantized already ({layer.quantization_mode})"
    return activation_obstacle(layer)


def _dense(run: Run, inputs: Tensor, **kwargs: Any) -> Tensor:
    kernel = run.layer.kernel
    return run.output(run.inner(inputs, weights=[(kernel, run.weight(kernel))], **kwargs))


register(Kind(_dense, _obstacle, fuses=frozenset({"relu"}), splits_activation=True), layers.Dense)

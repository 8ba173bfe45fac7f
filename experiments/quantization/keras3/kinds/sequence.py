"""Layers for sequences: embeddings, dense layers along an axis, and layers applied at each step."""

from dataclasses import dataclass
from typing import Any

from experiments.quantization.keras3.kind import FUSED, Kind, Operation, activation_of, register
from experiments.quantization.keras3.kinds import kind_of
from experiments.quantization.keras3.kinds.activation import activation_obstacle
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any


@dataclass(frozen=True)
class _Within(Run):
    """A call of the layer inside a TimeDistributed."""

    @property
    def layer(self) -> Operation:
        return self.wrapper.layer.layer


def _each_step_obstacle(layer: Any) -> str | None:
    inner, kind = layer.layer, kind_of(layer.layer)
    if kind is None:
        return f"TimeDistributed around {type(inner).__name__}, which is not supported"
    if activation_of(inner) not in FUSED:
        return f"TimeDistributed around a layer with activation {activation_of(inner)}; supported: {', '.join(FUSED)}"
    if not kind.passing and (obstacle := kind.obstacle(inner)):
        return f"TimeDistributed around {obstacle}"
    return None


def _each_step(run: Run, inputs: Tensor, **_: Any) -> Tensor:
    """Return the outputs of the inner layer, which takes all steps as one batch."""
    kind, steps = kind_of(run.layer.layer), inputs.shape[1]
    assert kind is not None
    within = _Within(run.wrapper, run.call, run.training)
    one_batch = tf.reshape(inputs, (-1, *inputs.shape[2:]))
    outputs = within.inner(one_batch) if kind.passing else kind.function(within, one_batch)
    return tf.reshape(outputs, (-1, steps, *outputs.shape[1:]))


def _embedding_obstacle(layer: Any) -> str | None:
    return "Embedding with LoRA weights" if layer.lora_enabled else None


def _embedding(run: Run, inputs: Tensor) -> Tensor:
    """Return rows of the table, with the scale of the table."""
    return tf.gather(run.weight(run.layer.embeddings), tf.cast(inputs, tf.int32))


def _einsum_obstacle(layer: Any) -> str | None:
    return "EinsumDense with LoRA weights" if layer.lora_enabled else activation_obstacle(layer)


def _einsum(run: Run, inputs: Tensor) -> Tensor:
    kernel = run.layer.kernel
    return run.output(run.inner(inputs, weights=[(kernel, run.weight(kernel))]))


register(Kind(_each_step, _each_step_obstacle), layers.TimeDistributed)
register(Kind(_embedding, _embedding_obstacle), layers.Embedding)
register(Kind(_einsum, _einsum_obstacle, fuses=frozenset({"relu"}), splits_activation=True), layers.EinsumDense)

"""Layers that quantize: around a layer of the model, and on the way to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.quantization.keras3.fake_quantization import (
    ActivationBits,
    Range,
    WeightBits,
    quantized_values,
    quantized_weight,
)
from experiments.quantization.keras3.kind import Kind, Operation
from experiments.system.tensorflow import keras_3, tf

keras = keras_3()

Tensor = Any
Variable = Any

# By how much of its distance to a batch's limits a range moves in one step: 1 - DECAY.
DECAY = 0.99
START = 6.0  # ranges start at -6 and 6, as TFMOT's do, unless they are given those of calibration samples


@dataclass(frozen=True)
class Bits:
    """Of the integers that weights and activations are trained for."""

    weights: WeightBits = 8
    activations: ActivationBits = 8


@dataclass(frozen=True)
class Slot:
    """The place of a tensor among the arguments of a call."""

    index: int


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call of a layer, with slots in place of tensors."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, node: Any) -> "Arguments":
        """Those of a node of a functional graph; whether it is training is left to the caller."""
        tensors: dict[int, Slot] = {}
        for tensor in node.input_tensors:
            tensors.setdefault(id(tensor), Slot(len(tensors)))
        args, kwargs = keras.tree.map_structure(
            lambda value: tensors.get(id(value), value), (node.arguments.args, dict(node.arguments.kwargs))
        )
        return cls(tuple(args), {name: value for name, value in kwargs.items() if name != "training"})

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with tensors in their slots."""
        args, kwargs = keras.tree.map_structure(
            lambda value: tensors[value.index] if isinstance(value, Slot) else value, (self.args, dict(self.kwargs))
        )
        return tuple(args), kwargs

    def config(self) -> Any:
        """The arguments as values that JSON can hold."""
        named = keras.tree.map_structure(
            lambda value: f"tensor {value.index}" if isinstance(value, Slot) else value, (self.args, dict(self.kwargs))
        )
        return keras.saving.serialize_keras_object(named)


class _Quantizing(keras.layers.Layer):  # type: ignore[misc, name-defined]  # Keras ships no types
    """A layer with ranges, each of which is a pair of variables."""

    def __init__(self, bits: Bits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits = bits
        self._ranges: dict[str, Range] = {}
        self.built = True

    def range(self, name: str) -> Range:
        """The range of this name; the first call, in which Keras infers shapes, makes it."""
        if name not in self._ranges:
            low, high = (
                self.add_weight(
                    shape=(), initializer=keras.initializers.Constant(start), trainable=False, name=f"{name}_{which}"
                )
                for which, start in (("min", -START), ("max", START))
            )
            self._ranges[name] = Range(low, high, self.bits.activations)
        return self._ranges[name]


class Quantizer(_Quantizing):
    """Quantizes values on their way to a quantized layer, where they do not come from one."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """The values in the range that is learned."""
        return self.range("values")(inputs, DECAY, bool(training))

    def get_config(self) -> dict[str, Any]:
        """What decides its results."""
        return {**super().get_config(), "bits": self.bits.activations, "decay": DECAY}


class Quantized(_Quantizing):
    """A layer with fake quantization: of its weights, within it, and of what it gives.

    `calls` are the arguments of each call of the layer in the model: each has ranges of its own. `ranged` says whether
    there is a range behind the layer: not where BatchNorm or a ReLU is folded into its op. `activation` is the layer's
    own, where that is an op of its own; the layer within is linear then.
    """

    quantizes = True

    def __init__(
        self,
        layer: Operation,
        kind: Kind,
        bits: Bits,
        calls: Sequence[Arguments],
        ranged: bool = True,
        activation: Any = None,
    ) -> None:
        is_layer = isinstance(layer, keras.layers.Layer)
        super().__init__(bits, name=f"quant_{layer.name}")
        self.layer, self.kind, self.calls, self.ranged, self.activation = layer, kind, tuple(calls), ranged, activation
        self.supports_masking = is_layer and layer.supports_masking
        if is_layer and layer.activity_regularizer is not None:  # it is about what comes out here
            self.activity_regularizer, layer.activity_regularizer = layer.activity_regularizer, None

    def call(self, inputs: Any, call: int = 0, training: bool | None = None) -> Any:
        """What the layer gives in this call of the model."""
        args, kwargs = self.calls[call].filled(inputs if isinstance(inputs, (list, tuple)) else [inputs])
        return self.kind.function(Run(self, call, bool(training)), *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask that the layer gives."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """What decides its results."""
        regularizer = self.activity_regularizer
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "activation": self.activation and keras.activations.serialize(self.activation),
            "activity_regularizer": regularizer and keras.regularizers.serialize(regularizer),
            "calls": [call.config() for call in self.calls],
            "ranged": self.ranged,
            "bits": {"weights": self.bits.weights, "activations": self.bits.activations},
            "decay": DECAY,
        }


@dataclass(frozen=True)
class Run:
    """One call of a quantized layer, for the function that computes it."""

    wrapper: Quantized
    call: int
    training: bool

    @property
    def layer(self) -> Operation:
        """The layer within."""
        return self.wrapper.layer

    def inner(self, *args: Any, weights: Sequence[tuple[Variable, Tensor]] = (), **kwargs: Any) -> Any:
        """What the layer within computes, with these values in place of those that its variables hold."""
        if not weights:
            return self.layer(*args, **kwargs)
        with keras.StatelessScope(weights) as scope:
            outputs = self.layer(*args, **kwargs)
        replaced = {id(variable) for variable, _ in weights}
        for variable in self.layer.variables:  # what the layer assigned, as BatchNorm does, waits in the scope
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in replaced:
                variable.assign(value)
        return outputs

    def weight(self, weight: Any, axis: int | None = None) -> Tensor:
        """A weight, quantized with a scale for each index of the axis, or with one scale."""
        value = weight.value if isinstance(weight, keras.Variable) else weight
        return quantized_weight(value, self.wrapper.bits.weights, axis)

    def constant(self, value: Any) -> Tensor:
        """A constant that values are added to or multiplied by, quantized as they are."""
        tensor = tf.convert_to_tensor(value, tf.float32)
        limits = (tf.minimum(tf.reduce_min(tensor), 0.0), tf.maximum(tf.reduce_max(tensor), 0.0))
        return quantized_values(tensor, limits, self.wrapper.bits.activations)

    def range(self, values: Tensor, name: str) -> Tensor:
        """Values between two ops of the layer, in a range of this name that is learned."""
        return self.wrapper.range(f"{name}_{self.call}")(values, DECAY, self.training)

    def fixed(self, values: Tensor, low: float, high: float) -> Tensor:
        """Values in a range that TFLite prescribes."""
        return quantized_values(values, (low, high), self.wrapper.bits.activations)

    def output(self, values: Tensor) -> Tensor:
        """What the layer gives: through its activation where that is an op of its own, in the range behind it."""
        if self.wrapper.activation is not None:
            from experiments.quantization.keras3.kinds.activation import activated

            return activated(self, self.range(values, "linear"), self.wrapper.activation)
        return self.range(values, "output") if self.wrapper.ranged else values

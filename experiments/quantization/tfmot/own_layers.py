"""Layers that TFMOT itself refuses, in a form that its wrapper quantizes: with a configuration of their own.

TFMOT lets layers come with a configuration (`quantize_annotate_layer(layer, quantize_config=...)`). For those that are
one op on values, such as Multiply, it only rounds the outputs. Two kinds are replaced by layers of this module, of the
same name: an operation between layers, as in `x + 3.0`, which no wrapper can call, and layers that scale and shift the
channels of images, of which the converter would make two ops with no range in between.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.system.tensorflow import keras, tf  # first: it chooses Keras 2

# isort: split
import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_configs import (
    Default8BitOutputQuantizeConfig,
)

from experiments.quantization.scaling import scaled

KerasLayer = Any
Tensor = Any
Node = Any

PACKAGE = "quantization_bench"  # of the classes below, in the names under which Keras saves them
MERGING = (keras.layers.Multiply, keras.layers.Subtract, keras.layers.Maximum, keras.layers.Minimum)
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
OPERATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {  # by their names in tf
    "__operators__.add": tf.add,
    "math.add": tf.add,
    "math.subtract": tf.subtract,
    "math.multiply": tf.multiply,
}
ADDITIONS = ("__operators__.add", "math.add")
DIVISIONS = ("math.truediv", "math.divide")
MOST_APART = 16  # factors of channels: 16 of 256 steps are left for the channel with the smallest values


@keras.utils.register_keras_serializable(PACKAGE)
class Operation(keras.layers.Layer):  # type: ignore[misc]  # Keras 2 ships no types
    """An operation on two values, one of which may be a constant, which is rounded like values if `rounds`."""

    def __init__(self, operation: str, operands: Sequence[Any], rounds: bool, **kwargs: Any) -> None:
        """Take the name in tf, and for each operand its constant, or None for one that is an input."""
        super().__init__(**kwargs)
        self.operation, self.rounds = operation, rounds
        self.operands = tuple(None if each is None else np.asarray(each, np.float32) for each in operands)

    def call(self, inputs: Any) -> Tensor:
        """Return the result; the inputs are the operands that are no constants, in their order."""
        values = iter(tf.nest.flatten(inputs))
        return OPERATIONS[self.operation](
            *(next(values) if each is None else self._constant(each) for each in self.operands)
        )

    def _constant(self, value: Any) -> Tensor:
        constant = tf.constant(value)
        if not self.rounds:
            return constant
        limits = tf.constant(min(value.min(), 0.0), tf.float32), tf.constant(max(value.max(), 0.0), tf.float32)
        return quant_ops._FakeQuantWithMinMaxVars(constant, *limits, per_channel=False, num_bits=8, narrow_range=False)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        operands = [None if each is None else each.tolist() for each in self.operands]
        return {**super().get_config(), "operation": self.operation, "operands": operands, "rounds": self.rounds}


@keras.utils.register_keras_serializable(PACKAGE)
class ScaledChannels(keras.layers.Layer):  # type: ignore[misc]
    """Values times a factor plus an offset, which are one, or one for each channel."""

    def __init__(self, factors: Any, offsets: Any, **kwargs: Any) -> None:
        """Take lists of numbers."""
        super().__init__(**kwargs)
        self.factors, self.offsets = (np.asarray(each, np.float32) for each in (factors, offsets))

    def call(self, inputs: Tensor) -> Tensor:
        """Return the scaled values, with rounded factors."""

        def rounded(factors: Tensor) -> Tensor:
            limits = tf.reshape(tf.abs(factors), (-1,))
            return quant_ops._FakeQuantWithMinMaxVars(
                factors, -limits, limits, per_channel=True, num_bits=8, narrow_range=True
            )

        return scaled(inputs, tf.constant(self.factors), tf.constant(self.offsets), rounded)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "factors": self.factors.tolist(), "offsets": self.offsets.tolist()}


@keras.utils.register_keras_serializable(PACKAGE)
class WholeRange(Default8BitOutputQuantizeConfig):  # type: ignore[misc]  # TFMOT ships no types
    """Rounds outputs in the range of all values so far, as TFMOT rounds a model's inputs; others start at -6 and 6."""

    def get_output_quantizers(self, layer: KerasLayer) -> list[Any]:
        """Return the quantizer of the outputs."""
        kind = quantizers.AllValuesQuantizer
        return [kind(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)] if self.quantize_output else []


KINDS = (Operation, ScaledChannels, WholeRange)  # with which a saved model is loaded, in TFMOT's quantize_scope


def is_own(layer: KerasLayer) -> bool:
    """Whether this module has a configuration for a layer."""
    return type(layer) in (*MERGING, *SCALING) or operation_of(layer) in (*OPERATIONS, *DIVISIONS)


def operation_of(layer: KerasLayer) -> str:
    """Return the name in tf of an operation between layers, as math.add; an empty text for a layer."""
    return str(layer.symbol) if type(layer).__name__ == "TFOpLambda" else ""


def obstacle(layer: KerasLayer) -> str | None:
    """Return why a layer for which this module has a configuration cannot be trained quantization-aware."""
    kind = operation_of(layer) or type(layer).__name__
    if len(layer.inbound_nodes) > 1 and type(layer) not in SCALING:
        return f"{kind} that is called several times, whose outputs would share one range"
    given = tf.nest.flatten(layer.inbound_nodes[0].keras_inputs)
    if not all(tensor.dtype == tf.float32 for tensor in given):
        return f"{kind} of values that are not float32"
    if type(layer) in MERGING:
        return _obstacle_of_merging(kind, given)
    if type(layer) in SCALING:
        return _obstacle_of_scaling(layer, given[0].shape)
    return _obstacle_of_operation(kind, layer)


def _obstacle_of_merging(kind: str, given: Sequence[Tensor]) -> str | None:
    if len(given) != 2:
        return f"{kind} of {len(given)} values; supported: 2"
    if len({len(tensor.shape) for tensor in given}) > 1:
        return f"{kind} of values with different numbers of axes"
    return None


def _obstacle_of_scaling(layer: KerasLayer, shape: Sequence[int | None]) -> str | None:
    kind, axes, channels = type(layer).__name__, len(shape), shape[-1]
    if axes not in (2, 3, 4) or channels is None:
        return f"{kind} of values with {axes} axes; supported: 2 to 4, and a known number of channels"
    if getattr(layer, "invert", False):
        return "Normalization that is inverted"
    if kind == "Normalization" and tuple(layer._keep_axis) not in ((), (axes - 1,)):
        return "Normalization along another axis than the last"
    factors, offsets = _factors_and_offsets(layer)
    if any(each.size not in (1, channels) or each.ndim > 1 for each in (factors, offsets)):
        return f"{kind} by other than one factor, or one for each channel"
    if np.abs(factors).max() > MOST_APART * np.abs(factors).min():
        return f"{kind} by factors that differ by more than {MOST_APART} times: the values before it have one scale"
    return None


def _obstacle_of_operation(kind: str, layer: KerasLayer) -> str | None:
    operands = _operands(layer.inbound_nodes[0])
    if operands is None:
        return f"{kind} of other than layers' outputs and numbers"
    if kind in DIVISIONS and operands[1] is None:
        return f"{kind} by what is computed, which TFLite has no int8 kernel for"
    return None


def _operands(node: Node) -> list[Any] | None:
    """Return the operands of an operation, None for values of layers; None if there are others."""
    named = {name: value for name, value in node.call_kwargs.items() if value is not None and name != "name"}
    given = [*node.call_args, *(named.pop(name) for name in ("x", "y") if name in named)]
    operands = [None if hasattr(each, "_keras_history") else _number(each) for each in given]
    numbers = [each for each in operands if each is not None]
    is_known = len(operands) == 2 and not named and all(each.dtype.kind == "f" for each in numbers)
    return operands if is_known else None


def _number(value: Any) -> Any:
    """Return a constant as an array, whose type is float32 if it consists of numbers."""
    if isinstance(value, tf.Variable):
        return np.asarray(None)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind in "fi" else array


def _factors_and_offsets(layer: KerasLayer) -> tuple[Any, Any]:
    if isinstance(layer, keras.layers.Rescaling):
        return np.asarray(layer.scale, np.float32), np.asarray(layer.offset, np.float32)
    mean, variance = (np.asarray(each, np.float32).ravel() for each in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), np.float32(keras.backend.epsilon()))
    return 1 / deviation, -mean / deviation


def to_annotate(layer: KerasLayer, ends: bool, in_hard_swish: bool) -> tuple[KerasLayer, Any]:
    """Return a copy of a layer to annotate, and its configuration, which rounds its outputs if its op `ends` with it.

    The constants of a hard-swish are not rounded, since the converter makes one op of it.
    """
    if type(layer) in SCALING:
        return ScaledChannels(*_factors_and_offsets(layer), name=layer.name), WholeRange(ends)
    configuration = Default8BitOutputQuantizeConfig(ends)
    operation = operation_of(layer)
    if not operation:
        return type(layer).from_config(layer.get_config()), configuration
    operands = _operands(layer.inbound_nodes[0])
    assert operands is not None
    if operation in DIVISIONS:  # TFLite divides like this
        operation, operands = "math.multiply", [operands[0], 1 / operands[1]]
    return Operation(operation, operands, rounds=not in_hard_swish, name=layer.name), configuration


def hard_swish(layer: KerasLayer) -> tuple[KerasLayer, ...]:
    """Return the layers of x * (relu6(x + 3) * (1 / 6)) that ends with this layer; none if it is something else."""
    if type(layer) is not keras.layers.Multiply and operation_of(layer) != "math.multiply":
        return ()
    given = tf.nest.flatten(layer.inbound_nodes[0].keras_inputs)
    for values, gate in (given, reversed(given)) if len(given) == 2 else ():
        scale = gate.node.layer
        relu = _before(scale)
        addition = _before(relu) if relu is not None else None
        if (
            relu is not None
            and addition is not None
            and _is_with(scale, ("math.multiply",), 1 / 6) | _is_with(scale, DIVISIONS, 6.0)
            and is_relu6(relu)
            and _is_with(addition, ADDITIONS, 3.0)
            and tf.nest.flatten(addition.inbound_nodes[0].keras_inputs)[0] is values
            and all(len(each._outbound_nodes) == len(each.inbound_nodes) == 1 for each in (addition, relu, scale))
        ):
            return addition, relu, scale, layer
    return ()


def _before(layer: KerasLayer) -> KerasLayer | None:
    """Return the layer whose outputs are the only input of this one."""
    given = tf.nest.flatten(layer.inbound_nodes[0].keras_inputs) if layer.inbound_nodes else []
    return given[0].node.layer if len(given) == 1 else None


def _is_with(layer: KerasLayer, operations: Sequence[str], constant: float) -> bool:
    """Whether a layer is one of these operations, of its input and this constant."""
    if operation_of(layer) not in operations or len(layer.inbound_nodes) != 1:
        return False
    operands = _operands(layer.inbound_nodes[0]) or [None]
    numbers = [each for each in operands if each is not None]
    if operations is DIVISIONS and operands[-1] is None:  # the constant is what is divided
        return False
    return len(numbers) == 1 and numbers[0].size == 1 and bool(np.isclose(numbers[0], constant, rtol=1e-6).all())


def is_relu6(layer: KerasLayer) -> bool:
    """Whether a layer is ReLU6."""
    return _largest(layer) == 6


def fuses_into_addition(layer: KerasLayer) -> bool:
    """Whether the op of an addition computes this activation as well."""
    return _largest(layer) in (6, None)


def _largest(layer: KerasLayer) -> float | None:
    """Return the largest output of a ReLU, None if it has none; -1 for other layers."""
    if isinstance(layer, keras.layers.ReLU):
        return -1 if layer.threshold or layer.negative_slope else layer.max_value
    if isinstance(layer, keras.layers.Activation):
        return {"relu": None, "relu6": 6}.get(str(getattr(layer.activation, "__name__", "")), -1)
    return -1

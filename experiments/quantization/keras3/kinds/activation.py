"""Activations: those that the op before them applies, and those that are separate ops, between two ranges."""

from collections.abc import Callable
from typing import Any

from experiments.quantization.keras3.kind import FUSED, Kind, Role, activation_of, register
from experiments.quantization.keras3.wrapper import Run, compute_plain
from experiments.system.tensorflow import keras_3, tf

keras = keras_3()
layers = keras.layers

Tensor = Any


def activated(run: Run, values: Tensor, activation: Any) -> Tensor:
    """Return the outputs of an activation, in the range that TFLite prescribes for it or in a learned one."""
    return ACTIVATIONS[activation.__name__](run, values, activation)


def activation_obstacle(layer: Any) -> str | None:
    """Return why the activation of a layer keeps the layer in float; None if it does not."""
    name = activation_of(layer)
    if name in (*FUSED, *ACTIVATIONS) and _is_keras_own(layer):
        return None
    return f"{type(layer).__name__} with activation {name}; supported: {', '.join(sorted((*FUSED, *ACTIVATIONS)))}"


def _is_keras_own(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return activation is None or activation is keras.activations.get(activation.__name__)


def _sigmoid(run: Run, values: Tensor, activation: Any) -> Tensor:
    return run.between_0_and_1(activation(values))


def _tanh(run: Run, values: Tensor, activation: Any) -> Tensor:
    return run.between_1_and_1(activation(values))


def _learned(run: Run, values: Tensor, activation: Any) -> Tensor:
    return run.range(activation(values), "output")


def _swish(run: Run, values: Tensor, _: Any) -> Tensor:
    return run.range(values * run.between_0_and_1(tf.sigmoid(values)), "output")


def _hard_swish(run: Run, values: Tensor, _: Any) -> Tensor:
    if run.wrapper.bits.activations == 16:  # HARD_SWISH has no kernel for 16 bits
        gate = run.range(tf.nn.relu6(values + run.constant(3.0)), "gate")
        return run.range(run.range(values * gate, "product") * run.constant(1 / 6), "output")
    return run.range(values * tf.nn.relu6(values + 3.0) * (1 / 6), "output")  # the converter makes one op of it


def _hard_sigmoid(run: Run, values: Tensor, _: Any) -> Tensor:
    gate = run.range(tf.nn.relu6(values + run.constant(3.0)), "gate")
    return run.range(gate * run.constant(1 / 6), "output")


ACTIVATIONS: dict[str, Callable[[Run, Tensor, Any], Tensor]] = {
    "sigmoid": _sigmoid,
    "softmax": _sigmoid,
    "tanh": _tanh,
    "leaky_relu": _learned,
    "gelu": _learned,
    "silu": _swish,
    "hard_silu": _hard_swish,
    "hard_sigmoid": _hard_sigmoid,
}


def _activation(run: Run, values: Tensor) -> Tensor:
    if activation_of(run.layer) in FUSED:
        return run.output(run.inner(values))
    return activated(run, values, run.layer.activation)


def _softmax(run: Run, values: Tensor, **kwargs: Any) -> Tensor:
    return run.between_0_and_1(run.inner(values, **kwargs))


def _prelu(run: Run, values: Tensor) -> Tensor:
    return run.output(run.inner(values))  # the converter makes one op of it, and quantizes the slopes itself


def _role_of_activation(layer: Any) -> Role | None:
    return "relu" if activation_of(layer) in FUSED else None


def _role_of_relu(layer: Any) -> Role | None:
    return "relu" if layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold else None


def _relu_obstacle(layer: Any) -> str | None:
    if layer.threshold or (layer.max_value not in (None, 6) and not layer.negative_slope):
        return f"ReLU with threshold {layer.threshold} and largest value {layer.max_value}; supported: none, or 6"
    if layer.max_value is not None and layer.negative_slope:
        return "ReLU with both a slope for negative values and a largest value"
    return None


register(Kind(_activation, activation_obstacle, _role_of_activation), layers.Activation)
register(Kind(compute_plain, _relu_obstacle, _role_of_relu), layers.ReLU)
register(Kind(compute_plain), layers.LeakyReLU)
register(Kind(_prelu, no_int16="PRELU"), layers.PReLU)
register(Kind(_softmax, no_int16="SOFTMAX"), layers.Softmax)

"""Operations of keras.ops in functional models, as in `x * 0.5 + y` or `keras.ops.relu(x)`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.quantization.keras3.kind import NO_INT16, PASSING, Kind, Operation, Role, register
from experiments.quantization.keras3.kinds.activation import ACTIVATIONS
from experiments.quantization.keras3.wrapper import Run, compute_plain
from experiments.system.tensorflow import keras_3, tf

numpy, nn = keras_3().src.ops.numpy, keras_3().src.ops.nn

Tensor = Any


def _binary(run: Run, *values: Any) -> Tensor:
    """Return the outputs of an operation on two values, one of which may be a constant."""
    return run.output(run.inner(*(value if tf.is_tensor(value) else run.constant(value) for value in values)))


def _of_one_scale(run: Run, *values: Any) -> Tensor:
    return run.inner(*run.in_one_range([tf.convert_to_tensor(value, tf.float32) for value in values]))


def _concatenated(run: Run, values: Any) -> Tensor:
    return run.inner(run.in_one_range([tf.convert_to_tensor(value, tf.float32) for value in values]))


def _negated(run: Run, values: Tensor) -> Tensor:
    return run.output(values * run.constant(-1.0))  # TFLite's op for it has no int8 kernel


def _squared(run: Run, values: Tensor) -> Tensor:
    return run.output(values * values)  # TFLite's op for it has no int8 kernel


def _products(run: Run, one: Any, other: Any) -> Tensor:
    """Return the product of two matrices, one of which may be a constant."""
    weights = [value if tf.is_tensor(value) else run.weight(tf.convert_to_tensor(value)) for value in (one, other)]
    return run.output(tf.matmul(*weights))


def _products_obstacle(operation: Operation) -> str | None:
    shapes = [tensor.shape for tensor in operation._inbound_nodes[0].input_tensors]
    if any(len(shape) < 3 for shape in shapes):
        return f"{type(operation).__name__} of values with fewer than three axes"
    return None


def _divided(run: Run, values: Tensor, divisor: Any) -> Tensor:
    return run.output(values * run.constant(1 / np.asarray(divisor, np.float32)))  # TFLite divides like this


def _divided_obstacle(operation: Operation) -> str | None:
    if len(operation._inbound_nodes[0].input_tensors) > 1 or not hasattr(
        operation._inbound_nodes[0].arguments.args[0], "shape"
    ):
        return f"{type(operation).__name__} by what is computed, which TFLite has no int8 kernel for"
    return None


def _activation(name: str) -> Callable[..., Tensor]:
    def compute(run: Run, values: Tensor) -> Tensor:
        return ACTIVATIONS[name](run, values, run.layer)

    return compute


def _softmax(run: Run, values: Tensor) -> Tensor:
    return run.between_0_and_1(run.inner(values))


def _relu(_operation: Operation) -> Role:
    return "relu"


register(Kind(_binary, fuses=frozenset({"relu"})), numpy.Add)
register(Kind(_binary), numpy.Subtract, numpy.Multiply)
register(Kind(_of_one_scale, quantizes_inputs=True), numpy.Maximum, numpy.Minimum)
register(Kind(_concatenated, moves=True, quantizes_inputs=True, no_int16="CONCATENATION"), numpy.Concatenate)
register(Kind(_divided, _divided_obstacle), numpy.Divide, numpy.TrueDivide)
register(Kind(_concatenated, moves=True, quantizes_inputs=True), numpy.Stack)
register(Kind(_negated), numpy.Negative)
register(Kind(_squared), numpy.Square)
register(Kind(_products, _products_obstacle), numpy.Matmul)
register(Kind(compute_plain, no_int16="SUM"), numpy.Sum)
register(Kind(compute_plain), numpy.Mean, numpy.Absolute, numpy.Clip, nn.LeakyRelu)
register(Kind(compute_plain, no_int16="GELU"), nn.Gelu)
register(Kind(compute_plain, role=_relu), nn.Relu, nn.Relu6)
register(Kind(_softmax, no_int16="SOFTMAX"), nn.Softmax)
for kind, name in (
    (nn.Sigmoid, "sigmoid"), (numpy.Tanh, "tanh"), (nn.Silu, "silu"), (nn.HardSilu, "hard_silu"),
    (nn.HardSigmoid, "hard_sigmoid"),
):  # fmt: skip
    register(Kind(_activation(name), no_int16=NO_INT16[name]), kind)
register(
    PASSING,
    numpy.Reshape, numpy.Transpose, numpy.Squeeze, numpy.ExpandDims, numpy.Swapaxes, numpy.Moveaxis, numpy.Ravel,
    numpy.GetItem, numpy.Split, numpy.Max, numpy.Amax, nn.MaxPool,
)  # fmt: skip

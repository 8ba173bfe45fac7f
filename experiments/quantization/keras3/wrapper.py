"""Layers with fake quantization: wrappers of a model's layers, and quantizers before them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from experiments.quantization.keras3.fake_quantization import (
    ActivationBits,
    Range,
    WeightBits,
    limits_of,
    quantized_values,
    quantized_weight,
    shielded,
)
from experiments.quantization.keras3.kind import Kind, Operation, Scaling
from experiments.quantization.scaling import make_distinct
from experiments.system.tensorflow import keras_3, tf

keras = keras_3()

Tensor = Any
Variable = Any
Substitutes = Sequence[tuple[Variable, Tensor]]

# A range moves by 1 - DECAY of its distance to the limits of a batch in each step.
DECAY = 0.99
LEAST_FACTOR = 1e-6  # of a BatchNorm: kernels are divided by it
START = 6.0  # ranges start at -6 and 6, as TFMOT's do, unless they are given those of calibration samples


@dataclass(frozen=True)
class Bits:
    """The bits of weights and activations to train for."""

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
        """Return the arguments of a node of a functional graph, except `training`, which the caller decides."""
        tensors: dict[int, Slot] = {}
        for tensor in node.input_tensors:
            tensors.setdefault(id(tensor), Slot(len(tensors)))
        args, kwargs = keras.tree.map_structure(
            lambda value: tensors.get(id(value), value), (node.arguments.args, dict(node.arguments.kwargs))
        )
        return cls(tuple(args), {name: value for name, value in kwargs.items() if name != "training"})

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with tensors in their slots."""
        args, kwargs = keras.tree.map_structure(
            lambda value: tensors[value.index] if isinstance(value, Slot) else value, (self.args, dict(self.kwargs))
        )
        return tuple(args), kwargs

    def config(self) -> Any:
        """Return the arguments as values that JSON can hold."""
        named = keras.tree.map_structure(
            lambda value: f"tensor {value.index}" if isinstance(value, Slot) else value, (self.args, dict(self.kwargs))
        )
        return keras.saving.serialize_keras_object(named)


@dataclass(frozen=True)
class Activation:
    """The activation of a layer as a separate op; `compute` adds the ranges that TFLite has for it."""

    function: Any
    compute: "Callable[[Run, Tensor, Any], Tensor]"


@dataclass(frozen=True)
class Inside:
    """A layer whose variables belong to another wrapper, hidden from Keras."""

    layer: Any


@contextmanager
def substituted(layer: Any, values: Substitutes) -> Iterator[None]:
    """Replace the values of a layer's variables while the block runs.

    What it assigns meanwhile to others, such as the averages of BatchNorm, and the losses that it adds are kept.
    """
    if not values:
        yield
        return
    with keras.StatelessScope(values, collect_losses=True, initialize_variables=False) as scope:
        yield
    replaced = {id(variable) for variable, _ in values}
    for variable in layer.variables:
        if id(variable) not in replaced and (value := scope.get_current_value(variable)) is not None:
            variable.assign(value)
    for loss in scope.losses:
        layer.add_loss(loss)


class _Quantizing(keras.layers.Layer):  # type: ignore[misc, name-defined]  # Keras ships no types
    """A layer with ranges, each of which is a pair of variables."""

    def __init__(self, bits: Bits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits = bits
        self._ranges: dict[str, Range] = {}
        self.built = True

    def range(self, name: str) -> Range:
        """Return the range of this name; the first call, in which Keras infers shapes, creates it."""
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
    """Quantizes the inputs of a quantized layer that do not come from one."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the values, rounded in the learned range."""
        return self.range("values")(inputs, DECAY, bool(training))

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the layer."""
        return {**super().get_config(), "bits": self.bits.activations, "decay": DECAY}


class Shield(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Separates a quantized layer from one that stays in float, which the converter would quantize as well."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the values unchanged."""
        return inputs if training else shielded(inputs)


class Quantized(_Quantizing):
    """A layer with fake quantization of its weights, of values between its ops, and of its outputs.

    `calls` are the arguments of each call of the layer in the model: each has ranges of its own. `ranged` says whether
    there is a range behind the layer: not where BatchNorm or a ReLU is folded into its op. `activation` is the layer's
    own, where that is an op of its own; the layer within is linear then. `batchnorm` and `scaling` are those layers
    that are folded into this one, from behind and from before; `folded` says of such a layer where it is. `joining` are
    the calls whose inputs already have the same limits, and `inherited` the ranges of the inputs, by call, of a layer
    whose outputs have their scale.
    """

    quantizes = True
    batchnorm: Inside | None = None
    scaling: Callable[[], Scaling] | None = None
    folded: Literal["", "by the converter", "before", "behind"] = ""

    def __init__(
        self,
        layer: Operation,
        kind: Kind,
        bits: Bits,
        calls: Sequence[Arguments],
        ranged: bool = True,
        activation: Activation | None = None,
    ) -> None:
        is_layer = isinstance(layer, keras.layers.Layer)
        super().__init__(bits, name=f"quant_{layer.name}")
        self.layer, self.kind, self.calls, self.ranged, self.activation = layer, kind, tuple(calls), ranged, activation
        self.kept: Callable[[], Substitutes] | None = None  # substitutes of kernels that preserve zeros or clusters
        self.keep: Mapping[str, Any] = {}  # what is preserved
        self.joining: list[int] = []
        self.inherited: dict[int, Range] = {}
        self.supports_masking = is_layer and layer.supports_masking
        if is_layer and layer.activity_regularizer is not None:  # it applies to the outputs of this wrapper
            self.activity_regularizer, layer.activity_regularizer = layer.activity_regularizer, None

    def call(self, inputs: Any, call: int = 0, training: bool | None = None) -> Any:
        """Return the outputs of the layer in this call of the model."""
        args, kwargs = self.calls[call].filled(inputs if isinstance(inputs, (list, tuple)) else [inputs])
        with substituted(self, self.kept() if self.kept else ()):
            return self.kind.function(Run(self, call, bool(training)), *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Return the mask of the layer inside; it is the same kind of function of the inputs in each call."""
        given = [(each if isinstance(each, (list, tuple)) else [each]) for each in (inputs, previous_mask)]
        values, masks = (self.calls[0].filled(each)[0][0] for each in given)
        return self.layer.compute_mask(values, masks)

    def range_of_outputs(self, call: int) -> Range | None:
        """Return the range of the outputs of a call that was made; None if it is not learned, or of the inputs."""
        return self._ranges.get(f"output_{call}")

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the layer."""
        regularizer = self.activity_regularizer
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "activation": self.activation and keras.activations.serialize(self.activation.function),
            "activity_regularizer": regularizer and keras.regularizers.serialize(regularizer),
            "calls": [call.config() for call in self.calls],
            "ranged": self.ranged,
            "batchnorm": self.batchnorm and self.batchnorm.layer.name,
            "scaling": self.scaling is not None,
            "folded": self.folded,
            "keep": dict(self.keep),
            "joining": list(self.joining),
            "inherited": list(self.inherited),
            "bits": {"weights": self.bits.weights, "activations": self.bits.activations},
            "decay": DECAY,
        }


def _along(factors: Tensor, axis: int) -> Tensor:
    """Factors for the indices of an axis, which is negative: counted from the end."""
    return tf.reshape(factors, (-1, *(1,) * (-1 - axis)))


def batchnorm_as_affine(layer: Any) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset of each channel of a BatchNorm with its moving averages."""
    factors = tf.math.rsqrt(layer.moving_variance.value + layer.epsilon)
    if layer.scale:
        factors = factors * layer.gamma.value
    shift = -layer.moving_mean.value * factors
    return factors, shift + layer.beta.value if layer.center else shift


@dataclass(frozen=True)
class Run:
    """One call of a quantized layer; the argument of the function that computes it."""

    wrapper: Quantized
    call: int
    training: bool

    @property
    def layer(self) -> Operation:
        """The layer inside."""
        return self.wrapper.layer

    def inner(self, *args: Any, weights: Substitutes = (), **kwargs: Any) -> Any:
        """Return the outputs of the inner layer, computed with these values instead of its variables."""
        with substituted(self.layer, weights):
            return self.layer(*args, **kwargs)

    def weight(self, weight: Any, axis: int | None = None) -> Tensor:
        """Return a weight, quantized with a scale for each index of the axis, or with one scale."""
        value = weight.value if isinstance(weight, keras.Variable) else weight
        return quantized_weight(value, self.wrapper.bits.weights if self.wrapper.kind.int4 else 8, axis)

    def affine(
        self, kernel: Tensor, bias: Variable | None, axis: int | None = None, channels: int = -1, fold: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return the quantized kernel and the bias, with everything that is folded into them.

        Scaling of the inputs is, along the last axis but one, and BatchNorm, along the axis `channels`.

        In training BatchNorm normalizes by statistics of the batch, behind the layer. Then the kernel is rounded as it
        will be when it is folded, by the moving averages, and scaled back: as PyTorch's ConvBn does (torch.ao.nn
        .intrinsic.qat).
        """
        offset = None if bias is None else make_distinct(bias.value)
        if self.wrapper.scaling is not None:
            kernel, offset = self._with_scaling(kernel, offset, *self.wrapper.scaling())
        if not fold or self.wrapper.batchnorm is None:
            return self.weight(kernel, axis), offset
        factors, shift = batchnorm_as_affine(self.wrapper.batchnorm.layer)
        if not self.training:
            shift = shift if offset is None else offset * factors + shift
            return self.weight(kernel * _along(factors, channels), axis), shift
        least = tf.where(factors < 0, -LEAST_FACTOR, LEAST_FACTOR)
        factors = _along(tf.stop_gradient(tf.where(tf.abs(factors) < LEAST_FACTOR, least, factors)), channels)
        return self.weight(kernel * factors, axis) / factors, offset

    def _with_scaling(
        self, kernel: Tensor, bias: Tensor | None, factors: Any, offsets: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the kernel and the bias that give for unscaled values what these give for scaled ones."""
        if offsets is not None:
            shift = tf.reduce_sum(kernel * tf.reshape(offsets, (-1, 1)), axis=range(len(kernel.shape) - 1))
            bias = shift if bias is None else bias + shift
        return kernel * tf.reshape(factors, (-1, 1)), bias

    def fused(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """Return the values plus the bias, after the layer's activation; the file has one op for all of this."""
        values = values if bias is None else tf.nn.bias_add(values, bias)
        return values if self.layer.activation is None else self.layer.activation(values)

    def constant(self, value: Any) -> Tensor:
        """Return the constant operand of an addition or multiplication, quantized like values."""
        tensor = tf.convert_to_tensor(value, tf.float32)
        return quantized_values(tensor, limits_of(tensor), self.wrapper.bits.activations)

    def range(self, values: Tensor, name: str) -> Tensor:
        """Return values between two ops of the layer, in a learned range of this name."""
        return self.wrapper.range(f"{name}_{self.call}")(values, DECAY, self.training)

    def in_one_range(self, several: Sequence[Tensor]) -> list[Tensor]:
        """Return several values in one range, for ops with one scale for inputs and outputs."""
        if self.call in self.wrapper.joining:
            return list(several)
        return self.wrapper.range(f"output_{self.call}").of_all(several, DECAY, self.training)

    def in_range_of_inputs(self, values: Tensor) -> Tensor:
        """Return the outputs of an op that cannot change the scale of its inputs, if their range is known."""
        learned = self.wrapper.inherited.get(self.call)
        return values if learned is None else quantized_values(values, learned.limits, learned.bits)

    def between_0_and_1(self, values: Tensor) -> Tensor:
        """Return the values in the range that TFLite requires for outputs of sigmoid and softmax."""
        eight = self.wrapper.bits.activations == 8
        return quantized_values(
            values, (0.0, 255 / 256) if eight else (-1.0, 1.0 - 2**-15), self.wrapper.bits.activations
        )

    def between_1_and_1(self, values: Tensor) -> Tensor:
        """Return the values in the range that TFLite requires for outputs of tanh."""
        bits = self.wrapper.bits.activations
        return quantized_values(values, (-1.0, 1.0 - 2.0 ** (1 - bits)), bits)

    def output(self, values: Tensor) -> Tensor:
        """Return the outputs of the layer in their range, after its activation if that is a separate op."""
        if (activation := self.wrapper.activation) is not None:
            return activation.compute(self, self.range(values, "linear"), activation.function)
        return self.range(values, "output") if self.wrapper.ranged else values


def compute_plain(run: Run, *args: Any, **kwargs: Any) -> Any:
    """Return the outputs of the layer itself, in a learned range."""
    return run.output(run.inner(*args, **kwargs))

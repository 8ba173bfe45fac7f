"""Quantization-aware models with TensorFlow Model Optimization (TFMOT): whole models, or exactly the chosen layers.

With TFMOT's annotation of single layers, a layer stays float if it follows a layer without a quantizer (Dropout,
Flatten, pooling, ...), because its input is not quantized (model-optimization issue #523). `annotated_copy` inserts the
missing quantizer on this edge. Layers that TFMOT refuses are annotated with the configurations of `own_layers`; models
without such layers are those of TFMOT, bit for bit.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from experiments.system.tensorflow import keras, tf  # first: it chooses Keras 2

# isort: split
import numpy as np
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.quantize_aware_activation import (
    QuantizeAwareActivation,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer

from experiments.dataset import Images
from experiments.dataset.named import as_inputs
from experiments.model.copies import copied, is_wrapper, kinds_known, nodes_of, take_over_state, unwrapped
from experiments.quantization.survey import PASSING_LAYERS, Survey, SurveyedLayer
from experiments.quantization.tfmot import own_layers
from experiments.quantization.tfmot.replaced import replaced
from experiments.quantization.tfmot.schemes import quantization_aware
from experiments.system.errors import UserError, first_line
from experiments.system.progress import say
from experiments.tflite.static import ActivationBits, WeightBits

if TYPE_CHECKING:
    from tf_keras import Model

KerasLayer = Any
Tensor = Any
Node = Any

PASSING_CLASSES = tuple(getattr(keras.layers, name) for name in PASSING_LAYERS)
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
FOLDED = (keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Activation)
# Without a range before it, the converter leaves a layer with the activation swish in float: x * sigmoid(x) is two ops
# with the input x. TFMOT learns only a range after it.
QuantizeAwareActivation._PRE_QUANT_ACTIVATIONS |= {"swish"}
ACTIVATIONS = QuantizeAwareActivation._PRE_QUANT_ACTIVATIONS | QuantizeAwareActivation._POST_QUANT_ACTIVATIONS


def survey(model: "Model", activation_bits: ActivationBits = 8) -> Survey:
    """Return what can be quantized in a model, layer by layer; with 8 bits, as strategies make sure."""
    groups = _groups(model)
    # A Sequential model does not list its input layer.
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    for node in nodes_of(model):
        for tensor in _inputs(node):
            before[node.layer.name].add(tensor.node.layer.name)
            after[tensor.node.layer.name].add(node.layer.name)
    return Survey(
        tuple(
            SurveyedLayer(
                name=layer.name,
                kind=type(layer).__name__,
                weighted=_has_kernel(layer),
                passing=isinstance(layer, PASSING_CLASSES),
                obstacle=_obstacle(layer),
                group=tuple(member.name for member in groups[layer.name]),
                neighbours=frozenset(before[layer.name] | after[layer.name]),
            )
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer)
        )
    )


def annotated_whole(model: "Model") -> "Model":
    """Return a quantization-aware copy of the model with every layer annotated."""
    return annotated(model, None)


def annotated(
    model: "Model", names: Collection[str] | None, weight_bits: WeightBits = 8, activation_bits: ActivationBits = 8
) -> "Model":
    """Return a copy of the model with fake quantization in exactly the named layers; None: all."""
    assert (weight_bits, activation_bits) == (8, 8)  # refused by the strategies
    with _refusals_translated():
        quantized = quantization_aware(annotated_copy(model, names), model)
    take_over_state(quantized, model)
    return quantized


def annotated_copy(model: "Model", names: Collection[str] | None) -> "Model":
    """Return a copy of the model that TFMOT can apply fake quantization to, in exactly the named layers; None: all."""
    if names is None and not any(map(own_layers.is_own, model.layers)):
        with kinds_known(model):
            return tfmot.quantization.keras.quantize_annotate_model(model)
    if names is None:
        found = survey(model)
        found.refuse_unsupported([layer.name for layer in model.layers])
        names = found.supported
    quantized_edges = set(_edges_to_quantize(model, names))
    groups = _groups(model)
    copies: dict[str, KerasLayer] = {}
    values: dict[int, Tensor] = {}
    quantized: dict[int, Tensor] = {}
    for node in nodes_of(model):
        if node.is_input:
            original = node.outputs
            values[id(original)] = keras.layers.Input(original.shape[1:], dtype=original.dtype, name=node.layer.name)
            continue
        for tensor in _inputs(node):
            if (id(tensor), id(node)) in quantized_edges and id(tensor) not in quantized:
                quantized[id(tensor)] = _input_quantizer(tensor)(values[id(tensor)])
        arguments: dict[str, list[Tensor]] = {}
        for tensor in _inputs(node):
            held = quantized if (id(tensor), id(node)) in quantized_edges else values
            arguments.setdefault(str(id(tensor)), []).append(held[id(tensor)])
        is_active = _is_active(node.layer, names)
        if node.layer.name not in copies:
            with kinds_known(model):
                copies[node.layer.name] = _copy(node.layer, is_active, groups[node.layer.name])
        outputs = _called(copies[node.layer.name], node, arguments, is_active)
        for original, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
            values[id(original)] = value
    copy = keras.Model([values[id(t)] for t in model.inputs], [values[id(t)] for t in model.outputs], name=model.name)
    _copy_weights(model, copies, names)
    return copy


def _called(copy: KerasLayer, node: Node, values: Mapping[str, list[Tensor]], is_active: bool) -> Any:
    """Return the outputs of a layer's copy for a call of the layer; `values` are those of its inputs, by their ids."""
    if is_active and own_layers.operation_of(node.layer):  # its constants are in the copy
        return copy([values[str(id(tensor))][0] for tensor in _inputs(node)])
    args, kwargs = node.map_arguments(values)
    return copy(*args, **kwargs)


def _copy_weights(model: "Model", copies: Mapping[str, KerasLayer], names: Collection[str]) -> None:
    """Copy the weights of the model's layers; the factors of a Normalization are constants of its annotated copy."""
    for layer in model.layers:
        if layer.weights:
            target = copies[layer.name]
            inner = target.layer if _is_active(layer, names) else target
            if inner.weights:
                inner.set_weights(layer.get_weights())


def fit_ranges(quantized: "Model", images: Images) -> None:
    """Set the ranges of weights as in a first training step; the initial activation ranges can be converted."""
    fit_weight_ranges(quantized)
    if any(isinstance(unwrapped(layer), own_layers.ScaledChannels) for layer in quantized.layers):
        _set_ranges(quantized, images, quantizers.AllValuesQuantizer)  # these start empty


def start_ranges(quantized: "Model", model: "Model", images: Images) -> None:
    """Initialize activation ranges from these images, if outputs with TFMOT's ranges do not follow the model's.

    TFMOT starts at -6 and 6, in steps of 0.05, and moves the ranges by a thousandth per training step. If activations
    are much smaller than a step, as with an input that is scaled twice, all become zero; if they are much larger, as
    with targets in hundreds or an input of 0 to 255, they are clipped. Either way gradients are lost. Other models are
    not changed, nor are classifiers of which only the logits are clipped.
    """
    before = quantized.get_weights()
    fit_weight_ranges(quantized)
    _set_ranges(quantized, images, quantizers.AllValuesQuantizer)  # like the first training step
    given = as_inputs(images)
    if all(map(_follow, *(tf.nest.flatten(each(given, training=False)) for each in (quantized, model)))):
        quantized.set_weights(before)
        return
    _set_ranges(quantized, images, quantizers.MovingAverageQuantizer)
    say(
        "  ranges start from training examples: with TFMOT's default of -6 to 6, the outputs differ too much from "
        "those of the float model"
    )


def _follow(outputs: Tensor, expected: Tensor) -> bool:
    """Whether outputs explain any of the variance of the expected ones over images, or name the same largest outputs.

    The share of equal largest outputs is corrected for chance (Cohen, Educ. Psychol. Meas. 20, 1960). A constant
    requires no explanation.
    """
    found, wanted = (np.asarray(each, np.float64) for each in (outputs, expected))
    variance = np.square(wanted - wanted.mean(axis=0)).sum()
    if variance == 0 or np.square(found - wanted).sum() < variance:
        return True
    largest, same = (np.argmax(each, axis=-1).ravel() for each in (found, wanted))
    shares = (np.bincount(each, minlength=wanted.shape[-1]) / each.size for each in (largest, same))
    chance = float(np.dot(*shares))
    return bool(np.mean(largest == same) - chance > (1 - chance) / 2)


def _set_ranges(quantized: "Model", images: Images, kind: type) -> None:
    """Set the ranges of a kind of quantizer to the range of float values for images, in all calls of its layer."""
    known: set[int] = set()

    def remember(_self: Any, values: Tensor, _training: Any, weights: Mapping[str, Any], **_: Any) -> Tensor:
        limits = weights["min_var"], weights["max_var"]
        before = (0.0, 0.0) if id(limits[0]) not in known else limits
        known.add(id(limits[0]))
        limits[0].assign(tf.minimum(before[0], tf.reduce_min(values)))
        limits[1].assign(tf.maximum(before[1], tf.reduce_max(values)))
        return values

    with fake_quantization_off(), replaced(kind, "__call__", remember):
        quantized(as_inputs(images), training=False)


def fit_weight_ranges(quantized: "Model") -> None:
    """Set the ranges of weights as the first training step does.

    With TFMOT's initial ranges of -6 and 6, small weights are all zero, and the converter would merge the kernels of
    layers with the same shape.
    """
    for layer in quantized.layers:
        for weight, _, limits in getattr(layer, "_weight_vars", ()):
            most = tf.reduce_max(tf.abs(weight))
            limits["min_var"].assign(tf.fill(limits["min_var"].shape, -most))
            limits["max_var"].assign(tf.fill(limits["max_var"].shape, most))


def in_float(model: "Model", architecture: "Model") -> "Model | None":
    """Return a float model of this architecture with the weights of a quantization-aware one; None if layers differ.

    They differ if TFMOT split a layer, or if a wrapper has several weights with the same name.
    """
    sources = {unwrapped(layer).name: layer for layer in model.layers}
    copy = copied(architecture)
    for layer in copy.layers:
        source = sources.get(layer.name)
        if source is not None and is_wrapper(source) and own_layers.is_own(layer):
            continue  # training does not change its state
        if source is not None and not is_wrapper(source):
            layer.set_weights(source.get_weights())
            continue
        found = [(weight.name.rpartition("/")[2], weight) for weight in source.weights] if source else []
        wanted = [weight.name.rpartition("/")[2] for weight in layer.weights]
        if any([name for name, _ in found].count(name) != 1 for name in wanted):
            return None
        values = dict(found)
        layer.set_weights([values[name].numpy() for name in wanted])
    return copy


@contextmanager
def fake_quantization_off() -> Iterator[None]:
    """Turn TFMOT's fake quantization off while the block runs: a model that is converted in it is float."""

    def let_pass(values: Tensor, *_: Any, **__: Any) -> Tensor:
        return values

    # All of TFMOT's quantizers call this function, including those that preserve clusters.
    with replaced(quant_ops, "_FakeQuantWithMinMaxVars", let_pass):
        yield


def _edges_to_quantize(model: "Model", names: Collection[str]) -> Iterable[tuple[int, int]]:
    """Yield (tensor, consumer node) of each edge to an annotated layer that requires a quantizer."""
    producers = {id(t): node for node in nodes_of(model) for t in tf.nest.flatten(node.outputs)}
    consumers: dict[int, int] = {}
    for node in nodes_of(model):
        for tensor in _inputs(node):
            consumers[id(tensor)] = consumers.get(id(tensor), 0) + 1

    def is_int8(tensor: Tensor) -> bool:
        producer = producers[id(tensor)]
        if isinstance(producer.layer, PASSING_CLASSES):
            return is_int8(_inputs(producer)[0])
        return _is_active(producer.layer, names)

    for node in nodes_of(model):
        if node.is_input or not _is_active(node.layer, names):
            continue
        for tensor in _inputs(node):
            if is_int8(tensor):
                continue
            consumer, edge = node, tensor
            while isinstance(producers[id(edge)].layer, PASSING_CLASSES) and consumers[id(edge)] == 1:
                consumer = producers[id(edge)]
                edge = _inputs(consumer)[0]
            # TFMOT itself quantizes what comes straight from the model's input.
            if not (producers[id(edge)].is_input and consumer is node):
                yield id(edge), id(consumer)


def _inputs(node: Node) -> list[Tensor]:
    return list(tf.nest.flatten(node.keras_inputs))


def _is_active(layer: KerasLayer, names: Collection[str]) -> bool:
    return layer.name in names and not isinstance(layer, (keras.layers.InputLayer, *PASSING_CLASSES))


def _copy(layer: KerasLayer, annotate: bool, group: Sequence[KerasLayer]) -> KerasLayer:
    annotate_layer = tfmot.quantization.keras.quantize_annotate_layer
    in_hard_swish = bool(own_layers.hard_swish(group[-1]))
    if annotate and (own_layers.is_own(layer) or in_hard_swish):
        return annotate_layer(*own_layers.to_annotate(layer, layer is group[-1], in_hard_swish))
    copy = type(layer).from_config(layer.get_config())
    return annotate_layer(copy) if annotate else copy


def _input_quantizer(tensor: Tensor) -> KerasLayer:
    """Return TFMOT's quantizer for activations: 8 bits, asymmetric, ranges by moving average."""
    quantizer = quantizers.MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
    layer = tensor.node.layer
    call, output = layer.inbound_nodes.index(tensor.node), tensor._keras_history.tensor_index
    ends = f"{f'_{call}' if call else ''}{f'_output_{output}' if output else ''}"
    return QuantizeLayer(quantizer, name=f"input_quantizer_{layer.name}{ends}")


def _groups(model: "Model") -> dict[str, Sequence[KerasLayer]]:
    """Return by layer the layers that become one op with it."""
    found: dict[str, Sequence[KerasLayer]] = {layer.name: _group(layer) for layer in model.layers}
    for layer in model.layers:
        found.update((member.name, members) for members in [own_layers.hard_swish(layer)] for member in members)
    return found


def _group(layer: KerasLayer) -> list[KerasLayer]:
    """Return the layers that become one op: one with a kernel or an addition, and BatchNorm and activation after it."""
    group = [_head(layer)]
    if own_layers.operation_of(group[0]) in own_layers.ADDITIONS:
        follower = _only_follower(group[0])
        return [group[0], follower] if follower and own_layers.fuses_into_addition(follower) else [layer]
    if not (_has_kernel(group[0]) or isinstance(group[0], keras.layers.Add)) or own_layers.is_own(group[0]):
        return [layer]
    while _is_linear(group[-1]) and (follower := _only_follower(group[-1])) and isinstance(follower, FOLDED):
        group.append(follower)
    return group


def _head(layer: KerasLayer) -> KerasLayer:
    """Return the layer that a BatchNorm or activation is folded into; other layers are returned unchanged."""
    while isinstance(layer, FOLDED):
        before = layer.inbound_nodes[0].inbound_layers
        if isinstance(before, list) or not _is_linear(before) or _only_follower(before) is not layer:
            break
        layer = before
    return layer


def _only_follower(layer: KerasLayer) -> KerasLayer | None:
    followers = layer._outbound_nodes
    return followers[0].layer if len(followers) == 1 else None


def _is_linear(layer: KerasLayer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return True
    return not isinstance(layer, keras.layers.ReLU) and _activation(layer) in (None, "linear")


def _activation(layer: KerasLayer) -> str | None:
    activation = getattr(layer, "activation", None)
    return None if activation is None else str(getattr(activation, "__name__", activation))


def _has_kernel(layer: KerasLayer) -> bool:
    return bool(layer.weights) and not isinstance(layer, keras.layers.BatchNormalization)


@cache
def _registry() -> Any:
    return tfmot.quantization.keras.default_8bit.Default8BitQuantizeRegistry()


def _obstacle(layer: KerasLayer) -> str | None:
    """Return why TFMOT cannot train this layer quantization-aware; None if it can."""
    kind = type(layer).__name__
    if isinstance(layer, keras.layers.InputLayer):
        return None
    if isinstance(layer, keras.layers.BatchNormalization):
        return _batchnorm_obstacle(layer)
    if own_layers.is_own(layer):
        return own_layers.obstacle(layer)
    if not (_registry().supports(layer) or isinstance(layer, keras.layers.SeparableConv2D)):
        return f"{own_layers.operation_of(layer) or kind} is not supported"
    activation = _activation(layer)
    if activation not in (None, *ACTIVATIONS):
        return f"{kind} with activation {activation}; supported: {', '.join(sorted(ACTIVATIONS))}"
    return None


def _batchnorm_obstacle(layer: KerasLayer) -> str | None:
    before = layer.inbound_nodes[0].inbound_layers
    shared = len(layer.inbound_nodes) > 1
    # TFMOT also accepts a dense layer, but leaves it float. It does not accept Conv2DTranspose, a subclass of Conv2D.
    convolution = isinstance(before, CONVOLUTIONS) and not isinstance(before, keras.layers.Conv2DTranspose)
    if not shared and convolution and _is_linear(before) and _only_follower(before) is layer:
        return None
    return "BatchNormalization that does not directly follow a linear convolution"


@contextmanager
def _refusals_translated() -> Iterator[None]:
    """Convert TFMOT's RuntimeError, ValueError and AttributeError to a UserError."""
    try:
        yield
    except (RuntimeError, ValueError, AttributeError) as error:
        raise UserError(f"TFMOT cannot annotate the model: {first_line(error)}") from error

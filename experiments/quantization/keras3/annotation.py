"""Quantization-aware copies of Keras 3 models, with fake quantization in exactly the named layers."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.dataset import Images
from experiments.dataset.named import as_inputs
from experiments.model.copies import copy_layer_state, kinds_known, unwrapped
from experiments.model.keras3.graphs import renewed
from experiments.quantization.keras3.fake_quantization import (
    ActivationBits,
    WeightBits,
    fake_quantization_off,
    ranges_watched,
)
from experiments.quantization.keras3.graph import Graph, obstacle_of
from experiments.quantization.keras3.kind import FUSED, Operation, activation_of
from experiments.quantization.keras3.kinds import kind_of
from experiments.quantization.keras3.kinds.activation import activated
from experiments.quantization.keras3.known_ranges import KnownRanges
from experiments.quantization.keras3.wrapper import Activation, Arguments, Bits, Inside, Quantized, Quantizer, Shield
from experiments.system.errors import UserError
from experiments.system.tensorflow import keras_3

if TYPE_CHECKING:
    from keras import Model

__all__ = ["annotated", "fake_quantization_off", "in_float", "is_fake_quantized_layer", "start_ranges"]

keras = keras_3()

Node = Any
Tensor = Any


def annotated(
    model: "Model",
    names: Collection[str] | None = None,
    weight_bits: WeightBits = 8,
    activation_bits: ActivationBits = 8,
    keeps_clusters: bool = False,
) -> "Model":
    """Return a copy of a flat model with fake quantization in exactly the named layers; None: in all supported ones.

    With `keeps_clusters`, kernels get no more distinct weights by what is folded into them.

    Raises:
        UserError: the model is not functional or has models within, or a named layer cannot carry it.
    """
    graph = Graph(model, keeps_clusters)
    bits, active = Bits(weight_bits, activation_bits), _active(graph, names, activation_bits)
    return _rebuilt(model, graph, graph.with_moving(active, activation_bits), bits)


def start_ranges(quantized: "Model", images: Images) -> None:
    """Start the ranges of activations at the values that these images cause in float."""
    with ranges_watched():
        quantized(as_inputs(images), training=False)


def in_float(quantized: "Model", architecture: "Model") -> "Model":
    """Return a float model of this architecture with the weights of a quantization-aware copy of it."""
    copy = _rebuilt(architecture, Graph(architecture), frozenset(), Bits())
    sources = {unwrapped(layer).name: unwrapped(layer) for layer in quantized.layers}
    for layer in copy.layers:
        if layer.name in sources:
            copy_layer_state(layer, sources[layer.name])
    return copy


def is_fake_quantized_layer(layer: Any) -> bool:
    """Whether a layer of a model is a quantized layer, not a quantizer or an original one."""
    return bool(getattr(layer, "quantizes", False))


def _active(graph: Graph, names: Collection[str] | None, activation_bits: ActivationBits) -> frozenset[str]:
    """Return the operations that get fake quantization."""
    obstacles = {each.name: obstacle for each in graph.operations if (obstacle := obstacle_of(each, activation_bits))}
    computing = [each.name for each in graph.operations if not ((kind := kind_of(each)) and kind.passing)]
    if names is None:
        return frozenset(name for name in computing if not any(member in obstacles for member in graph.groups[name]))
    refused = [f"{name} ({obstacles[name]})" for name in names if name in obstacles]
    if refused:
        raise UserError(f"Layers that do not support quantization-aware training: {'; '.join(refused)}.")
    return frozenset(name for name in computing if name in names)


def _rebuilt(model: "Model", graph: Graph, active: Collection[str], bits: Bits) -> "Model":
    """Return a copy of the model with the active layers quantized, and with quantizers before them."""
    edges = [(tensor, id(node)) for tensor, node in graph.edges_to_quantize(active)]
    to_quantize = {(id(tensor), node) for tensor, node in edges}
    copies: dict[str, Operation] = {}
    values: dict[int, Tensor] = {}
    quantized: dict[int, Tensor] = {}
    shields: dict[int, Tensor] = {}
    done: dict[str, int] = {}
    ranges = KnownRanges()

    def value(tensor: Tensor, node: Node, joins: bool) -> Tensor:
        if (id(tensor), id(node)) in to_quantize:
            if id(tensor) not in quantized:
                quantizer = Quantizer(bits, name=_name("quantize", graph, tensor))
                held = values[id(tensor)] if graph.producers[id(tensor)].is_input else shield(tensor)
                quantized[id(tensor)] = quantizer(held)
            return quantized[id(tensor)]
        return shield(tensor) if not joins and graph.is_shielded(tensor, node, active) else values[id(tensor)]

    def make_copy(operation: Operation) -> None:
        if (name := operation.name) in copies:
            return
        make = _quantized if name in active else _copied
        copies[name] = make(operation, graph, active, bits)
        if name in active:
            _fold(copies, graph.groups[name], name)
            if (before := graph.scaled.get(name)) is not None and before in active:
                _fold_scaling(copies[before], copies[name])

    def shield(tensor: Tensor) -> Tensor:
        if id(tensor) not in shields:
            shields[id(tensor)] = Shield(name=_name("shield", graph, tensor))(values[id(tensor)])
        return shields[id(tensor)]

    with kinds_known(model):
        for node in graph.nodes:
            if node.is_input:
                (tensor,) = node.outputs
                values[id(tensor)] = keras.Input(
                    batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=node.operation.name
                )
                continue
            name = node.operation.name
            make_copy(node.operation)
            call = done.get(name, 0)
            joins = name in active and ranges.connect(node, copies[name], call)
            given = {id(tensor): value(tensor, node, joins) for tensor in node.input_tensors}
            if name in active:
                outputs = _call_quantized(copies[name], node, list(given.values()), call)
            else:
                args, kwargs = node.arguments.fill_in(given)
                outputs = copies[name](*args, **kwargs)
            done[name] = call + 1
            ranges.follow(node, copies[name], call)
            for tensor, output in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
                if not isinstance(node.operation, keras.layers.Layer):
                    output._sparse = False  # Keras marks the product with a number as sparse
                values[id(tensor)] = output
    return _model_of(model, graph, values, copies)


def _model_of(model: "Model", graph: Graph, values: Mapping[int, Tensor], copies: Mapping[str, Operation]) -> "Model":
    """Return the model of these values and copies of layers, with the state of the original layers."""
    original = graph.functional
    inputs, outputs = (
        keras.tree.map_structure(lambda tensor: values[id(tensor)], ends) for ends in (original.input, original.output)
    )
    copy = keras.Model(inputs, outputs, name=model.name)
    copy.output_names = list(original.output_names)
    for operation in graph.operations:
        if isinstance(operation, keras.layers.Layer):
            copy_layer_state(unwrapped(copies[operation.name]), operation)
    copy._trainable = model._trainable
    return copy


def _call_quantized(wrapper: Quantized, node: Node, tensors: list[Tensor], call: int) -> Any:
    """Return the outputs of a quantized layer for a call of the original one."""
    training = {name: value for name, value in node.arguments.kwargs.items() if name == "training"}
    number = {"call": call} if len(wrapper.calls) > 1 else {}
    return wrapper(tensors[0] if len(tensors) == 1 else tensors, **number, **training)


def _quantized(operation: Operation, graph: Graph, active: Collection[str], bits: Bits) -> Quantized:
    kind = kind_of(operation)
    assert kind is not None
    group = graph.groups[operation.name]
    behind = group[group.index(operation.name) + 1 :]
    calls = [Arguments.of(node) for node in graph.calls[operation.name]]
    ranged = not (behind and behind[0] in active)
    if kind.splits_activation and activation_of(operation) not in FUSED:
        linear = _copied(operation, graph, active, bits, activation="linear")
        return Quantized(linear, kind, bits, calls, ranged, Activation(operation.activation, activated))
    return Quantized(_copied(operation, graph, active, bits), kind, bits, calls, ranged)


def _fold(copies: Mapping[str, Operation], group: Sequence[str], name: str) -> None:
    """Let a BatchNorm be folded into the quantized layer before it, by that layer or by the converter."""
    place = group.index(name)
    before = copies[group[place - 1]] if place else None
    if isinstance(before, Quantized) and isinstance(copies[name].layer, keras.layers.BatchNormalization):
        copies[name].folded = "before" if before.kind.folds else "by the converter"
        if before.kind.folds:
            before.batchnorm = Inside(copies[name].layer)


def _fold_scaling(before: Quantized, behind: Quantized) -> None:
    """Let a quantized layer scale its inputs, instead of the layer before it."""
    assert before.kind.scales is not None
    before.folded = "behind"
    behind.scaling = partial(before.kind.scales, before.layer)


def _copied(operation: Operation, _graph: Graph, _active: Collection[str], _bits: Bits, **changes: Any) -> Operation:
    """Return a copy of a layer or another operation; the values of its weights are not copied yet."""
    copy = renewed(operation, {**operation.get_config(), **changes}, operation.name)
    if isinstance(copy, keras.layers.Layer) and operation.built and not copy.built:
        copy.build_from_config(operation.get_build_config())
        copy.built = True
    return copy


def _name(kind: str, graph: Graph, tensor: Tensor) -> str:
    node = graph.producers[id(tensor)]
    name = node.operation.name
    call = 0 if node.is_input else graph.calls[name].index(node)
    output = [id(each) for each in node.outputs].index(id(tensor))
    return f"{kind}_{name}" + (f"_call{call}" if call else "") + (f"_output{output}" if output else "")

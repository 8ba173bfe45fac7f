"""What can be quantized in a Keras 3 model, and where values have to be quantized between layers."""

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.quantization.keras3.fake_quantization import ActivationBits
from experiments.quantization.keras3.kind import NO_INT16, Kind, Operation, Role, Scaling, activation_of
from experiments.quantization.keras3.kinds import kind_of
from experiments.system.errors import UserError
from experiments.system.tensorflow import keras_3

if TYPE_CHECKING:
    from keras import Model

    from experiments.quantization.survey import SurveyedLayer

Node = Any
Tensor = Any
WRONG_INT16 = "LiteRT computes SUM wrongly with 16-bit activations"


class Graph:
    """The calls of a model's layers and other operations, from inputs to outputs."""

    def __init__(self, model: "Model", keeps_clusters: bool = False) -> None:
        self.keeps_clusters = keeps_clusters
        keras = keras_3()
        functional = model._functional if isinstance(model, keras.Sequential) else model
        if not hasattr(functional, "_nodes_by_depth"):
            raise UserError(
                f"The model {model.name} is neither functional nor a Sequential with an input shape. "
                "Quantization-aware training requires one of these: build it from keras.Input."
            )
        depths = functional._nodes_by_depth
        self.nodes: list[Node] = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
        self.functional = functional
        self.outputs = {id(tensor) for tensor in functional.outputs}
        self.producers: dict[int, Node] = {id(tensor): node for node in self.nodes for tensor in node.outputs}
        self.consumers: dict[int, list[Node]] = {}
        for node in self.nodes:
            for tensor in _distinct(node.input_tensors):
                self.consumers.setdefault(id(tensor), []).append(node)
        self.calls: dict[str, list[Node]] = {}
        for node in self.nodes:
            if not node.is_input:
                self.calls.setdefault(node.operation.name, []).append(node)
        self.operations: list[Operation] = [
            operation for operation in functional.operations if operation.name in self.calls
        ]
        for operation in self.operations:
            if isinstance(operation, keras.Model):
                raise UserError(
                    f"The layer {operation.name} is a model. Quantization-aware training requires a model of layers, "
                    "which can be quantized one by one. Quantize after training, with strategy=ptq_int8."
                )

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """By operation, the operations that become one op with it, itself included, in order."""
        found: dict[str, tuple[str, ...]] = {}
        for operation in self.operations:
            if operation.name in found:
                continue
            group = [operation]
            kind = kind_of(operation)
            fuses = kind.fuses if kind and activation_of(operation) == "linear" else frozenset[Role]()
            while (follower := self._only_follower(group[-1])) is not None and (role := _role(follower)) in fuses:
                group.append(follower)
                fuses = fuses - {"batchnorm"} if role == "batchnorm" else frozenset()
            names = tuple(member.name for member in group)
            found.update(dict.fromkeys(names, names))
        return found

    def _only_follower(self, operation: Operation) -> Operation | None:
        """Return the only operation that takes the values of this one, in all of its calls."""
        calls = self.calls[operation.name]
        takers = [self.consumers.get(id(tensor), []) for node in calls for tensor in node.outputs]
        if any(id(tensor) in self.outputs for node in calls for tensor in node.outputs):
            return None
        if not all(len(each) == 1 for each in takers):
            return None
        followers = {id(each[0].operation): each[0].operation for each in takers}
        (follower,) = followers.values() if len(followers) == 1 else (None,)
        return follower if follower is not None and len(self.calls[follower.name]) == len(calls) else None

    @cached_property
    def scaled(self) -> dict[str, str]:
        """By layer, the layer before it that scales the model's input and can be folded into it."""
        found = {}
        for operation in self.operations:
            scaling = _scaling(operation)
            (first, *_others) = self.calls[operation.name]
            if scaling is None or not all(self.producers[id(tensor)].is_input for tensor in first.input_tensors):
                continue
            follower, passes = self._only_follower(operation), False
            while follower is not None and (kind := kind_of(follower)) is not None and kind.passing:
                follower, passes = self._only_follower(follower), True
            if follower is None or (kind := kind_of(follower)) is None:
                continue
            has_offsets = scaling.offsets is not None
            is_plain = np.size(scaling.factors) == 1 and np.min(scaling.factors) > 0
            if (
                kind.takes_scaling(follower, has_offsets)
                and _are_alike(scaling.factors)
                and (not passes or (is_plain and not has_offsets))  # pooling and padding commute only with that
                and (not self.keeps_clusters or np.size(scaling.factors) == 1)
            ):
                found[follower.name] = operation.name
        return found

    def neighbours(self, operation: Operation) -> frozenset[str]:
        """Return the names of the operations before and after one."""
        calls = self.calls[operation.name]
        before = [self.producers[id(tensor)] for node in calls for tensor in node.input_tensors]
        behind = [taker for node in calls for tensor in node.outputs for taker in self.consumers.get(id(tensor), [])]
        return frozenset(node.operation.name for node in (*before, *behind) if not node.is_input)

    def with_moving(self, active: Collection[str], activation_bits: ActivationBits) -> frozenset[str]:
        """Return the active operations, and those between them that only move values, such as Concatenate."""
        found = set(active)
        for operation in self.operations:
            tensors = [tensor for node in self.calls[operation.name] for tensor in node.input_tensors]
            can_move = _moves(operation) and obstacle_of(operation, activation_bits) is None
            if can_move and all(self.is_integer(tensor, found) for tensor in tensors):
                found.add(operation.name)
        return frozenset(found)

    def is_integer(self, tensor: Tensor, active: Collection[str]) -> bool:
        """Whether a value comes from an active operation, directly or through passing operations."""
        producer = self.producers[id(tensor)]
        while _is_passing(producer):
            producer = self.producers[id(producer.input_tensors[0])]
        return not producer.is_input and producer.operation.name in active

    def is_shielded(self, tensor: Tensor, node: Node, active: Collection[str]) -> bool:
        """Whether the converter must not see where a value comes from: between integers and floats.

        Nor if it is quantized twice: of two successive ranges, the converter uses one.
        """
        if tensor.dtype != "float32" or self.producers[id(tensor)].is_input or _is_passing(node):
            return False
        if node.operation.name in active:  # others get their values from quantizers
            return _quantizes_inputs(node.operation)
        return self.is_integer(tensor, active)

    def edges_to_quantize(self, active: Collection[str]) -> Iterable[tuple[Tensor, Node]]:
        """Yield each edge, a tensor and its consumer, on which the values for an active operation must be quantized."""
        for node in self.nodes:
            if node.is_input or node.operation.name not in active or _quantizes_inputs(node.operation):
                continue
            for tensor in _distinct(node.input_tensors):
                if tensor.dtype != "float32" or self.is_integer(tensor, active):
                    continue
                consumer, edge = node, tensor
                while _is_passing(self.producers[id(edge)]) and len(self.consumers[id(edge)]) == 1:
                    consumer = self.producers[id(edge)]
                    edge = consumer.input_tensors[0]
                yield edge, consumer


def survey_layers(model: "Model", activation_bits: ActivationBits = 8) -> "tuple[SurveyedLayer, ...]":
    """Return what can be quantized in a flat model, in its order: layers, and other operations of Keras.

    Raises:
        UserError: the model is not functional, or has models within.
    """
    from experiments.quantization.survey import SurveyedLayer

    keras = keras_3()
    graph = Graph(model)
    surveyed = []
    for operation in graph.operations:
        kind = kind_of(operation)
        weights = isinstance(operation, keras.layers.Layer) and bool(operation.weights)
        surveyed.append(
            SurveyedLayer(
                name=operation.name,
                kind=type(operation).__name__,
                weighted=weights and not isinstance(operation, keras.layers.BatchNormalization),
                passing=kind is not None and kind.passing,
                obstacle=obstacle_of(operation, activation_bits),
                group=graph.groups[operation.name],
                neighbours=graph.neighbours(operation),
            )
        )
    return tuple(surveyed)


def obstacle_of(operation: Operation, activation_bits: ActivationBits = 8) -> str | None:
    """Return why an operation does not support quantization-aware training; None if it does, or only passes values."""
    kind = kind_of(operation)
    if kind is None:
        return f"{type(operation).__name__} is not supported"
    if obstacle := kind.obstacle(operation):
        return obstacle
    if not kind.passing and _has_only_integers(operation):
        return "its inputs are integers, not floats with a range to learn"
    if activation_bits == 16 and (op := kind.no_int16 or NO_INT16.get(activation_of(operation))):
        return WRONG_INT16 if op == "SUM" else f"the converter refuses {op} with 16-bit activations"
    return None


def _has_only_integers(operation: Operation) -> bool:
    """Whether an operation computes with integers, as after a Discretization; an Embedding only looks them up."""
    keras = keras_3()
    if isinstance(operation, keras.layers.Embedding):
        return False
    given = [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]
    return bool(given) and not any(keras.backend.is_float_dtype(tensor.dtype) for tensor in given)


def _role(operation: Operation) -> Role | None:
    kind: Kind | None = kind_of(operation)
    return kind.role(operation) if kind else None


def _scaling(operation: Operation) -> Scaling | None:
    kind = kind_of(operation)
    return kind.scales(operation) if kind and kind.scales and kind.obstacle(operation) is None else None


def _are_alike(factors: Any) -> bool:
    """Whether a kernel times these factors loses at most one bit of precision."""
    sizes = np.abs(factors)
    return bool(np.max(sizes) <= 2 * np.min(sizes))


def _quantizes_inputs(operation: Operation) -> bool:
    kind = kind_of(operation)
    return kind is not None and kind.quantizes_inputs


def _moves(operation: Operation) -> bool:
    kind = kind_of(operation)
    return kind is not None and kind.moves


def _is_passing(node: Node) -> bool:
    kind = None if node.is_input else kind_of(node.operation)
    return kind is not None and kind.passing


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())

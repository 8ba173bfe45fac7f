"""Restrict integer computation in a TFLite file to exactly the chosen layers.

The converter quantizes every op whose inputs and outputs both have a range, so a layer between chosen ones becomes int8
even if it was not chosen. No option of the converter prevents this. Here such an op is converted back to float:

    chosen int8 -> DEQUANTIZE -> float op with its float constants -> QUANTIZE -> chosen int8

as in the Keras model. Between two such ops the values stay float, also through ops that only pass them on (Flatten,
pooling, padding). The float constants, with folded BatchNorm, come from a second conversion of the same model without
quantization, which has the same ops for the same layers.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from experiments.system.errors import UserError
from experiments.tflite.flatbuffer import (
    editable,
    is_constant,
    is_quantized,
    name_of_code,
    op_name,
    operator_code,
    packed,
)
from experiments.tflite.graph import SCALE_KEEPING, VALUE_KEEPING, Op, idle_conversions, read_ops

OpKey = tuple[str, str]  # layer and op
Bytes = npt.NDArray[np.uint8]
Held = list[Bytes | None]  # for each input of an op: the content of a constant, None for computed values


def surplus(ops: Collection[Op], spared: Collection[str]) -> list[Op]:
    """Return the ops with integer values or weights whose layers should stay float."""
    return [
        op
        for op in ops
        if op.computes and op.op not in SCALE_KEEPING and op.arithmetic != "float" and op.layer in spared
    ]


def halves(ops: Collection[Op]) -> list[Op]:
    """Return ops with float weights and outputs but int8 inputs, which no kernel supports.

    The converter omits the DEQUANTIZE before a dense layer on three axes whose input is also used as int8.
    """
    return [op for op in ops if op.computes and op.output_type == "float32" and op.types in ("int8", "int16")]


def restrict_to_layers(
    content: bytes, in_float: Callable[[], bytes], layers: Sequence[str], chosen: Collection[str]
) -> bytes:
    """Return the file with exactly the chosen layers in integers; `in_float` converts the model to float if needed."""
    content = without_shields(content)
    ops = read_ops(content, layers)
    too_many = surplus(ops, frozenset(layers) - frozenset(chosen))
    half = [op.index for op in halves(ops)]
    constants: dict[int, Held] = {}
    if too_many:
        plain = in_float()
        constants = held_in_float(too_many, ops, float_constants(plain, read_ops(plain, layers)))
    return without_detours(put_back_to_float(content, constants, half) if too_many or half else content)


def held_in_float(
    too_many: Sequence[Op], ops: Sequence[Op], constants: Mapping[OpKey, Sequence[Held]]
) -> dict[int, Held]:
    """Return the constants of the surplus ops in the float file, by position; equal ops of a layer match in order.

    Raises:
        UserError: the float file has another number of these ops, so they cannot be matched.
    """
    found = {}
    places: dict[OpKey, list[int]] = {}
    for op in ops:
        places.setdefault((op.layer, op.op), []).append(op.index)
    for op in too_many:
        alike, held = places[op.layer, op.op], constants.get((op.layer, op.op), ())
        if len(held) != len(alike):
            raise UserError(
                f"strategy.layers: {op.layer} cannot stay float, since it becomes {len(alike)} {op.op} ops with "
                f"quantization and {len(held)} without. Choose this layer as well, or none of its neighbours."
            )
        found[op.index] = held[alike.index(op.index)]
    return found


def put_back_to_float(content: bytes, constants: Mapping[int, Held], half: Collection[int] = ()) -> bytes:
    """Convert the ops at these positions to float32, with DEQUANTIZE and QUANTIZE around them only where needed.

    Ops at the positions `half` already have float constants.
    """
    model = editable(content)
    graph = model.subgraphs[0]
    in_float: dict[int, Held] = {**constants, **{i: [None] * len(graph.operators[i].inputs) for i in half}}
    in_float |= {i: [None] * len(graph.operators[i].inputs) for i in _between_floats(model, graph, in_float)}
    floats: dict[int, int] = {}  # int8 tensor: tensor with its values in float
    conversions: dict[int, Any] = {}  # tensor: the QUANTIZE or DEQUANTIZE that computes it, added when needed
    operators: list[Any] = []

    def add_tensor(like: int, buffer: int = 0) -> int:
        tensor = copy(graph.tensors[like])
        tensor.type, tensor.quantization, tensor.buffer = schema.TensorType.FLOAT32, None, buffer
        tensor.name += b"/float"
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def as_float(index: int, constant: Bytes | None = None) -> int:
        if index < 0 or not is_quantized(graph.tensors[index]):
            return index
        if index in floats:
            return floats[index]
        if is_constant(model, graph.tensors[index]):
            model.buffers.append(schema.BufferT(data=constant))
            floats[index] = add_tensor(index, len(model.buffers) - 1)
        else:
            floats[index] = add_tensor(index)
            conversions[floats[index]] = _conversion(model, "DEQUANTIZE", index, floats[index])
        return floats[index]

    def write(operator: Any) -> None:
        for index in operator.inputs:
            if index in conversions:
                write(conversions.pop(index))
        operators.append(operator)

    for operator in graph.operators:
        if _is_dequantize(model, operator):
            floats[operator.inputs[0]] = operator.outputs[0]
            conversions[operator.outputs[0]] = operator
        elif _is_quantize_of_floats(model, graph, operator):
            floats[operator.outputs[0]] = operator.inputs[0]
    for index, operator in enumerate(graph.operators):
        if index in in_float:
            quantized = operator.outputs
            operator.inputs = [as_float(i, value) for i, value in zip(operator.inputs, in_float[index], strict=True)]
            operator.outputs = [as_float(i) for i in quantized]
            for before, after in zip(operator.outputs, quantized, strict=True):
                if before != after:  # conditions and float tensors are kept
                    conversions.pop(before)
                    conversions[after] = _conversion(model, "QUANTIZE", before, after)
        if not _is_dequantize(model, operator):
            write(operator)
    for index in graph.outputs:
        if index in conversions:
            write(conversions.pop(index))
    graph.operators = _without_idle_quantize(model, graph, operators)
    _drop_unused(model)
    return packed(model)


def without_shields(content: bytes) -> bytes:
    """Return the file without CASTs to float64 and back, by which our engine for Keras 3 keeps layers in float.

    float64 holds every float32, so that they change no value.
    """
    model = editable(content)
    graph = model.subgraphs[0]
    casts = [operator for operator in graph.operators if op_name(model, operator) == "CAST"]
    widened = {
        each.outputs[0]: each.inputs[0]
        for each in casts
        if graph.tensors[each.outputs[0]].type == schema.TensorType.FLOAT64
        and graph.tensors[each.inputs[0]].type == schema.TensorType.FLOAT32
    }
    back = {
        each.outputs[0]: widened[each.inputs[0]]
        for each in casts
        if each.inputs[0] in widened and graph.tensors[each.outputs[0]].type == schema.TensorType.FLOAT32
    }
    if not back:
        return content
    for operator in graph.operators:
        operator.inputs = [back.get(i, i) for i in operator.inputs]
    _drop_unread(graph)
    _drop_unused(model)
    return packed(model)


def without_detours(content: bytes) -> bytes:
    """Remove redundant conversions, which only undo others.

    Ops between them that pass values on, such as RESHAPE, are duplicated if both types are used.
    """
    idle = idle_conversions(read_ops(content, ()))
    if not idle:
        return content
    model = editable(content)
    graph = model.subgraphs[0]
    for last in [graph.operators[op.index] for op in idle]:
        source = _Before(model, "QUANTIZE" if _is_dequantize(model, last) else "DEQUANTIZE").twin(last.inputs[0])
        if source is not None:
            _read_instead(model, last, source)
    _drop_unread(graph)
    _drop_unused(model)
    return packed(model)


class _Before:
    """Finds or creates tensors with the values before redundant conversions."""

    def __init__(self, model: Any, undone: str) -> None:
        self._model, self._undone, self._graph = model, undone, model.subgraphs[0]
        self._makers = {int(i): operator for operator in self._graph.operators for i in operator.outputs}
        self._twins: dict[int, int] = {}

    def twin(self, index: int) -> int | None:
        """Return a tensor with the same values in the type before the conversion; None if that is not possible."""
        operator = self._makers.get(int(index))
        if operator is None or index in self._twins:
            return self._twins.get(index)
        name = op_name(self._model, operator)
        if name == self._undone and _is_float(self._graph.tensors[operator.inputs[0]]) == (name == "QUANTIZE"):
            return int(operator.inputs[0])
        if name == "QUANTIZE":  # from one scale to another
            return self.twin(operator.inputs[0])
        values = [i for i in operator.inputs if i >= 0 and not _is_shape(self._graph.tensors[i])]
        found = {i: other for i in values if (other := self.twin(i)) is not None}
        sources = [self._graph.tensors[i] for i in found.values()]
        if len(found) < len(values) or not all(_same_scale(sources[0], each) for each in sources):
            return None
        self._repeat(operator, found)
        return self._twins[index]

    def _repeat(self, operator: Any, values: Mapping[int, int]) -> None:
        """Duplicate an op for the other values, directly after the op."""
        like = self._graph.tensors[next(iter(values.values()))]
        other = copy(operator)
        other.inputs = [values.get(i, i) for i in operator.inputs]
        other.outputs = []
        for index in operator.outputs:
            tensor = copy(self._graph.tensors[index])
            tensor.type, tensor.quantization = like.type, like.quantization
            tensor.name += b"/direct"
            self._graph.tensors.append(tensor)
            other.outputs.append(len(self._graph.tensors) - 1)
            self._twins[int(index)] = other.outputs[-1]
        place = next(i for i, each in enumerate(self._graph.operators) if each is operator)
        self._graph.operators.insert(place + 1, other)


def _read_instead(model: Any, last: Any, source: int) -> None:
    """Replace the output of a conversion by this tensor in all its consumers, with a change of scale if needed."""
    graph, made = model.subgraphs[0], last.outputs[0]
    if not _same_scale(graph.tensors[source], graph.tensors[made]):
        last.inputs = [source]
        return
    for holder in graph.operators:
        holder.inputs = [source if i == made else i for i in holder.inputs]
    graph.outputs = [source if i == made else i for i in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = source if entry.tensorIndex == made else entry.tensorIndex


def _same_scale(one: Any, other: Any) -> bool:
    if not (is_quantized(one) and is_quantized(other)):
        return True
    a, b = one.quantization, other.quantization
    return bool(np.array_equal(a.scale, b.scale) and np.array_equal(a.zeroPoint, b.zeroPoint))


def _is_shape(tensor: Any) -> bool:
    return tensor.type in (schema.TensorType.INT32, schema.TensorType.INT64)


def _is_float(tensor: Any) -> bool:
    return bool(tensor.type == schema.TensorType.FLOAT32)


def _drop_unread(graph: Any) -> None:
    """Remove ops whose outputs are not used."""
    while True:
        read = {index for operator in graph.operators for index in operator.inputs} | {*graph.outputs}
        kept = [operator for operator in graph.operators if not read.isdisjoint(operator.outputs)]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept


def float_constants(content: bytes, ops: Collection[Op]) -> dict[OpKey, list[Held]]:
    """Return the constants of a file's ops by layer and op; equal ops of a layer are in order."""
    model = editable(content)
    graph = model.subgraphs[0]
    held = [model.buffers[tensor.buffer].data for tensor in graph.tensors]
    found: dict[OpKey, list[Held]] = {}
    for op in ops:
        inputs = [held[i] if i >= 0 else None for i in graph.operators[op.index].inputs]
        found.setdefault((op.layer, op.op), []).append(inputs)
    return found


def _is_dequantize(model: Any, operator: Any) -> bool:
    return op_name(model, operator) == "DEQUANTIZE"


def _is_quantize_of_floats(model: Any, graph: Any, operator: Any) -> bool:
    return op_name(model, operator) == "QUANTIZE" and _is_float(graph.tensors[operator.inputs[0]])


def _between_floats(model: Any, graph: Any, in_float: Collection[int]) -> set[int]:
    """Return the positions of ops that only pass values on, from float ops to ops with float inputs.

    In int8, such an op would be between a redundant QUANTIZE and DEQUANTIZE.
    """
    wanted = {i for position in in_float for i in graph.operators[position].inputs}
    wanted |= {operator.inputs[0] for operator in graph.operators if _is_dequantize(model, operator)}
    between: set[int] = set()
    for position in reversed(_behind_floats(model, graph, in_float)):
        operator = graph.operators[position]
        if not wanted.isdisjoint(operator.outputs):
            between.add(position)
            wanted |= set(operator.inputs)
    return between


def _behind_floats(model: Any, graph: Any, in_float: Collection[int]) -> list[int]:
    """Return the positions of ops that only pass on values from float ops."""
    made_in_float = {i for position in in_float for i in graph.operators[position].outputs}
    behind = []
    for position, operator in enumerate(graph.operators):
        values = [i for i in operator.inputs if i >= 0 and is_quantized(graph.tensors[i])]
        hands_on = op_name(model, operator) in VALUE_KEEPING and values and made_in_float.issuperset(values)
        if hands_on:
            behind.append(position)
        if hands_on or _is_quantize_of_floats(model, graph, operator):
            made_in_float |= set(operator.outputs)
    return behind


def _without_idle_quantize(model: Any, graph: Any, operators: Sequence[Any]) -> list[Any]:
    """Remove each QUANTIZE whose output is not used any more."""
    read = {index for operator in operators for index in operator.inputs} | {*graph.outputs}
    return [
        operator
        for operator in operators
        if operator.outputs[0] in read or not _is_quantize_of_floats(model, graph, operator)
    ]


def _conversion(model: Any, name: str, source: int, target: int) -> Any:
    """Create a QUANTIZE or DEQUANTIZE from one tensor to another."""
    names = [name_of_code(code) for code in model.operatorCodes]
    if name not in names:
        model.operatorCodes.append(operator_code(name))
        names.append(name)
    return schema.OperatorT(opcodeIndex=names.index(name), inputs=[source], outputs=[target])


def _drop_unused(model: Any) -> None:
    """Remove tensors that no op uses, and the content of their buffers."""
    graph = model.subgraphs[0]
    touched = {i for operator in graph.operators for i in (*operator.inputs, *operator.outputs)}
    kept = sorted((touched | {*graph.inputs, *graph.outputs}) - {-1})
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[i] for i in kept]
    for holder in (graph, *graph.operators):
        holder.inputs = [place[i] for i in holder.inputs]
        holder.outputs = [place[i] for i in holder.outputs]
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = place[entry.tensorIndex]
    used = {tensor.buffer for each in model.subgraphs for tensor in each.tensors}  # loops have graphs of their own
    used |= {metadata.buffer for metadata in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None

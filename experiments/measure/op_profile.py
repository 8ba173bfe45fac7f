"""Latency of each op of a file, measured in a file with only this op.

LiteRT's Python interpreter does not time ops. Therefore each op is extracted to a file with its constants. The file is
run on the values that the op has as inputs in the whole file, by the same interpreter and delegate, interleaved with
the whole file.

The times of the ops should add up to that of the whole file. This holds only approximately, for known reasons:

- A call of the interpreter takes a few microseconds, which every extracted op pays. The call is measured with a file
  that negates one number, subtracted from every op, and counted once in the sum. Faster ops are lost in the noise.
- Inputs and outputs of an extracted op cross the boundary of the delegate; in the whole file they may not.
- An extracted op finds its weights and inputs in the CPU cache more often.
- XNNPACK may fuse ops of the whole file, such as PAD and the following convolution, but not extracted ones.

Compare `Profile.sum_us` with `Profile.whole_us` to see the difference; benchmarks/profile.py measures it.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from experiments.dataset import Images
from experiments.measure.accuracy import tensors_for
from experiments.measure.interpreter import invoke, load_preserving_interpreter
from experiments.measure.latency import LatencyProtocol, TimedFile, time_files
from experiments.system.errors import UserError
from experiments.system.machine import compute_lock
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.flatbuffer import editable, is_constant, one_graph_file, op_name, operator_code
from experiments.tflite.graph import Op

Inputs = Sequence[npt.NDArray[np.generic]]  # for each input of a file, values (n, ...)

IMAGES = 10  # test images to cycle through
SHARE_OF_BUDGET = 0.2
WHOLE, CALL = "whole", "call"
WITH_ITS_READER = "unpacks constants when the file is loaded; part of the op that uses them"


@dataclass(frozen=True)
class OpTime:
    """The latency of one op of a file."""

    index: int  # its position in the file
    op: str
    layer: str
    types: str
    microseconds: float | None  # median, without the cost of a call; None if the op has no time of its own
    share: float | None  # of the sum over all ops
    remark: str  # why there is no time; empty if there is


@dataclass(frozen=True)
class Profile:
    """The latency of each op in order of execution, and of the whole file."""

    ops: tuple[OpTime, ...]
    whole_us: float  # median of the whole file, interleaved with the ops
    call_us: float  # cost of a call of the interpreter

    @property
    def sum_us(self) -> float:
        """Sum of the ops and one call."""
        return sum(op.microseconds or 0.0 for op in self.ops) + self.call_us


def op_profile(
    model: TFLiteModel, ops: Sequence[Op], images: Images, protocol: LatencyProtocol, seed: int = 0
) -> Profile:
    """Time every op of a file in a clean process, while no other run computes.

    It takes a fifth of the protocol's seconds, or longer for a slow file. An op that cannot be run alone, such as one
    that calls another subgraph, has no time.

    Raises:
        UserError: the interpreter crashed, as it does for some files that it cannot run.
    """
    images = images[:IMAGES]
    with compute_lock():
        extracted, remarks = extract_ops(model, ops, images)
    files = {WHOLE: TimedFile.of(model, images), CALL: call_only_file()}
    files |= {str(index): file for index, file in extracted.items()}
    session = time_files(files, replace(protocol, seconds=protocol.seconds * SHARE_OF_BUDGET), [], seed, may_fail=True)
    if reason := session.failed.get(WHOLE, session.failed.get(CALL)):
        raise UserError(f"The interpreter could not run the model: {reason}")
    remarks |= {int(name): f"cannot be run alone: {_last_line(reason)}" for name, reason in session.failed.items()}
    medians = {name: timings.percentile_us(50) for name, timings in session.timings.items()}
    op_us = {index: max(medians[str(index)] - medians[CALL], 0.0) for index in extracted if index not in remarks}
    return Profile(tuple(_op_time(op, op_us, remarks) for op in ops), medians[WHOLE], medians[CALL])


def _op_time(op: Op, microseconds: Mapping[int, float], remarks: Mapping[int, str]) -> OpTime:
    own, total = microseconds.get(op.index), sum(microseconds.values())
    share = None if own is None else own / total if total else 0.0
    return OpTime(op.index, op.op, op.layer, op.types, own, share, remarks.get(op.index, ""))


def _last_line(message: str) -> str:
    """Return the last line of LiteRT's message, which names the op and the step that failed."""
    return (message.strip().splitlines() or ["no message"])[-1]


def extract_ops(model: TFLiteModel, ops: Sequence[Op], images: Images) -> tuple[dict[int, TimedFile], dict[int, str]]:
    """Extract each op to a file, by position; also returns why other ops cannot be extracted."""
    whole = editable(model.content)
    graph = whole.subgraphs[0]
    unpacking = _unpacking(whole)
    values = _values(model, {i for op in ops for i in op.inputs if _computed(whole, i, unpacking)}, images)
    extracted: dict[int, TimedFile] = {}
    remarks: dict[int, str] = {}
    for op in ops:
        operator = graph.operators[op.index]
        inputs = list(dict.fromkeys(int(i) for i in operator.inputs if _computed(whole, i, unpacking)))
        if operator in unpacking.values():
            remarks[op.index] = WITH_ITS_READER
        elif not inputs:
            remarks[op.index] = "cannot be run alone: it has no inputs"
        elif missing := [i for i in inputs if i not in values]:
            remarks[op.index] = f"cannot be run alone: LiteRT does not expose its input tensor {missing[0]}"
        else:
            before = dict.fromkeys(unpacking[i] for i in operator.inputs if i in unpacking)
            content = one_op_file(whole, [*before, operator], {i: values[i].shape[1:] for i in inputs})
            extracted[op.index] = TimedFile(content, [values[i] for i in inputs])
    return extracted, remarks


def _unpacking(model: Any) -> dict[int, Any]:
    """Return each DEQUANTIZE op of a constant, by its output tensor."""
    graph = model.subgraphs[0]
    return {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if op_name(model, operator) == "DEQUANTIZE" and is_constant(model, graph.tensors[operator.inputs[0]])
    }


def _computed(model: Any, index: int, unpacking: Collection[int]) -> bool:
    """Whether a tensor is computed by other ops: not a constant, a state, or missing (-1)."""
    if index < 0 or index in unpacking:
        return False
    tensor = model.subgraphs[0].tensors[index]
    return not (tensor.isVariable or is_constant(model, tensor))


def _values(model: TFLiteModel, wanted: Collection[int], images: Images) -> dict[int, npt.NDArray[np.generic]]:
    """Return the values (n, ...) of tensors for each image; tensors that LiteRT does not expose are omitted."""
    interpreter = load_preserving_interpreter(model)
    given = tensors_for(interpreter, images)
    values: dict[int, list[npt.NDArray[np.generic]]] = {index: [] for index in wanted}
    for place in range(len(images)):
        invoke(interpreter, {index: each[place : place + 1] for index, each in given.items()})
        for index in list(values):
            try:
                values[index].append(interpreter.get_tensor(index))
            except ValueError:  # strings, resources, and tensors without memory
                del values[index]
    return {
        index: np.stack(arrays) for index, arrays in values.items() if len({array.shape for array in arrays}) == 1
    }  # a tensor whose shape depends on the image is omitted


def one_op_file(model: Any, operators: Sequence[Any], inputs: Mapping[int, tuple[int, ...]]) -> bytes:
    """Build a file of these operators with their constants; `inputs` holds the shapes of the input tensors."""
    graph = model.subgraphs[0]
    kept = sorted({int(i) for operator in operators for i in (*operator.inputs, *operator.outputs)} - {-1})
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    buffers, tensors = [schema.BufferT()], []
    for index in kept:
        tensor = copy(graph.tensors[index])
        shape = inputs.get(index, tensor.shape)
        tensor.shape = [] if shape is None else [*shape]  # a constant may be a single number
        tensor.shapeSignature = None
        tensor.buffer = len(buffers) if is_constant(model, graph.tensors[index]) else 0
        if tensor.buffer:
            buffers.append(model.buffers[graph.tensors[index].buffer])
        tensors.append(tensor)
    moved = [_renumber(operator, place) for operator in operators]
    return one_graph_file(moved, model.operatorCodes, tensors, buffers, [place[i] for i in inputs])


def _renumber(operator: Any, place: Mapping[int, int]) -> Any:
    """Return a copy of the operator with renumbered tensors."""
    other = copy(operator)
    other.inputs = [place[int(i)] for i in operator.inputs]
    other.outputs = [place[int(i)] for i in operator.outputs]
    return other


def call_only_file() -> TimedFile:
    """Build a file that negates one float, to measure the cost of a call."""
    tensors = [
        schema.TensorT(name=name, shape=[1, 1], type=schema.TensorType.FLOAT32, buffer=0) for name in (b"in", b"out")
    ]
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1])
    content = one_graph_file([operator], [operator_code("NEG")], tensors, [schema.BufferT()], [0])
    return TimedFile(content, [np.ones((1, 1, 1), np.float32)])

"""Where time goes: how long each op of a file takes, cut out of it into a file of its own.

LiteRT's Python interpreter times no ops, so each becomes a file: the op with its constants, which is given the values
that reach it in the whole file. The same interpreter with the same delegate runs it, in turns with the whole file.

What the ops take should add up to what the whole file takes. It does so only about, for known reasons:

- A call of the interpreter costs a few microseconds whatever it computes, and the cut ops pay for it once each. It is
  measured with a file that negates a single number, taken off every op, and counted once in the sum. It is real for
  the whole file as well, and an op that takes less is lost in its noise.
- Input and output of a cut op pass the border of the delegate, which within the whole file they may not.
- A cut op finds its weights and inputs in the processor's cache more often than it does between the others.
- XNNPACK may merge neighbours of the whole file, such as PAD and the convolution after it. Cut ops it cannot merge.

`Profile.sum_us` beside `Profile.whole_us` says how far a file is from adding up; benchmarks/profile.py has figures.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray

from experiments.dataset import Images
from experiments.measure.accuracy import quantized
from experiments.measure.interpreter import invoke, keeping_all
from experiments.measure.latency import LatencyProtocol, TimedFile, time_files
from experiments.system.errors import UserError
from experiments.system.machine import compute_lock
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import Op

Inputs = Sequence[npt.NDArray[np.generic]]  # for each input of a file, values (n, ...)

IMAGES = 10  # test images whose values take turns as inputs
SHARE_OF_BUDGET = 0.2
WHOLE, CALL = "whole", "call"
WITH_ITS_READER = "unpacks constants once, when the file is loaded; part of the op that uses them"


@dataclass(frozen=True)
class OpTime:
    """How long one op of a file takes."""

    index: int  # its position in the file
    op: str
    layer: str
    types: str
    microseconds: float | None  # median, without the cost of a call; None where the op has no time of its own
    share: float | None  # of what all ops take together
    remark: str  # why there is no time; else empty


@dataclass(frozen=True)
class Profile:
    """The time of each op in order of execution, and what they are to add up to."""

    ops: tuple[OpTime, ...]
    whole_us: float  # median of the whole file, measured in turns with the ops
    call_us: float  # what a call of the interpreter costs that computes next to nothing

    @property
    def sum_us(self) -> float:
        """What the ops take together, and one call."""
        return sum(op.microseconds or 0.0 for op in self.ops) + self.call_us


def op_profile(
    model: TFLiteModel, ops: Sequence[Op], images: Images, protocol: LatencyProtocol, seed: int = 0
) -> Profile:
    """Time every op of a file in a clean process, while no other run computes here.

    It takes a fifth of the seconds that the protocol allows, and longer with a file so slow that its ops cannot all
    have their turns in that. An op that cannot be run alone, such as one that calls another graph of the file, is
    listed without a time.

    Raises:
        UserError: the interpreter ended the process, as it does on files it cannot run.
    """
    images = images[:IMAGES]
    with compute_lock():
        cuts, remarks = cut_out(model, ops, images)
    files = {WHOLE: TimedFile.given(model, images), CALL: next_to_nothing()}
    files |= {str(index): cut for index, cut in cuts.items()}
    session = time_files(files, replace(protocol, seconds=protocol.seconds * SHARE_OF_BUDGET), [], seed, may_fail=True)
    if reason := session.failed.get(WHOLE, session.failed.get(CALL)):
        raise UserError(f"The interpreter could not run the model: {reason}")
    remarks |= {int(name): f"cannot be run alone: {_last_line(reason)}" for name, reason in session.failed.items()}
    medians = {name: timings.percentile_us(50) for name, timings in session.timings.items()}
    alone_us = {index: max(medians[str(index)] - medians[CALL], 0.0) for index in cuts if index not in remarks}
    return Profile(tuple(_op_time(op, alone_us, remarks) for op in ops), medians[WHOLE], medians[CALL])


def _op_time(op: Op, microseconds: Mapping[int, float], remarks: Mapping[int, str]) -> OpTime:
    taken, together = microseconds.get(op.index), sum(microseconds.values())
    share = None if taken is None else taken / together if together else 0.0
    return OpTime(op.index, op.op, op.layer, op.types, taken, share, remarks.get(op.index, ""))


def _last_line(message: str) -> str:
    """Where LiteRT names the op and the step that failed."""
    return (message.strip().splitlines() or ["no message"])[-1]


def cut_out(model: TFLiteModel, ops: Sequence[Op], images: Images) -> tuple[dict[int, TimedFile], dict[int, str]]:
    """By position, a file of each op that has a time of its own, and remarks on those that have none."""
    whole = read_model_from_bytearray(bytearray(model.content))
    graph = whole.subgraphs[0]
    unpacking = _unpacking(whole)
    seen = _values(model, {i for op in ops for i in op.inputs if _computed(whole, i, unpacking)}, images)
    cuts: dict[int, TimedFile] = {}
    remarks: dict[int, str] = {}
    for op in ops:
        operator = graph.operators[op.index]
        inputs = list(dict.fromkeys(int(i) for i in operator.inputs if _computed(whole, i, unpacking)))
        if operator in unpacking.values():
            remarks[op.index] = WITH_ITS_READER
        elif not inputs:
            remarks[op.index] = "cannot be run alone: it takes no values"
        elif missing := [i for i in inputs if i not in seen]:
            remarks[op.index] = f"cannot be run alone: LiteRT does not show tensor {missing[0]}, which it takes"
        else:
            before = dict.fromkeys(unpacking[i] for i in operator.inputs if i in unpacking)
            content = one_op_file(whole, [*before, operator], {i: seen[i].shape[1:] for i in inputs})
            cuts[op.index] = TimedFile(content, [seen[i] for i in inputs])
    return cuts, remarks


def _unpacking(model: Any) -> dict[int, Any]:
    """By the tensor that it makes, each DEQUANTIZE of a constant."""
    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if codes[operator.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE and _constant(model, operator.inputs[0])
    }


def _constant(model: Any, index: int) -> bool:
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _computed(model: Any, index: int, unpacking: Collection[int]) -> bool:
    """Whether a tensor holds values that come from other ops, being no constant, no state and not left out (-1)."""
    return not (
        index < 0 or index in unpacking or model.subgraphs[0].tensors[index].isVariable or _constant(model, index)
    )


def _values(model: TFLiteModel, wanted: Collection[int], images: Images) -> dict[int, npt.NDArray[np.generic]]:
    """What tensors of a file hold on each image, (n, ...); those that LiteRT does not show are left out."""
    interpreter = keeping_all(model)
    (entry,) = interpreter.get_input_details()
    held: dict[int, list[npt.NDArray[np.generic]]] = {index: [] for index in wanted}
    for image in quantized(images, entry):
        invoke(interpreter, image[np.newaxis])
        for index in list(held):
            try:
                held[index].append(interpreter.get_tensor(index))
            except ValueError:  # strings, resources, and what no memory was given to
                del held[index]
    return {
        index: np.stack(values) for index, values in held.items() if len({one.shape for one in values}) == 1
    }  # one whose shape changes with the image has no file


def one_op_file(model: Any, operators: Sequence[Any], inputs: Mapping[int, tuple[int, ...]]) -> bytes:
    """A file of these operators of a model with the constants that they use; `inputs` are tensors with their shapes."""
    graph = model.subgraphs[0]
    kept = sorted({int(i) for operator in operators for i in (*operator.inputs, *operator.outputs)} - {-1})
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    buffers, tensors = [schema.BufferT()], []
    for index in kept:
        tensor = copy(graph.tensors[index])
        tensor.shape = [*inputs.get(index, tensor.shape)]
        tensor.shapeSignature = None
        tensor.buffer = len(buffers) if _constant(model, index) else 0
        if tensor.buffer:
            buffers.append(model.buffers[graph.tensors[index].buffer])
        tensors.append(tensor)
    moved = [_moved(operator, place) for operator in operators]
    return packed(moved, model.operatorCodes, tensors, buffers, [place[i] for i in inputs])


def _moved(operator: Any, place: Mapping[int, int]) -> Any:
    """The operator with its tensors at other places."""
    other = copy(operator)
    other.inputs = [place[int(i)] for i in operator.inputs]
    other.outputs = [place[int(i)] for i in operator.outputs]
    return other


def next_to_nothing() -> TimedFile:
    """A file that negates one float: what it takes is what a call costs."""
    builtin = schema.BuiltinOperator.NEG
    code = schema.OperatorCodeT(builtinCode=builtin, deprecatedBuiltinCode=builtin, version=1)
    tensors = [
        schema.TensorT(name=name, shape=[1, 1], type=schema.TensorType.FLOAT32, buffer=0) for name in (b"in", b"out")
    ]
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1])
    return TimedFile(packed([operator], [code], tensors, [schema.BufferT()], [0]), [np.ones((1, 1, 1), np.float32)])


def packed(
    operators: Sequence[Any],
    codes: Sequence[Any],
    tensors: Sequence[Any],
    buffers: Sequence[Any],
    inputs: Sequence[int],
) -> bytes:
    """A file of these operators; what the last of them makes goes out."""
    graph = schema.SubGraphT(
        name=b"cut", tensors=tensors, inputs=inputs, outputs=operators[-1].outputs, operators=operators
    )
    model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers, description=b"one op")
    return bytes(convert_object_to_bytearray(model))

"""Read the ops of a TFLite file from the flatbuffer, with their types and Keras layers.

A strategy says what the converter should do; the file shows what it did.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.system.errors import UserError, first_line
from experiments.tflite.flatbuffer import DAMAGE, is_constant, op_name, parsed, type_name

Arithmetic = Literal["integer", "hybrid", "float"]

# Ops that only move values or convert their types.
MOVING = frozenset(
    {
        "QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SHAPE", "PACK", "UNPACK",
        "SLICE", "STRIDED_SLICE", "CONCATENATION", "SPLIT", "SPLIT_V", "GATHER", "PAD", "PADV2", "MIRROR_PAD",
        "BROADCAST_TO", "FILL", "TILE",
    }
)  # fmt: skip
# Ops that keep state between calls; some have no inputs or no outputs.
OF_VARIABLES = frozenset({"CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
# Ops that compute, but keep the scale of their values.
SCALE_KEEPING = frozenset({"MAX_POOL_2D", "REDUCE_MAX"})
# Ops that keep the type of their values.
VALUE_KEEPING = (MOVING - {"QUANTIZE", "DEQUANTIZE", "CAST", "SHAPE", "FILL"}) | SCALE_KEEPING
# Ops whose second input is a kernel.
WITH_KERNEL = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_3D", "BATCH_MATMUL", "TRANSPOSE_CONV"}
)
CHANNELS_LAST = frozenset({"DEPTHWISE_CONV_2D", "CONV_3D"})  # the last axis of the kernel has the output channels
FLOAT16_WEIGHTS = "float32 with float16 weights"
SHAPE_TYPES = frozenset({"int32", "int64"})
INTEGER_TYPES = frozenset({"INT4", "INT8", "UINT8", "INT16", "INT32"})
# The first input with values, for ops whose first inputs are shapes, kernels or conditions.
VALUES_AT = {"TRANSPOSE_CONV": 2, "SELECT": 1, "SELECT_V2": 1}
TFMOT_RANGE = "/MovingAvgQuantize/"  # in the name of a tensor with a learned range
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
LSTM_KERNELS = slice(1, 9)  # of its inputs: four for the values, four for the state

_TYPE_BITS = {"INT2": 2, "INT4": 4, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT16": 16, "FLOAT16": 16, "INT64": 64}


@dataclass(frozen=True)
class Op:
    """One op of the file. Types are the flatbuffer's names in lower case, such as int8 and float32."""

    index: int
    op: str
    layer: str  # its Keras layer; empty if unknown from the names in the file
    input_type: str
    weights_type: str  # empty if the op has no weights
    output_type: str
    per_channel: bool  # whether the weights have a scale per channel
    weights: int  # number of weights, without biases
    weights_bytes: int
    macs: int  # multiply-accumulates for one image
    sparsity: float  # share of the weights that are zero
    clusters: int  # maximum number of distinct weights in a channel
    inputs: tuple[int, ...]  # indices of tensors
    outputs: tuple[int, ...]

    @property
    def computes(self) -> bool:
        """Whether the op computes values of the model, instead of moving or converting them or computing shapes."""
        return self.op not in MOVING | OF_VARIABLES and self.input_type not in (*SHAPE_TYPES, "bool")

    @property
    def arithmetic(self) -> Arithmetic:
        """How the op computes: on integers, on floats, or hybrid (integer weights, values quantized at run time)."""
        gives = INTEGER_TYPES | {"BOOL"}  # comparisons
        integer_values = self.input_type.upper() in INTEGER_TYPES and self.output_type.upper() in gives
        match integer_values, self.weights_type.upper() in INTEGER_TYPES or not self.weights_type:
            case True, True:
                return "integer"
            case False, True if self.weights_type:
                return "hybrid"
            case _:
                return "float"

    @property
    def types(self) -> str:
        """The compute dtype: int8, int16x8, hybrid int8, float32, or float32 with float16 weights."""
        match self.arithmetic:
            case "integer" if self.weights_type not in ("", self.input_type):
                return f"{self.input_type}x{self.weights_type.removeprefix('int')}"
            case "hybrid":
                return f"hybrid {self.weights_type}"
            case "float" if self.weights_type == "float16":
                return FLOAT16_WEIGHTS
            case _:
                return self.input_type


@dataclass(frozen=True)
class Coverage:
    """Shares of a file in integers, from 0 to 1: of its computation, and of its weights.

    A hybrid op has integer weights but float values, which it quantizes at run time; it counts only for the weights.
    """

    ops: float  # of the computing ops, those that run on integers
    weights: float  # of the weights, those stored as integers
    macs: float  # of the multiply-accumulates, those on integers


def read_ops(content: bytes, layers: Sequence[str]) -> tuple[Op, ...]:
    """Return the ops of a TFLite file in execution order; `layers` are the names of the Keras layers, in order."""
    model = parsed(content)
    graph = model.subgraphs[0]
    known, packed = frozenset(layers), _packed(graph)
    ops = [_op(model, graph, index, known, packed) for index in range(len(graph.operators))]
    if len(graph.outputs) > 1:
        for name, output in ends_of(model)[1].items():
            ops = _named_by_place(ops, {output}, [name] if name in known else [])
        return tuple(ops)
    return tuple(_named_by_place(ops, {int(tensor) for tensor in graph.outputs}, layers))


def _named_by_place(ops: Sequence[Op], outputs: set[int], layers: Sequence[str]) -> list[Op]:
    """Assign an unnamed op that computes the model's output to the last layer.

    The converter renames the output to StatefulPartitionedCall:0.
    """
    named = []
    for op in reversed(ops):
        if outputs.isdisjoint(op.outputs):
            named.append(op)
        elif op.computes:
            named.append(op if op.layer or not layers else replace(op, layer=layers[-1]))
        else:
            named.append(op)
            outputs = outputs | set(op.inputs)
    return named[::-1]


def interface(content: bytes) -> tuple[str, str]:
    """Return the types of a file's inputs and outputs, without integers of the model itself, such as word indices."""
    graph = parsed(content).subgraphs[0]

    def types(places: Iterable[int]) -> str:
        found = dict.fromkeys(type_name(graph.tensors[place]) for place in places)
        return " and ".join(each for each in found if each not in SHAPE_TYPES and each != "bool")

    return types(graph.inputs), types(graph.outputs)


def ends_of(model: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Return the tensors of a file's inputs and outputs by name, in the file's order.

    Names are those of the signature; of the tensors, if the file has none.
    """
    graph = model.subgraphs[0]
    signature = next((each for each in model.signatureDefs or () if each.subgraphIndex == 0), None)
    found = []
    for places, maps in (
        (graph.inputs, signature.inputs if signature else ()),
        (graph.outputs, signature.outputs if signature else ()),
    ):
        names = {int(each.tensorIndex): _text(each.name) for each in maps}
        found.append({names.get(int(place), _text(graph.tensors[place].name)): int(place) for place in places})
    return found[0], found[1]


def _text(name: bytes | None) -> str:
    return bytes(name or b"").decode("utf-8", "replace")


def inputs_of(content: bytes) -> dict[str, Mapping[str, Any]]:
    """Return `input_details` of each input by name, in the file's order.

    Raises:
        UserError: it is not a TFLite file.
    """
    return _details_of_ends(content, 0)


def outputs_of(content: bytes) -> dict[str, Mapping[str, Any]]:
    """Return the details of each output by name, in the file's order; see inputs_of."""
    return _details_of_ends(content, 1)


def _details_of_ends(content: bytes, side: int) -> dict[str, Mapping[str, Any]]:
    graph = _graph(content)
    with _explained():
        return {name: _details(graph.tensors[place]) for name, place in ends_of(parsed(content))[side].items()}


def input_details(content: bytes) -> Mapping[str, Any]:
    """Return shape, dtype and (scale, zero point) of a file's input, with the keys of LiteRT's interpreter.

    Raises:
        UserError: it is not a TFLite file, or does not have exactly one input.
    """
    graph = _graph(content)
    if len(graph.inputs) != 1:
        raise UserError(f"The file has {len(graph.inputs)} inputs; exactly one is required.")
    return _details(graph.tensors[graph.inputs[0]])


def _details(tensor: Any) -> Mapping[str, Any]:
    scale = _scale(tensor)
    try:
        dtype = np.dtype(type_name(tensor)).type
    except TypeError as error:  # string, resource and variant have no NumPy type
        raise UserError(f"The input of the file is {type_name(tensor)}; numbers are required.") from error
    shape = () if tensor.shape is None else tensor.shape
    return {"shape": tuple(int(n) for n in shape), "dtype": dtype, "quantization": scale}


def tensors(content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the inputs and outputs of a file: the name, shape, dtype, scale and zero point of each tensor.

    Several inputs or outputs also have the names of the model's signature, since those of tensors do not tell them.
    Scale and zero point are None for a tensor that is not quantized; a size that is not fixed is -1.

    Raises:
        UserError: it is not a TFLite file.
    """
    graph = _graph(content)
    described = [[_described(graph.tensors[place]) for place in places] for places in (graph.inputs, graph.outputs)]
    with _explained():
        named = ends_of(parsed(content))
    for ends, names in zip(described, named, strict=True):
        if len(ends) > 1 and len(names) == len(ends):
            ends[:] = [{"signature_name": name, **end} for name, end in zip(names, ends, strict=True)]
    return described[0], described[1]


def _described(tensor: Any) -> dict[str, Any]:
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    scale, zero_point = _scale(tensor) if _scales(tensor) else (None, None)
    return {
        "name": bytes(tensor.name or b"").decode("utf-8", "replace"),
        "shape": [] if shape is None else [int(size) for size in shape],
        "dtype": type_name(tensor),
        "scale": scale,
        "zero_point": zero_point,
    }


def _graph(content: bytes) -> Any:
    """Return the main graph of a file.

    Raises:
        UserError: it is not a TFLite file.
    """
    if content[4:8] != b"TFL3":
        raise UserError("Not a TFLite file: bytes 4 to 8 must be TFL3.")
    with _explained():
        return parsed(content).subgraphs[0]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(f"The TFLite file is damaged ({first_line(error)}).") from error


def _scale(tensor: Any) -> tuple[float, int]:
    """Return the scale and the zero point of a tensor; zeros where it is not quantized."""
    return (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])) if _scales(tensor) else (0.0, 0)


def output_levels(content: bytes) -> npt.NDArray[np.float64]:
    """Return every possible value of the file's output, in ascending order; empty if it is computed in float."""
    model = parsed(content)
    graph = model.subgraphs[0]
    output = graph.outputs[0]
    for operator in graph.operators:
        if operator.outputs[0] == output and op_name(model, operator) in ("DEQUANTIZE", "QUANTIZE"):
            output = operator.inputs[0]
    tensor = graph.tensors[output]
    if type_name(tensor) not in ("int8", "int16"):
        return np.empty(0)
    stored = np.iinfo(type_name(tensor))
    steps = np.arange(stored.min, stored.max + 1) - int(tensor.quantization.zeroPoint[0])
    return np.asarray(steps * float(tensor.quantization.scale[0]), np.float64)


def coverage(ops: Sequence[Op]) -> Coverage:
    """Return the shares of ops and multiply-accumulates computed in integers, and of weights stored as integers."""
    computing = [op for op in ops if op.computes]
    integer = [op for op in computing if op.arithmetic == "integer"]
    return Coverage(
        ops=_share(len(integer), len(computing)),
        weights=_share(sum(op.weights for op in computing if op.arithmetic != "float"), sum(op.weights for op in ops)),
        macs=_share(sum(op.macs for op in integer), sum(op.macs for op in computing)),
    )


def arithmetic(ops: Sequence[Op]) -> str:
    """Return the number of computing ops by types, such as '3 float32, 1 int8'."""
    counts = Counter(op.types for op in ops if op.computes)
    return ", ".join(f"{count} {types}" for types, count in sorted(counts.items()))


def idle_conversions(ops: Sequence[Op]) -> list[Op]:
    """Return each QUANTIZE or DEQUANTIZE that only undoes earlier conversions, without computation in between."""
    makers = {tensor: op for op in ops for tensor in op.outputs if op.output_type not in SHAPE_TYPES}
    undone = {"QUANTIZE": "DEQUANTIZE", "DEQUANTIZE": "QUANTIZE"}

    def sources(op: Op) -> list[Op]:
        """Return the conversions and computing ops whose values reach this op."""
        before = [makers[tensor] for tensor in op.inputs if tensor in makers]
        return [source for maker in before for source in (sources(maker) if _hands_on(maker) else [maker])]

    return [
        op
        for op in ops
        if op.op in undone and not _hands_on(op) and (found := sources(op))
        if all(source.op == undone[op.op] for source in found)
    ]


def _hands_on(op: Op) -> bool:
    """Whether the op keeps the type of its values."""
    if op.op == "QUANTIZE":
        return not _floating(op.input_type)  # from one scale to another
    return op.op in VALUE_KEEPING


def _floating(type_name: str) -> bool:
    return type_name.startswith("float")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _packed(graph: Any) -> dict[int, Any]:
    """Return the float16 weights of a file, by the index of the tensor to which an op unpacks them."""
    with_ends = [op for op in graph.operators if len(op.inputs) and len(op.outputs)]
    sources = {int(op.outputs[0]): graph.tensors[op.inputs[0]] for op in with_ends}
    return {index: source for index, source in sources.items() if type_name(source) == "float16"}


def _op(model: Any, graph: Any, index: int, layers: Collection[str], packed: Mapping[int, Any]) -> Op:
    operator = graph.operators[index]
    name = op_name(model, operator)
    inputs = [graph.tensors[i] if i >= 0 else None for i in operator.inputs]
    output = graph.tensors[operator.outputs[0]] if len(operator.outputs) else None
    kernels = _kernels(name, operator.inputs, model, graph, packed)
    kernel = kernels[0] if kernels else None
    values = inputs[VALUES_AT.get(name, 0)] if inputs else None
    count = sum(_size(one.shape) for one in kernels)
    kernel_type = max((type_name(one) for one in kernels), key=_bits, default="")
    contents = [_content(one, model, name) for one in kernels]
    return Op(
        index=index,
        op=name,
        layer=_layer([each for each in (kernel, output) if each is not None], layers),
        input_type="" if values is None else type_name(values),
        weights_type=kernel_type,
        output_type="" if output is None else type_name(output),
        per_channel=kernel is not None and _scales(kernel) > 1,
        weights=count,
        weights_bytes=-(-sum(_size(one.shape) * _bits(type_name(one)) for one in kernels) // 8),
        macs=_macs(name, kernels, values, output),
        sparsity=_sparsity(contents),
        clusters=max(map(_clusters, contents), default=0),
        inputs=tuple(int(i) for i in operator.inputs if i >= 0),
        outputs=tuple(int(i) for i in operator.outputs),
    )


def _kernels(name: str, inputs: Sequence[int], model: Any, graph: Any, packed: Mapping[int, Any]) -> list[Any]:
    """Return the weights of an op as stored; float16 weights precede a DEQUANTIZE.

    Outputs of other ops are not weights: the second input of a BATCH_MATMUL is often computed.
    """
    places = {LSTM: LSTM_KERNELS, **dict.fromkeys(WITH_KERNEL, slice(1, 2))}.get(name, slice(0))
    return [
        packed.get(int(i), graph.tensors[i])
        for i in inputs[places]
        if i >= 0 and (int(i) in packed or is_constant(model, graph.tensors[i]))
    ]


def _scales(tensor: Any) -> int:
    return 0 if tensor.quantization is None or tensor.quantization.scale is None else len(tensor.quantization.scale)


def _content(kernel: Any | None, model: Any, op: str) -> npt.NDArray[np.generic]:
    """Return the weights as stored, one row per output channel; empty if they are computed."""
    if kernel is None or not is_constant(model, kernel):
        return np.empty((0, 0), np.int8)
    stored = np.asarray(model.buffers[kernel.buffer].data, np.uint8)
    values: npt.NDArray[np.generic]
    if type_name(kernel) == "int4":  # two per byte, the lower half first
        halves = np.stack([stored & 15, stored >> 4], axis=1).ravel()[: _size(kernel.shape)]
        values = np.where(halves > 7, halves.astype(np.int8) - 16, halves).astype(np.int8)
    else:
        values = stored.view(type_name(kernel))
    if op in CHANNELS_LAST:
        return values.reshape(-1, kernel.shape[-1]).T
    return values.reshape(kernel.shape[0], -1)


def _bits(type_name: str) -> int:
    return _TYPE_BITS.get(type_name.upper(), 32)


def _sparsity(kernels: Sequence[npt.NDArray[np.generic]]) -> float:
    values = sum(rows.size for rows in kernels)
    return float(sum(np.count_nonzero(rows == 0) for rows in kernels) / values) if values else 0.0


def _clusters(rows: npt.NDArray[np.generic]) -> int:
    """Return the maximum number of distinct weights in a channel; folded BatchNorms and scales differ by channel."""
    return max((len(np.unique(row)) for row in rows), default=0)


def _layer(tensors: Sequence[Any], layers: Collection[str]) -> str:
    """Return the layer in a tensor's name, MODEL/LAYER/OP; fused ops have several names, joined by semicolons."""
    for tensor in tensors:
        paths = reversed(str(tensor.name, "utf-8").split(";"))
        for path in sorted(paths, key=lambda each: TFMOT_RANGE in each):  # it may be that of the layer before
            if found := outermost_layer(path.split("/"), layers):
                return found
    return ""


def outermost_layer(path: Sequence[str], layers: Collection[str]) -> str:
    """Return the first layer in a path after the model's name: add_1 for model/add_1/add.

    Layer names may have slashes; TFMOT renames a wrapped layer to quant_LAYER.
    """
    for start in range(1, len(path)):
        for end in range(len(path), start, -1):
            part = "/".join(path[start:end])
            for name in (part, part.removeprefix("quant_")):
                if name in layers:
                    return name
    return ""


def _macs(name: str, kernels: Sequence[Any], values: Any, output: Any) -> int:
    """Return the multiply-accumulates for one image."""
    if not kernels:
        return 0
    kernel = kernels[0]
    match name:
        case "CONV_2D":  # kernel (out, height, width, in): each output value takes one filter
            return _size(output.shape[1:]) * _size(kernel.shape[1:])
        case "CONV_3D":  # kernel (depth, height, width, in, out)
            return _size(output.shape[1:]) * _size(kernel.shape[:-1])
        case "DEPTHWISE_CONV_2D":  # kernel (1, height, width, out)
            return _size(output.shape[1:]) * _size(kernel.shape[1:3])
        case "TRANSPOSE_CONV":  # each input position is spread over the whole kernel
            return _size(values.shape[1:3]) * _size(kernel.shape)
        case _:  # the whole kernel, or all kernels of an LSTM, at each position or step
            return sum(_size(one.shape) for one in kernels) * _size(output.shape[1:-1])


def _size(shape: Sequence[int]) -> int:
    return prod(int(axis) for axis in shape)

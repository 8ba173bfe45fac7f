"""Parse, edit and serialize TFLite files with LiteRT's schema.

A file is a `ModelT` of the schema, which has no static types: `model.subgraphs[0].operators` and so on.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray

OP_NAMES: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
_TYPE_NAMES: dict[int, str] = {
    value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")
}
# Versions of ops in new files, if not 1: the lowest that supports int8.
VERSIONS = {schema.BuiltinOperator.DEQUANTIZE: 2}
# What reading a damaged file raises: invalid offsets, and tables that refer to others that are not there.
DAMAGE = (struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError)
PLACEHOLDER = 127  # in the deprecated field of an op's code, if the code does not fit


def parsed(content: bytes) -> Any:
    """Parse a file for reading.

    Raises:
        DAMAGE: it is damaged.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    for buffer in model.buffers or ():
        if _is_outside(buffer):
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return model


def editable(content: bytes) -> Any:
    """Parse a file for editing: lists instead of arrays, and external buffers inside the tables."""
    return read_model_from_bytearray(bytearray(content))


def _is_outside(buffer: Any) -> bool:
    """Whether the content of a buffer lies behind the tables of the file, as in files with many weights."""
    return bool(buffer.offset > 1)


def with_buffers_inside(content: bytes) -> bytes:
    """Return the file with all contents within its tables, where every reader finds them; it has less than 2 GiB."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    return packed(editable(content)) if any(_is_outside(buffer) for buffer in model.buffers) else content


def with_signature(content: bytes) -> bytes:
    """Return a file with a signature, which LiteRT's quantizer requires; unchanged if it has one."""
    if schema.Model.GetRootAsModel(content, 0).SignatureDefsLength():
        return content
    model = editable(content)
    graph = model.subgraphs[0]
    ends = [
        [
            schema.TensorMapT(
                name=graph.tensors[index].name if len(indices) > 1 else f"{end}_{place}".encode(), tensorIndex=index
            )
            for place, index in enumerate(indices)
        ]
        for end, indices in (("input", graph.inputs), ("output", graph.outputs))
    ]
    model.signatureDefs = [schema.SignatureDefT(*ends, signatureKey=b"serving_default", subgraphIndex=0)]
    return packed(model)


def without_metadata(content: bytes, name: bytes) -> bytes:
    """Return the file without its metadata of this name."""
    model = editable(content)
    dropped = [each for each in model.metadata or () if each.name == name]
    model.metadata = [each for each in model.metadata or () if each.name != name]
    for each in dropped:
        model.buffers[each.buffer].data = None
        if each.buffer == len(model.buffers) - 1:
            model.buffers.pop()
    return packed(model)


def packed(model: Any) -> bytes:
    """Serialize a file."""
    return bytes(convert_object_to_bytearray(model))


def one_graph_file(
    operators: Sequence[Any],
    codes: Sequence[Any],
    tensors: Sequence[Any],
    buffers: Sequence[Any],
    inputs: Sequence[int],
) -> bytes:
    """Build a file of these operators; its outputs are those of the last one."""
    graph = schema.SubGraphT(
        name=b"cut", tensors=tensors, inputs=inputs, outputs=operators[-1].outputs, operators=operators
    )
    model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers, description=b"one op")
    return packed(model)


def operator_code(name: str) -> Any:
    """Return the operator code of an op."""
    builtin = getattr(schema.BuiltinOperator, name)
    version = VERSIONS.get(builtin, 1)
    return schema.OperatorCodeT(builtinCode=builtin, deprecatedBuiltinCode=min(builtin, PLACEHOLDER), version=version)


def op_name(model: Any, operator: Any) -> str:
    """Return the name of an operator's op, which may be a custom op."""
    return name_of_code(model.operatorCodes[operator.opcodeIndex])


def name_of_code(code: Any) -> str:
    """Return the name of the op of an operator code."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return OP_NAMES[number] if number != schema.BuiltinOperator.CUSTOM else str(code.customCode, "utf-8")


def type_name(tensor: Any) -> str:
    """Return the type of a tensor in lower case, such as int8 and float32."""
    return _TYPE_NAMES[tensor.type].lower()


def is_quantized(tensor: Any) -> bool:
    """Whether a tensor has a scale."""
    return tensor.quantization is not None and tensor.quantization.scale is not None


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether a tensor is a constant of the file."""
    held = model.buffers[tensor.buffer].data
    return held is not None and len(held) > 0

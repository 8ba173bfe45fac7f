"""TFLite files as objects: parsed, named, changed and packed again, by LiteRT's schema.

An object is a `ModelT` of the schema, for which there are no types: `model.subgraphs[0].operators` and so on.
"""

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
# The version of an op that a new file asks for, where the first does not do: the least that knows int8.
VERSIONS = {schema.BuiltinOperator.DEQUANTIZE: 2}
PLACEHOLDER = 127  # in the older of the two fields for an op's code, where the code does not fit into it


def parsed(content: bytes) -> Any:
    """A file to be read.

    Raises:
        struct.error, IndexError, TypeError, ValueError, MemoryError: it is damaged.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    for buffer in model.buffers or ():
        if _is_outside(buffer):
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return model


def editable(content: bytes) -> Any:
    """A file to be changed: lists instead of arrays, contents that lie outside of the tables within them."""
    return read_model_from_bytearray(bytearray(content))


def _is_outside(buffer: Any) -> bool:
    """Whether the content of a buffer lies behind the tables of the file, as in files with many weights."""
    return bool(buffer.offset > 1)


def with_buffers_inside(content: bytes) -> bytes:
    """Return the file with all contents within its tables, where every reader finds them; it has less than 2 GiB."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    return packed(editable(content)) if any(_is_outside(buffer) for buffer in model.buffers) else content


def packed(model: Any) -> bytes:
    """The file of an object."""
    return bytes(convert_object_to_bytearray(model))


def one_graph_file(
    operators: Sequence[Any],
    codes: Sequence[Any],
    tensors: Sequence[Any],
    buffers: Sequence[Any],
    inputs: Sequence[int],
) -> bytes:
    """A new file of these operators; what the last of them makes goes out."""
    graph = schema.SubGraphT(
        name=b"cut", tensors=tensors, inputs=inputs, outputs=operators[-1].outputs, operators=operators
    )
    model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers, description=b"one op")
    return packed(model)


def operator_code(name: str) -> Any:
    """What a file says of an op that it holds."""
    builtin = getattr(schema.BuiltinOperator, name)
    version = VERSIONS.get(builtin, 1)
    return schema.OperatorCodeT(builtinCode=builtin, deprecatedBuiltinCode=min(builtin, PLACEHOLDER), version=version)


def op_name(model: Any, operator: Any) -> str:
    """The name of an operator's op, which may be a user's own."""
    return name_of_code(model.operatorCodes[operator.opcodeIndex])


def name_of_code(code: Any) -> str:
    """The name of the op that a code of the file stands for."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return OP_NAMES[number] if number != schema.BuiltinOperator.CUSTOM else str(code.customCode, "utf-8")


def type_name(tensor: Any) -> str:
    """The type of a tensor in lower case, such as int8 and float32."""
    return _TYPE_NAMES[tensor.type].lower()


def is_quantized(tensor: Any) -> bool:
    """Whether a tensor has a scale."""
    return tensor.quantization is not None and tensor.quantization.scale is not None


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether the file holds a tensor's values."""
    held = model.buffers[tensor.buffer].data
    return held is not None and len(held) > 0

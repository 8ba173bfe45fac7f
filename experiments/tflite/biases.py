"""Biases of ops with int16 values: LiteRT's kernels require 64 bits, and the converter writes 32 for learned ranges."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from experiments.tflite.flatbuffer import editable, op_name, packed

# The place of the bias among the inputs of these ops.
BIAS_AT = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def with_wide_biases(content: bytes) -> bytes:
    """Return the file with biases of int64 where an op's values are int16; unchanged without such ops."""
    model = editable(content)
    graph = model.subgraphs[0]
    narrow = [tensor for operator in graph.operators if (tensor := _narrow_bias(model, graph, operator)) is not None]
    if not narrow:
        return content
    for tensor in {id(each): each for each in narrow}.values():
        values = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int32)
        model.buffers.append(schema.BufferT(data=values.astype(np.int64).view(np.uint8)))
        tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.INT64
    return packed(model)


def _narrow_bias(model: Any, graph: Any, operator: Any) -> Any | None:
    """Return the bias of an op with int16 values, if it is int32."""
    place = BIAS_AT.get(op_name(model, operator))
    if place is None or len(operator.inputs) <= place or operator.inputs[place] < 0:
        return None
    made, bias = graph.tensors[operator.outputs[0]], graph.tensors[operator.inputs[place]]
    return bias if (made.type, bias.type) == (schema.TensorType.INT16, schema.TensorType.INT32) else None

"""TFLite files made by hand, for tests that need one and no TensorFlow."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.flatbuffer import operator_code, packed, parsed


def dense_file(inputs: int = 16, outputs: int = 4, layers: int = 1) -> TFLiteModel:
    """A float file for images of the shape (inputs,): so many dense layers in a row, all but the last as wide."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [_buffer()]
    model.operatorCodes = [operator_code("FULLY_CONNECTED")]
    graph.tensors, graph.operators = [_tensor("input", (1, inputs), 0)], []
    rng = np.random.default_rng(0)
    for layer in range(layers):
        width = outputs if layer == layers - 1 else inputs
        model.buffers.append(_buffer(rng.normal(size=(width, inputs)).astype(np.float32) / inputs))
        graph.tensors.append(_tensor(f"model/dense_{layer}/kernel", (width, inputs), len(model.buffers) - 1))
        graph.tensors.append(_tensor(f"model/dense_{layer}/MatMul", (1, width), 0))
        graph.operators.append(_dense(len(graph.tensors) - 3, len(graph.tensors) - 2, len(graph.tensors) - 1))
    graph.inputs, graph.outputs = [0], [len(graph.tensors) - 1]
    return TFLiteModel(packed(model))


def product_file(size: int = 64) -> TFLiteModel:
    """A float file that multiplies what two dense layers put out, as attention does."""
    model = parsed(dense_file(size, size, layers=2).content)
    graph = model.subgraphs[0]
    model.operatorCodes.append(operator_code("BATCH_MATMUL"))
    graph.tensors.append(_tensor("model/attention/MatMul", (1, size), 0))
    product = schema.OperatorT()
    product.opcodeIndex, product.inputs, product.outputs = 1, [2, 4], [len(graph.tensors) - 1]
    graph.operators.append(product)
    graph.outputs = product.outputs
    return TFLiteModel(packed(model))


def int8_interface(file: TFLiteModel) -> TFLiteModel:
    """The same file with an input and an output of int8, a step of which is 1/64 and 1/32."""
    model = parsed(file.content)
    graph = model.subgraphs[0]
    model.operatorCodes += [operator_code("DEQUANTIZE"), operator_code("QUANTIZE")]
    inside, outside = (graph.inputs[0], graph.outputs[0]), []
    for place, scale, zero in zip(inside, (1 / 64, 1 / 32), (-20, 3), strict=True):
        tensor = _tensor("int8", graph.tensors[place].shape, 0)
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
        graph.tensors.append(tensor)
        outside.append(len(graph.tensors) - 1)
    graph.operators.insert(0, _converting(1, outside[0], inside[0]))
    graph.operators.append(_converting(2, inside[1], outside[1]))
    graph.inputs, graph.outputs = outside[:1], outside[1:]
    return TFLiteModel(packed(model))


def _buffer(values: Any = None) -> Any:
    buffer = schema.BufferT()
    if values is not None:
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return buffer


def _tensor(name: str, shape: tuple[int, ...], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), buffer
    tensor.shapeSignature = [-1, *shape[1:]] if buffer == 0 else None
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _converting(code: int, values: int, output: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [values], [output]
    return operator


def _dense(values: int, kernel: int, output: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [values, kernel, -1], [output]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    return operator

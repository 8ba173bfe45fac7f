"""Quantize the weights of the float ops of a TFLite file with LiteRT's quantizer; quantized ops are kept."""

import io
import re
import warnings
from contextlib import redirect_stdout
from typing import Literal

from experiments.system.silence import native_stderr_silenced
from experiments.tflite.flatbuffer import parsed, with_buffers_inside
from experiments.tflite.graph import read_ops

Weights = Literal["int8", "int4", "float16"]
BITS = {"int8": 8, "int4": 4, "float16": 16}


def requantized(content: bytes, weights: Weights, least: int = 1) -> bytes:
    """Return the file with these weights in every op that computes in float: int8 and int4 run as hybrid ops.

    Ops with fewer weights than `least` stay as they are.

    The quantizer finds ops by a regular expression on the names of their output tensors. A pattern that is made for
    one name by hand matches nothing, or more than was meant; so each op is addressed by its own name in full.
    """
    from litert_quantizer import quantizer
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName

    every = TFLOperationName.ALL_SUPPORTED
    work = quantizer.Quantizer(bytearray(content))
    targets = _outputs_of_float_ops(content, least)
    for name in targets:
        this = f"^{re.escape(name)};?$"  # the quantizer appends a semicolon to each name
        if weights == "float16":
            work.add_weight_only_config(this, every, BITS[weights], algorithm_key=AlgorithmName.FLOAT_CASTING)
        else:
            work.add_dynamic_config(this, every, BITS[weights])
    if not targets:
        return content
    with native_stderr_silenced(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that the file is partially quantized, which is intended
        return with_buffers_inside(bytes(work.quantize().quantized_model))


def _outputs_of_float_ops(content: bytes, least: int) -> list[str]:
    """Return the names of the output tensors of float ops with weights."""
    graph = parsed(content).subgraphs[0]
    float_ops = [op for op in read_ops(content, ()) if op.weights >= least and op.arithmetic == "float"]
    return [str(graph.tensors[op.outputs[0]].name, "utf-8") for op in float_ops]

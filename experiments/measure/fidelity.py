"""Where accuracy goes: how far answers move from the Keras baseline to the final file, and the noise of each op."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import Images
from experiments.measure.accuracy import Logits, dequantized, quantized
from experiments.measure.interpreter import invoke, keeping_all, ready
from experiments.task.classification import Head
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import Op

NOISE_IMAGES = 50  # test images from which the noise of each op is measured


@dataclass(frozen=True)
class Gap:
    """How far the answers of two models are from one another, on the same images."""

    first: str
    second: str
    agreement: float  # share of images with the same top-1
    rms_logit_error: float
    max_logit_error: float


@dataclass(frozen=True)
class OpNoise:
    """What quantization does to the output of one op of a file."""

    layer: str
    op: str
    types: str
    sqnr_db: float  # signal-to-quantization-noise ratio; inf where no bit differs


def gaps(models: Mapping[str, Logits], head: Head | None = None) -> tuple[Gap, ...]:
    """Every pair of models, in their order; outputs (n, outputs) float32 by name, the largest of which is the answer.

    With a head, the answers are what it makes of the outputs.
    """
    answers = {name: head.answers(outputs) if head else outputs.argmax(axis=1) for name, outputs in models.items()}
    return tuple(
        Gap(first, second, float(np.mean(answers[first] == answers[second])), *_errors(models[first], models[second]))
        for first, second in combinations(models, 2)
    )


def _errors(a: Logits, b: Logits) -> tuple[float, float]:
    """Root mean square and largest difference of outputs."""
    error = np.abs(a.astype(np.float64) - b)
    return float(np.sqrt(np.mean(error**2))), float(error.max())


def op_noise(
    model: TFLiteModel, ops: Sequence[Op], in_float: TFLiteModel, float_ops: Sequence[Op], images: Images
) -> tuple[OpNoise, ...]:
    """The noise that each computing op of a file carries, against the same op of the float file of the same weights.

    Ops are the same when they came from the same layer and are of the same kind; one without a partner is left out.
    """
    partners = _by_name(float_ops)
    pairs = {op: partners[name] for name, op in _by_name(ops).items() if name in partners}
    signal = dict.fromkeys(pairs, 0.0)
    noise = dict.fromkeys(pairs, 0.0)
    interpreter, reference = keeping_all(model), keeping_all(in_float)
    for image in images:
        _invoke(interpreter, image)
        _invoke(reference, image)
        for op, partner in pairs.items():
            exact = _output(reference, partner)
            signal[op] += float(np.sum(exact**2))
            noise[op] += float(np.sum((_output(interpreter, op) - exact) ** 2))
    return tuple(OpNoise(op.layer, op.op, op.types, decibel(signal[op], noise[op])) for op in pairs)


def decibel(signal: float, noise: float) -> float:
    """10 log10 of the ratio of two powers; inf without noise, -inf where there is noise without a signal."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _by_name(ops: Sequence[Op]) -> dict[tuple[str, str], Op]:
    names = [(op.layer, op.op) for op in ops]
    return {
        name: op for name, op in zip(names, ops, strict=True) if op.computes and op.layer and names.count(name) == 1
    }


def _invoke(interpreter: Any, image: Images) -> None:
    (entry,) = interpreter.get_input_details()
    invoke(interpreter, quantized(image[np.newaxis], entry))


def _output(interpreter: Any, op: Op) -> npt.NDArray[np.float64]:
    index = op.outputs[0]
    values = interpreter.get_tensor(index)
    return dequantized(values, interpreter.get_tensor_details()[index]).astype(np.float64)


def delegated(model: TFLiteModel, ops: Sequence[Op]) -> frozenset[int]:
    """Positions of the ops that XNNPACK, LiteRT's default delegate for CPUs, takes; the others run on plain kernels.

    The interpreter lists each delegated part as one node with its inputs and outputs. What lies between is the part.
    """
    interpreter = ready(model)
    makers = {tensor: op for op in ops for tensor in op.outputs}
    taken: set[int] = set()
    for node in interpreter._get_ops_details():
        if node["op_name"] != "DELEGATE":
            continue
        given = {int(tensor) for tensor in node["inputs"]}
        wanted = [int(tensor) for tensor in node["outputs"]]
        while wanted:
            tensor = wanted.pop()
            if tensor not in given and tensor in makers and makers[tensor].index not in taken:
                taken.add(makers[tensor].index)
                wanted += makers[tensor].inputs
    return frozenset(taken)

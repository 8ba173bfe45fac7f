"""Where accuracy is lost: differences between the models from baseline to final file, and the noise of each op."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import ImageRows, Images
from experiments.dataset.arrays import by_parts, parts_of
from experiments.dataset.named import under
from experiments.measure.accuracy import Logits, dequantize, tensors_for
from experiments.measure.interpreter import invoke, load_interpreter, load_preserving_interpreter
from experiments.task import Head
from experiments.task.classification import ClassHead
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import Op

NOISE_IMAGES = 50  # test images from which the noise of each op is measured


@dataclass(frozen=True)
class Gap:
    """The difference between the outputs of two models on the same images."""

    first: str
    second: str
    agreement: float | None  # share of images with the same top-1; None for other tasks than classification
    rms_logit_error: float
    max_logit_error: float
    sqnr_db: float  # signal-to-noise ratio of the second's outputs, relative to the first's; inf if they are equal
    output: str = ""  # of a model with several outputs


@dataclass(frozen=True)
class OpNoise:
    """The quantization noise in the output of one op."""

    layer: str
    op: str
    types: str
    sqnr_db: float  # signal-to-quantization-noise ratio; inf without noise


def gaps_of_outputs(models: Mapping[str, Logits], judged: str, heads: Mapping[str, Head | None]) -> tuple[Gap, ...]:
    """Compare every pair of models by each of their outputs, the judged one first; see `gaps`.

    Outputs without a head have no predictions.
    """
    names = next(iter(models.values())).dtype.names or (judged,)
    found: list[Gap] = []
    for name in sorted(names, key=lambda each: each != judged):
        of_output = {model: under(name, outputs) for model, outputs in models.items()}
        found += gaps(of_output, heads.get(name), name, predicts=bool(heads.get(name)))
    return tuple(found)


def gaps(
    models: Mapping[str, Logits], head: Head | None = None, output: str = "", predicts: bool = True
) -> tuple[Gap, ...]:
    """Compare every pair of models by their outputs (n, outputs) float32, by name.

    Predictions are those of a classifier's head, or the index of the largest output.
    """
    predictions = {name: _predictions(outputs, head) if predicts else None for name, outputs in models.items()}
    return tuple(
        Gap(
            first,
            second,
            _share_equal(predictions[first], predictions[second]),
            *errors(models[first], models[second]),
            output,
        )
        for first, second in combinations(models, 2)
    )


def _predictions(outputs: Logits, head: Head | None) -> npt.NDArray[np.int64] | None:
    """Return the predicted classes (n,); None for other tasks."""
    if head is None:
        return by_parts(lambda part: np.asarray(part.argmax(axis=1), np.int64), outputs)
    return head.predict(outputs) if isinstance(head, ClassHead) else None


def _share_equal(one: npt.NDArray[np.int64] | None, other: npt.NDArray[np.int64] | None) -> float | None:
    return None if one is None or other is None else float(np.mean(one == other))


def errors(a: Logits, b: Logits) -> tuple[float, float, float]:
    """Return the root mean square and the maximum of the differences, and the signal-to-noise ratio."""
    signal = noise = largest = 0.0
    for first, second in zip(parts_of(a), parts_of(b), strict=True):
        error = np.abs(first.astype(np.float64) - second)
        signal += float(np.sum(np.square(first, dtype=np.float64)))
        noise += float(np.sum(error**2))
        largest = float(np.maximum(largest, error.max()))  # NaN if an error is
    return float(np.sqrt(noise / a.size)), largest, decibel(signal / a.size, noise / a.size)


def op_noise(
    model: TFLiteModel, ops: Sequence[Op], in_float: TFLiteModel, float_ops: Sequence[Op], images: ImageRows
) -> tuple[OpNoise, ...]:
    """Measure the noise of each computing op against the same op of the float file with the same weights.

    Ops are matched by layer and type; an op without a match is omitted.
    """
    partners = _by_name(float_ops)
    pairs = {op: partners[name] for name, op in _by_name(ops).items() if name in partners}
    signal = dict.fromkeys(pairs, 0.0)
    noise = dict.fromkeys(pairs, 0.0)
    watched, reference = _Watched.of(model), _Watched.of(in_float)
    for place in range(len(images)):
        image = images[place : place + 1]
        watched.run(image)
        reference.run(image)
        for op, partner in pairs.items():
            exact = reference.output(partner)
            signal[op] += float(np.sum(exact**2))
            noise[op] += float(np.sum((watched.output(op) - exact) ** 2))
    return tuple(OpNoise(op.layer, op.op, op.types, decibel(signal[op], noise[op])) for op in pairs)


def decibel(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); inf without noise, -inf for noise without a signal."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _by_name(ops: Sequence[Op]) -> dict[tuple[str, str], Op]:
    names = [(op.layer, op.op) for op in ops]
    times = Counter(names)
    return {name: op for name, op in zip(names, ops, strict=True) if op.computes and op.layer and times[name] == 1}


@dataclass(frozen=True)
class _Watched:
    """A file whose ops can be read after each image."""

    interpreter: Any
    tensors: Mapping[int, Mapping[str, Any]]  # read once: LiteRT describes all tensors anew at every call

    @staticmethod
    def of(model: TFLiteModel) -> "_Watched":
        interpreter = load_preserving_interpreter(model)
        return _Watched(interpreter, {each["index"]: each for each in interpreter.get_tensor_details()})

    def run(self, image: Images) -> None:
        """Run the file on one image, (1, ...)."""
        invoke(self.interpreter, tensors_for(self.interpreter, image))

    def output(self, op: Op) -> npt.NDArray[np.float64]:
        """Return the output of an op for the last image."""
        index = op.outputs[0]
        return dequantize(self.interpreter.get_tensor(index), self.tensors[index]).astype(np.float64)


def delegated(model: TFLiteModel, ops: Sequence[Op]) -> frozenset[int]:
    """Return the positions of the ops that XNNPACK, LiteRT's default CPU delegate, runs.

    The interpreter lists each delegated partition as one node with inputs and outputs; the ops between belong to it.
    """
    interpreter = load_interpreter(model)
    producers = {tensor: op for op in ops for tensor in op.outputs}
    found: set[int] = set()
    for node in interpreter._get_ops_details():
        if node["op_name"] != "DELEGATE":
            continue
        inputs = {int(tensor) for tensor in node["inputs"]}
        pending = [int(tensor) for tensor in node["outputs"]]
        while pending:
            tensor = pending.pop()
            if tensor not in inputs and tensor in producers and producers[tensor].index not in found:
                found.add(producers[tensor].index)
                pending += producers[tensor].inputs
    return frozenset(found)

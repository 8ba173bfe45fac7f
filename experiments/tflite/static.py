"""Integer weights and activations in a float TFLite file, with LiteRT's quantizer and calibration samples.

The TFLite converter knows 8-bit weights with one algorithm for their ranges. The quantizer also knows 4-bit weights,
which the kernels for CONV_2D and FULLY_CONNECTED take, and algorithms that clip weights where that lowers the error.
"""

import io
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

from experiments.dataset import ImageRows
from experiments.dataset.named import apart, is_named
from experiments.system.silence import native_stderr_silenced
from experiments.tflite.flatbuffer import parsed, with_buffers_inside, with_signature
from experiments.tflite.graph import read_ops

WeightBits = Literal[4, 8]
ActivationBits = Literal[8, 16]
WeightRanges = Literal["min_max", "mse", "octav"]
WeightScales = Literal["channel", "tensor"]
# Ops with kernels for 4-bit weights and integer activations; other ops keep 8-bit weights.
FOUR_BIT = frozenset({"CONV_2D", "FULLY_CONNECTED"})
# Any name, in another form than ".*": if two patterns match a name, the quantizer uses the last one.
LAST = "(?s).*"


@dataclass(frozen=True)
class Precision:
    """The integers that ops compute in, and how the ranges of weights are found.

    `min_max` covers all weights; `mse` and `octav` clip the largest ones: mse searches for the range with the lowest
    squared error, octav solves for it (Sakr et al. 2022, arXiv:2206.06501).
    """

    weight_bits: WeightBits = 8
    activation_bits: ActivationBits = 8
    weight_ranges: WeightRanges = "min_max"
    weight_scales: WeightScales = "channel"

    @property
    def types(self) -> str:
        """The types that an op with weights computes in, in the words of Op.types."""
        if self.weight_bits == self.activation_bits:
            return f"int{self.activation_bits}"
        return f"int{self.activation_bits}x{self.weight_bits}"


def quantized_statically(
    content: bytes,
    images: ImageRows,
    precision: Precision,
    interface: str = "float32",
    layers: Sequence[str] = (),
    chosen: Collection[str] | None = None,
    rest: Precision | None = None,
) -> bytes:
    """Return a float file with integer weights and activations.

    Args:
        content: The float file.
        images: Calibration samples (n, ...) float32.
        precision: Of the chosen layers.
        interface: Type of the file's input and output: float32, or the integers of the activations.
        layers: Names of the Keras model's layers, in its order.
        chosen: Names of the layers to quantize; None: all.
        rest: The precision of all other layers; None: they stay float.
    """
    from litert_quantizer import calibrator, quantizer
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.utils import qsv_utils

    content = with_signature(content)
    work = quantizer.Quantizer(bytearray(content))
    if chosen is None:
        _add(work, ".*", precision)
    else:
        if rest is not None:
            _add(work, ".*", rest)
        for name in _outputs_of(content, layers, chosen):
            _add(work, f"^{re.escape(name)};?$", precision)  # the quantizer ends each name with a semicolon
    if interface == "float32":
        for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
            work.update_quantization_recipe(LAST, end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    with _silenced():
        # Ranges cover all samples, as those of the converter do; by default they would be moving averages.
        watching = calibrator.Calibrator(
            memoryview(content),
            num_threads=1,
            mode=calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
            qsv_update_func=qsv_utils.min_max_update,
        )
        watching.calibrate(_samples(content, images), work._recipe_manager)
        quantized = work.quantize(watching.get_model_qsvs(), enable_progress_report=False).quantized_model
    return with_buffers_inside(bytes(quantized))


def _add(work: Any, pattern: str, precision: Precision) -> None:
    """Add a precision to the quantizer's recipe, for ops whose outputs have names of this pattern."""
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import QuantGranularity, TFLOperationName

    algorithms = {
        "min_max": AlgorithmName.MIN_MAX_UNIFORM_QUANT,
        "mse": AlgorithmName.MSE,
        "octav": AlgorithmName.OCTAV,
    }
    scales = {"channel": QuantGranularity.CHANNELWISE, "tensor": QuantGranularity.TENSORWISE}[precision.weight_scales]
    bits = precision.activation_bits
    work.add_static_config(pattern, TFLOperationName.ALL_SUPPORTED, bits, 8, scales)
    if (precision.weight_bits, precision.weight_ranges) != (8, "min_max"):
        for op in sorted(FOUR_BIT):
            algorithm = algorithms[precision.weight_ranges]
            work.add_static_config(pattern, TFLOperationName(op), bits, precision.weight_bits, scales, algorithm)


def _outputs_of(content: bytes, layers: Sequence[str], chosen: Collection[str]) -> Iterator[str]:
    """Yield the names of the tensors that the chosen layers' ops make."""
    graph = parsed(content).subgraphs[0]
    for op in read_ops(content, layers):
        if op.layer in chosen:
            yield from (str(graph.tensors[output].name, "utf-8") for output in op.outputs)


@dataclass(frozen=True)
class _Sample:
    """A calibration sample, which is read when the quantizer takes its copy: it lists all samples before the first."""

    images: ImageRows
    place: int
    name: str  # of the input, if there is only one

    def copy(self) -> dict[str, Any]:
        """Return the values of each input, (1, ...)."""
        image = self.images[self.place : self.place + 1]
        return apart(image) if is_named(image) else {self.name: image}


def _samples(content: bytes, images: ImageRows) -> dict[str, Any]:
    """Return calibration samples by signature, as the quantizer reads them, one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    ((signature, ends),) = Interpreter(model_content=content).get_signature_list().items()
    name = ends["inputs"][0]
    return {signature: [_Sample(images, place, name) for place in range(len(images))]}


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence the quantizer's progress bars, notes and warnings; whether ops stay float is seen from the file."""
    with (
        native_stderr_silenced(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield

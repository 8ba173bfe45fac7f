"""File sizes compared with MLPerf Tiny's reference files: `python -m benchmarks.sizes`.

The networks are built for the reference's inputs and converted, untrained: once in float, once in int8 with an int8
interface, as the reference files have it. Their biases are varied, since equal constants share their bytes in a file.
The sizes of the reference files are those of https://github.com/mlcommons/tiny, in benchmark/training:
pretrainedResnet.tflite and pretrainedResnet_quant.tflite of image_classification, kws_ref_model_float32.tflite and
kws_ref_model.tflite of keyword_spotting, vww_96_float.tflite and vww_96_int8.tflite of visual_wake_words,
ad01_fp32.tflite and ad01_int8.tflite of anomaly_detection. Their
converter of 2020 also wrote the range of each channel of the weights; `essential` leaves these and all names out.
Writes benchmarks/results/sizes/.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Images
from experiments.model import Architecture
from experiments.model.autoencoder import Autoencoder
from experiments.model.ds_cnn import DSCNN
from experiments.model.mobilenet_v1 import MobileNetV1
from experiments.model.resnet8 import ResNet8
from experiments.statistics.rounding import whole
from experiments.tflite.conversion import convert
from experiments.tflite.flatbuffer import editable, packed
from experiments.tflite.schemes import Float32, Int8


@dataclass(frozen=True)
class Reference:
    """A reference model of MLPerf Tiny, our architecture for it, and the bytes of the reference files."""

    architecture: Architecture
    input_shape: tuple[int, ...]
    classes: int
    float_bytes: int
    int8_bytes: int
    essential_bytes: int  # of the int8 file
    more_bytes: int = 0  # that today's converter adds to the int8 file


REFERENCES: Mapping[str, Reference] = {
    "resnet8": Reference(ResNet8(keras=3), (32, 32, 3), 10, 318_144, 98_496, 91_928),
    # The reference's float file is a hybrid: int8 weights, float activations.
    "ds_cnn": Reference(DSCNN(keras=3, kernel=(10, 4), bias=True), (49, 10, 1), 12, 43_392, 53_936, 42_816),
    "mobilenet_v1": Reference(MobileNetV1(keras=3), (96, 96, 3), 2, 866_284, 333_288, 295_752),
    # Dense layers have a scale (4 bytes) and a zero point (8) for each of 1,672 outputs now, for weights and biases.
    "autoencoder": Reference(
        Autoencoder(keras=3, units=(128,) * 4, batchnorm=True), (640,), 640, 1_067_648, 276_976, 274_672, 2 * 12 * 1672
    ),
}
SAMPLES = 10
DIFFERS_AT_MOST = 0.03  # of the essential bytes
KINDS = {"float_bytes": "float", "int8_bytes": "int8", "essential_bytes": "int8 without names and ranges"}


def essential(content: bytes) -> bytes:
    """Return a file without parts that interpreters do not need: names, ranges of channels, signatures, metadata."""
    model = editable(content)
    model.metadata = model.signatureDefs = None
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        tensor.name = b""
        if tensor.quantization is not None:
            tensor.quantization.min = tensor.quantization.max = None
    used = {tensor.buffer for tensor in graph.tensors}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    return packed(model)


def measured(name: str, reference: Reference) -> dict[str, object]:
    """Return a row of the table."""
    from experiments.runs.trial import constants_varied
    from experiments.system.tensorflow import keras_version

    keras_version(3).utils.set_random_seed(0)
    model = reference.architecture.build(reference.input_shape, reference.classes)

    def calibration(samples: int) -> Images:
        return np.random.default_rng(0).random((samples, *reference.input_shape), np.float32)

    with constants_varied(model):
        in_float = convert(model, Float32(), calibration)
        in_int8 = convert(model, Int8(SAMPLES, interface="int8"), calibration)
    return {
        "model": name,
        "parameters": model.count_params(),
        "float_bytes": in_float.bytes,
        "int8_bytes": in_int8.bytes,
        "essential_bytes": len(essential(in_int8.content)),
        "reference_float_bytes": reference.float_bytes,
        "reference_int8_bytes": reference.int8_bytes,
        "reference_essential_bytes": reference.essential_bytes,
    }


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    rows = [
        {
            "model": row["model"],
            "parameters": whole(row["parameters"]),
            "file": kind,
            "bytes": whole(row[column]),
            "reference, bytes": whole(row[f"reference_{column}"]),
            "here / reference": f"{row[column] / row[f'reference_{column}']:.3f}",
        }
        for row in table.to_dict("records")
        for column, kind in KINDS.items()
    ]
    return markdown(pd.DataFrame(rows))


BENCHMARK = Benchmark(
    name="sizes",
    title="File sizes compared with MLPerf Tiny's reference files",
    minutes=1,
    tables=(own("sizes", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    table = pd.DataFrame([measured(name, reference) for name, reference in REFERENCES.items()])
    more = [reference.more_bytes for reference in REFERENCES.values()]
    expected = table["reference_essential_bytes"] + more
    ratios = dict(zip(table["model"], table["essential_bytes"] / expected, strict=True))
    failures = [f"{name}: {ratio:.3f}" for name, ratio in ratios.items() if abs(ratio - 1) > DIFFERS_AT_MOST]
    results.finish(table, asked.quick, failures)


if __name__ == "__main__":
    main()

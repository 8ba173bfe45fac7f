"""File sizes compared with MLPerf Tiny's reference files: `python -m benchmarks.sizes`.

The networks are built for the reference's inputs and converted, untrained, since sizes do not depend on weights: once
in float, once in int8 with an int8 interface, as the reference files have it. The sizes of the reference files are
those of https://github.com/mlcommons/tiny: pretrainedResnet.tflite and pretrainedResnet_quant.tflite in
benchmark/training/image_classification, kws_ref_model_float32.tflite and kws_ref_model.tflite in keyword_spotting.
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
from experiments.model.ds_cnn import DSCNN
from experiments.model.resnet8 import ResNet8
from experiments.statistics.rounding import whole
from experiments.tflite.conversion import Float32, Int8, convert


@dataclass(frozen=True)
class Reference:
    """A network of MLPerf Tiny, our architecture that is meant to be the same, and the reference files' bytes."""

    architecture: Architecture
    input_shape: tuple[int, int, int]
    classes: int
    float_bytes: int
    int8_bytes: int


REFERENCES: Mapping[str, Reference] = {
    "resnet8": Reference(ResNet8(), (32, 32, 3), 10, 318_144, 98_496),
    # The float file of the reference is in truth a hybrid: int8 weights, float activations.
    "ds_cnn": Reference(DSCNN(kernel=(10, 4)), (49, 10, 1), 12, 43_392, 53_936),
}
SAMPLES = 10


def measured(name: str, reference: Reference) -> dict[str, object]:
    """A row of the figures."""
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    model = reference.architecture.build(reference.input_shape, reference.classes)

    def calibration(samples: int) -> Images:
        return np.random.default_rng(0).random((samples, *reference.input_shape), np.float32)

    return {
        "model": name,
        "parameters": model.count_params(),
        "float_bytes": convert(model, Float32(), calibration).bytes,
        "int8_bytes": convert(model, Int8(SAMPLES, interface="int8"), calibration).bytes,
        "reference_float_bytes": reference.float_bytes,
        "reference_int8_bytes": reference.int8_bytes,
    }


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame({"model": table["model"], "parameters": [whole(value) for value in table["parameters"]]})
    for kind in ("float", "int8"):
        here, reference = table[f"{kind}_bytes"], table[f"reference_{kind}_bytes"]
        shown[f"{kind}, bytes"] = [whole(value) for value in here]
        shown[f"reference, {kind}, bytes"] = [whole(value) for value in reference]
        shown[f"here / reference, {kind}"] = [f"{ratio:.3f}" for ratio in here / reference]
    return markdown(shown)


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
    results.finish(table, asked.quick, [])


if __name__ == "__main__":
    main()

"""Whether annotation quantizes exactly the chosen layers, for all 15 subsets: `python -m benchmarks.exactness`.

Each subset is annotated the usual way (TFMOT's quantize_annotate_layer on the chosen layers, Optimize.DEFAULT) and by
`strategy=annotate`; what runs in int8 is read from the files. Nothing is trained: types do not depend on it, and sizes
hardly do.
Writes benchmarks/results/exactness/ and its table in docs/.
"""

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset.mnist import Mnist
from experiments.model.article_cnn import ArticleCNN
from experiments.strategy.annotate import Annotate
from experiments.system.progress import bar
from experiments.tflite.conversion import convert
from experiments.tflite.graph import read_ops
from experiments.training.loop import Trained

LAYERS = ("conv2d", "conv2d_1", "conv2d_2", "dense")
HEADINGS = {
    "chosen": "chosen layers",
    "int8_usual_way": "in int8, TFMOT alone",
    "bytes_usual_way": "bytes, TFMOT alone",
    "int8_here": "in int8, this suite",
    "bytes_here": "bytes, this suite",
}


def usual_way(model: Any, chosen: Sequence[str]) -> bytes:
    """Return the file that results from following TFMOT's guide."""
    import tensorflow_model_optimization as tfmot

    from experiments.system.tensorflow import keras, tf

    def annotated(layer: Any) -> Any:
        return tfmot.quantization.keras.quantize_annotate_layer(layer) if layer.name in chosen else layer

    copy = keras.models.clone_model(model, clone_function=annotated)
    converter = tf.lite.TFLiteConverter.from_keras_model(tfmot.quantization.keras.quantize_apply(copy))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def here(model: Any, chosen: Sequence[str], calibration: Any) -> bytes:
    """Return the file of strategy=annotate."""
    strategy = Annotate(layers=tuple(chosen))
    prepared = strategy.prepare(model, Trained.untouched, calibration).model
    return convert(prepared, strategy.scheme(model), calibration).content


def in_int8(content: bytes) -> str:
    """Return the layers of a file that compute in integers."""
    found = [op.layer for op in read_ops(content, LAYERS) if op.computes and op.arithmetic == "integer"]
    return ", ".join(found) or "nothing"


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = table.astype({"chosen": "string"})
    for name in ("bytes_usual_way", "bytes_here"):
        shown[name] = [f"{size:,}" for size in shown[name]]
    return markdown(shown.rename(columns=HEADINGS))


BENCHMARK = Benchmark(
    name="exactness",
    title="Whether annotation quantizes exactly the chosen layers, for all 15 subsets",
    minutes=2,
    tables=(own("exactness", published_table),),
)


def main() -> None:
    """Measure, write the results, and publish the table."""
    from experiments.system.tensorflow import keras

    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = Mnist(train_samples=100, test_samples=100).load()
    subsets = [subset for size in ([1] if asked.quick else range(1, 5)) for subset in combinations(LAYERS, size)]
    rows = []
    with bar("Subsets", total=len(subsets)) as advance:
        for chosen in subsets:
            keras.backend.clear_session()
            keras.utils.set_random_seed(0)
            model = ArticleCNN().build(data.input_shape, data.classes)
            usual = usual_way(model, chosen)
            exact = here(model, chosen, partial(data.calibration, seed=0))
            rows.append([", ".join(chosen), in_int8(usual), len(usual), in_int8(exact), len(exact)])
            advance(1)
    results.finish(pd.DataFrame(rows, columns=list(HEADINGS)), asked.quick, failures=[])


if __name__ == "__main__":
    main()

"""Speed of evaluating a file: `python -m benchmarks.evaluation`.

The suite's pass over the 10,000 test images of MNIST against the loop of TensorFlow's tutorials (one image a call, one
thread), in turns, three times each; the logits have to be the same bit for bit. The Keras model is held against a bare
loop of its own compiled forward pass, in the same batches. Nothing is trained: neither the time nor the equality
depends on what the weights have learned. Writes benchmarks/results/evaluation/.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown, true
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Dataset, Images
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import KERAS_BATCH, can_batch, dequantize, keras_logits, quantize, tflite_logits
from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.ds_cnn import DSCNN
from experiments.system.progress import bar
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.schemes import Dynamic, Float16, Float32, Int8, Scheme

KERAS = "Keras model"
KERAS_EVALUATION_AT_LEAST = 0.9  # times the throughput of a plain loop
FLOAT_EVALUATION_AT_LEAST = 1.8  # times the throughput of one image a call on one thread, on two cores
MODELS: Mapping[str, Architecture] = {"article_cnn": ArticleCNN(), "ds_cnn": DSCNN()}
SCHEMES: Mapping[str, Scheme] = {
    "none": Float32(), "ptq_dynamic": Dynamic(), "ptq_float16": Float16(), "ptq_int8": Int8(calibration_samples=100),
}  # fmt: skip
TIMES = 3
Predictions = npt.NDArray[np.float32]


def tutorial_loop(model: TFLiteModel, images: Images) -> Predictions:
    """Evaluate as TensorFlow's tutorials do, but return logits instead of classes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=model.content)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for image in images:
        interpreter.set_tensor(entry["index"], quantize(image[np.newaxis], entry))
        interpreter.invoke()
        outputs.append(dequantize(interpreter.get_tensor(exit_["index"])[0], exit_))
    return np.stack(outputs)


def in_turns(ways: Mapping[str, Callable[[], Predictions]]) -> tuple[dict[str, list[float]], dict[str, Predictions]]:
    """Return the seconds and the outputs of each way, interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs = {}
    for _ in range(TIMES):
        for name, way in ways.items():
            started = time.perf_counter()
            outputs[name] = way()
            seconds[name].append(time.perf_counter() - started)
    return seconds, outputs


def bare_loop(forward: Callable[[Images], Any], images: Images) -> Predictions:
    """Run only the forward pass of a Keras model."""
    return np.concatenate([forward(images[i : i + KERAS_BATCH]).numpy() for i in range(0, len(images), KERAS_BATCH)])


def compared(
    model: str,
    what: str,
    loop: Callable[[], Predictions],
    suite: Callable[[], Predictions],
    in_batches: bool,
    images: int,
) -> dict[str, object]:
    """Return a row of the table."""
    seconds, outputs = in_turns({"loop": loop, "suite": suite})
    return {
        "model": model,
        "strategy": what,
        "images": images,
        "loop_images_per_second": images / float(np.median(seconds["loop"])),
        "images_per_second": images / float(np.median(seconds["suite"])),
        "in_batches": in_batches,
        "same_bits": outputs["loop"].tobytes() == outputs["suite"].tobytes(),
    }


def rows_of(name: str, data: Dataset) -> Iterator[dict[str, object]]:
    """Yield the untrained Keras model, and its file under every scheme."""
    from experiments.system.tensorflow import keras, tf

    images = data.test.x[:]
    keras.utils.set_random_seed(0)
    model = MODELS[name].build(data.input_shape, data.classes)
    forward = tf.function(partial(model, training=False))
    ways = (partial(bare_loop, forward, images), partial(keras_logits, model, images))
    yield compared(name, KERAS, *ways, in_batches=True, images=len(images))
    for strategy, scheme in SCHEMES.items():
        file = convert(model, scheme, partial(data.calibration, seed=0))
        ways = (partial(tutorial_loop, file, images), partial(tflite_logits, file, images))
        yield compared(name, strategy, *ways, in_batches=can_batch(file, images), images=len(images))


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = table[["model", "strategy"]].assign(
        **{
            "loop, images/s": [f"{value:,.0f}" for value in table["loop_images_per_second"]],
            "this suite, images/s": [f"{value:,.0f}" for value in table["images_per_second"]],
            "speedup": [f"{value:.2f}x" for value in _times(table)],
            "several images per call": ["yes" if true(value) else "no" for value in table["in_batches"]],
            "bit-identical": ["yes" if true(value) else "NO" for value in table["same_bits"]],
        }
    )
    return markdown(shown)


def _times(table: pd.DataFrame) -> pd.Series:
    return table["images_per_second"] / table["loop_images_per_second"]


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    float_file = (table["model"] == "article_cnn") & (table["strategy"] == "none")
    times = float(_times(table)[float_file].iloc[0])
    of_keras = _times(table)[table["strategy"] == KERAS]
    return [
        *(f"{row.model!s} {row.strategy!s}: other bits" for row in table.itertuples() if not true(row.same_bits)),
        *([f"float model: {times:.2f} times the loop"] if times < FLOAT_EVALUATION_AT_LEAST else []),
        *(f"Keras model: {each:.2f} times the loop" for each in of_keras if each < KERAS_EVALUATION_AT_LEAST),
    ]


BENCHMARK = Benchmark(
    name="evaluation",
    title="Speed of evaluating a file",
    minutes=3,
    tables=(own("evaluation", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = Mnist(train_samples=1000, test_samples=500 if asked.quick else None).load()
    rows = []
    with bar("Models and files", total=len(MODELS) * (1 + len(SCHEMES))) as advance:
        for name in MODELS:
            for row in rows_of(name, data):
                rows.append(row)
                advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()

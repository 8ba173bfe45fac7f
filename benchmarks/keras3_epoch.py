"""What an epoch of quantization-aware training costs against one in float: `python -m benchmarks.keras3_epoch`.

The article's network on all of MNIST, in Keras 2 (TFMOT) and in Keras 3 (this package's engine): an epoch in float and
one of quantization-aware training, each from the same start, three times, in turns. The seconds are those of training
alone, including the tracing of its function. Writes benchmarks/results/keras3_epoch/.
"""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.model.article_cnn import ArticleCNN
from experiments.quantization.engines import NAMES, engine_of
from experiments.system.cache import Cache
from experiments.system.keras_version import Version
from experiments.training.loop import Training, fit

VERSIONS: tuple[Version, Version] = (2, 3)
TIMES, MOST = 3, 1.35  # repetitions; how many times as long a quantization-aware epoch may take with our engine


def model_of(version: Version, quantized: bool, data: Dataset) -> Any:
    """Return the untrained network, with fake quantization or without."""
    from experiments.system.tensorflow import clear_session, keras

    clear_session()
    keras.utils.set_random_seed(0)
    model = ArticleCNN(keras=version).build(data.input_shape, data.classes)
    if not quantized:
        return model
    engine = engine_of(model)
    copy = engine.annotated(model, None)
    engine.start_ranges(copy, model, data.calibration(32, seed=0)[:])
    return copy


def seconds_of(version: Version, quantized: bool, data: Dataset) -> float:
    """Return the duration of the first epoch, which is not taken from a cache."""
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(
            model_of(version, quantized, data),
            data=data,
            settings=Training(epochs=1),
            seed=0,
            cache=Cache(dir=Path(folder)),
            title=f"Keras {version}, {'quantization-aware' if quantized else 'float'}",
        )
    return trained.seconds


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each engine: median seconds of both kinds of epochs, and the median of their ratios."""
    found = []
    for version in VERSIONS:
        own_rows = rows[rows["keras"] == version]
        ratios = own_rows["quantized_seconds"] / own_rows["float_seconds"]
        medians = own_rows[["float_seconds", "quantized_seconds"]].median()
        found.append({"keras": version, "engine": NAMES[version], **medians, "ratio": ratios.median()})
    return pd.DataFrame(found)


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    ratio = float(table.loc[table["keras"] == 3, "ratio"].iloc[0])
    return [f"a quantization-aware epoch takes {ratio:.2f} times as long as one in float"] if ratio > MOST else []


def published_table(table: pd.DataFrame) -> str:
    """Return the table of benchmarks.keras3_epoch."""
    shown = pd.DataFrame({"Keras": table["keras"].astype(str), "engine": table["engine"]})
    shown["epoch in float (s)"] = [f"{seconds:.1f}" for seconds in table["float_seconds"]]
    shown["quantization-aware epoch (s)"] = [f"{seconds:.1f}" for seconds in table["quantized_seconds"]]
    shown["ratio"] = [f"{ratio:.2f}" for ratio in table["ratio"]]
    return markdown(shown)


BENCHMARK = Benchmark(
    name="keras3_epoch",
    title="What an epoch of quantization-aware training costs against one in float",
    minutes=8,
    tables=(own("keras3_epoch", published_table),),
)


def main() -> None:
    """Measure and write."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = Mnist(train_samples=2000, test_samples=100).load() if asked.quick else Mnist().load()
    rows = []
    for _ in range(1 if asked.quick else TIMES):
        for version in VERSIONS:
            seconds = {
                f"{name}_seconds": seconds_of(version, name == "quantized", data) for name in ("float", "quantized")
            }
            rows.append({"keras": version, **seconds})
    repetitions = pd.DataFrame(rows)
    table = summary(repetitions)
    results.finish(table, asked.quick, failures(table), more={"repetitions.csv": repetitions})


if __name__ == "__main__":
    main()

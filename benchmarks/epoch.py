"""Duration of an epoch, compared with Keras' model.fit on arrays: `python -m benchmarks.epoch`.

The article's network on 10,000 images of MNIST, a tenth of them for validation, in turns, eight pairs of epochs. Given
the same order of images, both give the same weights bit for bit (tests/test_training.py). Keras' pass over arrays is
tuned by tf.data, whose tuner is waited for at the end until it wakes, and it sleeps twice as long each time.
Writes benchmarks/results/epoch/.
"""

import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from benchmarks.harness.trained import article_cnn
from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.model.article_cnn import ArticleCNN
from experiments.statistics.estimates import Estimate, ratio_of_medians
from experiments.statistics.rounding import times, whole
from experiments.system.progress import bar
from experiments.training.loop import Training

PAIRS = 8


def here(data: Dataset, seed: int) -> float:
    """Seconds of an epoch by `fit`."""
    with tempfile.TemporaryDirectory() as folder:
        return article_cnn(data, Path(folder), seed).seconds


def plain(data: Dataset, seed: int) -> float:
    """Seconds of an epoch by model.fit."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = ArticleCNN().build(data.input_shape, data.classes)
    settings = Training(epochs=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(settings.learning_rate), loss=loss, metrics=["accuracy"])
    validation = (data.validation.x, data.validation.y)
    started = time.perf_counter()
    model.fit(
        data.train.x,
        data.train.y,
        settings.batch_size,
        verbose=0,
        validation_data=validation,
        validation_batch_size=settings.batch_size,
    )
    return time.perf_counter() - started


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    ratio = _plain_over_here(table)
    shown = pd.DataFrame(
        {
            "images": [whole(table["images"].iloc[0])],
            "pairs": [len(table)],
            "`model.fit`, s": [_range(table["plain_seconds"])],
            "this suite, s": [_range(table["here_seconds"])],
            "`model.fit` over 10 % slower": [
                f"in {(table['plain_seconds'] > 1.1 * table['here_seconds']).sum()} pairs"
            ],
            "speedup": [times(ratio.value, ratio.low, ratio.high)],
        }
    )
    return f"{markdown(shown)}\nMedian (minimum to maximum). [low, high]: 95 % interval over the pairs.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Whether an epoch here takes longer than by plain Keras."""
    ratio = _plain_over_here(table)
    return [f"{ratio.value:.2f} times as fast as model.fit"] if ratio.high < 1 else []


def _plain_over_here(table: pd.DataFrame) -> Estimate:
    return ratio_of_medians(table["plain_seconds"].to_numpy(float), table["here_seconds"].to_numpy(float))


def _range(seconds: pd.Series) -> str:
    return f"{seconds.median():.1f} ({seconds.min():.1f} to {seconds.max():.1f})"


BENCHMARK = Benchmark(
    name="epoch",
    title="Duration of an epoch, compared with Keras' model.fit on arrays",
    minutes=3,
    tables=(own("epoch", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = Mnist(train_samples=1000 if asked.quick else 10_000, test_samples=100).load()
    rows = []
    with bar("Pairs", total=PAIRS) as advance:
        for seed in range(PAIRS):
            ways = (plain, here) if seed % 2 else (here, plain)
            rows.append({"images": len(data.train), **{f"{way.__name__}_seconds": way(data, seed) for way in ways}})
            advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()

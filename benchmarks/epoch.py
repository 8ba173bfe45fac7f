"""What an epoch takes here, and by Keras' own model.fit on arrays: `python -m benchmarks.epoch`.

The article's network on 10,000 images of MNIST, a tenth of them for validation, in turns, eight pairs of epochs. Given
the same order of images, both give the same weights bit for bit (tests/test_training.py). Keras' pass over arrays is
tuned by tf.data, whose tuner is waited for at the end until it wakes, and it sleeps twice as long each time.
Writes benchmarks/results/epoch/.
"""

import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.results import Results, options
from benchmarks.tables.epoch import failures
from benchmarks.trained import article_cnn
from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.model.article_cnn import ArticleCNN
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


def main() -> None:
    """Measure and write."""
    asked = options("benchmarks.epoch", __doc__).parse_args()
    results = Results("epoch")
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

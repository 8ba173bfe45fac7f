"""The article's network as the suite trains it, for benchmarks that measure training itself."""

from pathlib import Path

from experiments.dataset import Dataset
from experiments.model.article_cnn import ArticleCNN
from experiments.system.cache import Cache
from experiments.training.loop import Trained, Training, fit
from experiments.training.precision import Precision


def article_cnn(data: Dataset, cache: Path, seed: int, epochs: int = 1, precision: Precision = "float32") -> Trained:
    """Return the network after this number of epochs; those in the cache are not trained again."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    return fit(
        ArticleCNN().build(data.input_shape, data.classes),
        data=data,
        settings=Training(epochs=epochs, precision=precision),
        seed=seed,
        cache=Cache(dir=cache),
        title=f"Seed {seed}, epoch {epochs}, {precision}",
    )

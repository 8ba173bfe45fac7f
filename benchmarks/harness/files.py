"""The files whose latency is measured: of untrained models, as latency does not depend on the weights."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.tflite.conversion import Calibration, TFLiteModel, convert
from experiments.tflite.schemes import Float32, Int8, Scheme

if TYPE_CHECKING:
    from tf_keras import Model

FLOAT, INT8 = "float32", "int8"
INT8_SCHEME = Int8(calibration_samples=100)
SCHEMES: Mapping[str, Scheme] = {FLOAT: Float32(), INT8: INT8_SCHEME}
PADDABLE_LAYERS = 100


def images() -> Dataset:
    """Return a few images of MNIST."""
    return Mnist(train_samples=1000, test_samples=100).load()


def article(data: Dataset) -> Mapping[str, TFLiteModel]:
    """Return the article's network as a float and as an int8 file."""
    model = article_model(data)
    return {name: convert(model, scheme, _calibration(data)) for name, scheme in SCHEMES.items()}


def article_choices(data: Dataset, sizes: range) -> Mapping[tuple[str, ...], TFLiteModel]:
    """Return a file of the article's network for each choice of layers in int8, by the names of the layers."""
    model = article_model(data)
    layers = [layer.name for layer in model.layers if layer.weights]
    return {
        chosen: convert(model, replace(INT8_SCHEME, layers=chosen), _calibration(data))
        for size in sizes
        for chosen in combinations(layers, size)
    }


def article_model(data: Dataset, seed: int = 0) -> "Model":
    """Return the article's network, untrained; the seed decides its weights."""
    from experiments.model.article_cnn import ArticleCNN
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(seed)
    return ArticleCNN().build(data.input_shape, data.classes)


def padded(data: Dataset, layers: int) -> TFLiteModel:
    """Return an int8 file of equal convolutions in sequence: three added to 100 are 3 % more work."""
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    entry = values = keras.layers.Input(data.input_shape)
    values = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(values)
    for _ in range(layers):
        values = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(values)
    values = keras.layers.Dense(data.classes)(keras.layers.GlobalAveragePooling2D()(values))
    model: Model = keras.Model(entry, values)
    return convert(model, SCHEMES[INT8], _calibration(data))


def _calibration(data: Dataset) -> Calibration:
    return partial(data.calibration, seed=0)

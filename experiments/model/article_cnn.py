"""The convolutional network of the article: 149,178 parameters on MNIST."""

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class ArticleCNN(Architecture):
    """Three 3x3 convolutions with dropout between them, and one dense layer."""

    keras: Version = 2

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers
        conv = {"kernel_size": 3, "padding": "same", "activation": "relu"}
        return keras.Sequential(
            [
                layers.InputLayer(input_shape, name="image"),
                layers.Conv2D(64, **conv, name="conv2d"),
                layers.Conv2D(32, **conv, name="conv2d_1"),
                layers.Dropout(0.5, name="dropout"),
                layers.Conv2D(16, **conv, name="conv2d_2"),
                layers.Dropout(0.25, name="dropout_1"),
                layers.Flatten(name="flatten"),
                layers.Dense(classes, name="dense"),
            ],
            name="article_cnn",
        )

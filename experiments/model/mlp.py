"""A multilayer perceptron: the smallest baseline, all of it in dense layers."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class MLP(Architecture):
    """Dense layers of the given units, ReLU between them."""

    keras: Version = 2
    units: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 64)

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers
        hidden = [layers.Dense(n, activation="relu", name=f"dense_{i}") for i, n in enumerate(self.units)]
        return keras.Sequential(
            [
                layers.InputLayer(input_shape, name="image"),
                layers.Flatten(name="flatten"),
                *hidden,
                layers.Dense(classes, name="classifier"),
            ],
            name="mlp",
        )

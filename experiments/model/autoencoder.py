"""An autoencoder of dense layers, after MLPerf Tiny's anomaly detection (Banbury et al., arXiv:2106.07597)."""

from math import prod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Autoencoder(Architecture):
    """Dense layers of the given units down to a narrow code, and the same up again to the shape of the input."""

    keras: Version = 2
    units: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 128)
    code: PositiveInt = 8

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build; the outputs have the shape of the input."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers
        widths = (*self.units, self.code, *reversed(self.units))
        hidden = [layers.Dense(n, activation="relu", name=f"dense_{i}") for i, n in enumerate(widths)]
        flat = [layers.Flatten(name="flatten")] if len(input_shape) > 1 else []
        shaped = [layers.Reshape(input_shape, name="shaped")] if len(input_shape) > 1 else []
        return keras.Sequential(
            [
                layers.InputLayer(input_shape, name="image"),
                *flat,
                *hidden,
                layers.Dense(prod(input_shape), name="reconstruction"),
                *shaped,
            ],
            name="autoencoder",
        )

"""An autoencoder of dense layers, after MLPerf Tiny's anomaly detection (Banbury et al., arXiv:2106.07597)."""

from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Autoencoder(Architecture):
    """Dense layers of the given units down to a narrow code, and the same up again to the shape of the input.

    The reference has four layers of 128 units on each side, each with BatchNorm: `units` and `batchnorm` restore them.
    """

    keras: Version = 2
    units: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 128)
    code: PositiveInt = 8
    batchnorm: bool = False  # before each ReLU
    batchnorm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build; the outputs have the shape of the input."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers
        widths = (*self.units, self.code, *reversed(self.units))

        def activated(number: int, units: int) -> list[Any]:
            name = f"dense_{number}"
            if not self.batchnorm:
                return [layers.Dense(units, activation="relu", name=name)]
            normalized = layers.BatchNormalization(momentum=self.batchnorm_momentum, name=f"{name}_bn")
            return [layers.Dense(units, name=name), normalized, layers.ReLU(name=f"{name}_relu")]

        hidden = [layer for number, units in enumerate(widths) for layer in activated(number, units)]
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

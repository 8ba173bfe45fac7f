"""Residual network after MLPerf Tiny's image-classification reference model (Banbury et al., arXiv:2106.07597)."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class ResNet8(Architecture):
    """Three residual stacks of two 3x3 convolutions with BatchNorm; the later ones halve the image."""

    keras: Version = 2
    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64)
    # The reference's 0.99 needs thousands of steps before the moving averages mean anything.
    batchnorm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers
        conv = {
            "padding": "same",
            "kernel_initializer": "he_normal",
            "kernel_regularizer": keras.regularizers.L2(1e-4),
        }

        def normalised(x: object, filters: int, strides: int, name: str) -> object:
            x = layers.Conv2D(filters, 3, strides=strides, **conv, name=name)(x)
            return layers.BatchNormalization(momentum=self.batchnorm_momentum, name=f"{name}_bn")(x)

        image = layers.Input(input_shape, name="image")
        x = layers.ReLU(name="stem_relu")(normalised(image, self.filters[0], 1, "stem"))
        for stack, filters in enumerate(self.filters):
            strides = 1 if stack == 0 else 2
            y = layers.ReLU(name=f"conv_{stack}a_relu")(normalised(x, filters, strides, f"conv_{stack}a"))
            y = normalised(y, filters, 1, f"conv_{stack}b")
            if strides > 1:
                x = layers.Conv2D(filters, 1, strides=strides, **conv, name=f"shortcut_{stack}")(x)
            x = layers.ReLU(name=f"add_{stack}_relu")(layers.Add(name=f"add_{stack}")([x, y]))
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(image, layers.Dense(classes, name="dense")(x), name="resnet8")

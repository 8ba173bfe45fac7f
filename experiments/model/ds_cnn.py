"""Depthwise-separable network after MLPerf Tiny's keyword-spotting reference model (Zhang et al., arXiv:1711.07128)."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model
    from tf_keras.layers import Layer


@option(frozen=True, config=OPTION, kw_only=True)
class DSCNN(Architecture):
    """A strided convolution, then blocks of depthwise and pointwise convolution, each with BatchNorm and ReLU.

    The reference has a first kernel of 10x4 for spectrograms of 49x10, and biases before BatchNorm: `kernel` and `bias`
    restore them. Files do not differ by the biases, since BatchNorm is folded into them anyway.
    """

    keras: Version = 2
    filters: PositiveInt = 64
    blocks: PositiveInt = 4
    kernel: tuple[PositiveInt, PositiveInt] = (3, 3)
    bias: bool = False
    # The reference's 0.99 needs thousands of steps before the moving averages mean anything.
    batchnorm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers

        def normalised(convolution: "Layer") -> list["Layer"]:
            return [
                convolution,
                layers.BatchNormalization(momentum=self.batchnorm_momentum, name=f"{convolution.name}_bn"),
                layers.ReLU(name=f"{convolution.name}_relu"),
            ]

        plain = {"padding": "same", "use_bias": self.bias}
        stem = normalised(layers.Conv2D(self.filters, self.kernel, strides=2, **plain, name="stem"))
        body = [
            layer
            for block in range(self.blocks)
            for convolution in (
                layers.DepthwiseConv2D(3, **plain, name=f"depthwise_{block}"),
                layers.Conv2D(self.filters, 1, **plain, name=f"pointwise_{block}"),
            )
            for layer in normalised(convolution)
        ]
        return keras.Sequential(
            [
                layers.InputLayer(input_shape, name="image"),
                *stem,
                layers.Dropout(0.2, name="dropout"),
                *body,
                layers.Dropout(0.4, name="dropout_1"),
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dense(classes, name="dense"),
            ],
            name="ds_cnn",
        )

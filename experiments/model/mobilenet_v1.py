"""MobileNetV1 (Howard et al., arXiv:1704.04861) as MLPerf Tiny's reference model for visual wake words has it."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model

STEM = 32  # filters at full width
# Filters of the pointwise convolution of each block at full width, and strides of its depthwise convolution.
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip


@option(frozen=True, config=OPTION, kw_only=True)
class MobileNetV1(Architecture):
    """A strided convolution, then 13 blocks of depthwise and pointwise convolution, each with BatchNorm and ReLU.

    As in the reference, convolutions have biases, activations are ReLU instead of ReLU6, and there is no dropout.
    """

    keras: Version = 2
    width: Annotated[float, Field(gt=0, le=4)] = 0.25  # share of the filters
    # The reference's 0.99 needs thousands of steps before the moving averages mean anything.
    batchnorm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build."""
        from experiments.system.tensorflow import keras_version

        keras = keras_version(self.keras)
        layers = keras.layers
        regularizer = keras.regularizers.L2(1e-4)
        convolution = {"padding": "same", "kernel_initializer": "he_normal", "kernel_regularizer": regularizer}
        depthwise = {"padding": "same", "depthwise_initializer": "he_normal", "depthwise_regularizer": regularizer}

        def filters(full: int) -> int:
            return max(1, round(full * self.width))

        convolutions = [layers.Conv2D(filters(STEM), 3, strides=2, **convolution, name="stem")]
        for block, (full, strides) in enumerate(BLOCKS):
            convolutions += [
                layers.DepthwiseConv2D(3, strides=strides, **depthwise, name=f"depthwise_{block}"),
                layers.Conv2D(filters(full), 1, **convolution, name=f"pointwise_{block}"),
            ]
        body = [
            layer
            for each in convolutions
            for layer in (
                each,
                layers.BatchNormalization(momentum=self.batchnorm_momentum, name=f"{each.name}_bn"),
                layers.ReLU(name=f"{each.name}_relu"),
            )
        ]
        return keras.Sequential(
            [
                layers.InputLayer(input_shape, name="image"),
                *body,
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dense(classes, name="dense"),
            ],
            name="mobilenet_v1",
        )

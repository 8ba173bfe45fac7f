"""A small detector: convolutions down to a grid, of which each cell gives one box."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model

SIZE = 0.3  # of a box before any training, as a share of the image
RARE = 0.02  # score before any training


@option(frozen=True, config=OPTION, kw_only=True)
class Detector(Architecture):
    """Convolutions, a pair for each halving of the image, and a box with scores for each cell of the last grid.

    It has one scale and no anchors (like FCOS, Tian et al., arXiv:1904.01355). The outputs are (n, cells, 4 + classes):
    normalized corners (x1, y1, x2, y2), and a probability for each class.
    """

    keras: Version = 2
    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64)

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build; for the outputs see the class."""
        from experiments.system.tensorflow import keras_version

        step = 2 ** len(self.filters)
        if len(input_shape) != 3 or any(length % step for length in input_shape[:2]):
            raise ValueError(
                f"its {len(self.filters)} filters require images whose height and width are multiples of {step}"
            )
        keras = keras_version(self.keras)
        layers = keras.layers
        rows, columns = (length // step for length in input_shape[:2])
        cells = rows * columns

        def convolved(values: Any, filters: int, strides: int, name: str) -> Any:
            convolution = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False, name=name)
            normalized = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(convolution(values))
            return layers.ReLU(name=f"{name}_relu")(normalized)

        image = values = layers.Input(input_shape, name="image")
        for number, filters in enumerate(self.filters):
            values = convolved(values, filters, 2, f"down_{number}")
            values = convolved(values, filters, 1, f"features_{number}")
        values = convolved(values, self.filters[-1], 1, "head")
        around = layers.Conv2D(4, 1, name="around")(values)  # corners, from the center of the cell
        # The centers are the biases of a convolution that is not trained: it has an exact counterpart in int8.
        apart = layers.Reshape((1, 1, cells * 4), name="apart")(around)
        placed = layers.DepthwiseConv2D(1, depthwise_initializer="ones", trainable=False, name="placed")(apart)
        boxes = layers.Reshape((cells, 4), name="boxes")(placed)
        scores = layers.Conv2D(classes, 1, activation="sigmoid", name="scores")(values)
        scores = layers.Reshape((cells, classes), name="scores_of_cells")(scores)
        outputs = layers.Concatenate(axis=-1, name="boxes_and_scores")([boxes, scores])
        model = keras.Model(image, outputs, name="detector")

        y, x = ((np.arange(count) + 0.5) / count for count in (rows, columns))
        centers = np.stack([*np.meshgrid(x, y)] * 2, axis=-1)  # (rows, columns, 4) of x, y, x, y
        self._set_bias(model, "placed", centers.ravel())
        self._set_bias(model, "around", np.array([-SIZE, -SIZE, SIZE, SIZE]) / 2)
        self._set_bias(model, "scores", np.full(classes, np.log(RARE / (1 - RARE))))
        return model

    @staticmethod
    def _set_bias(model: "Model", name: str, values: Any) -> None:
        layer = model.get_layer(name)
        layer.set_weights([layer.get_weights()[0], values.astype(np.float32)])

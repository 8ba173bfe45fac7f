"""A small encoder and decoder of convolutions, which gives outputs for each pixel."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model import Architecture
from experiments.system.keras_version import Version
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class EncoderDecoder(Architecture):
    """3x3 convolutions, each of which halves the image, and transposed ones that double it again."""

    keras: Version = 2
    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32)

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """See Architecture.build; the outputs are logits (n, height, width, classes)."""
        from experiments.system.tensorflow import keras_version

        if len(input_shape) != 3 or any(length % 2 ** len(self.filters) for length in input_shape[:2]):
            raise ValueError(
                f"its {len(self.filters)} filters require images whose height and width are multiples of "
                f"{2 ** len(self.filters)}"
            )
        layers = keras_version(self.keras).layers
        same = {"padding": "same", "activation": "relu"}
        down = [layers.Conv2D(n, 3, strides=2, **same, name=f"down_{i}") for i, n in enumerate(self.filters)]
        up = [
            layers.Conv2DTranspose(n, 3, strides=2, **same, name=f"up_{i}")
            for i, n in reversed(list(enumerate(self.filters)))
        ]
        return keras_version(self.keras).Sequential(
            [
                layers.InputLayer(input_shape, name="image"),
                *down,
                *up,
                layers.Conv2D(classes, 1, name="classifier"),
            ],
            name="encoder_decoder",
        )

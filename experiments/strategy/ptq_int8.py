"""Post-training full-integer quantization."""

from typing import ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import Int8, Interface, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQInt8(PostTraining):
    """int8 weights and activations, calibrated on training images; `interface` is what goes in and out."""

    types: ClassVar[str] = "int8"

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int8(self.calibration_samples, self.interface)

"""Post-training quantization with int16 activations and int8 weights."""

from typing import ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import Int16x8, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQInt16x8(PostTraining):
    """int16 activations, int8 weights, calibrated on training images; reference kernels, so slow on CPUs."""

    types: ClassVar[str] = "int16x8"

    calibration_samples: PositiveInt = 500

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int16x8(self.calibration_samples)

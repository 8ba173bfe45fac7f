"""The float32 TFLite model of the baseline: what every other strategy is compared with."""

from typing import ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import Float32, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class Nothing(PostTraining):
    """No quantization."""

    types: ClassVar[str] = "float32"

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float32()

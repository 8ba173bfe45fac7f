"""Post-training dynamic-range quantization."""

from typing import ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import LEAST_DYNAMIC, Dynamic, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQDynamic(PostTraining):
    """int8 weights, float activations; no calibration."""

    types: ClassVar[str] = "hybrid int8"
    least_weights: ClassVar[int] = LEAST_DYNAMIC

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Dynamic()

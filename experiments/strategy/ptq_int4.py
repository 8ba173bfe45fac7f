"""Post-training int4 weights, with LiteRT's quantizer."""

from typing import ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import DynamicInt4, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQInt4(PostTraining):
    """int4 weights with a scale for each channel, float activations; no calibration, so none that could clip."""

    types: ClassVar[str] = "hybrid int4"

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return DynamicInt4()

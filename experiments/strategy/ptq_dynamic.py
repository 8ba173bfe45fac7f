"""Post-training dynamic-range quantization."""

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import Dynamic, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQDynamic(PostTraining):
    """int8 weights, float activations; no calibration."""

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Dynamic()

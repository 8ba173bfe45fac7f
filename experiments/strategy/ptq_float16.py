"""Post-training float16 weights."""

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import PostTraining
from experiments.tflite import Float16, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQFloat16(PostTraining):
    """Half the size, float32 arithmetic."""

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float16()

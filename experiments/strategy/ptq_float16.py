"""Post-training float16 weights."""

from typing import ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.graph import FLOAT16_WEIGHTS
from experiments.strategy import PostTraining
from experiments.tflite import Float16, Scheme


@card(frozen=True, config=CARD, kw_only=True)
class PTQFloat16(PostTraining):
    """Half the size, float32 arithmetic."""

    types: ClassVar[str] = FLOAT16_WEIGHTS

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float16()

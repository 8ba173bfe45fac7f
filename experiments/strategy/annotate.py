"""Per-layer annotation: quantization-aware training of the chosen layers, the others stay float."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import Strategy
from experiments.strategy.selection import check_pattern
from experiments.tflite import Learned, Scheme
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class Annotate(Strategy):
    """`layers`: names, class names, regular expressions, first:n or last:n of the layers with weights.

    The article's advice is the default: the dense layers.
    """

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True

    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("Dense",)

    @field_validator("layers")
    @classmethod
    def _readable(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in layers:
            check_pattern(pattern)
        return layers

    def check(self, model: "Model") -> None:
        """Every pattern has to choose a layer, and every chosen layer has to be supported."""
        from experiments.strategy.annotation import chosen, refuse_unsupported

        refuse_unsupported(model, chosen(model, self.layers))

    def prepare(self, model: "Model", fit: Fit) -> Trained:
        """The model with the chosen layers annotated, trained."""
        from experiments.strategy.annotation import annotated, chosen

        return fit(annotated(model, chosen(model, self.layers)))

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned()

"""Quantization-aware training of the whole model."""

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.strategy import Strategy
from experiments.tflite import Interface, Learned, Scheme
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class QAT(Strategy):
    """Every layer trains with fake quantization, and its int8 ranges are learned."""

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True

    interface: Interface = "float32"

    def check(self, model: "Model") -> None:
        """Every layer has to be one that can be trained quantization-aware."""
        from experiments.strategy.annotation import refuse_unsupported

        refuse_unsupported(model, [layer.name for layer in model.layers])

    def prepare(self, model: "Model", fit: Fit) -> Trained:
        """The annotated model, trained."""
        from experiments.strategy.annotation import annotated_whole

        return fit(annotated_whole(model))

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned(self.interface)

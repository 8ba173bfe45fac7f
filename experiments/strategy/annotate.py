"""Per-layer annotation: quantization-aware training of the chosen layers, the others stay float."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Difference, Promise
from experiments.strategy import QuantizationAware
from experiments.strategy.selection import Patterns
from experiments.tflite import Learned, Scheme

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class Annotate(QuantizationAware):
    """`layers`: names, class names, regular expressions, first:n or last:n of the layers with weights.

    The article's advice is the default: the dense layers.
    """

    layers: Patterns = ("Dense",)

    def promise(self, model: "Model") -> Promise:
        """Exactly the chosen layers in int8: every pattern has to choose one, and each has to be supported."""
        from experiments.strategy.annotation import chosen, promised, refuse_unsupported

        names = chosen(model, self.layers)
        refuse_unsupported(model, names)
        return promised(model, names, self.rest)

    def within(self, promise: Promise, model: "Model", found: Sequence[Difference]) -> Promise:
        """Layers that were chosen by name are quantized, or the strategy refuses."""
        from experiments.strategy.annotation import breaking, refuse

        refuse(model, breaking(promise, model, found))
        return promise

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned(rest=self.rest)

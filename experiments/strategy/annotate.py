"""Per-layer annotation: quantization-aware training of the chosen layers, the others stay float."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as option

from experiments.quantization.selection import Patterns
from experiments.strategy import QuantizationAware
from experiments.system.options import OPTION
from experiments.tflite.conversion import Learned, Scheme
from experiments.tflite.expectation import Difference, Expectation

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Annotate(QuantizationAware):
    """`layers`: names, class names, regular expressions, first:n or last:n of the layers with weights.

    The article's advice is the default: the dense layers.
    """

    layers: Patterns = ("Dense",)

    def expectation(self, model: "Model") -> Expectation:
        """Exactly the chosen layers in int8: every pattern has to choose one, and each has to be supported."""
        from experiments.quantization.annotation import chosen, expected, refuse_unsupported

        names = chosen(model, self.layers)
        refuse_unsupported(model, names)
        return expected(model, names, self.rest)

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """Layers that were chosen by name are quantized, or the strategy refuses."""
        from experiments.quantization.annotation import breaking, refuse

        refuse(model, breaking(expectation, model, found))
        return expectation

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned(rest=self.rest)

"""Quantization-aware training of chosen layers; the others stay float."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.quantization.selection import Patterns
from experiments.strategy import OPTION, Difference, Learned, QuantizationAware, option

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Annotate(QuantizationAware):
    """`layers`: names, class names, regular expressions, first:n or last:n of the layers with weights.

    The default is the article's advice: the dense layers.
    """

    layers: Patterns = ("Dense",)

    def scheme(self, model: "Model") -> Learned:
        """Return int8 for exactly the chosen layers, all of which must be supported; every pattern must match."""
        survey = self.survey(model)
        names = survey.select(self.layers)
        survey.refuse_unsupported(names)
        return self.learned(model, names)

    def narrow(self, scheme: Learned, model: "Model", found: Sequence[Difference]) -> Learned:
        """Reject models in which a chosen layer cannot be quantized."""
        survey = self.survey(model)
        survey.refuse(survey.breaking(scheme.layers, found))
        return scheme

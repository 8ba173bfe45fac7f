"""Quantization-aware training of the whole model, or of all layers that support it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from experiments.strategy import OPTION, Difference, Interface, Learned, QuantizationAware, option

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class QAT(QuantizationAware):
    """All layers; `unsupported` says what to do if some cannot be trained: `annotate` all others, or `error`."""

    unsupported: Literal["annotate", "error"] = "annotate"
    interface: Interface = "float32"

    def scheme(self, model: "Model") -> Learned:
        """Return int8 for all supported layers."""
        survey = self.survey(model)
        left_float = survey.unsupported
        if not left_float:
            return self.learned(model, interface=self.interface)
        layers = survey.supported
        if self.unsupported == "error" or not layers:
            survey.refuse(left_float)
        return self.learned(model, layers, left_float, self.interface)

    def narrow(self, scheme: Learned, model: "Model", found: Sequence[Difference]) -> Learned:
        """Return the scheme without the layers that the converter would not quantize as expected."""
        survey = self.survey(model)
        reasons = survey.breaking(scheme.layers, found)
        before = survey.supported if scheme.layers is None else scheme.layers
        layers = tuple(name for name in before if name not in reasons)
        if self.unsupported == "error" or not layers:
            survey.refuse({**scheme.left_float, **reasons})
        return replace(scheme, layers=layers, left_float={**scheme.left_float, **reasons})

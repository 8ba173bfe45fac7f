"""Quantization-aware training of the whole model, or of all of it that can be quantized."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as option

from experiments.strategy import QuantizationAware
from experiments.system.options import OPTION
from experiments.tflite.conversion import Interface, Learned, Scheme
from experiments.tflite.expectation import Difference, Expectation

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class QAT(QuantizationAware):
    """Every layer that can be; `unsupported` is what to do about the others: `annotate` the rest, or `error`."""

    unsupported: Literal["annotate", "error"] = "annotate"
    interface: Interface = "float32"

    def expectation(self, model: "Model") -> Expectation:
        """Everything in int8, but for layers that cannot be."""
        from experiments.quantization.annotation import expected, refuse_unsupported, supported, unsupported

        left_float = unsupported(model)
        if not left_float:
            return Expectation("int8")
        chosen = supported(model)
        if self.unsupported == "error" or not chosen:
            refuse_unsupported(model, left_float)
        return expected(model, chosen, self.rest, left_float)

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """Without the layers that the converter does not quantize as they were trained."""
        from experiments.quantization.annotation import breaking, expected, refuse, supported

        reasons = breaking(expectation, model, found)
        chosen = expectation.chosen if expectation.chosen is not None else frozenset(supported(model))
        if self.unsupported == "error" or not chosen - reasons.keys():
            refuse(model, {**expectation.left_float, **reasons})
        return expected(model, chosen - reasons.keys(), self.rest, {**expectation.left_float, **reasons})

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned(self.interface, self.rest)

"""Quantization-aware training of the whole model, or of all of it that can be quantized."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Difference, Promise
from experiments.strategy import QuantizationAware
from experiments.tflite import Interface, Learned, Scheme

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class QAT(QuantizationAware):
    """Every layer that can be; `unsupported` is what to do about the others: `annotate` the rest, or `error`."""

    unsupported: Literal["annotate", "error"] = "annotate"
    interface: Interface = "float32"

    def promise(self, model: "Model") -> Promise:
        """Everything in int8, but for layers that cannot be."""
        from experiments.strategy.annotation import promised, refuse_unsupported, supported, unsupported

        left_float = unsupported(model)
        if not left_float:
            return Promise("int8")
        chosen = supported(model)
        if self.unsupported == "error" or not chosen:
            refuse_unsupported(model, left_float)
        return promised(model, chosen, self.rest, left_float)

    def within(self, promise: Promise, model: "Model", found: Sequence[Difference]) -> Promise:
        """Without the layers that the converter does not quantize as they were trained."""
        from experiments.strategy.annotation import breaking, promised, refuse, supported

        reasons = breaking(promise, model, found)
        chosen = promise.chosen if promise.chosen is not None else frozenset(supported(model))
        if self.unsupported == "error" or not chosen - reasons.keys():
            refuse(model, {**promise.left_float, **reasons})
        return promised(model, chosen - reasons.keys(), self.rest, {**promise.left_float, **reasons})

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned(self.interface, self.rest)

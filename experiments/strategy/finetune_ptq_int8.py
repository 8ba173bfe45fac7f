"""Further training in float, then post-training full-integer quantization."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Difference, Promise, without_float_ops
from experiments.strategy.finetune import Finetune
from experiments.tflite import Calibration, Int8, Interface, Scheme

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class FinetunePTQInt8(Finetune):
    """What `qat` has to beat: the same further epochs, in float, and then int8 by calibration on training images."""

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"

    def promise(self, model: "Model") -> Promise:
        """Everything in int8."""
        return Promise("int8")

    def untrained(self, promise: Promise, model: "Model", calibration: Calibration) -> "Model | None":
        """The baseline, which has the same ops."""
        return model

    def within(self, promise: Promise, model: "Model", found: Sequence[Difference]) -> Promise:
        """Without the ops that the converter leaves in float."""
        return without_float_ops(promise, found)

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int8(self.calibration_samples, self.interface)

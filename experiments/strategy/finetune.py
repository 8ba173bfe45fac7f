"""The control: float, trained for the same extra epochs as the quantization-aware strategies."""

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.model.copies import copied
from experiments.promise import Promise
from experiments.strategy import Strategy
from experiments.strategy.checked import checked
from experiments.tflite import Calibration, Float32, Scheme
from experiments.training import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class Finetune(Strategy):
    """More training and no quantization: what the extra epochs alone are worth."""

    trains: ClassVar[bool] = True

    def promise(self, model: "Model") -> Promise:
        """Everything in float."""
        return Promise("float32")

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """A copy of the baseline, trained further."""
        return fit(checked(copied(model), model, calibration))

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float32()

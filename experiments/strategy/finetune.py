"""The control: float, trained for the same extra epochs as the quantization-aware strategies."""

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.model.copies import copied
from experiments.quantization.checked import checked
from experiments.strategy import Strategy
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration, Float32, Scheme
from experiments.tflite.expectation import Expectation
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Finetune(Strategy):
    """More training and no quantization: what the extra epochs alone are worth."""

    trains: ClassVar[bool] = True

    def expectation(self, model: "Model") -> Expectation:
        """Everything in float."""
        return Expectation("float32")

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """A copy of the baseline, trained further."""
        return fit(checked(copied(model), model, calibration))

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float32()

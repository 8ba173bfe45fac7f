"""Further training in float, then post-training full-integer quantization."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.strategy.finetune import Finetune
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration, Int8, Interface, Scheme
from experiments.tflite.expectation import Difference, Expectation, without_float_ops

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class FinetunePTQInt8(Finetune):
    """What `qat` has to beat: the same further epochs, in float, and then int8 by calibration on training images."""

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"

    def expectation(self, model: "Model") -> Expectation:
        """Everything in int8."""
        return Expectation("int8")

    def untrained(self, expectation: Expectation, model: "Model", calibration: Calibration) -> "Model | None":
        """The baseline, which has the same ops."""
        return model

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """Without the ops that the converter leaves in float."""
        return without_float_ops(expectation, found)

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int8(self.calibration_samples, self.interface)

"""Further training in float, then post-training full-integer quantization."""

from typing import TYPE_CHECKING

from pydantic import PositiveInt

from experiments.strategy import OPTION, Int8, Interface, Scheme, option
from experiments.strategy.finetune import Finetune

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class FinetunePTQInt8(Finetune):
    """The control of `qat`: the same further epochs in float, then int8 with calibration on training images."""

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return Int8(self.calibration_samples, self.interface)

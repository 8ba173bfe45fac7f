"""The control: trained in float for as many further epochs as the quantization-aware strategies."""

from typing import TYPE_CHECKING, ClassVar

from experiments.quantization.checked import checked
from experiments.strategy import OPTION, Calibration, Fit, Float32, Scheme, Strategy, Trained, copied, option

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Finetune(Strategy):
    """Further training without quantization, which shows the effect of the epochs alone."""

    trains: ClassVar[bool] = True

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return a copy of the baseline after further training."""
        return fit(checked(copied(model), model, calibration))

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return Float32()

"""Post-training full-integer quantization."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.promise import Promise
from experiments.strategy import PostTraining
from experiments.strategy.selection import Patterns
from experiments.tflite import Int8, Interface, Scheme

if TYPE_CHECKING:
    from tf_keras import Model


@card(frozen=True, config=CARD, kw_only=True)
class PTQInt8(PostTraining):
    """int8 weights and activations, calibrated on training images; `interface` is what goes in and out.

    `layers` chooses as in annotate; the other layers stay float. Null stands for all.
    """

    types: ClassVar[str] = "int8"

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"
    layers: Patterns | None = None

    def promise(self, model: "Model") -> Promise:
        """Exactly the chosen layers in int8."""
        if self.layers is None:
            return super().promise(model)
        from experiments.strategy.annotation import chosen, promised

        return promised(model, chosen(model, self.layers), rest="float")

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int8(self.calibration_samples, self.interface)

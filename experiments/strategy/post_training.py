"""Post-training quantization: the converter makes the file from the float model as it is."""

from typing import TYPE_CHECKING

from pydantic import PositiveInt

from experiments.quantization.engines import engine_of
from experiments.quantization.selection import Patterns
from experiments.strategy import (
    OPTION,
    Dynamic,
    DynamicInt4,
    Float16,
    Int8,
    Int16x8,
    Interface,
    Scheme,
    Strategy,
    option,
)

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class PTQDynamic(Strategy):
    """int8 weights, float activations; no calibration."""

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return Dynamic()


@option(frozen=True, config=OPTION, kw_only=True)
class PTQFloat16(Strategy):
    """Half the size, float32 arithmetic."""

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return Float16()


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt8(Strategy):
    """int8 weights and activations, calibrated on training images; `interface` is what goes in and out.

    `layers` chooses as in annotate; the other layers stay float. Null stands for all.
    """

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"
    layers: Patterns | None = None

    def scheme(self, model: "Model") -> Scheme:
        """Exactly the chosen layers in int8."""
        if self.layers is None:
            return Int8(self.calibration_samples, self.interface)
        layers = engine_of(model).survey(model).chosen(self.layers)
        return Int8(self.calibration_samples, self.interface, layers)


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt16x8(Strategy):
    """int16 activations, int8 weights, calibrated on training images; reference kernels, so slow on CPUs."""

    calibration_samples: PositiveInt = 500

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return Int16x8(self.calibration_samples)


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt4(Strategy):
    """int4 weights with a scale for each channel, float activations; no calibration, so none that could clip."""

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return ("int4",)

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return DynamicInt4()

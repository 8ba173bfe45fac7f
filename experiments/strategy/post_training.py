"""Post-training quantization: the converter quantizes the float model."""

from typing import TYPE_CHECKING, Literal

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
    Precision,
    Scheme,
    Static,
    Strategy,
    WeightRanges,
    WeightScales,
    option,
)
from experiments.system.errors import UserError

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
    """int8 weights and activations, calibrated on training images; `interface` is the type of input and output.

    `layers` chooses as in annotate; the other layers stay float. Null means all layers.
    `weight_ranges` other than min_max, and one scale per tensor, are made by LiteRT's quantizer.
    """

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"
    layers: Patterns | None = None
    weight_ranges: WeightRanges = "min_max"
    weight_scales: WeightScales = "channel"

    def __post_init__(self) -> None:
        """Refuse an interface that the quantizer does not write."""
        if self._by_quantizer and self.interface == "uint8":
            raise UserError(
                "strategy.interface=uint8 requires strategy.weight_ranges=min_max and strategy.weight_scales=channel. "
                "With other ranges or scales, type strategy.interface=int8 or float32."
            )

    @property
    def _by_quantizer(self) -> bool:
        return (self.weight_ranges, self.weight_scales) != ("min_max", "channel")

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return ("int4",) if self._by_quantizer else ()

    def scheme(self, model: "Model") -> Scheme:
        """Return int8 for exactly the chosen layers."""
        layers = chosen_layers(model, self.layers)
        if self._by_quantizer:
            precision = Precision(weight_ranges=self.weight_ranges, weight_scales=self.weight_scales)
            assert self.interface != "uint8"
            return Static(self.calibration_samples, precision, self.interface, layers)
        return Int8(self.calibration_samples, self.interface, layers)


def chosen_layers(model: "Model", patterns: Patterns | None) -> tuple[str, ...] | None:
    """Return names of the layers that patterns choose; None, which stands for all, without patterns."""
    return None if patterns is None else engine_of(model).survey(model).select(patterns)


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt4Int8(Strategy):
    """int4 weights and int8 activations, calibrated on training images; depthwise kernels keep int8 weights.

    Sixteen values are few: `weight_ranges` that clip the largest weights lose less than min_max.
    """

    calibration_samples: PositiveInt = 500
    interface: Literal["float32", "int8"] = "float32"
    layers: Patterns | None = None
    rest: Literal["int8", "float"] = "int8"
    weight_ranges: WeightRanges = "mse"

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return ("int4",)

    def scheme(self, model: "Model") -> Scheme:
        """Return the chosen layers with int4 weights, the others as `rest` says."""
        precision = Precision(weight_bits=4, weight_ranges=self.weight_ranges)
        rest = Precision() if self.rest == "int8" else None
        return Static(self.calibration_samples, precision, self.interface, chosen_layers(model, self.layers), rest)


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt16x8(Strategy):
    """int16 activations, int8 weights, calibrated on training images; reference kernels, so slow on CPUs.

    With `layers`, chosen as in annotate, only these have int16 activations, and all others are int8.
    """

    calibration_samples: PositiveInt = 500
    layers: Patterns | None = None

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return () if self.layers is None else ("int4",)

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        layers = chosen_layers(model, self.layers)
        if layers is None:
            return Int16x8(self.calibration_samples)
        return Static(self.calibration_samples, Precision(activation_bits=16), layers=layers, rest=Precision())


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt4(Strategy):
    """int4 weights with a scale per channel, float activations; no calibration, so activations are never clipped."""

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return ("int4",)

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return DynamicInt4()

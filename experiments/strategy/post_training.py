"""Post-training quantization: the converter makes the file from the float model as it is."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.quantization.selection import Patterns
from experiments.strategy import PostTraining
from experiments.system.options import OPTION
from experiments.tflite.conversion import (
    LEAST_DYNAMIC,
    Dynamic,
    DynamicInt4,
    Float16,
    Int8,
    Int16x8,
    Interface,
    Scheme,
)
from experiments.tflite.expectation import Expectation
from experiments.tflite.graph import FLOAT16_WEIGHTS

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class PTQDynamic(PostTraining):
    """int8 weights, float activations; no calibration."""

    types: ClassVar[str] = "hybrid int8"
    least_weights: ClassVar[int] = LEAST_DYNAMIC

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Dynamic()


@option(frozen=True, config=OPTION, kw_only=True)
class PTQFloat16(PostTraining):
    """Half the size, float32 arithmetic."""

    types: ClassVar[str] = FLOAT16_WEIGHTS

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float16()


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt8(PostTraining):
    """int8 weights and activations, calibrated on training images; `interface` is what goes in and out.

    `layers` chooses as in annotate; the other layers stay float. Null stands for all.
    """

    types: ClassVar[str] = "int8"

    calibration_samples: PositiveInt = 500
    interface: Interface = "float32"
    layers: Patterns | None = None

    def expectation(self, model: "Model") -> Expectation:
        """Exactly the chosen layers in int8."""
        if self.layers is None:
            return super().expectation(model)
        from experiments.quantization.annotation import chosen, expected

        return expected(model, chosen(model, self.layers), rest="float")

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int8(self.calibration_samples, self.interface)


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt16x8(PostTraining):
    """int16 activations, int8 weights, calibrated on training images; reference kernels, so slow on CPUs."""

    types: ClassVar[str] = "int16x8"

    calibration_samples: PositiveInt = 500

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Int16x8(self.calibration_samples)


@option(frozen=True, config=OPTION, kw_only=True)
class PTQInt4(PostTraining):
    """int4 weights with a scale for each channel, float activations; no calibration, so none that could clip."""

    types: ClassVar[str] = "hybrid int4"

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return DynamicInt4()

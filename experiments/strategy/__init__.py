"""Strategies: what is done to the baseline, and the converter scheme. One file per kind.

Users' strategies can import everything from here; see docs/architecture.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model.copies import copied
from experiments.quantization.checked import IMAGES, checked
from experiments.quantization.engines import engine_of
from experiments.quantization.survey import Survey
from experiments.system.errors import UserError
from experiments.system.keras_version import version_of
from experiments.system.options import OPTION
from experiments.tflite.conversion import Calibration
from experiments.tflite.expectation import Compression, Difference, Expectation, expected
from experiments.tflite.schemes import (
    Dynamic,
    DynamicInt4,
    Float16,
    Float32,
    Int8,
    Int16x8,
    Interface,
    Learned,
    Rest,
    Scheme,
    Static,
)
from experiments.tflite.static import ActivationBits, Precision, WeightBits, WeightRanges, WeightScales
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model

__all__ = [
    "OPTION",
    "Calibration",
    "Compressing",
    "CompressingQAT",
    "Compression",
    "Difference",
    "Dynamic",
    "DynamicInt4",
    "Expectation",
    "Fit",
    "Float16",
    "Float32",
    "Int8",
    "Int16x8",
    "Interface",
    "Learned",
    "Precision",
    "QuantizationAware",
    "Rest",
    "Scheme",
    "Static",
    "Strategy",
    "Trained",
    "WeightRanges",
    "WeightScales",
    "copied",
    "option",
]  # fmt: skip


@option(frozen=True, config=OPTION, kw_only=True)
class Strategy(ABC):
    """The base class of strategies; a new kind defines `scheme`, and `prepare` if it changes the model."""

    trains: ClassVar[bool] = False  # whether it uses finetune.*
    trainings: ClassVar[int] = 1  # how often it trains finetune.epochs, if it trains
    needs_epochs: ClassVar[bool] = False  # whether it requires at least one epoch
    loads_once: ClassVar[tuple[str, ...]] = ()  # modules to load once for several runs

    def __init_subclass__(cls) -> None:
        """Reject a strategy for an earlier version, which would fail in the middle of a run."""
        super().__init_subclass__()
        if isinstance(vars(cls).get("scheme"), property) or "promise" in vars(cls):
            raise UserError(
                f"{cls.__name__} is a strategy for an earlier version. This version requires the method scheme(self, "
                "model) instead of the properties scheme and promise: see docs/architecture.md, A strategy of your own."
            )

    @abstractmethod
    def scheme(self, model: "Model") -> Scheme:
        """Return the scheme for the converter, including the layers to quantize.

        Raises:
            UserError: the strategy does not support this architecture; called before any training.
        """

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of this package that the strategy requires, such as `int4` for LiteRT's quantizer."""
        return ()

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the model to convert, without changing the baseline; by default, the baseline itself.

        `fit` trains a model in place; `calibration(n)` returns n training images.
        """
        return Trained.untouched(model)

    def apply(self, scheme: Scheme, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Do the same as `prepare`, for a scheme that `narrow` may have changed."""
        return self.prepare(model, fit, calibration)

    def compression(self, model: "Model") -> Compression:
        """Return the compression of the weights by training.

        Raises:
            UserError: the model cannot be compressed like this; called before any training.
        """
        return Compression()

    def expectation(self, model: "Model") -> Expectation:
        """Return the expectation of the file, derived from scheme and model; it does not affect the conversion."""
        compression = self.compression(
            model
        )  # first, so that models that cannot be compressed are rejected with this reason
        return expected(self.scheme(model), model, compression)

    def prepare_untrained(self, scheme: Scheme, model: "Model", calibration: Calibration) -> "Model | None":
        """Return the untrained model for the trial conversion; None for no trial.

        By default the baseline, unless layers learn ranges; a strategy that changes the architecture returns its own.
        """
        return None if isinstance(scheme, Learned) else model

    def narrow(self, scheme: Learned, model: "Model", found: Sequence[Difference]) -> Learned:
        """Return a scheme for fewer layers, given differences between the trial's file and the expectation.

        Raises:
            UserError: the strategy requires the layers that differ.
        """
        return scheme


@option(frozen=True, config=OPTION, kw_only=True)
class QuantizationAware(Strategy):
    """Training with fake quantization, which learns int8 ranges; a new kind defines `scheme`.

    `rest` is the type of the weights of layers that are not quantized.
    """

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True
    loads_once: ClassVar[tuple[str, ...]] = ("experiments.quantization.tfmot.rewritten",)

    rest: Rest = "float"
    weight_bits: WeightBits = 8
    activation_bits: ActivationBits = 8

    def __post_init__(self) -> None:
        """Refuse bits for which TFLite has no kernels, or no interface."""
        if (self.weight_bits, self.activation_bits) == (4, 16):
            raise UserError(
                "strategy.weight_bits=4 requires strategy.activation_bits=8, not 16, for which TFLite has no kernels."
            )
        if self.activation_bits == 16 and getattr(self, "interface", "float32") != "float32":
            raise UserError("strategy.activation_bits=16 requires strategy.interface=float32.")

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return () if self.rest == "float" else ("int4",)

    @abstractmethod
    def scheme(self, model: "Model") -> Learned:
        """See Strategy.scheme."""

    def survey(self, model: "Model") -> Survey:
        """Return which layers can be trained for the bits of this strategy."""
        return engine_of(model).survey(model, self.activation_bits)

    def learned(
        self,
        model: "Model",
        layers: tuple[str, ...] | None = None,
        left_float: Mapping[str, str] | None = None,
        interface: Interface = "float32",
    ) -> Learned:
        """Return the scheme for these layers, None for all, with the bits of this strategy.

        Raises:
            UserError: the engine of the model cannot train for these bits.
        """
        if (self.weight_bits, self.activation_bits) != (8, 8) and version_of(model) == 2:
            name, bits = ("weight", self.weight_bits) if self.weight_bits != 8 else ("activation", self.activation_bits)
            after = "ptq_int4_int8" if bits == 4 else "ptq_int16x8"
            raise UserError(
                f"strategy.{name}_bits={bits} requires a model of Keras 3: TensorFlow Model Optimization trains with 8 "
                f"bits only. Give keras=3 for a bundled model, or quantize after training, with strategy={after}."
            )
        return Learned(interface, self.rest, layers, left_float or {}, self.weight_bits, self.activation_bits)

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the annotated model after training."""
        return self.apply(self.scheme(model), model, fit, calibration)

    def apply(self, scheme: Scheme, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """Return the model after quantization-aware training of the scheme's layers."""
        return fit(_ready(_annotated(scheme, model), model, calibration))

    def prepare_untrained(self, scheme: Scheme, model: "Model", calibration: Calibration) -> "Model | None":
        """Return the annotated model."""
        quantized = checked(_annotated(scheme, model), model, calibration)
        engine_of(model).fit_ranges(quantized, calibration(IMAGES)[:])
        return quantized


def _ready(quantized: "Model", model: "Model", calibration: Calibration) -> "Model":
    """Check a quantization-aware copy of the model, and initialize its ranges for training."""
    copy = checked(quantized, model, calibration)
    engine_of(model).start_ranges(copy, model, calibration(IMAGES)[:])
    return copy


def _annotated(scheme: Scheme, model: "Model") -> "Model":
    assert isinstance(scheme, Learned)
    return engine_of(model).annotated(model, scheme.layers, scheme.weight_bits, scheme.activation_bits)


@option(frozen=True, config=OPTION, kw_only=True)
class Compressing(Strategy):
    """Training for weights that compress better; `quantization` is applied after training."""

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True

    quantization: Literal["none", "dynamic", "int8"] = "none"
    calibration_samples: PositiveInt = 500

    def scheme(self, model: "Model") -> Scheme:
        """Return the scheme of the quantization after training."""
        match self.quantization:
            case "none":
                return Float32()
            case "dynamic":
                return Dynamic()
            case "int8":
                return Int8(self.calibration_samples)


@option(frozen=True, config=OPTION, kw_only=True)
class CompressingQAT(Strategy):
    """Compression, then quantization-aware training of the whole model that preserves it."""

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True
    loads_once: ClassVar[tuple[str, ...]] = ("experiments.quantization.tfmot.rewritten",)

    interface: Interface = "float32"

    def scheme(self, model: "Model") -> Learned:
        """Return int8 for all layers; rejects models with unsupported layers."""
        engine_of(model).survey(model).refuse_unsupported([layer.name for layer in model.layers])
        return Learned(self.interface)

    def prepare_untrained(self, scheme: Scheme, model: "Model", calibration: Calibration) -> "Model | None":
        """Return the annotated model without compression, which does not affect types."""
        quantized = engine_of(model).annotated(model, None)
        engine_of(model).fit_ranges(quantized, calibration(IMAGES)[:])
        return quantized

    def narrow(self, scheme: Learned, model: "Model", found: Sequence[Difference]) -> Learned:
        """Reject models with layers that cannot be quantized."""
        survey = engine_of(model).survey(model)
        survey.refuse(survey.breaking(scheme.layers, found))
        return scheme

    def quantized(self, compressed: Trained, fit: Fit, calibration: Calibration, keep: Collection[str]) -> Trained:
        """Return a compressed model after quantization-aware training; `keep` is `zeros`, `clusters` or both."""
        quantized = engine_of(compressed.model).to_quantize(compressed.model, keep)
        copy = _ready(quantized, compressed.model, calibration)
        return fit(copy).after(compressed)

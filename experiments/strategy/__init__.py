"""Strategies: what is done to the baseline, and the converter scheme that goes with it. One file per kind.

A strategy of one's own imports all it needs from here; see docs/architecture.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.model.copies import copied
from experiments.quantization.checked import IMAGES, checked
from experiments.quantization.engines import engine_of
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.tflite.conversion import (
    Calibration,
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
from experiments.tflite.expectation import Compression, Difference, Expectation, expected
from experiments.tflite.static import Precision, WeightRanges, WeightScales
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
    """What a strategy option is; a new kind defines `scheme`, and `prepare` where it changes the model."""

    trains: ClassVar[bool] = False  # whether finetune.* has any part in the result
    needs_epochs: ClassVar[bool] = False  # whether it makes no sense without at least one epoch
    loads_once: ClassVar[tuple[str, ...]] = ()  # modules that several runs share when they are loaded before

    def __init_subclass__(cls) -> None:
        """Refuse a strategy that was written for an earlier version: its class would fail in the middle of a run."""
        super().__init_subclass__()
        if isinstance(vars(cls).get("scheme"), property) or "promise" in vars(cls):
            raise UserError(
                f"{cls.__name__} is a strategy of an earlier version. A strategy defines the method scheme(self, "
                "model), not a property, and no promise: see docs/architecture.md, A strategy of your own."
            )

    @abstractmethod
    def scheme(self, model: "Model") -> Scheme:
        """What the converter is asked for, and for which layers.

        Raises:
            UserError: the strategy cannot work on this architecture; called before any training.
        """

    @property
    def extras(self) -> tuple[str, ...]:
        """The optional dependencies of this package that it requires: `int4`, LiteRT's quantizer, for one."""
        return ()

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The model to convert, made from the baseline, which stays as it is: here the baseline itself.

        `fit` trains a model in place; `calibration(n)` gives n training images.
        """
        return Trained.untouched(model)

    def apply(self, scheme: Scheme, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """What `prepare` does, for a scheme that `narrowed` may have changed."""
        return self.prepare(model, fit, calibration)

    def compression(self, model: "Model") -> Compression:
        """What the training makes of the weights.

        Raises:
            UserError: it cannot be made of these; called before any training.
        """
        return Compression()

    def expectation(self, model: "Model") -> Expectation:
        """What the file is judged by; it follows from the scheme, and nothing obeys it."""
        compression = self.compression(model)  # first: what cannot be compressed is refused for that
        return expected(self.scheme(model), model, compression)

    def untrained(self, scheme: Scheme, model: "Model", calibration: Calibration) -> "Model | None":
        """The model to convert as it is before any training, for the trial; None: no trial.

        It is the baseline, unless layers learn ranges: a strategy that changes the architecture gives its own.
        """
        return None if isinstance(scheme, Learned) else model

    def narrowed(self, scheme: Learned, model: "Model", found: Sequence[Difference]) -> Learned:
        """A scheme for fewer layers, where the trial's file was seen to differ from what was expected.

        Raises:
            UserError: the strategy cannot work without the layers because of which it differs.
        """
        return scheme


@option(frozen=True, config=OPTION, kw_only=True)
class QuantizationAware(Strategy):
    """Training with fake quantization, by which int8 ranges are learned; a new kind defines `scheme`.

    `rest` is what becomes of the weights of layers that are not quantized.
    """

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True
    loads_once: ClassVar[tuple[str, ...]] = ("experiments.quantization.tfmot.rewritten",)

    rest: Rest = "float"

    @property
    def extras(self) -> tuple[str, ...]:
        """See Strategy.extras."""
        return () if self.rest == "float" else ("int4",)

    @abstractmethod
    def scheme(self, model: "Model") -> Learned:
        """See Strategy.scheme."""

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The annotated model, trained."""
        return self.apply(self.scheme(model), model, fit, calibration)

    def apply(self, scheme: Scheme, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The layers of the scheme, trained quantization-aware."""
        return fit(_ready(_annotated(scheme, model), model, calibration))

    def untrained(self, scheme: Scheme, model: "Model", calibration: Calibration) -> "Model | None":
        """The annotated model."""
        quantized = checked(_annotated(scheme, model), model, calibration)
        engine_of(model).fit_ranges(quantized, calibration(IMAGES))
        return quantized


def _ready(quantized: "Model", model: "Model", calibration: Calibration) -> "Model":
    """A quantization-aware copy of the model, checked, and with ranges from which it can be trained."""
    copy = checked(quantized, model, calibration)
    engine_of(model).start_ranges(copy, model, calibration(IMAGES))
    return copy


def _annotated(scheme: Scheme, model: "Model") -> "Model":
    assert isinstance(scheme, Learned)
    return engine_of(model).annotated(model, scheme.layers)


@option(frozen=True, config=OPTION, kw_only=True)
class Compressing(Strategy):
    """Training that leaves weights which pack better; `quantization` is what follows, after training."""

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True

    quantization: Literal["none", "dynamic", "int8"] = "none"
    calibration_samples: PositiveInt = 500

    def scheme(self, model: "Model") -> Scheme:
        """The quantization that follows."""
        match self.quantization:
            case "none":
                return Float32()
            case "dynamic":
                return Dynamic()
            case "int8":
                return Int8(self.calibration_samples)


@option(frozen=True, config=OPTION, kw_only=True)
class CompressingQAT(Strategy):
    """Compression, then quantization-aware training of the whole model that keeps it."""

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True
    loads_once: ClassVar[tuple[str, ...]] = ("experiments.quantization.tfmot.rewritten",)

    interface: Interface = "float32"

    def scheme(self, model: "Model") -> Learned:
        """Everything in int8: a layer that cannot be is refused."""
        engine_of(model).survey(model).refuse_unsupported([layer.name for layer in model.layers])
        return Learned(self.interface)

    def untrained(self, scheme: Scheme, model: "Model", calibration: Calibration) -> "Model | None":
        """The annotated model before it is compressed, which changes no type."""
        quantized = engine_of(model).annotated(model, None)
        engine_of(model).fit_ranges(quantized, calibration(IMAGES))
        return quantized

    def narrowed(self, scheme: Learned, model: "Model", found: Sequence[Difference]) -> Learned:
        """Everything is quantized, or the strategy refuses."""
        survey = engine_of(model).survey(model)
        survey.refuse(survey.breaking(scheme.layers, found))
        return scheme

    def quantized(self, compressed: Trained, fit: Fit, calibration: Calibration, keep: Collection[str]) -> Trained:
        """A compressed model, trained quantization-aware; `keep` is `zeros`, `clusters` or both."""
        quantized = engine_of(compressed.model).to_quantize(compressed.model, keep)
        copy = _ready(quantized, compressed.model, calibration)
        return fit(copy).after(compressed)

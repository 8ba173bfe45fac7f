"""Strategies: what is done to the baseline, and the converter scheme that goes with it. One file per kind."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.quantization.checked import checked
from experiments.system.options import OPTION
from experiments.tflite.conversion import (
    LEAST_DYNAMIC,
    Calibration,
    Dynamic,
    Float32,
    Int8,
    Interface,
    Learned,
    Rest,
    Scheme,
)
from experiments.tflite.expectation import Difference, Expectation, without_float_ops
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Strategy(ABC):
    """What a strategy option is; a new kind defines `promise`, `prepare` and `scheme`."""

    trains: ClassVar[bool] = False  # whether finetune.* has any part in the result
    needs_epochs: ClassVar[bool] = False  # whether it makes no sense without at least one epoch
    loads_once: ClassVar[tuple[str, ...]] = ()  # modules that several runs share when they are loaded before

    @abstractmethod
    def expectation(self, model: "Model") -> Expectation:
        """What the file will compute in, layer by layer; the file itself is compared with it in the end.

        Raises:
            UserError: the strategy cannot work on this architecture; called before any training.
        """

    @abstractmethod
    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The model to convert, made from the baseline, which stays as it is.

        `fit` trains a model in place; `calibration(n)` gives n training images.
        """

    @property
    @abstractmethod
    def scheme(self) -> Scheme:
        """What the converter is asked for."""

    def apply(self, expectation: Expectation, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """What `prepare` does, for a promise that `within` may have narrowed."""
        return self.prepare(model, fit, calibration)

    def untrained(self, expectation: Expectation, model: "Model", calibration: Calibration) -> "Model | None":
        """The model to convert as it is before any training, on which the promise is tried; None: no trial."""
        return None

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """A promise that can be kept by a model which was seen to break this one; the same one where there is none.

        Raises:
            UserError: the strategy cannot work without the layers that break it.
        """
        return expectation


@option(frozen=True, config=OPTION, kw_only=True)
class PostTraining(Strategy):
    """A strategy that leaves the model to the converter; a new kind defines `types` and `scheme`."""

    types: ClassVar[str]  # what every layer computes in, in the words of Op.types
    least_weights: ClassVar[int] = 0  # smaller layers stay float

    def expectation(self, model: "Model") -> Expectation:
        """The same for every layer."""
        return Expectation(self.types, least_weights=self.least_weights)

    def untrained(self, expectation: Expectation, model: "Model", calibration: Calibration) -> "Model | None":
        """The baseline itself."""
        return model

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """Without the ops that the converter leaves in float."""
        return without_float_ops(expectation, found)

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The baseline itself."""
        return Trained.untouched(model)


@option(frozen=True, config=OPTION, kw_only=True)
class QuantizationAware(Strategy):
    """Training with fake quantization, by which int8 ranges are learned; a new kind defines `promise`.

    `rest` is what becomes of the weights of layers that are not quantized.
    """

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True
    loads_once: ClassVar[tuple[str, ...]] = ("experiments.quantization.rewritten",)

    rest: Rest = "float"

    def prepare(self, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The annotated model, trained."""
        return self.apply(self.expectation(model), model, fit, calibration)

    def apply(self, expectation: Expectation, model: "Model", fit: Fit, calibration: Calibration) -> Trained:
        """The layers that the promise names, trained quantization-aware."""
        from experiments.quantization.annotation import annotated, annotated_whole

        chosen = expectation.chosen
        quantized = annotated_whole(model) if chosen is None else annotated(model, chosen)
        return fit(checked(quantized, model, calibration))

    def untrained(self, expectation: Expectation, model: "Model", calibration: Calibration) -> "Model | None":
        """The annotated model."""
        from experiments.quantization.annotation import fit_weight_ranges

        quantized = self.apply(expectation, model, Trained.untouched, calibration).model
        fit_weight_ranges(quantized)
        return quantized


@option(frozen=True, config=OPTION, kw_only=True)
class Compressing(Strategy):
    """Training that leaves weights which pack better; `quantization` is what follows, after training."""

    trains: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True

    quantization: Literal["none", "dynamic", "int8"] = "none"
    calibration_samples: PositiveInt = 500

    def expectation(self, model: "Model") -> Expectation:
        """What the quantization that follows makes of every layer."""
        match self.quantization:
            case "none":
                return Expectation("float32")
            case "dynamic":
                return Expectation("hybrid int8", least_weights=LEAST_DYNAMIC)
            case "int8":
                return Expectation("int8")

    def untrained(self, expectation: Expectation, model: "Model", calibration: Calibration) -> "Model | None":
        """The model before it is compressed, which changes no type."""
        return model

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """Without the ops that the converter leaves in float."""
        return without_float_ops(expectation, found)

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
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
    loads_once: ClassVar[tuple[str, ...]] = ("experiments.quantization.rewritten",)

    interface: Interface = "float32"

    def expectation(self, model: "Model") -> Expectation:
        """Everything in int8: a layer that cannot be is refused."""
        from experiments.quantization.annotation import refuse_unsupported

        refuse_unsupported(model, [layer.name for layer in model.layers])
        return Expectation("int8")

    def untrained(self, expectation: Expectation, model: "Model", calibration: Calibration) -> "Model | None":
        """The annotated model before it is compressed, which changes no type."""
        from experiments.quantization.annotation import annotated_whole, fit_weight_ranges

        quantized = annotated_whole(model)
        fit_weight_ranges(quantized)
        return quantized

    def within(self, expectation: Expectation, model: "Model", found: Sequence[Difference]) -> Expectation:
        """Everything is quantized, or the strategy refuses."""
        from experiments.quantization.annotation import breaking, refuse

        refuse(model, breaking(expectation, model, found))
        return expectation

    def quantized(self, compressed: Trained, fit: Fit, calibration: Calibration, keep: Collection[str]) -> Trained:
        """A compressed model, trained quantization-aware; `keep` is `zeros`, `clusters` or both."""
        from experiments.quantization.compression import to_quantize

        copy = checked(to_quantize(compressed.model, keep), compressed.model, calibration)
        return fit(copy).after(compressed)

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Learned(self.interface)

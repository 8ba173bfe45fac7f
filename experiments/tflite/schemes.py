"""The schemes of quantization: which types a TFLite file should compute in, and for which layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from experiments.tflite.static import ActivationBits, Precision, WeightBits

Interface = Literal["float32", "int8", "uint8"]
Rest = Literal["float", "dynamic", "float16"]


@dataclass(frozen=True)
class Float32:
    """No quantization."""


@dataclass(frozen=True)
class Dynamic:
    """int8 weights; activations are float in the file, and quantized by the kernels at run time."""


@dataclass(frozen=True)
class DynamicInt4:
    """int4 weights; activations are float in the file, and quantized by the kernels at run time."""


@dataclass(frozen=True)
class Float16:
    """float16 weights, converted to float32 when the model is loaded."""


@dataclass(frozen=True)
class Int8:
    """int8 weights and activations; the ranges of the activations come from calibration samples."""

    calibration_samples: int
    interface: Interface = "float32"
    layers: tuple[str, ...] | None = field(default=None, repr=False)  # all others stay float; None: every layer


@dataclass(frozen=True)
class Int16x8:
    """int8 weights and int16 activations; the ranges of the activations come from calibration samples."""

    calibration_samples: int


@dataclass(frozen=True)
class Static:
    """Integers of a chosen precision, by LiteRT's quantizer from the float file, with calibration samples."""

    calibration_samples: int
    precision: Precision
    interface: Literal["float32", "int8"] = "float32"
    layers: tuple[str, ...] | None = field(default=None, repr=False)  # of this precision; None: every layer
    rest: Precision | None = None  # of all other layers; None: they stay float


@dataclass(frozen=True)
class Learned:
    """int8 for layers with fake quantization, with the learned ranges; `rest` applies to all other layers."""

    interface: Interface = "float32"
    rest: Rest = "float"
    layers: tuple[str, ...] | None = field(default=None, repr=False)  # those with fake quantization; None: every layer
    left_float: Mapping[str, str] = field(default_factory=dict, repr=False)  # unsupported layers, with the reasons
    weight_bits: WeightBits = 8
    activation_bits: ActivationBits = 8

    @property
    def types(self) -> str:
        """The types that an op with weights computes in, in the words of Op.types."""
        return Precision(self.weight_bits, self.activation_bits).types


Scheme = Float32 | Dynamic | DynamicInt4 | Float16 | Int8 | Int16x8 | Static | Learned


def interface_of(scheme: Scheme) -> Interface:
    """Return the type of a file's input and output."""
    return scheme.interface if isinstance(scheme, (Int8, Static, Learned)) else "float32"


def starts_from_float(scheme: Scheme) -> bool:
    """Whether a scheme quantizes the model's file in float, which a caller may have already."""
    return isinstance(scheme, (DynamicInt4, Int8, Int16x8, Static))

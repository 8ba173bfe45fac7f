"""The float32 TFLite model of the baseline: what every other strategy is compared with."""

from typing import ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.strategy import PostTraining
from experiments.system.options import OPTION
from experiments.tflite.conversion import Float32, Scheme


@option(frozen=True, config=OPTION, kw_only=True)
class Nothing(PostTraining):
    """No quantization."""

    types: ClassVar[str] = "float32"

    @property
    def scheme(self) -> Scheme:
        """See Strategy.scheme."""
        return Float32()

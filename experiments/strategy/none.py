"""The float32 TFLite model of the baseline: the reference for all other strategies."""

from typing import TYPE_CHECKING

from experiments.strategy import OPTION, Float32, Scheme, Strategy, option

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class Nothing(Strategy):
    """No quantization."""

    def scheme(self, model: "Model") -> Scheme:
        """See Strategy.scheme."""
        return Float32()

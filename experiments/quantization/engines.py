"""The engines for quantization-aware training and compression: TFMOT for Keras 2, and our own for Keras 3."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from experiments.dataset import Images
from experiments.quantization.survey import Survey
from experiments.system.keras_version import version_of
from experiments.tflite.static import ActivationBits, WeightBits

if TYPE_CHECKING:
    from tf_keras import Model

NAMES = {2: "TFMOT", 3: "own"}  # by Keras version; shown in runs, tables and reports


class Engine(Protocol):
    """The interface of both engines; each is a module with these functions."""

    def survey(self, model: "Model", activation_bits: ActivationBits = 8) -> Survey:
        """Return what can be quantized in a model, layer by layer."""

    def annotated(
        self,
        model: "Model",
        names: Collection[str] | None,
        weight_bits: WeightBits = 8,
        activation_bits: ActivationBits = 8,
    ) -> "Model":
        """Return a copy with fake quantization in exactly the named layers; None: in all.

        Raises:
            UserError: a layer does not support quantization-aware training.
        """

    def to_quantize(self, model: "Model", keep: Collection[str]) -> "Model":
        """Return a copy with fake quantization in all layers that preserves `zeros`, `clusters` or both."""

    def fit_ranges(self, quantized: "Model", images: Images) -> None:
        """Set the ranges of an untrained copy, so that it can be converted for the trial."""

    def start_ranges(self, quantized: "Model", model: "Model", images: Images) -> None:
        """Set the initial activation ranges of a copy, if the defaults of the engine are unsuitable."""

    def in_float(self, model: "Model", architecture: "Model") -> "Model | None":
        """Return a float model with the weights of a quantization-aware one; None if that is impossible."""

    def fake_quantization_off(self) -> AbstractContextManager[None]:
        """Turn fake quantization off while the block runs."""

    def wrappers_idle(self) -> AbstractContextManager[None]:
        """Make all wrappers, also for pruning and clustering, return the outputs of their layers."""

    def refuse(self, model: "Model", prune: bool = False, cluster: bool = False) -> None:
        """Raise UserError with the layers that cannot be compressed like this."""

    def to_prune(self, model: "Model", sparsity: float) -> "Model":
        """Return a copy that keeps this share of each kernel's weights, the smallest, at zero during training."""

    def pruning_callbacks(self) -> Sequence[Any]:
        """Return the callbacks for training a model from `to_prune`."""

    def pruned(self, trained: "Model") -> "Model":
        """Return the model without wrappers, after training."""

    def to_cluster(self, model: "Model", clusters: int, keep_zeros: bool = False) -> "Model":
        """Return a copy whose kernels have at most this many distinct weights each during training."""

    def clustered(self, trained: "Model") -> "Model":
        """Return the model without wrappers, after training."""


def engine_of(model: "Model") -> Engine:
    """Return the engine for the Keras version of a model."""
    if version_of(model) == 2:
        from experiments.quantization.tfmot import engine as tfmot

        return tfmot
    from experiments.quantization.keras3 import engine as keras3

    return keras3

"""The engine that trains a model with fake quantization: TFMOT for Keras 2, and our own for Keras 3."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from experiments.dataset import Images
from experiments.quantization.survey import Survey
from experiments.system.keras_version import version_of

if TYPE_CHECKING:
    from tf_keras import Model

NAMES = {2: "TFMOT", 3: "own"}  # by the version of Keras; in runs, tables and reports


class Engine(Protocol):
    """What both engines can do; each is a module with these functions."""

    def survey(self, model: "Model") -> Survey:
        """What can be quantized in a model, layer by layer."""

    def annotated(self, model: "Model", names: Collection[str] | None) -> "Model":
        """A copy with fake quantization in exactly the named layers; None: in all.

        Raises:
            UserError: a layer cannot be trained quantization-aware.
        """

    def to_quantize(self, model: "Model", keep: Collection[str]) -> "Model":
        """A copy with fake quantization in all layers that keeps `zeros`, `clusters` or both in the weights."""

    def fit_ranges(self, quantized: "Model", images: Images) -> None:
        """Give an untrained copy ranges with which it can be converted for the trial."""

    def start_ranges(self, quantized: "Model", model: "Model", images: Images) -> None:
        """Give a copy the ranges of activations from which its training starts, where the engine's own do not do."""

    def in_float(self, model: "Model", architecture: "Model") -> "Model | None":
        """A float model of this architecture with the weights of a quantization-aware one; None where none can be."""

    def fake_quantization_off(self) -> AbstractContextManager[None]:
        """Let values and weights pass the quantizers as they are while the block runs."""

    def wrappers_idle(self) -> AbstractContextManager[None]:
        """Let all wrappers, also those that prune or cluster, return what the layers inside return."""

    def refuse(self, model: "Model", prune: bool = False, cluster: bool = False) -> None:
        """Raise UserError that names the layers that cannot be compressed in this way."""

    def frozen(self, model: "Model") -> frozenset[str]:
        """Names of the layers with kernels that are not trained, and so not compressed."""

    def to_prune(self, model: "Model", sparsity: float) -> "Model":
        """A copy that keeps this share of each kernel's weights, the smallest, at zero while training."""

    def pruning_callbacks(self) -> Sequence[Any]:
        """What training a model from `to_prune` needs."""

    def pruned(self, trained: "Model") -> "Model":
        """The plain model, after training."""

    def to_cluster(self, model: "Model", clusters: int, keep_zeros: bool = False) -> "Model":
        """A copy whose kernels have at most this many distinct weights each while training."""

    def clustered(self, trained: "Model") -> "Model":
        """The plain model, after training."""


def engine_of(model: "Model") -> Engine:
    """The engine for a model, by the version of Keras that it belongs to."""
    if version_of(model) == 2:
        from experiments.quantization.tfmot import engine as tfmot

        return tfmot
    from experiments.quantization.keras3 import engine as keras3

    return keras3

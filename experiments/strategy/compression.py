"""Pruning and weight clustering with TensorFlow Model Optimization (TFMOT), also before quantization-aware training.

TFMOT compresses the kernels of convolutions and dense layers and leaves depthwise kernels, biases and BatchNorm alone.
Masks and centroids are weights of TFMOT's wrappers, so that training can be continued bit by bit like any other.
"""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.clustering.keras.clustering_registry import ClusteringRegistry
from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
    cluster_weights as cluster_weights_and_keep_zeros,
)
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from experiments.errors import UserError
from experiments.strategy.annotation import halves_named
from experiments.tensorflow_quietly import keras

if TYPE_CHECKING:
    from tf_keras import Model

# TFMOT wraps what is within these.
CLUSTERED_IN_PARTS = (
    keras.Model, keras.layers.RNN, keras.layers.Bidirectional, keras.layers.MultiHeadAttention,
)  # fmt: skip
PRUNING_EVERY = 1  # training step; with TFMOT's own 100, the first 100 steps of a training prune nothing


def copy_of(model: "Model") -> "Model":
    """A model of the same weights, to be trained without touching this one."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def to_prune(model: "Model", sparsity: float) -> "Model":
    """A copy in whose kernels the share `sparsity` of weights, the smallest, is kept at zero while training.

    The share holds from the first step on: a ramp would need to know where training ends, and the states after 1, 5
    and 20 epochs would not lie on one trajectory.
    """
    sparse = tfmot.sparsity.keras
    schedule = sparse.ConstantSparsity(sparsity, begin_step=0, frequency=PRUNING_EVERY)
    return sparse.prune_low_magnitude(copy_of(model), pruning_schedule=schedule, pruning_policy=_WherePossible())


class _WherePossible(tfmot.sparsity.keras.PruningPolicy):  # type: ignore[misc]  # TFMOT ships no types
    """Leaves alone what TFMOT does not know, such as Rescaling, instead of refusing the whole model."""

    def allow_pruning(self, layer: Any) -> bool:
        return _prunable(layer)

    def ensure_model_supports_pruning(self, model: "Model") -> None:
        """Checked before any training, by `refuse`."""


def _prunable(layer: Any) -> bool:
    return isinstance(layer, tfmot.sparsity.keras.PrunableLayer) or PruneRegistry.supports(layer)


def _clusterable(layer: Any) -> bool:
    own = (tfmot.clustering.keras.ClusterableLayer, *CLUSTERED_IN_PARTS)
    return isinstance(layer, own) or ClusteringRegistry.supports(layer)


def refuse(model: "Model", prune: bool = False, cluster: bool = False) -> None:
    """Raise UserError that names the layers with kernels that TFMOT cannot compress in this way."""
    ways = {"pruned": prune and _prunable, "clustered": cluster and _clusterable}
    for way, able in ways.items():
        unable = [layer.name for layer in _leaves(model) if able and _compressible(layer) and not able(layer)]
        if unable:
            raise UserError(
                f"Layers that cannot be {way}: {', '.join(unable)}. TFMOT does not know their kind; quantize this "
                "model without compressing it, as with strategy=ptq_int8."
            )


def _leaves(model: "Model") -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _compressible(layer: Any) -> bool:
    """Whether it has a kernel: the weights of PReLU or of a normalization are none, and stay as they are."""
    return any("kernel" in weight.name for weight in layer.weights)


def pruning_callbacks() -> list[Any]:
    """What training a model from `to_prune` needs."""
    return [tfmot.sparsity.keras.UpdatePruningStep()]


def pruned(trained: "Model") -> "Model":
    """The plain model, after training."""
    return tfmot.sparsity.keras.strip_pruning(trained)


def to_cluster(model: "Model", clusters: int, keep_zeros: bool = False) -> "Model":
    """A copy whose kernels have at most so many distinct weights each, found by k-means++, while training."""
    cluster = cluster_weights_and_keep_zeros if keep_zeros else tfmot.clustering.keras.cluster_weights
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    keeping = {"preserve_sparsity": True} if keep_zeros else {}

    def wrapped(layer: Any) -> Any:
        known = _clusterable(layer)
        return cluster(layer, number_of_clusters=clusters, cluster_centroids_init=start, **keeping) if known else layer

    return keras.models.clone_model(copy_of(model), clone_function=wrapped)


def clustered(trained: "Model") -> "Model":
    """The plain model, after training."""
    return tfmot.clustering.keras.strip_clustering(trained)


def to_quantize(model: "Model", keep: Collection[str]) -> "Model":
    """A quantization-aware copy that keeps `zeros`, `clusters` or both in the weights while training."""
    combine = tfmot.experimental.combine
    if "clusters" in keep:
        scheme = combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity="zeros" in keep)
    else:
        scheme = combine.Default8BitPrunePreserveQuantizeScheme()
    quantization = tfmot.quantization.keras
    with halves_named():
        return quantization.quantize_apply(quantization.quantize_annotate_model(copy_of(model)), scheme)

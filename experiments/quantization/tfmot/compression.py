"""Pruning and weight clustering with TensorFlow Model Optimization (TFMOT), also before quantization-aware training.

TFMOT compresses the kernels of convolutions and dense layers, but not depthwise kernels, biases and BatchNorm. Masks
and centroids are weights of TFMOT's wrappers, so that training can be resumed bit for bit.
"""

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.system.tensorflow import keras  # first: it chooses Keras 2

# isort: split
import numpy as np
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
from tensorflow_model_optimization.python.core.clustering.keras.clustering_registry import ClusteringRegistry
from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
    cluster_weights as cluster_weights_and_keep_zeros,
)
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from experiments.model.copies import copied, take_over_state
from experiments.quantization.compressible import refuse_incompressible
from experiments.quantization.tfmot.annotation import annotated_copy, fake_quantization_off
from experiments.quantization.tfmot.replaced import replaced
from experiments.quantization.tfmot.schemes import quantization_aware

if TYPE_CHECKING:
    from tf_keras import Model

PRUNING_EVERY = 1  # training steps; with TFMOT's default of 100, the first 100 steps would prune nothing


def to_prune(model: "Model", sparsity: float) -> "Model":
    """Return a copy whose kernels keep a share of `sparsity`, the smallest weights, at zero during training.

    The share is constant from the first step on: a ramp depends on the number of epochs, so the states after 1, 5 and
    20 epochs would not be on the same trajectory.
    """
    sparse = tfmot.sparsity.keras
    schedule = sparse.ConstantSparsity(sparsity, begin_step=0, frequency=PRUNING_EVERY)
    copy = sparse.prune_low_magnitude(copied(model), pruning_schedule=schedule, pruning_policy=_WherePossible())
    take_over_state(copy, model)
    return copy


class _WherePossible(tfmot.sparsity.keras.PruningPolicy):  # type: ignore[misc]  # TFMOT ships no types
    """Skips layers that TFMOT does not support, such as Rescaling, instead of rejecting the whole model."""

    def allow_pruning(self, layer: Any) -> bool:
        return _prunable(layer) and layer.trainable

    def ensure_model_supports_pruning(self, model: "Model") -> None:
        """Do nothing; `refuse` checks this before any training."""


def _prunable(layer: Any) -> bool:
    return isinstance(layer, tfmot.sparsity.keras.PrunableLayer) or PruneRegistry.supports(layer)


def _clusterable(layer: Any) -> bool:
    own = (tfmot.clustering.keras.ClusterableLayer, keras.Model)  # TFMOT wraps the layers inside a model
    return isinstance(layer, own) or ClusteringRegistry.supports(layer)


def refuse(model: "Model", prune: bool = False, cluster: bool = False) -> None:
    """Raise UserError with the layers with kernels that TFMOT cannot compress like this."""
    for way, asked, is_supported in (("pruned", prune, _prunable), ("clustered", cluster, _clusterable)):
        if asked:
            refuse_incompressible(model, way, is_supported, "TFMOT does not support these classes.")


def pruning_callbacks() -> list[Any]:
    """Return the callbacks for training a model from `to_prune`."""
    return [tfmot.sparsity.keras.UpdatePruningStep()]


def pruned(trained: "Model") -> "Model":
    """Return the model without wrappers, after training."""
    return tfmot.sparsity.keras.strip_pruning(trained)


def to_cluster(model: "Model", clusters: int, keep_zeros: bool = False) -> "Model":
    """Return a copy whose kernels have at most `clusters` distinct weights each, found by k-means++."""
    cluster = cluster_weights_and_keep_zeros if keep_zeros else tfmot.clustering.keras.cluster_weights
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    keeping = {"preserve_sparsity": True} if keep_zeros else {}

    def wrapped(layer: Any) -> Any:
        if not (_clusterable(layer) and layer.trainable and (layer.trainable_weights or _drops(layer))):
            return layer
        most = min(clusters, _most_clusters(layer, keep_zeros))
        return cluster(layer, number_of_clusters=most, cluster_centroids_init=start, **keeping)

    copy = keras.models.clone_model(copied(model), clone_function=wrapped)
    take_over_state(copy, model)
    return copy


def _most_clusters(layer: Any, keep_zeros: bool) -> int:
    """Return how many clusters the kernels of a layer have weights for; TFMOT's k-means fails with more."""
    kernels = [each.numpy() for each in layer.weights if "kernel" in each.name and "depthwise" not in each.name]
    sizes = [int(np.count_nonzero(each)) + 1 if keep_zeros else int(each.size) for each in kernels]
    return max(2, min(sizes, default=sys.maxsize))


def _drops(layer: Any) -> bool:
    """Whether a layer is a Dropout, which is inactive in TFMOT's wrapper: the wrapper does not pass `training` on."""
    return isinstance(layer, (keras.layers.Dropout, keras.layers.SpatialDropout2D))


def clustered(trained: "Model") -> "Model":
    """Return the model without wrappers, after training."""
    return tfmot.clustering.keras.strip_clustering(trained)


@contextmanager
def wrappers_idle() -> Iterator[None]:
    """Make all wrappers return the outputs of their layers, without fake quantization and centroids."""

    def unclustered(wrapper: Any) -> None:
        for name, weights in wrapper.original_clusterable_weights.items():
            wrapper.set_weight_to_layer(name, weights)

    # The wrapper replaces weights by centroids at each call; no argument prevents this.
    with fake_quantization_off(), replaced(ClusterWeights, "update_clustered_weights_associations", unclustered):
        yield


def to_quantize(model: "Model", keep: Collection[str]) -> "Model":
    """Return a quantization-aware copy that preserves `zeros`, `clusters` or both during training."""
    quantized = quantization_aware(annotated_copy(copied(model), None), model, keep)
    take_over_state(quantized, model)
    return quantized

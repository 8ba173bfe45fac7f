"""Pruning and weight clustering with TensorFlow Model Optimization (TFMOT), also before quantization-aware training.

TFMOT compresses the kernels of convolutions and dense layers and leaves depthwise kernels, biases and BatchNorm alone.
Masks and centroids are weights of TFMOT's wrappers, so that training can be continued bit by bit like any other.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
    cluster_weights as cluster_weights_and_keep_zeros,
)

from experiments.strategy.annotation import halves_named
from experiments.tensorflow_quietly import keras

if TYPE_CHECKING:
    from tf_keras import Model

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
    schedule = tfmot.sparsity.keras.ConstantSparsity(sparsity, begin_step=0, frequency=PRUNING_EVERY)
    return tfmot.sparsity.keras.prune_low_magnitude(copy_of(model), pruning_schedule=schedule)


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
    return cluster(copy_of(model), number_of_clusters=clusters, cluster_centroids_init=start, **keeping)


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

"""Pruning and weight clustering with TensorFlow Model Optimization (TFMOT), also before quantization-aware training.

TFMOT compresses the kernels of convolutions and dense layers and leaves depthwise kernels, biases and BatchNorm alone.
Masks and centroids are weights of TFMOT's wrappers, so that training can be continued bit by bit like any other.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.system.tensorflow import keras  # first: it chooses Keras 2

# isort: split
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
from tensorflow_model_optimization.python.core.clustering.keras.clustering_registry import ClusteringRegistry
from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
    cluster_weights as cluster_weights_and_keep_zeros,
)
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from experiments.model.copies import copied, kinds_known, take_over_state
from experiments.quantization.tfmot.annotation import fake_quantization_off
from experiments.quantization.tfmot.replaced import replaced
from experiments.quantization.tfmot.schemes import quantization_aware
from experiments.system.errors import UserError

if TYPE_CHECKING:
    from tf_keras import Model

# TFMOT wraps what is within these.
CLUSTERED_IN_PARTS = (
    keras.Model, keras.layers.RNN, keras.layers.Bidirectional, keras.layers.MultiHeadAttention,
)  # fmt: skip
PRUNING_EVERY = 1  # training step; with TFMOT's own 100, the first 100 steps of a training prune nothing


def to_prune(model: "Model", sparsity: float) -> "Model":
    """A copy in whose kernels the share `sparsity` of weights, the smallest, is kept at zero while training.

    The share holds from the first step on: a ramp would need to know where training ends, and the states after 1, 5
    and 20 epochs would not lie on one trajectory.
    """
    sparse = tfmot.sparsity.keras
    schedule = sparse.ConstantSparsity(sparsity, begin_step=0, frequency=PRUNING_EVERY)
    copy = sparse.prune_low_magnitude(copied(model), pruning_schedule=schedule, pruning_policy=_WherePossible())
    take_over_state(copy, model)
    return copy


class _WherePossible(tfmot.sparsity.keras.PruningPolicy):  # type: ignore[misc]  # TFMOT ships no types
    """Leaves alone what TFMOT does not know, such as Rescaling, instead of refusing the whole model."""

    def allow_pruning(self, layer: Any) -> bool:
        return _prunable(layer) and layer.trainable

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
        kernels = [layer for layer in _leaves(model) if _compressible(layer)]
        if able and kernels and not any(layer.trainable for layer in kernels):
            raise UserError(
                f"No layer can be {way}: all that have kernels are frozen (trainable=False), and stay as they are. Set "
                "layer.trainable = True for layers that may change, and save the model again; or quantize it after "
                "training, with strategy=ptq_int8."
            )


def frozen(model: "Model") -> frozenset[str]:
    """Names of the layers with kernels that stay as they are, since they are not trained (trainable=False)."""
    return frozenset(layer.name for layer in model.layers if _compressible(layer) and not layer.trainable)


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
        if not (_clusterable(layer) and layer.trainable and (layer.trainable_weights or _drops(layer))):
            return layer
        return cluster(layer, number_of_clusters=clusters, cluster_centroids_init=start, **keeping)

    copy = keras.models.clone_model(copied(model), clone_function=wrapped)
    take_over_state(copy, model)
    return copy


def _drops(layer: Any) -> bool:
    """Whether it is a Dropout, which drops nothing within TFMOT's wrapper: that tells no layer that it is trained."""
    return isinstance(layer, (keras.layers.Dropout, keras.layers.SpatialDropout2D))


def clustered(trained: "Model") -> "Model":
    """The plain model, after training."""
    return tfmot.clustering.keras.strip_clustering(trained)


@contextmanager
def wrappers_idle() -> Iterator[None]:
    """Let the wrappers of all these kinds hand on what the layers inside give: no fake quantization, no centroids."""

    def unclustered(wrapper: Any) -> None:
        for name, weights in wrapper.original_clusterable_weights.items():
            wrapper.set_weight_to_layer(name, weights)

    # The wrapper looks weights up among its centroids whenever it is called, and no argument stops it.
    with fake_quantization_off(), replaced(ClusterWeights, "update_clustered_weights_associations", unclustered):
        yield


def to_quantize(model: "Model", keep: Collection[str]) -> "Model":
    """A quantization-aware copy that keeps `zeros`, `clusters` or both in the weights while training."""
    with kinds_known(model):
        annotated = tfmot.quantization.keras.quantize_annotate_model(copied(model))
    quantized = quantization_aware(annotated, model, keep)
    take_over_state(quantized, model)
    return quantized

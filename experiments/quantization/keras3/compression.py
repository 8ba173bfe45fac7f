"""Pruning and weight clustering of Keras 3 models, also before quantization-aware training.

The same is compressed as TFMOT compresses for Keras 2: kernels of convolutions and dense layers, of recurrent layers
and attention, and embeddings; depthwise kernels, biases and normalizations stay as they are.

Pruning needs no wrapper: a constraint on each kernel sets its smallest weights to zero after each update, as TFMOT does
before the next one. Clustering wraps layers, for the centroids are trained. Neither has any other state, so that
training can be continued bit by bit like any other.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.model.copies import copied, set_state, state_of
from experiments.quantization.compressible import leaves, refuse_incompressible
from experiments.quantization.keras3.annotation import annotated, fake_quantization_off, is_fake_quantized_layer
from experiments.quantization.keras3.wrapper import Substitutes, substituted
from experiments.system.tensorflow import keras_3, tf

if TYPE_CHECKING:
    from keras import Model

keras = keras_3()
KerasLayer = Any
Variable = Any
Tensor = Any

# The attributes of a layer that are compressed, and their constraints.
COMPRESSED = {
    "kernel": "kernel_constraint",
    "pointwise_kernel": "pointwise_constraint",
    "recurrent_kernel": "recurrent_constraint",
    "embeddings": "embeddings_constraint",
}
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
SEED_OF_CENTROIDS = 9  # TFMOT's
MOST_CLUSTERS = 256  # a kernel with more distinct weights has not been clustered
_idle: ContextVar[bool] = ContextVar("clustering_idle", default=False)


@keras.saving.register_keras_serializable("experiments")
class Sparse(keras.constraints.Constraint):  # type: ignore[misc, name-defined]  # Keras ships no types
    """Sets a share of `sparsity`, the smallest weights, to zero, after `own`, the layer's own constraint."""

    def __init__(self, sparsity: float, own: Any = None) -> None:
        """Take the share and the layer's own constraint, which may be serialized by Keras."""
        self.sparsity = sparsity
        self.own = keras.constraints.get(own)

    def __call__(self, weights: Any) -> Tensor:
        """The weights after the layer's own constraint, pruned."""
        return self.prune(self.own(weights) if self.own else weights)

    def prune(self, weights: Any) -> Tensor:
        """Return the weights with the smallest ones set to zero, the same number as with TFMOT; it is idempotent."""
        weights = tf.convert_to_tensor(weights)
        magnitudes = tf.abs(weights)
        kept = max(1, round(float(np.float32(weights.shape.num_elements()) * (1 - np.float32(self.sparsity)))))
        least = tf.math.top_k(tf.reshape(magnitudes, [-1]), kept).values[-1]
        return tf.where(magnitudes >= least, weights, tf.zeros_like(weights))

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the constraint."""
        return {"sparsity": self.sparsity, "own": keras.constraints.serialize(self.own)}


class Clustered(keras.layers.Wrapper):  # type: ignore[misc, name-defined]
    """A layer whose weights have the values of the nearest trained centroids.

    The weights themselves are trained as well, by the gradients of the values that replace them, so that a weight can
    change its cluster. `counts` is the number of centroids of each kernel; with `keep_zeros`, weights and centroids
    that are zero stay zero.
    """

    def __init__(self, layer: KerasLayer, counts: Sequence[int], keep_zeros: bool = False, **options: Any) -> None:
        """Wrap a layer, which must be built before the wrapper is called."""
        options = {"name": f"cluster_{layer.name}", "dtype": layer.dtype_policy, **options}
        super().__init__(layer, autocast=False, **options)  # the centroids stay float32; the layer casts on its own
        self.supports_masking, self.supports_jit = True, layer.supports_jit
        self.counts, self.keep_zeros = list(counts), keep_zeros
        self.centroids = [
            self.add_weight((count,), initializer="zeros", name=f"centroids_{i}") for i, count in enumerate(self.counts)
        ]

    def build(self, *shapes: Any, **shapes_by_name: Any) -> None:
        """Do nothing: the layer inside has been built."""

    def call(self, *inputs: Any, **options: Any) -> Any:
        """Return the outputs of the layer with clustered kernels."""
        if _idle.get():
            return self.layer(*inputs, **options)
        with substituted(self, self.values()):
            return self.layer(*inputs, **options)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None: a mask of the layer inside is attached to its outputs."""

    def values(self) -> Substitutes:
        """Return the clustered values of each kernel."""
        pairs = zip(kernels_of(self.layer), self.centroids, strict=True)
        return [(kernel, in_clusters(kernel, centroids, self.keep_zeros)) for kernel, centroids in pairs]

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the wrapper."""
        return {**super().get_config(), "counts": self.counts, "keep_zeros": self.keep_zeros}


def zeros_kept(weights: Any) -> Tensor:
    """Return the values; zeros get no gradient, so they stay zero."""
    weights = tf.convert_to_tensor(weights)
    return weights * tf.cast(tf.stop_gradient(weights) != 0, weights.dtype)


def in_clusters(kernel: Any, centroids: Any, zeros_stay: bool) -> Tensor:
    """Return the nearest centroid of each weight; both get the gradients of these values, as with TFMOT."""
    kernel, centroids = map(zeros_kept if zeros_stay else tf.convert_to_tensor, (kernel, centroids))
    ordered = tf.sort(centroids)
    borders = tf.stop_gradient((ordered[1:] + ordered[:-1]) / 2)
    nearest = tf.searchsorted(borders, tf.reshape(tf.stop_gradient(kernel), [-1]))
    return tf.reshape(tf.gather(ordered, nearest), kernel.shape) + (kernel - tf.stop_gradient(kernel))


def kernels_of(layer: KerasLayer) -> list[Variable]:
    """Return the variables of a layer that are compressed."""
    return [getattr(part, name) for part in _parts(layer) for name in _compressed(part)]


def _parts(layer: KerasLayer) -> list[KerasLayer]:
    """Return the layers that hold the kernels of a layer and have their constraints in its config."""
    match layer:
        case keras.layers.Bidirectional():
            return [*_parts(layer.forward_layer), *_parts(layer.backward_layer)]
        case keras.layers.TimeDistributed():
            return _parts(layer.layer)
        case keras.layers.RNN():
            return list(getattr(layer.cell, "cells", [layer.cell]))
        case keras.layers.MultiHeadAttention() | keras.layers.GroupQueryAttention():
            return [layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense]
    return [layer]


def _compressed(part: KerasLayer) -> list[str]:
    """Return the names of a layer's attributes that are compressed."""
    if isinstance(part, DEPTHWISE):
        return []
    return [name for name, constraint in COMPRESSED.items() if hasattr(part, name) and hasattr(part, constraint)]


def refuse(model: "Model", prune: bool = False, cluster: bool = False) -> None:
    """Raise UserError with the layers with kernels that cannot be compressed like this."""
    for way in [way for way, asked in {"pruned": prune, "clustered": cluster}.items() if asked]:
        refuse_incompressible(model, way, lambda layer: not _unknown(layer), "These classes are not Keras' own.")


def _unknown(layer: KerasLayer) -> bool:
    """Whether a layer has kernels that are neither compressible nor depthwise."""
    depthwise = [part for part in layer._flatten_layers() if isinstance(part, DEPTHWISE)]
    known = {id(kernel) for kernel in [*kernels_of(layer), *(part.kernel for part in depthwise)]}
    kernels = [weight for weight in layer.weights if "kernel" in weight.name and "depthwise" not in weight.name]
    return any(id(kernel) not in known for kernel in kernels)


def to_prune(model: "Model", sparsity: float) -> "Model":
    """Return a copy whose kernels keep a share of `sparsity`, the smallest weights, at zero during training.

    The share holds from the first step on, as for Keras 2.
    """
    copy = copied(model)
    _constrain(copy, lambda own: Sparse(sparsity, own))
    return copy


def _constrain(model: "Model", change: Callable[[Any], Any]) -> None:
    """Replace the constraint of each trained kernel by the result of `change`."""
    for layer in leaves(model):
        for part in _parts(layer):
            for name in _compressed(part):
                variable, constraint = getattr(part, name), COMPRESSED[name]
                if variable.trainable:
                    variable.constraint = change(getattr(part, constraint))
                    setattr(part, constraint, variable.constraint)
                    if isinstance(layer, ATTENTION):  # its config has a constraint besides those of its parts
                        kept = "_kernel_constraint" if hasattr(layer, "_kernel_constraint") else "kernel_constraint"
                        setattr(layer, kept, variable.constraint)


class _PruneFirst(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Prunes before the first update, as the constraints do after each one; pruned weights do not change."""

    def on_train_begin(self, logs: Any = None) -> None:
        for variable in self.model.trainable_variables:
            if isinstance(variable.constraint, Sparse):
                variable.assign(variable.constraint.prune(variable))


def pruning_callbacks() -> list[Any]:
    """Return the callbacks for training a model from `to_prune`."""
    return [_PruneFirst()]


def pruned(trained: "Model") -> "Model":
    """Return the model without wrappers, after training."""
    plain = copied(trained)
    _constrain(plain, lambda own: own.own if isinstance(own, Sparse) else own)
    return plain


def to_cluster(model: "Model", clusters: int, keep_zeros: bool = False) -> "Model":
    """Return a copy whose kernels have at most `clusters` distinct weights each during training (k-means++)."""

    def wrapped(layer: KerasLayer) -> KerasLayer:
        kernels = kernels_of(layer) if isinstance(layer, keras.layers.Layer) else []
        if not kernels or not all(kernel.trainable for kernel in kernels):
            return layer
        found = [centroids_of(keras.ops.convert_to_numpy(kernel), clusters, keep_zeros) for kernel in kernels]
        wrapper = Clustered(layer, [len(each) for each in found], keep_zeros)
        for variable, value in zip(wrapper.centroids, found, strict=True):
            variable.assign(value)
        return wrapper

    return _with_layers(copied(model), wrapped)


def centroids_of(kernel: Any, clusters: int, zero: bool = False) -> Any:
    """Return at most `clusters` values of a kernel, by k-means++ with TFMOT's seed; `zero`: one is zero.

    Of the others, negative and positive ones have shares like the weights.
    """
    if len(values := np.unique(kernel)) <= clusters:
        return values
    if not zero:
        return _sampled(kernel, clusters)
    negative, positive = kernel[kernel < 0], kernel[kernel > 0]
    below = round((clusters - 1) * negative.size / (negative.size + positive.size))
    parts = [_sampled(negative, below), np.zeros(1, kernel.dtype), _sampled(positive, clusters - 1 - below)]
    return np.concatenate(parts)


def _sampled(weights: Any, count: int) -> Any:
    if not count:
        return np.zeros(0, weights.dtype)
    sample = tf.raw_ops.KmeansPlusPlusInitialization(
        points=tf.reshape(weights, [-1, 1]),
        num_to_sample=count,
        seed=SEED_OF_CENTROIDS,
        num_retries_per_sample=-1,
    )
    return sample.numpy()[:, 0]


def clustered(trained: "Model") -> "Model":
    """Return the model without wrappers, after training."""

    def plain(layer: KerasLayer) -> KerasLayer:
        if not isinstance(layer, Clustered):
            return layer
        for kernel, value in layer.values():
            kernel.assign(value)
        return layer.layer

    copy = copied(trained)  # all but the weights of wrapped layers
    set_state(copy, state_of(trained))
    return copied(_with_layers(copy, plain))


def _with_layers(model: "Model", change: Callable[[KerasLayer], KerasLayer]) -> "Model":
    """Return a model with the same graph, in which `change` replaces layers; unchanged ones are shared."""
    changed = keras.models.clone_model(model, clone_function=change, recursive=True)
    changed._trainable = model._trainable
    return changed


@contextmanager
def wrappers_idle() -> Iterator[None]:
    """Let all wrappers return the outputs of the layers inside, without centroids and fake quantization."""
    before = _idle.set(True)
    try:
        with fake_quantization_off():
            yield
    finally:
        _idle.reset(before)


def to_quantize(model: "Model", keep: Collection[str]) -> "Model":
    """Return a quantization-aware copy that preserves `zeros`, `clusters` or both during training."""
    copy = annotated(model, keeps_clusters="clusters" in keep)
    for wrapper in copy.layers:
        if is_fake_quantized_layer(wrapper) and isinstance(wrapper.layer, keras.layers.Layer):
            _keep(wrapper, "zeros" in keep, "clusters" in keep)
    return copy


def _keep(wrapper: KerasLayer, zeros: bool, clusters: bool) -> None:
    """Let a quantized layer preserve zeros and clusters of its trained kernels."""
    pairs: list[tuple[Variable, Variable | None]] = []
    for kernel in [kernel for kernel in kernels_of(wrapper.layer) if kernel.trainable]:
        values, centroids = np.unique(keras.ops.convert_to_numpy(kernel)), None
        if clusters and len(values) <= MOST_CLUSTERS:
            centroids = wrapper.add_weight((len(values),), initializer="zeros", name=f"centroids_{len(pairs)}")
            centroids.assign(values)
        pairs.append((kernel, centroids))

    def kept() -> Substitutes:
        return [
            (kernel, zeros_kept(kernel) if centroids is None else in_clusters(kernel, centroids, zeros))
            for kernel, centroids in pairs
            if zeros or centroids is not None
        ]

    wrapper.kept = kept
    wrapper.keep = {"zeros": zeros, "clusters": [0 if each is None else each.shape[0] for _, each in pairs]}

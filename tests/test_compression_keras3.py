"""Pruning and clustering of Keras 3 models, beside TFMOT's of Keras 2 models with the same weights."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from experiments.model.copies import copied, first_difference, other_penalty, set_state, state_of
from experiments.quantization.compressible import frozen
from experiments.strategy import Strategy, Trained
from experiments.strategy.cluster_qat import ClusterQAT
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.strategy.prune_qat import PruneQAT
from experiments.system.errors import UserError
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import read_ops

pytestmark = pytest.mark.tensorflow

SHAPE = (8, 8, 1)
BATCH = 16
IMAGES = np.random.default_rng(0).random((4 * BATCH, *SHAPE), np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, len(IMAGES))
WORDS = np.random.default_rng(2).integers(0, 20, (len(IMAGES), 6))
SPARSITY = 0.8


def ours() -> Any:
    """The module, which imports Keras 3."""
    from experiments.quantization.keras3 import compression

    return compression


def tfmot() -> Any:
    from experiments.quantization.tfmot import compression

    return compression


def layers_of() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3().layers


def sequential(*layers: Any, shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> Any:
    from experiments.system.tensorflow import keras_3

    keras_3().utils.set_random_seed(0)
    return keras_3().Sequential([keras_3().Input(shape, dtype=dtype), *layers])


def small_cnn(keras: Any) -> Any:
    """The same network in either Keras."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = layers.Input(SHAPE)
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return keras.Model(image, layers.Dense(3, name="head")(x))


def twins() -> tuple[Any, Any]:
    """The network in Keras 2 and in Keras 3, with the same weights."""
    from experiments.system.tensorflow import keras, keras_3

    pair = small_cnn(keras), small_cnn(keras_3())
    pair[1].set_weights(pair[0].get_weights())
    return pair


def compiled(model: Any, graph: bool = False) -> Any:
    """The model, ready for training.

    A few steps take less time eagerly than the tracing of their graph does. Training in graphs is what production does
    (experiments.training.loop): test_compression.py and test_training_keras3.py train by it, and tests here that ask.
    """
    from experiments.system.tensorflow import keras_of

    keras = keras_of(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=not graph)
    return model


def fit(model: Any, callbacks: Any, steps: int, epochs: int, inputs: Any) -> None:
    count = steps * BATCH
    model.fit(inputs[:count], LABELS[:count], BATCH, epochs, verbose=0, shuffle=False, callbacks=list(callbacks))


def trained(
    model: Any, callbacks: Any = (), steps: int = 4, epochs: int = 1, inputs: Any = IMAGES, graph: bool = False
) -> Any:
    """The model after so many steps in each epoch."""
    fit(compiled(model, graph), callbacks, steps, epochs, inputs)
    return model


def kernels(model: Any) -> dict[str, Any]:
    """Of each layer that is compressed, the weights in use."""
    return {name: np.array(model.get_layer(name).get_weights()[0]) for name in ("conv", "hidden", "head")}


@pytest.mark.parametrize("steps", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_what_is_pruned_after_each_update_is_what_tfmot_prunes_before_the_next(steps: int) -> None:
    theirs, own = twins()
    masked = trained(tfmot().to_prune(theirs, SPARSITY), tfmot().pruning_callbacks(), steps + 1)
    masks = {layer.layer.name: layer.pruning_vars[0][1].numpy() for layer in masked.layers if kernel_of(layer)}
    found = kernels(ours().pruned(trained(ours().to_prune(own, SPARSITY), ours().pruning_callbacks(), steps)))
    for name, kernel in found.items():
        assert (kernel != 0).sum() == masks[name].sum()
        assert np.mean((kernel != 0) == (masks[name] == 1)) >= (1 if steps == 1 else 0.99)


def kernel_of(wrapper: Any) -> bool:
    return bool(getattr(wrapper, "pruning_vars", ()))


def test_pruning_leaves_as_many_zeros_as_tfmot_and_no_other_weight_is_touched() -> None:
    theirs, own = twins()
    theirs = tfmot().pruned(trained(tfmot().to_prune(theirs, SPARSITY), tfmot().pruning_callbacks(), graph=True))
    own = ours().pruned(trained(ours().to_prune(own, SPARSITY), ours().pruning_callbacks(), graph=True))
    for name, kernel in kernels(theirs).items():
        assert np.count_nonzero(kernels(own)[name]) == np.count_nonzero(kernel) == round(0.2 * kernel.size)
    for weights in own.get_layer("depthwise").get_weights():
        assert np.all(weights != 0)


def test_clusters_start_from_the_centroids_that_tfmot_finds() -> None:
    theirs, own = twins()
    wrappers = [layer for layer in tfmot().to_cluster(theirs, 4).layers if hasattr(layer, "cluster_centroids")]
    wanted = {wrapper.layer.name: wrapper.cluster_centroids for wrapper in wrappers}
    for wrapper in ours().to_cluster(own, 4).layers:
        if hasattr(wrapper, "centroids"):
            assert np.array_equal(wrapper.centroids[0].numpy(), wanted[wrapper.layer.name]["kernel"].numpy())


@pytest.mark.parametrize("keep_zeros", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_after_training_there_are_as_many_distinct_weights_as_with_tfmot_and_as_close_to_the_original(
    keep_zeros: bool,
) -> None:
    def clustered(engine: Any, model: Any) -> tuple[Any, Any]:
        if keep_zeros:
            model = engine.pruned(trained(engine.to_prune(model, SPARSITY), engine.pruning_callbacks()))
        after = trained(engine.to_cluster(model, 6, keep_zeros))
        return kernels(model), kernels(engine.clustered(after))

    theirs, own = twins()
    (float_theirs, theirs), (float_own, own) = clustered(tfmot(), theirs), clustered(ours(), own)
    for name, kernel in own.items():
        assert len(np.unique(kernel)) <= 6
        assert abs(len(np.unique(kernel)) - len(np.unique(theirs[name]))) <= 1
        inertia, wanted = np.sum((kernel - float_own[name]) ** 2), np.sum((theirs[name] - float_theirs[name]) ** 2)
        assert inertia <= 1.1 * wanted
        if keep_zeros:
            assert np.all(kernel[float_own[name] == 0] == 0)


def attention() -> Any:
    from experiments.system.tensorflow import keras_3

    layers = layers_of()
    words = layers.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="embedding", mask_zero=True)(words)
    x = layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(query=x, value=x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras_3().Model(words, layers.Dense(3, name="head")(x))


def within_a_model() -> Any:
    inner = sequential(layers_of().Conv2D(4, 3, kernel_regularizer="l2"), layers_of().Flatten())
    return sequential(inner, layers_of().Dense(3, name="head"))


def shared() -> Any:
    from experiments.system.tensorflow import keras_3

    image = layers_of().Input(SHAPE)
    conv = layers_of().Conv2D(1, 3, padding="same", activity_regularizer="l1")
    x = keras_3().ops.relu(conv(conv(image)) + image)
    return keras_3().Model(image, layers_of().Dense(3)(layers_of().Flatten()(x)))


KINDS: dict[str, Callable[[], Any]] = {
    "convolutions": lambda: sequential(
        layers_of().SeparableConv2D(4, 3),
        layers_of().Conv2DTranspose(4, 3, kernel_constraint="max_norm"),
        layers_of().Dropout(0.5),
        layers_of().Flatten(),
        layers_of().Dense(3),
    ),
    "embedding and recurrence": lambda: sequential(
        layers_of().Embedding(20, 8),
        layers_of().Bidirectional(layers_of().LSTM(5, return_sequences=True, dropout=0.3)),
        layers_of().TimeDistributed(layers_of().Dense(6)),
        layers_of().Flatten(),
        layers_of().Dense(3),
        shape=(6,),
        dtype="int32",
    ),
    "attention": attention,
    "a model within": within_a_model,
    "a shared layer": shared,
}


def inputs_of(model: Any) -> Any:
    return WORDS if len(model.inputs[0].shape) == 2 else IMAGES


@cache
def pruning_and_clustering() -> dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """How a copy is made, and how it becomes a plain model again."""
    return {
        "prune": (lambda model: ours().to_prune(model, SPARSITY), ours().pruned),
        "cluster": (lambda model: ours().to_cluster(model, 4), ours().clustered),
        "cluster, zeros stay": (lambda model: ours().to_cluster(model, 4, keep_zeros=True), ours().clustered),
    }


WAYS = ("prune", "cluster", "cluster, zeros stay")
# Clusters with zeros that stay are the harder case of the two; the plain ones are tried every night.
both_ways = pytest.mark.parametrize("way", [WAYS[0], pytest.param(WAYS[1], marks=pytest.mark.nightly), WAYS[2]])
of_each_kind = pytest.mark.parametrize("kind", KINDS)


@both_ways
@of_each_kind
def test_a_copy_has_the_outputs_of_its_model_until_it_is_trained_and_then_those_of_its_plain_model(
    kind: str, way: str
) -> None:
    prepared, plain_of = pruning_and_clustering()[way]
    model = KINDS[kind]()
    inputs = inputs_of(model)
    copy = prepared(model)
    with ours().wrappers_idle():
        assert first_difference(copy, model, inputs[:8]) is None
        assert other_penalty(copy, model) is None
    in_graph = way == WAYS[1]  # each kind every night
    plain = plain_of(trained(copy, ours().pruning_callbacks(), steps=2, inputs=inputs, graph=in_graph))
    assert first_difference(plain, copy, inputs[:8]) is None
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in model.layers]
    assert plain.to_json() == model.to_json()
    for kernel in [kernel for layer in plain._flatten_layers() for kernel in parts(layer)]:
        values = kernel.numpy()
        if way == "prune":
            assert np.count_nonzero(values) == max(1, round(values.size * (1 - SPARSITY)))
        else:
            assert len(np.unique(values)) <= 4


def parts(layer: Any) -> list[Any]:
    return [] if hasattr(layer, "layers") or "depthwise" in layer.name else ours().kernels_of(layer)


@pytest.mark.parametrize(  # with dropout, whose state decides as well
    ("kind", "way"),
    [
        ("convolutions", WAYS[2]),
        ("attention", WAYS[0]),
        *(
            pytest.param(*each, marks=pytest.mark.nightly)
            for each in (
                ("convolutions", WAYS[0]),
                ("convolutions", WAYS[1]),
                ("attention", WAYS[1]),
                ("attention", WAYS[2]),
            )
        ),
    ],
)
def test_training_that_is_continued_gives_the_same_bits_as_training_that_never_stopped(kind: str, way: str) -> None:
    from experiments.system.tensorflow import keras_3

    prepared, _ = pruning_and_clustering()[way]
    model = KINDS[kind]()
    inputs, graph = inputs_of(model), kind == "convolutions"
    through, again = prepared(model), prepared(model)
    ends: list[tuple[Any, Any]] = []

    def keep(_epoch: int, _logs: Any) -> None:
        values = map(keras_3().ops.convert_to_numpy, through.optimizer.variables)
        ends.append((state_of(through), list(values)))

    callbacks = [*ours().pruning_callbacks(), keras_3().callbacks.LambdaCallback(on_epoch_end=keep)]
    trained(through, callbacks, steps=2, epochs=2, inputs=inputs, graph=graph)
    (state, optimizer), _ = ends
    compiled(again, graph)
    set_state(again, state)
    again.optimizer.build(again.trainable_variables)
    for variable, value in zip(again.optimizer.variables, optimizer, strict=True):
        variable.assign(value)
    fit(again, ours().pruning_callbacks(), 2, 1, inputs)
    for own, wanted in zip(state_of(again), state_of(through), strict=True):
        assert np.array_equal(own, wanted)


@of_each_kind
def test_the_architecture_in_json_tells_how_much_is_pruned_or_clustered(kind: str) -> None:
    model = KINDS[kind]()
    copies = [ours().to_prune(model, share) for share in (0.5, 0.8)]
    copies += [ours().to_cluster(model, count, zeros) for count, zeros in ((3, False), (4, False), (4, True))]
    said = [copy.to_json() for copy in (model, *copies)]
    assert len(set(said)) == len(said)
    constrained = [len([kernel for kernel in copy.variables if pruned(kernel)]) for copy in copies[:2]]
    assert constrained == [len([kernel for kernel in copied(copy).variables if pruned(kernel)]) for copy in copies[:2]]


def pruned(variable: Any) -> bool:
    return isinstance(getattr(variable, "constraint", None), ours().Sparse)


@both_ways
def test_frozen_layers_are_left_as_they_are(way: str) -> None:
    prepared, plain_of = pruning_and_clustering()[way]
    model = KINDS["convolutions"]()
    model.layers[0].trainable = False
    before = model.layers[0].get_weights()
    assert frozen(model) == {model.layers[0].name}
    plain = plain_of(trained(prepared(model), ours().pruning_callbacks()))
    assert not plain.layers[0].trainable
    for own, wanted in zip(plain.layers[0].get_weights(), before, strict=True):
        assert np.array_equal(own, wanted)


def test_a_kind_with_kernels_of_its_own_is_refused_and_so_is_a_model_without_any_that_may_change() -> None:
    from experiments.system.tensorflow import keras_3

    class OwnKernel(keras_3().layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def build(self, _shape: Any) -> None:
            self.factor = self.add_weight(SHAPE, name="kernel")

        def call(self, values: Any) -> Any:
            return values * self.factor

    model = sequential(OwnKernel(name="mine"), layers_of().Flatten(), layers_of().Dense(3))
    with pytest.raises(UserError, match="cannot be pruned: mine"):
        ours().refuse(model, prune=True)
    ours().refuse(model)
    model = KINDS["convolutions"]()
    ours().refuse(model, prune=True, cluster=True)
    model.trainable = False
    with pytest.raises(UserError, match="No layer can be clustered, since all layers with kernels are frozen"):
        ours().refuse(model, cluster=True)


@pytest.mark.parametrize("zeros", [0, 3, 10])
def test_few_distinct_weights_are_their_own_centroids(zeros: int) -> None:
    kernel = np.concatenate([np.zeros(zeros, np.float32), np.repeat(np.array([-1, 2, 0.5], np.float32), 4)])
    found = ours().centroids_of(kernel, 4, zero=zeros > 0)
    assert np.array_equal(found, np.unique(kernel))


@pytest.mark.parametrize(
    ("kind", "keep"),
    [
        ("convolutions", ("zeros",)),
        ("convolutions", ("clusters",)),
        ("convolutions", ("zeros", "clusters")),
        ("plain attention", ("zeros", "clusters")),
        pytest.param("plain attention", ("zeros",), marks=pytest.mark.nightly),
        pytest.param("plain attention", ("clusters",), marks=pytest.mark.nightly),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value,
)
def test_quantization_aware_training_keeps_zeros_and_clusters(kind: str, keep: tuple[str, ...]) -> None:
    model = QUANTIZED[kind]()
    if "zeros" in keep:
        model = ours().pruned(trained(ours().to_prune(model, SPARSITY), ours().pruning_callbacks()))
    if "clusters" in keep:
        model = ours().clustered(trained(ours().to_cluster(model, 4, "zeros" in keep)))
    copy = ours().to_quantize(model, keep)
    with ours().wrappers_idle():
        assert first_difference(copy, model, IMAGES[:8]) is None
    assert copy.to_json() != ours().to_quantize(model, ()).to_json()
    before = {layer.name: values_in_use(layer) for layer in copy.layers}
    in_graph = (kind == "convolutions") == (len(keep) == 2)  # one of each kind, that of attention every night
    trained(copy, graph=in_graph)
    changed = 0
    for layer in copy.layers:
        for was, value in zip(before[layer.name], values_in_use(layer), strict=True):
            changed += int(not np.array_equal(was, value))
            if "zeros" in keep:
                assert np.all(value[was == 0] == 0)
            if "clusters" in keep:
                assert len(np.unique(value)) <= 4
    assert changed


def values_in_use(wrapper: Any) -> list[Any]:
    kept = getattr(wrapper, "kept", None)
    return [value.numpy() for _, value in kept()] if kept else []


def plain_attention() -> Any:
    from experiments.system.tensorflow import keras_3

    image = layers_of().Input(SHAPE)
    x = layers_of().Dense(4)(layers_of().Reshape((8, 8))(image))
    x = layers_of().Flatten()(layers_of().MultiHeadAttention(2, 4)(x, x))
    return keras_3().Model(image, layers_of().Dense(3)(x))


QUANTIZED: dict[str, Callable[[], Any]] = {
    "convolutions": lambda: sequential(
        layers_of().Conv2D(4, 3, activation="relu"),
        layers_of().DepthwiseConv2D(3),
        layers_of().BatchNormalization(),
        layers_of().Dropout(0.5),
        layers_of().Flatten(),
        layers_of().Dense(3),
    ),
    "plain attention": plain_attention,
}


@pytest.mark.parametrize(
    "name",
    [
        "prune_cluster_qat",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("prune_qat", "cluster_qat")),
    ],
)
def test_the_int8_file_of_a_strategy_keeps_its_zeros_and_clusters(name: str) -> None:
    strategy, model = STRATEGIES[name], QUANTIZED["convolutions"]()
    prepared = strategy.prepare(model, fitted, lambda count: IMAGES[:count])
    file = convert(prepared.model, strategy.scheme(model), lambda count: IMAGES[:count])
    ops = read_ops(file.content, [layer.name for layer in model.layers])
    assert [op.types for op in ops if op.weights] == ["int8"] * 3
    assert broken(strategy.expectation(model), ops) == ()


STRATEGIES: dict[str, Strategy] = {
    "prune_qat": PruneQAT(sparsity=0.7),
    "cluster_qat": ClusterQAT(clusters=5),
    "prune_cluster_qat": PruneClusterQAT(sparsity=0.7, clusters=5),
}


def fitted(model: Any, callbacks: Sequence[Any] = ()) -> Trained:
    return Trained.untouched(trained(model, callbacks))

"""A copy of a Keras 3 model gives the same outputs and continues training like the model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.model.copies import (
    copied,
    copy_layer_state,
    first_difference,
    layer_of,
    nodes_of,
    other_penalty,
    set_state,
    state_of,
)

pytestmark = pytest.mark.tensorflow

SHAPE = (6, 6, 1)
IMAGES = np.random.default_rng(0).random((8, *SHAPE), np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, len(IMAGES))


def sequential(*layers: Any) -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3().Sequential([keras_3().Input(SHAPE), *layers])


def ending(*layers: Any) -> list[Any]:
    """Return these layers with a head of three classes behind them."""
    return [*layers, layers_of().Flatten(), layers_of().Dense(3, name="head")]


def layers_of() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3().layers


def adapted(layer: Any, values: Any = IMAGES) -> Any:
    layer.adapt(values)
    return layer


def with_a_normalization() -> Any:
    normalization = adapted(layers_of().Normalization(name="normalization"), 200 * IMAGES)
    return sequential(*ending(normalization, layers_of().Conv2D(4, 3, activation="relu")))


def with_a_normalization_within_a_model() -> Any:
    return sequential(sequential(adapted(layers_of().Normalization(), 200 * IMAGES)), *ending())


def with_bins() -> Any:
    layers = [layers_of().Flatten(), adapted(layers_of().Discretization(num_bins=4)), layers_of().Embedding(5, 2)]
    return sequential(*ending(*layers))


def with_a_mask() -> Any:
    bins = adapted(layers_of().Discretization(num_bins=4))
    layers = [layers_of().Flatten(), bins, layers_of().Embedding(5, 2, mask_zero=True), layers_of().Dense(4)]
    return sequential(*layers, layers_of().GlobalAveragePooling1D(), layers_of().Dense(3))


def with_batchnorm_statistics() -> Any:
    model = sequential(*ending(layers_of().Conv2D(4, 3), layers_of().BatchNormalization(), layers_of().ReLU()))
    model.layers[1].moving_mean.assign([0.3, -0.2, 0.1, 0.5])
    return model


def with_a_spectral_norm() -> Any:
    return sequential(*ending(layers_of().Conv2D(4, 3)), layers_of().SpectralNormalization(layers_of().Dense(3)))


def with_a_layer_called_twice() -> Any:
    from experiments.system.tensorflow import keras_3

    images, same = keras_3().Input(SHAPE), layers_of().Conv2D(1, 3, padding="same", name="same")
    values = layers_of().Flatten()(same(layers_of().ReLU()(same(images))))
    return keras_3().Model(images, layers_of().Dense(3)(values))


def with_random_images() -> Any:
    layers = [layers_of().RandomFlip(), layers_of().GaussianNoise(0.1), layers_of().Conv2D(4, 3)]
    return sequential(*ending(*layers, layers_of().Dropout(0.5)))


def with_a_lambda() -> Any:
    return sequential(layers_of().Lambda(lambda x: 2 * x), *ending(layers_of().Conv2D(4, 3)))


def with_penalties() -> Any:
    layers = [layers_of().Conv2D(4, 3, kernel_regularizer="l2", activity_regularizer="l2")]
    return sequential(*ending(*layers, layers_of().ActivityRegularization(0.1)))


def with_a_frozen_trunk() -> Any:
    trunk = [layers_of().Conv2D(4, 3, name="trunk"), layers_of().BatchNormalization(name="bn"), layers_of().ReLU()]
    model = sequential(*ending(*trunk))
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


def with_one_frozen_layer_within_a_model() -> Any:
    trunk = sequential(layers_of().Conv2D(4, 3), layers_of().Conv2D(4, 3))
    trunk.layers[0].trainable = False
    return sequential(*ending(trunk))


def with_operations_and_an_add_layer() -> Any:
    from experiments.system.tensorflow import keras_3

    images = keras_3().Input(SHAPE)
    values = layers_of().Conv2D(1, 3, padding="same")(images)
    values = keras_3().ops.relu(layers_of().Add()([values + images, 2 * images]))[:, 1:]
    return keras_3().Model(images, layers_of().Dense(3)(layers_of().Flatten()(values)))


def with_recurrence_and_attention() -> Any:
    from experiments.system.tensorflow import keras_3

    images = keras_3().Input(SHAPE)
    series = layers_of().Reshape((6, 6))(images)
    series = layers_of().Bidirectional(layers_of().GRU(3, return_sequences=True, dropout=0.1))(series)
    series = layers_of().MultiHeadAttention(2, 3)(series, series)
    return keras_3().Model(images, layers_of().Dense(3)(layers_of().Flatten()(series)))


def with_an_own_layer() -> Any:
    from experiments.system.tensorflow import keras_3

    class Halving(keras_3().layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            return values / 2

    return sequential(*ending(Halving(), layers_of().Conv2D(4, 3)))


KINDS = (
    with_a_normalization, with_a_normalization_within_a_model, with_bins, with_a_mask, with_batchnorm_statistics,
    with_a_spectral_norm, with_a_layer_called_twice, with_random_images, with_a_lambda, with_penalties,
    with_a_frozen_trunk, with_one_frozen_layer_within_a_model, with_operations_and_an_add_layer,
    with_recurrence_and_attention, with_an_own_layer,
)  # fmt: skip


def built(kind: Callable[[], Any]) -> Any:
    from experiments.system.tensorflow import keras_3

    keras_3().backend.clear_session(free_memory=False)  # which takes longer than most of these tests
    keras_3().utils.set_random_seed(0)
    return kind()


def training_steps(model: Any, count: int = 2) -> list[Any]:
    from experiments.system.tensorflow import keras_3

    loss = keras_3().losses.SparseCategoricalCrossentropy(from_logits=True)
    # A graph would take longer to trace; production trains in graphs (test_training_keras3.py).
    model.compile(keras_3().optimizers.SGD(0.1), loss, run_eagerly=True)
    model.fit(IMAGES, LABELS, batch_size=4, epochs=count, verbose=0, shuffle=False)
    return list(state_of(model))


def equal(states: Any, others: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(states, others, strict=True))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_copy_has_the_outputs_the_penalties_and_the_names_of_the_model(kind: Callable[[], Any]) -> None:
    model = built(kind)
    copy = copied(model)
    assert first_difference(copy, model, IMAGES) is None
    assert other_penalty(copy, model) is None
    assert equal(state_of(copy), state_of(model))
    assert [layer_of(node).name for node in nodes_of(copy)] == [layer_of(node).name for node in nodes_of(model)]
    assert [v.trainable for v in copy.variables] == [v.trainable for v in model.variables]


@pytest.mark.parametrize("kind", [with_random_images, with_a_frozen_trunk], ids=lambda kind: kind.__name__)
def test_a_copy_trains_like_the_model_whose_random_numbers_it_shares(kind: Callable[[], Any]) -> None:
    model = built(kind)
    copy = copied(model)
    assert equal(training_steps(copy), training_steps(model))


def test_a_copy_of_a_compiled_model_is_not_compiled() -> None:
    model = built(with_penalties)
    training_steps(model, count=1)
    assert not copied(model).compiled


def test_training_continues_from_a_saved_state_with_the_same_random_numbers() -> None:
    model, other = built(with_random_images), copied(built(with_random_images))
    training_steps(model, count=1)
    set_state(other, state_of(model))
    assert equal(training_steps(other, count=1), training_steps(model, count=1))


def test_a_difference_names_the_first_layer_and_a_lost_penalty_is_found() -> None:
    model = built(with_penalties)
    copy = copied(model)
    copy.layers[0].activity_regularizer = None
    assert first_difference(copy, model, IMAGES) is None
    assert other_penalty(copy, model) is not None
    copy.layers[0].set_weights([weights + 1 for weights in copy.layers[0].get_weights()])
    assert "outputs of layer conv2d differ" in str(first_difference(copy, model, IMAGES))


def test_vocabularies_are_copied() -> None:
    layer = adapted(layers_of().StringLookup(), ["a", "b", "b"])
    other = type(layer).from_config({**layer.get_config(), "vocabulary": None})
    copy_layer_state(other, layer)
    assert other.get_vocabulary() == layer.get_vocabulary()

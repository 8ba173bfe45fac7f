"""Training of Keras 3 models: continuing is training straight through, also for layers that draw random numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.system.cache import Cache
from experiments.training.loop import Trained, Training, digest_of, fit
from experiments.training.randomness import Randomness

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Mnist(train_samples=300, test_samples=50).load()


def network(data: Dataset) -> Any:
    """A Keras 3 model with BatchNorm and layers that draw random numbers, always with the same weights."""
    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    layers = keras.layers
    x = images = keras.Input(data.input_shape, name="image")
    x = layers.RandomTranslation(0.1, 0.1, name="moved")(x)
    x = layers.Conv2D(4, 3, strides=2, kernel_initializer=keras.initializers.GlorotUniform(1), name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.9, name="bn")(x))
    x = layers.Flatten(name="flatten")(layers.Dropout(0.5, name="dropout")(x))
    x = layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(2), name="dense")(x)
    return keras.Model(images, x, name="network")


def trained(epochs: int, data: Dataset, folder: Path, seed: int = 0) -> Trained:
    settings = Training(epochs=epochs, batch_size=100)
    return fit(network(data), data=data, settings=settings, seed=seed, cache=Cache(dir=folder), title="training")


def bits(result: Trained) -> bytes:
    state = [*result.model.weights, *result.model.optimizer.variables]
    return b"".join(np.asarray(value).tobytes() for value in state)


@pytest.fixture(scope="module")
def straight(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs at once."""
    return trained(2, data, tmp_path_factory.mktemp("straight"))


def test_continuing_gives_the_bits_of_training_straight_through(
    straight: Trained, data: Dataset, tmp_path: Path
) -> None:
    trained(1, data, tmp_path)
    continued = trained(2, data, tmp_path)
    assert (continued.epochs_reused, continued.epochs_trained) == (1, 1)
    assert bits(continued) == bits(straight)


def test_another_seed_gives_other_weights(straight: Trained, data: Dataset, tmp_path: Path) -> None:
    assert bits(trained(2, data, tmp_path, seed=1)) != bits(straight)


def test_training_is_followed_by_loss_and_accuracy_of_both_splits(straight: Trained) -> None:
    assert set(straight.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_the_digest_of_a_model_is_that_of_a_model_built_again(data: Dataset) -> None:
    assert digest_of(network(data)) == digest_of(network(data))


def test_training_changes_the_digest(straight: Trained, data: Dataset) -> None:
    assert digest_of(straight.model) != digest_of(network(data))


def test_a_further_training_draws_other_random_numbers_than_the_first(data: Dataset, tmp_path: Path) -> None:
    model = network(data)
    states = []
    for bias in (0.0, 0.1):  # as before and after a training
        model.get_layer("dense").bias.assign(np.full(10, bias))
        with Randomness(model, start=int(digest_of(model)[:8], 16)).of_epoch(7):
            pass
        states.append(np.asarray(model.get_layer("dropout").seed_generator.state).tolist())
    assert states[0] != states[1]

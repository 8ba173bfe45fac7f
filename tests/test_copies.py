"""Copies of a model give the same outputs, and frozen layers stay frozen."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from experiments.model import copies, keras2
from experiments.model.copies import first_difference, unwrapped
from experiments.strategy import Strategy
from experiments.strategy.annotate import Annotate
from experiments.strategy.cluster import Cluster
from experiments.strategy.cluster_qat import ClusterQAT
from experiments.strategy.finetune import Finetune
from experiments.strategy.prune import Prune
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.strategy.prune_qat import PruneQAT
from experiments.strategy.qat import QAT
from experiments.system.errors import UserError
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Float32
from experiments.training.loop import Trained
from experiments.training.precision import in_precision

pytestmark = pytest.mark.tensorflow

SHAPE = (6, 6, 1)
IMAGES = np.random.default_rng(0).random((40, *SHAPE), np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, len(IMAGES))

PARTLY: dict[str, Strategy] = {
    "finetune": Finetune(),
    "qat": QAT(),
    "annotate": Annotate(layers=("Dense",)),
    "prune": Prune(),
    "cluster": Cluster(clusters=4),
}
WHOLE: dict[str, Strategy] = {
    **PARTLY,
    "prune_qat": PruneQAT(),
    "cluster_qat": ClusterQAT(clusters=4),
    "prune_cluster_qat": PruneClusterQAT(clusters=4),
}


def sequential(*layers: Any) -> Any:
    from experiments.system.tensorflow import keras

    return keras.Sequential([keras.layers.InputLayer(SHAPE), *layers])


def ending(*layers: Any) -> list[Any]:
    """These layers, and a head of three classes behind them."""
    from experiments.system.tensorflow import keras

    return [*layers, keras.layers.Flatten(), keras.layers.Dense(3, name="head")]


def adapted(layer: Any, values: Any = IMAGES) -> Any:
    layer.adapt(values)
    return layer


def with_a_normalization() -> Any:
    from experiments.system.tensorflow import keras

    normalization = adapted(keras.layers.Normalization(name="normalization"), 200 * IMAGES)
    return sequential(*ending(normalization, keras.layers.Conv2D(4, 3, activation="relu")))


def with_an_inverted_normalization() -> Any:
    """It stays float in each strategy, with its own state; of the usual one, qat takes the factors from the model."""
    from experiments.system.tensorflow import keras

    normalization = adapted(keras.layers.Normalization(name="normalization", invert=True), 2 * IMAGES)
    return sequential(*ending(normalization, keras.layers.Conv2D(4, 3, activation="relu")))


def with_a_normalization_within_a_model() -> Any:
    from experiments.system.tensorflow import keras

    return sequential(sequential(adapted(keras.layers.Normalization(), 200 * IMAGES)), *ending())


def with_bins() -> Any:
    from experiments.system.tensorflow import keras

    layers = [keras.layers.Flatten(), adapted(keras.layers.Discretization(num_bins=4)), keras.layers.Embedding(5, 2)]
    return sequential(*ending(*layers))


def with_a_mask() -> Any:
    from experiments.system.tensorflow import keras

    bins = adapted(keras.layers.Discretization(num_bins=4))
    layers = [keras.layers.Flatten(), bins, keras.layers.Embedding(5, 2, mask_zero=True), keras.layers.Dense(4)]
    return sequential(*layers, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3))


def with_batchnorm_statistics() -> Any:
    from experiments.system.tensorflow import keras

    model = sequential(*ending(keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()))
    model.layers[1].moving_mean.assign([0.3, -0.2, 0.1, 0.5])
    return model


def with_a_spectral_norm() -> Any:
    from experiments.system.tensorflow import keras

    return sequential(*ending(keras.layers.Conv2D(4, 3, activation="relu")), keras.layers.SpectralNormalization(
        keras.layers.Dense(3)
    ))  # fmt: skip


def with_a_layer_called_twice() -> Any:
    from experiments.system.tensorflow import keras

    images, same = keras.Input(SHAPE), keras.layers.Conv2D(1, 3, padding="same", name="same")
    values = keras.layers.Flatten()(same(keras.layers.ReLU()(same(images))))
    return keras.Model(images, keras.layers.Dense(3)(values))


def with_random_images() -> Any:
    from experiments.system.tensorflow import keras

    layers = [keras.layers.RandomFlip(), keras.layers.GaussianNoise(0.1), keras.layers.Conv2D(4, 3)]
    return sequential(*ending(*layers))


def with_a_lambda() -> Any:
    from experiments.system.tensorflow import keras

    return sequential(keras.layers.Lambda(lambda x: 2 * x), *ending(keras.layers.Conv2D(4, 3)))


def with_penalties() -> Any:
    from experiments.system.tensorflow import keras

    layers = [keras.layers.Conv2D(4, 3, kernel_regularizer="l2", activity_regularizer="l2")]
    return sequential(*ending(*layers, keras.layers.ActivityRegularization(0.1)))


def with_a_frozen_trunk() -> Any:
    from experiments.system.tensorflow import keras

    trunk = [keras.layers.Conv2D(4, 3, name="trunk"), keras.layers.BatchNormalization(name="bn"), keras.layers.ReLU()]
    model = sequential(*ending(*trunk))
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


KINDS = (
    with_a_normalization, with_a_normalization_within_a_model, with_bins, with_a_mask, with_batchnorm_statistics,
    with_a_spectral_norm, with_a_layer_called_twice, with_random_images, with_a_lambda, with_penalties,
    with_a_frozen_trunk,
)  # fmt: skip


def built(kind: Callable[[], Any]) -> Any:
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return kind()


def calibration(count: int) -> Any:
    return IMAGES[:count]


def one_epoch(model: Any, callbacks: Sequence[Any] = ()) -> Trained:
    from experiments.system.tensorflow import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # A graph would take longer to trace; production trains in graphs (test_compression.py).
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    model.fit(IMAGES, LABELS, batch_size=20, epochs=1, verbose=0, callbacks=list(callbacks))
    return Trained.untouched(model)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("strategy", PARTLY)
def test_the_copy_of_every_strategy_has_the_outputs_of_the_model(strategy: str, kind: Callable[[], Any]) -> None:
    PARTLY[strategy].prepare(built(kind), Trained.untouched, calibration)  # it refuses one that does not


@pytest.mark.parametrize("strategy", PARTLY)
def test_a_copy_that_lost_state_is_refused_before_training_and_names_the_layer(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(with_an_inverted_normalization)
    monkeypatch.setattr(keras2.copies, "copy_saved_state", lambda target, _: _forget(target))
    with pytest.raises(UserError, match=r"outputs of layer normalization differ .* Nothing was trained"):
        PARTLY[strategy].prepare(model, Trained.untouched, calibration)


def _forget(layer: Any) -> None:
    layer.set_weights([weights + 1 for weights in layer.get_weights()])


def test_a_penalty_that_is_lost_is_reported() -> None:
    model, other = built(with_penalties), built(with_penalties)
    other.set_weights(model.get_weights())
    other.layers[0]._activity_regularizer = None
    assert first_difference(other, model, IMAGES) is None
    assert copies.other_penalty(other, model, 1e-4) is not None


@pytest.mark.parametrize("strategy", WHOLE)
def test_frozen_weights_are_the_same_bits_after_training(strategy: str) -> None:
    model = built(with_a_frozen_trunk)
    before = {weight.name: weight.numpy() for layer in model.layers[:-1] for weight in layer.weights}

    trained = WHOLE[strategy].prepare(model, one_epoch, calibration).model

    after = {weight.name: weight.numpy() for layer in trained.layers for weight in layer.weights}
    assert all(np.array_equal(values, after[name]) for name, values in before.items())


@pytest.mark.parametrize("strategy", ["qat", "annotate", "prune", "cluster", "finetune"])
def test_a_copy_has_the_trainable_weights_of_the_model(strategy: str) -> None:
    model = built(with_a_frozen_trunk)
    copy = WHOLE[strategy].prepare(model, Trained.untouched, calibration).model
    assert {unwrapped(layer).name for layer in copy.layers if layer.trainable_weights} == {"head"}


def test_a_frozen_batchnorm_is_in_inference_mode_while_the_copy_trains() -> None:
    model = built(with_a_frozen_trunk)
    copy = QAT().prepare(model, Trained.untouched, calibration).model
    batchnorm = next(layer for layer in copy.layers if unwrapped(layer).name == "bn")
    before = [weights.numpy() for weights in unwrapped(batchnorm).weights]
    copy(5 + IMAGES, training=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, unwrapped(batchnorm).get_weights(), strict=True))


@pytest.mark.parametrize("strategy", ["prune", "cluster"])
def test_the_file_of_a_compressed_model_with_frozen_layers_is_as_expected(strategy: str) -> None:
    model = built(with_a_frozen_trunk)
    trained = WHOLE[strategy].prepare(model, one_epoch, calibration)
    file = convert(trained.model, Float32(), calibration)
    ops = read_ops(file.content, [layer.name for layer in model.layers])
    assert broken(WHOLE[strategy].expectation(model), ops) == ()


@pytest.mark.parametrize("strategy", [Prune(), Cluster()], ids=lambda strategy: type(strategy).__name__)
def test_a_model_whose_kernels_are_all_frozen_cannot_be_compressed(strategy: Strategy) -> None:
    model = built(with_a_frozen_trunk)
    model.trainable = False
    with pytest.raises(UserError, match="all layers with kernels are frozen"):
        strategy.expectation(model)


def test_a_twin_in_bfloat16_has_the_state_of_the_model() -> None:
    model = built(with_a_normalization_within_a_model)
    with in_precision(model, "mixed_bfloat16", IMAGES) as twin:
        assert first_difference(twin, model, IMAGES, 0.05) is None


def test_a_layer_that_cannot_compute_in_bfloat16_is_reported() -> None:
    with (
        pytest.raises(UserError, match=r"a layer does not support it .*training\.precision=float32"),
        in_precision(built(with_bins), "mixed_bfloat16", IMAGES),
    ):
        pass

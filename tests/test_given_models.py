"""Trained classifiers as people have them, from file to record: what is recorded is what the file does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset.npz import Npz
from experiments.dataset.values import Scale
from experiments.measure.latency import LatencyProtocol
from experiments.model.keras_file import KerasFile
from experiments.record.artifacts import class_table
from experiments.record.run_record import RunRecord, Setting, short_warning
from experiments.runs.experiment import Experiment
from experiments.runs.pipeline import run
from experiments.strategy import Strategy
from experiments.strategy.none import Nothing
from experiments.strategy.post_training import PTQInt8
from experiments.strategy.qat import QAT
from experiments.system.cache import Cache
from experiments.training.loop import Training

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unmeasured")]


def bright(n: int, classes: int, shape: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    """uint8 images, one band of which is bright: the band is the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.integers(0, 120, (n, *shape))
    band = shape[0] // classes
    for image, label in zip(x, y, strict=True):
        image[label * band : (label + 1) * band] += 100
    return x.astype(np.uint8), y


def record_of(
    folder: Path, model: Any, arrays: Any, strategy: Strategy | None = None, scale: Scale = "auto", epochs: int = 0
) -> RunRecord:
    model.save(folder / "model.keras")
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(folder / "data.npz", **dict(zip(names, arrays, strict=True)))
    return run(
        Experiment(
            setting=Setting("a strategy", "keras_file", "npz", 0, epochs, 0),
            dataset=Npz(path=folder / "data.npz", scale=scale),
            model=KerasFile(path=folder / "model.keras"),
            strategy=strategy or Nothing(),
            training=Training(epochs=0),
            finetune=Training(epochs=epochs, batch_size=50),
            latency=LatencyProtocol(seconds=0.1),
            cache=Cache(dir=folder / "cache"),
            threads=2,
        )
    )


def trained(layers: list[Any], x: Any, y: Any, loss: Any, shape: tuple[int, ...]) -> Any:
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, batch_size=50, epochs=6, verbose=0)
    return model


@pytest.mark.parametrize(
    ("activation", "strategy"),
    [
        pytest.param("sigmoid", PTQInt8(), id="sigmoid-ptq_int8"),
        pytest.param("linear", PTQInt8(), id="linear-ptq_int8"),
        pytest.param("sigmoid", QAT(), id="sigmoid-qat"),
        pytest.param("linear", QAT(), id="linear-qat", marks=pytest.mark.nightly),
    ],
)
def test_one_output_tells_two_classes_apart(activation: str, strategy: Strategy, tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    train, test = (bright(n, 2, (8, 8), n) for n in (300, 100))
    loss = keras.losses.BinaryCrossentropy(from_logits=activation == "linear")
    layers = [keras.layers.Flatten(), keras.layers.Dense(1, activation=activation)]
    model = trained(layers, train[0] / 255.0, train[1], loss, (8, 8))
    record = record_of(tmp_path, model, (*train, *test), strategy, epochs=1 if isinstance(strategy, QAT) else 0)
    keras_right = np.mean((model.predict(test[0] / 255.0, verbose=0)[:, 0] > (activation == "sigmoid") / 2) == test[1])
    assert keras_right > 0.95
    assert np.mean(record.predictions.reference == test[1]) == pytest.approx(keras_right, abs=0.01)
    assert record.predictions.tflite_accuracy.value >= keras_right - 0.03
    assert (record.broken, record.warnings) == ((), ())


def test_series_keep_their_axes_for_a_conv1d(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    train, test = (bright(n, 4, (32, 3), n) for n in (300, 100))
    layers = [
        keras.layers.Conv1D(8, 5, strides=4, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(4)
    ]  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = trained(layers, train[0] / 255.0, train[1], loss, (32, 3))
    record = record_of(tmp_path, model, (*train, *test), PTQInt8())
    assert record.data.example.shape == (1, 32, 3)
    assert record.predictions.tflite_accuracy.value > 0.9


def test_a_model_that_rescales_its_input_itself_is_warned_of_and_right_without_scaling(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    train, test = (bright(n, 2, (8, 8, 1), n) for n in (300, 100))
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = trained(layers, train[0].astype(np.float32), train[1], loss, (8, 8, 1))
    twice, once = (record_of(tmp_path, model, (*train, *test), scale=scale) for scale in ("auto", "none"))
    assert short_warning(twice.warnings[0]) == "input scale"
    assert twice.verdict()["warnings"].splitlines()[0].endswith("Type: dataset.scale=none")
    assert (once.warnings, once.predictions.tflite_accuracy.value > 0.95) == ((), True)


def test_labels_of_some_of_the_outputs_stay_indices_of_the_outputs(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    train, test = (bright(n, 2, (8, 8), n) for n in (300, 100))
    arrays = (train[0], train[1] * 90 + 5, test[0], test[1] * 90 + 5)
    layers = [keras.layers.Flatten(), keras.layers.Dense(100, activation="softmax")]
    model = trained(layers, arrays[0] / 255.0, arrays[1], "sparse_categorical_crossentropy", (8, 8))
    record = record_of(tmp_path, model, arrays)
    assert (set(record.predictions.truth), record.data.classes, record.data.width) == ({5, 95}, 2, 100)
    assert record.predictions.tflite_accuracy.value > 0.95


def test_words_stand_for_outputs_in_sorted_order_and_are_recorded(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    train, test = (bright(n, 2, (8, 8), n) for n in (300, 100))
    layers = [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    model = trained(layers, train[0] / 255.0, train[1], "binary_crossentropy", (8, 8))
    words = np.array(["cat", "dog"])
    record = record_of(tmp_path, model, (train[0], words[train[1]], test[0], words[test[1]]))
    assert record.predictions.tflite_accuracy.value > 0.95
    assert record.data.renamed == {"cat": 0, "dog": 1}
    assert class_table(record.data.labels) == "class,label\n0,cat\n1,dog\n"

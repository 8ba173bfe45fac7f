"""What a classifier's outputs mean, told from its layers; the class that they name, and the loss that fits."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.measure.fidelity import gaps
from experiments.task.classification import ClassHead, head_of


@pytest.mark.parametrize(
    ("head", "outputs", "answers"),
    [
        (ClassHead(3, "softmax"), [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], [1, 0]),
        (ClassHead(1, "sigmoid"), [[0.4], [0.6], [0.5]], [0, 1, 0]),
        (ClassHead(1, "logits"), [[-0.1], [0.2], [0.0]], [0, 1, 0]),
    ],
)
def test_the_class_that_outputs_name(head: ClassHead, outputs: Any, answers: list[int]) -> None:
    assert head.predict(np.array(outputs, np.float32)).tolist() == answers


def test_one_output_tells_two_classes_apart() -> None:
    assert ClassHead(1, "sigmoid").classes == 2


def test_models_of_one_output_agree_where_they_are_on_the_same_side_of_the_threshold() -> None:
    outputs = {"a": np.array([[0.2], [0.7]], np.float32), "b": np.array([[0.6], [0.9]], np.float32)}
    (gap,) = gaps(outputs, ClassHead(1, "sigmoid"))
    assert gap.agreement == 0.5


def endings() -> dict[str, tuple[Callable[[Any], Any], ClassHead]]:
    """Ways in which classifiers end, from logits on, and what their outputs mean."""
    from experiments.system.tensorflow import keras, tf

    layers = keras.layers
    softmax, sigmoid = ClassHead(10, "softmax"), ClassHead(10, "sigmoid")
    inner = keras.Sequential([keras.Input((10,)), layers.Activation("softmax")])
    return {
        "logits": (lambda x: x, ClassHead(10, "logits")),
        "activation": (layers.Activation("softmax"), softmax),
        "layer": (layers.Softmax(), softmax),
        "reshape": (lambda x: layers.Flatten()(layers.Reshape((1, 1, 10))(layers.Softmax()(x))), softmax),
        "op": (tf.nn.softmax, softmax),
        "op, then squeeze": (lambda x: tf.squeeze(layers.Reshape((1, 10))(tf.nn.softmax(x)), [1]), softmax),
        "op, then a slice": (lambda x: layers.Reshape((1, 10))(tf.nn.softmax(x))[:, 0], softmax),
        "cast": (lambda x: layers.Activation("linear", dtype="float32")(layers.Softmax()(x)), softmax),
        "nested": (inner, softmax),
        "mean of two": (lambda x: layers.Average()([layers.Softmax()(x), layers.Softmax()(2 * x)]), softmax),
        "sigmoid": (layers.Activation("sigmoid"), sigmoid),
        "sigmoid as op": (tf.sigmoid, sigmoid),
        "sigmoid by hand": (lambda x: 1 / (1 + tf.exp(-x)), sigmoid),
        "log softmax": (tf.nn.log_softmax, ClassHead(10, "logits")),
        "scaled logits": (layers.Rescaling(0.5), ClassHead(10, "logits")),
        "one sigmoid": (layers.Dense(1, activation="sigmoid"), ClassHead(1, "sigmoid")),
        "one logit": (layers.Dense(1), ClassHead(1, "logits")),
        "one sigmoid as op": (lambda x: tf.sigmoid(layers.Dense(1)(x)), ClassHead(1, "sigmoid")),
    }


NAMES = (
    "logits", "activation", "layer", "reshape", "op", "op, then squeeze", "op, then a slice", "cast", "nested",
    "mean of two", "sigmoid", "sigmoid as op", "sigmoid by hand", "log softmax", "scaled logits", "one sigmoid",
    "one logit", "one sigmoid as op",
)  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)


def ending(name: str) -> tuple[Any, ClassHead]:
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    entry = keras.Input((6,))
    end, head = endings()[name]
    return keras.Model(entry, end(keras.layers.Dense(10)(entry))), head


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_what_outputs_mean_is_read_from_the_model(name: str) -> None:
    model, head = ending(name)
    assert head_of(model, IMAGES) == head


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["activation", "layer", "reshape", "one sigmoid", "sigmoid"])
def test_the_copy_with_fake_quantization_means_the_same(name: str) -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole

    model, head = ending(name)
    assert head_of(annotated_whole(model), IMAGES) == head


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_training_uses_the_loss_that_fits_without_a_warning(name: str) -> None:
    from experiments.training.loop import Training, _compile

    model, head = ending(name)
    labels = np.arange(64) % head.classes
    _compile(model, Training(epochs=1), head)
    model.run_eagerly = True  # one step takes less time than the tracing of a graph
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss, _ = model.evaluate(IMAGES, labels, verbose=0, batch_size=64)
    outputs = model(IMAGES).numpy().astype(np.float64)
    if head.meaning == "logits" and head.outputs > 1:
        outputs = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    elif head.meaning == "logits":
        outputs = 1 / (1 + np.exp(-outputs))
    each = np.eye(10)[labels] if head.outputs > 1 else labels[:, None]
    likelihood = each * np.log(outputs)
    if head.outputs == 1 or head.meaning == "sigmoid":
        expected = -(likelihood + (1 - each) * np.log(1 - outputs)).mean()
    else:
        expected = -likelihood.sum(axis=1).mean()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["sigmoid", "one logit", "one sigmoid"])
def test_the_accuracy_during_training_is_that_of_the_outputs(name: str) -> None:
    from experiments.training.loop import Training, _compile

    model, head = ending(name)
    labels = np.arange(64) % head.classes
    _compile(model, Training(epochs=1), head)
    _, shown = model.evaluate(IMAGES, labels, verbose=0)
    assert shown == pytest.approx(float(np.mean(head.predict(model(IMAGES).numpy()) == labels)))

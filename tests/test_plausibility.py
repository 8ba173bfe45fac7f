"""Implausible baselines cause a warning: at chance, one class, another scale or channel order."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset, Split
from experiments.dataset.rows import Rows
from experiments.dataset.values import Scaling
from experiments.measure.plausibility import input_warnings, output_warnings
from experiments.record.run_record import short_warning
from experiments.task.classification import ClassHead

HEAD = ClassHead(2, "logits")
TRUTH = np.arange(200) % 2
NO_LAYERS: Any = SimpleNamespace(layers=[])


def data_of(x: Any, classes: int = 2, **changes: Any) -> Dataset:
    split = Split(Rows(np.asarray(x, np.float32)), TRUTH)
    data = Dataset(split, split, split, classes, labels={number: str(number) for number in range(classes)})
    return replace(data, **changes)


def right(share: float) -> Any:
    """Answers of which this share is right, in each class alike."""
    return np.where(np.arange(200) < 200 * share, TRUTH, 1 - TRUTH)


FEATURES = np.zeros((200, 5))


@pytest.mark.parametrize(
    ("said", "remarks"),
    [
        (right(0.9), []),
        (right(0.5), ["at chance"]),
        (right(0.55), ["at chance"]),  # of 200, that may be chance
        (right(0.6), []),
        (right(0.1), ["at chance"]),
        (np.ones(200, int), ["one class"]),
        (np.full(200, 7), ["no classes"]),
    ],
)
def test_predictions_have_the_expected_remark(said: Any, remarks: list[str]) -> None:
    found = output_warnings(said, data_of(FEATURES), ClassHead(10, "logits"), 0)
    assert [short_warning(warning) for warning in found] == remarks


def test_accuracy_is_compared_with_the_most_frequent_class() -> None:
    often = Split(Rows(FEATURES.astype(np.float32)), (np.arange(200) < 20).astype(np.int64))
    said = (np.arange(200) < 4).astype(np.int64)
    (warning,) = output_warnings(said, data_of(FEATURES, test=often), HEAD, 0)
    assert "is 92.0 % on 200 test examples; always predicting class 0 would give 90.0 %" in warning


def test_as_many_outputs_as_inputs_are_not_classes() -> None:
    (warning,) = output_warnings(right(0.5), data_of(FEATURES), ClassHead(5, "sigmoid"), 0)
    assert warning.startswith("no classes: the model has 5 outputs for 2 classes, as many as its input has values")


def test_class_is_named_by_its_label() -> None:
    (warning,) = output_warnings(np.ones(200, int), data_of(FEATURES, labels={0: "cat", 1: "dog"}), HEAD, 0)
    assert "predicts class 1 (dog) for all 200 test examples" in warning


@pytest.mark.parametrize(("epochs", "advice"), [(0, "dataset.scale=none, unit or symmetric"), (5, "training.epochs")])
def test_advice_depends_on_whether_the_model_was_trained_here(epochs: int, advice: str) -> None:
    (warning,) = output_warnings(right(0.5), data_of(FEATURES), HEAD, epochs)
    assert advice in warning


# Images whose class shows in the first channel, 0..1.
COLOURS = np.random.default_rng(0).uniform(0.3, 0.6, (200, 4, 4, 3))
COLOURS[..., 0] += 0.3 * TRUTH[:, None, None] - 0.1


def answers_where(trained_on: Any) -> Any:
    """A model that was trained on these images: it knows each class by the mean of its images, and nothing else."""
    means = [trained_on[number == TRUTH].mean(axis=0) for number in (0, 1)]
    far = np.abs(means[1] - means[0]).mean() * 10

    def answer(images: Any) -> Any:
        distances = np.stack([np.abs(images - mean).mean(axis=(1, 2, 3)) for mean in means], axis=1)
        return np.where(distances.min(axis=1, keepdims=True) < far, -distances, [1.0, 0.0])

    return answer


BYTES = Scaling(255.0, integers=True)


@pytest.mark.parametrize(
    ("seen", "scaling", "trained_on", "remark", "typed"),
    [
        (COLOURS, BYTES, COLOURS * 255, "input scale", "Type: dataset.scale=none"),
        (COLOURS * 255, Scaling(integers=True), COLOURS, "input scale", "Type: dataset.scale=unit"),
        (COLOURS * 255, Scaling(), COLOURS, "input scale", "Type: dataset.scale=unit"),
        (COLOURS, Scaling(), COLOURS * 255, "input scale", "x_train=x_train * 255."),
        (COLOURS, BYTES, COLOURS[..., ::-1], "channel order", "x_train=x_train[..., ::-1]"),
    ],
)
def test_wrong_input_form_is_detected_on_training_examples(
    seen: Any, scaling: Scaling, trained_on: Any, remark: str, typed: str
) -> None:
    (warning,) = input_warnings(NO_LAYERS, data_of(seen, scaling=scaling), HEAD, answers_where(trained_on))
    assert (short_warning(warning), typed in warning) == (remark, True), warning


def test_correct_input_form_causes_no_warning() -> None:
    assert list(input_warnings(NO_LAYERS, data_of(COLOURS, scaling=BYTES), HEAD, answers_where(COLOURS))) == []


def test_untrained_model_causes_no_input_warning() -> None:
    def guess(images: Any) -> Any:
        return np.random.default_rng(int(images.sum()) % 1000).random((len(images), 2))

    assert list(input_warnings(NO_LAYERS, data_of(COLOURS, scaling=BYTES), HEAD, guess)) == []


@pytest.mark.tensorflow
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["Rescaling", "Normalization", "ops"])
def test_first_layer_that_scales_again_is_named(kind: str, nested: bool) -> None:
    from experiments.system.tensorflow import keras

    entry = keras.Input((4, 4, 3))
    first = {
        "Rescaling": lambda: keras.layers.Rescaling(1 / 127.5, offset=-1, name="first")(entry),
        "Normalization": lambda: keras.layers.Normalization(mean=[128, 120, 90], variance=[60**2] * 3, name="first")(
            entry
        ),
        "ops": lambda: keras.applications.mobilenet_v2.preprocess_input(entry),
    }[kind]()
    head = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    model = keras.Model(entry, head(first))
    if nested:
        model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.RandomFlip(), model])
    (warning,) = input_warnings(
        model, data_of(COLOURS, scaling=BYTES), HEAD, lambda images: np.zeros((len(images), 2), np.float32)
    )
    names = "(tf.math.truediv" if kind == "ops" else "(first)"
    assert names in warning
    assert warning.endswith("Type: dataset.scale=none")

"""Quantization-aware training of Keras 3's layers for series and words, attention and normalization: all in int8."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.model.copies import first_difference
from experiments.tflite.conversion import convert
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Learned

pytestmark = pytest.mark.tensorflow

SERIES = (4, 4)  # recurrent layers are unrolled: each step takes time in the converter
EXAMPLES: dict[str, Any] = {
    "series": np.random.default_rng(0).normal(size=(48, *SERIES)).astype(np.float32),
    "words": np.random.default_rng(0).integers(0, 20, (48, 4)).astype(np.int32),
    "images": np.random.default_rng(0).normal(size=(48, 6, 6, 4)).astype(np.float32),
}
LABELS = np.random.default_rng(1).integers(0, 3, 48)


def layers() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3().layers


def attended(x: Any) -> Any:
    x = layers().LayerNormalization()(layers().Add()([x, layers().MultiHeadAttention(2, 4, dropout=0.1)(x, x)]))
    return layers().Attention()([x, layers().Dense(4)(x)])


def additive(x: Any) -> Any:
    few = layers().MaxPooling1D(2)(layers().Dense(4)(x))
    return layers().AdditiveAttention(dropout=0.1)([x, few, layers().Dense(4)(few)])


# By name: the examples that a model takes, and what is between them and its last layer.
MODELS: dict[str, tuple[str, Callable[[], Callable[[Any], Any]]]] = {
    "lstm": ("series", lambda: layers().LSTM(5, dropout=0.2, recurrent_dropout=0.2)),
    "gru": ("series", lambda: layers().GRU(5, return_sequences=True)),
    "simple": ("series", lambda: layers().SimpleRNN(5)),
    "bidirectional": ("series", lambda: layers().Bidirectional(layers().LSTM(3, return_sequences=True))),
    "dense at each step": ("series", lambda: layers().TimeDistributed(layers().Dense(5, activation="relu"))),
    "dense along an axis": ("series", lambda: layers().EinsumDense("abc,cde->abde", (SERIES[0], 2, 5), bias_axes="de")),
    "attention": ("series", lambda: attended),
    "additive attention": ("series", lambda: additive),
    "additive attention without a scale": (
        "series",
        lambda: lambda x: layers().AdditiveAttention(use_scale=False)([x, layers().Dense(4)(x)]),
    ),
    "words": ("words", lambda: layers().Embedding(20, 8)),
    "root mean square": ("series", lambda: lambda x: layers().RMSNormalization()(layers().Dense(8)(x))),
    "groups": ("images", lambda: lambda x: layers().GroupNormalization(2)(layers().Conv2D(4, 3)(x))),
}
REFUSED: dict[str, tuple[str, Callable[[], Callable[[Any], Any]]]] = {
    "over a series of any length": ("any", lambda: layers().LSTM(5)),
    "with a mask": ("series", lambda: lambda x: layers().GRU(5)(layers().Masking()(x))),
    "that keeps its state, or returns it": ("series", lambda: lambda x: layers().LSTM(5, return_state=True)(x)[0]),
    "with another activation than tanh": ("series", lambda: layers().SimpleRNN(5, activation="relu")),
    "with masks": ("series", lambda: lambda x: layers().MultiHeadAttention(2, 4)(layers().Masking()(x), x)),
    "is called with use_causal_mask": (
        "series",
        lambda: lambda x: layers().MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    ),
    "is called with initial_state": (
        "series",
        lambda: lambda x: layers().GRU(4)(x, initial_state=layers().GlobalMaxPooling1D()(x)),
    ),
    "score_mode=concat": ("series", lambda: lambda x: layers().Attention(score_mode="concat")([x, x + 1.0])),
}


def built(takes: str, between: Callable[[], Callable[[Any], Any]]) -> Any:
    from experiments.system.tensorflow import keras_3

    keras_3().utils.set_random_seed(0)
    shape, dtype = ((None, 4), "float32") if takes == "any" else (EXAMPLES[takes].shape[1:], EXAMPLES[takes].dtype.name)
    given = keras_3().Input(shape, dtype=dtype)
    between_them = between()(given)
    flat = layers().Flatten()(between_them) if len(between_them.shape) > 2 else between_them
    return keras_3().Model(given, layers().Dense(3, name="last")(flat))


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["eager", "graph"])
@pytest.mark.parametrize("name", MODELS)
def test_all_ops_are_int8_and_the_file_has_the_outputs_of_its_keras_model(name: str, graph: bool) -> None:
    from experiments.quantization.keras3.annotation import annotated, fake_quantization_off, start_ranges
    from experiments.system.tensorflow import keras_3
    from tests.test_keras3_quantization import answers

    takes, between = MODELS[name]
    model, examples = built(takes, between), EXAMPLES[takes]
    copy = annotated(model)
    with fake_quantization_off():
        assert first_difference(copy, model, examples[:8]) is None
    start_ranges(copy, examples)
    # Graphs, which production trains in, take long to trace: at each change test_keras3_quantization.py trains in one.
    copy.compile("adam", keras_3().losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=not graph)
    copy.fit(examples, LABELS, 16, 1, verbose=0)
    content = convert(copy, Learned(), lambda count: examples[:count]).content
    ops = read_ops(content, [layer.name for layer in model.layers])
    assert [op for op in ops if op.computes and op.types != "int8"] == []
    parent = np.asarray(copy(examples, training=False))
    steps = np.abs(answers(content, examples) - parent) / (np.ptp(parent) / 255)
    assert steps.mean() < 3 and steps.max() < 25  # what is computed in many ops is rounded in each


@pytest.mark.filterwarnings("ignore:Layer 'flatten")  # it drops masks
@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_counterpart_in_integers_is_refused_with_the_reason(reason: str) -> None:
    from experiments.quantization.keras3.graph import survey_layers

    obstacles = [each.obstacle for each in survey_layers(built(*REFUSED[reason])) if each.obstacle]
    assert any(reason in obstacle for obstacle in obstacles)

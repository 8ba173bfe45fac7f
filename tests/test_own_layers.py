"""Keras 2: layers that TFMOT refuses are trained quantization-aware, as a whole and in exactly chosen layers."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Images
from experiments.measure.accuracy import keras_logits, tflite_logits
from experiments.model.configuration import layer_names
from experiments.model.copies import first_difference
from experiments.runs.trial import try_conversion
from experiments.strategy import Strategy
from experiments.strategy.annotate import Annotate
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.strategy.qat import QAT
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.expectation import broken, expected
from experiments.tflite.graph import SCALE_KEEPING, Op, read_ops
from experiments.training.loop import Trained

pytestmark = pytest.mark.tensorflow

SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (32, *SHAPE)).astype(np.float32)


def few(count: int) -> Images:
    return IMAGES[:count]


@cache
def network() -> Any:
    """Scaled images, a hard-swish, squeeze and excitation, and every operation that is one op."""
    from experiments.system.tensorflow import keras, tf

    keras.utils.set_random_seed(0)
    layers = keras.layers
    (normal := layers.Normalization(name="normal")).adapt(IMAGES * [0.005, 0.01, 0.02] - 1)

    def gate(x: Any) -> Any:
        return layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)

    image = layers.Input(SHAPE, name="image")
    x = normal(layers.Rescaling(1 / 127.5, offset=-1, name="rescaled")(image))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, padding="same", name="stem")(x))
    x = layers.Multiply(name="swish")([x, gate(x)])
    s = layers.Conv2D(4, 1, name="excite")(layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x))
    x = layers.Multiply(name="scale")([x, gate(s)])
    x = 1.5 - (x - 0.25) / 2.0 * tf.constant([1.0, 2.0, 3.0, 4.0])
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="branch")(x)
    x = layers.Maximum(name="most")([layers.Subtract(name="less")([x, y]), y])
    x = layers.Minimum(name="least")([x, y + x]) * y
    x = layers.Concatenate(name="joined")([layers.Multiply(name="product")([x, y]), y - x])
    return keras.Model(image, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)))


@cache
def units() -> tuple[tuple[str, ...], ...]:
    return tuple(QAT().survey(network()).units.values())


@cache
def whole() -> Any:
    from experiments.quantization.tfmot import engine

    copy = engine.annotated(network(), None)
    engine.start_ranges(copy, network(), IMAGES)
    return copy


def prepared(strategy: Strategy) -> Any:
    copy = strategy.prepare_untrained(strategy.scheme(network()), network(), few)
    assert copy is not None
    return copy


def converted(copy: Any, strategy: Strategy) -> tuple[TFLiteModel, tuple[Op, ...]]:
    """The file of the model of a strategy and its ops, which are as promised: none of the layers stays float."""
    model = network()
    file = convert(copy, strategy.scheme(model), few)
    ops = read_ops(file.content, layer_names(model))
    assert not strategy.expectation(model).left_float
    assert broken(strategy.expectation(model), ops) == ()
    return file, ops


def test_every_op_is_int8_and_the_file_computes_what_was_trained() -> None:
    from experiments.quantization.tfmot import engine
    from experiments.system.tensorflow import keras

    copy = prepared(QAT())
    engine.start_ranges(copy, network(), IMAGES)
    # A graph would take longer to trace; production trains in graphs (test_compression.py, test_pipeline.py).
    copy.compile(keras.optimizers.Adam(1e-4), "mse", run_eagerly=True)
    copy.fit(IMAGES, np.zeros((32, 3)), batch_size=16, verbose=0)
    file, ops = converted(copy, QAT())
    assert {op.types for op in ops if op.computes} == {"int8"}
    assert sum(op.op == "HARD_SWISH" for op in ops) == 1
    wanted = keras_logits(copy, IMAGES)
    assert np.abs(tflite_logits(file, IMAGES) - wanted).mean() < 2 * np.ptp(wanted) / 255


# One choice at each change; the others are more of the same.
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 14))])
def test_exactly_the_chosen_layers_are_int8(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = [unit for unit in units() if rng.random() < 0.5]
    strategy = Annotate(layers=tuple(unit[0] for unit in chosen))
    file, ops = converted(prepared(strategy), strategy)
    integer = {op.layer for op in ops if op.computes and op.op not in SCALE_KEEPING and op.types == "int8"}
    in_one_op = {name: unit for unit in units() for name in unit}
    assert {in_one_op[name] for name in integer} == set(chosen) - {("joined",)}  # which keeps the scale of its inputs
    assert np.isfinite(tflite_logits(file, IMAGES[:2])).all()


def test_what_becomes_one_op_is_chosen_together() -> None:
    swish = next(unit for unit in units() if "swish" in unit)
    assert len(swish) == 4
    assert set(QAT().survey(network()).select(["swish"])) == set(swish)
    assert ("scale",) in units()


def test_a_constant_other_than_that_of_hard_swish_is_an_op_of_its_own() -> None:
    from experiments.system.tensorflow import keras

    image = keras.layers.Input(SHAPE)
    x = keras.layers.Conv2D(2, 3)(image)
    gate = keras.layers.ReLU(6.0)(x + 2.0) * (1 / 6)
    model = keras.Model(image, keras.layers.Multiply(name="product")([x, gate]))
    assert QAT().survey(model).units["product"] == ("product",)


def test_a_division_of_six_by_a_gate_is_no_hard_swish() -> None:
    from experiments.system.tensorflow import keras

    image = keras.layers.Input(SHAPE)
    x = keras.layers.Conv2D(2, 3)(image)
    model = keras.Model(image, keras.layers.Multiply(name="product")([x, 6.0 / keras.layers.ReLU(6.0)(x + 3.0)]))
    assert QAT().survey(model).units["product"] == ("product",)


def test_each_output_of_a_layer_in_float_is_quantized() -> None:
    from experiments.system.tensorflow import keras, tf

    image = keras.layers.Input(SHAPE)
    one, other = tf.split(keras.layers.Conv2D(4, 3)(image), 2, axis=-1)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(one * other)))
    _, expectation = try_conversion(QAT(), QAT().scheme(model), model, few)
    assert list(expectation.left_float) == ["tf.split"]


def test_an_operation_may_have_a_name() -> None:
    from experiments.system.tensorflow import keras, tf

    image = keras.layers.Input(SHAPE)
    x = tf.subtract(1.0, keras.layers.Conv2D(2, 3)(image), name="mine")
    survey = QAT().survey(keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x))))
    assert not survey.unsupported


def test_pruned_and_clustered_models_with_such_layers_become_int8_and_keep_both() -> None:
    from experiments.quantization.tfmot import engine

    strategy, model = PruneClusterQAT(sparsity=0.5, clusters=4), network()
    scheme = strategy.scheme(model)
    compression = strategy.compression(model)
    trained = strategy.prepare(model, Trained.untouched, few).model
    engine.fit_ranges(trained, IMAGES)
    ops = read_ops(convert(trained, scheme, few).content, layer_names(model))
    assert {op.types for op in ops if op.computes} == {"int8"}
    assert broken(expected(scheme, model), ops) == ()
    assert compression.clusters == 4


def test_the_float_model_of_a_trained_one_has_its_statistics_and_answers_like_it() -> None:
    from experiments.quantization.tfmot import engine

    model, copy = network(), whole()
    copy.get_layer("quant_head").layer.bias.assign([1.0, 2.0, 3.0])
    plain = engine.in_float(copy, model)
    with engine.fake_quantization_off():
        assert plain is not None and first_difference(plain, copy, IMAGES) is None


def test_a_trained_model_can_be_saved_and_loaded(tmp_path: Path) -> None:
    from experiments.quantization.tfmot import own_layers
    from experiments.system.tensorflow import keras

    # isort: split
    import tensorflow_model_optimization as tfmot

    copy = whole()
    copy.save(tmp_path / "copy.h5")
    kinds = {kind.__name__: kind for kind in own_layers.KINDS}
    with tfmot.quantization.keras.quantize_scope(kinds):
        loaded = keras.models.load_model(tmp_path / "copy.h5", compile=False)
    np.testing.assert_array_equal(loaded(IMAGES), copy(IMAGES))


@pytest.mark.parametrize("shape", [(6,), (5, 6)])
def test_rows_and_series_are_normalized_in_int8(shape: tuple[int, ...]) -> None:
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    entry = layers.Input(shape)
    hidden = layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7.0), name="normal")(entry)
    model = keras.Model(entry, layers.Dense(2, name="head")(layers.Flatten()(layers.Dense(4)(hidden))))
    values = np.random.default_rng(0).normal(2, 2, (32, *shape)).astype(np.float32)
    _, expectation = try_conversion(QAT(), QAT().scheme(model), model, lambda count: values[:count])
    assert not expectation.left_float


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("three", "Multiply of 3 values; supported: 2"),
        ("axes", "Multiply of values with different numbers of axes"),
        ("twice", "Multiply that is called several times, whose outputs would share one range"),
        ("rows", "Normalization along another axis than the last"),
        ("inverse", "Normalization that is inverted"),
        ("apart", "Normalization by factors that differ by more than 16 times: the values before it have one scale"),
        ("integers", "Rescaling of values that are not float32"),
        ("tf.math.truediv", "math.truediv by what is computed, which TFLite has no int8 kernel for"),
        ("tf.math.subtract", "math.subtract of other than layers' outputs and numbers"),
        ("tf.math.abs", "math.abs is not supported"),
    ],
)
def test_what_cannot_be_int8_is_named_with_the_reason(name: str, reason: str) -> None:
    from experiments.system.tensorflow import keras, tf

    keras.backend.clear_session()
    layers = keras.layers
    image, words = layers.Input(SHAPE), layers.Input(SHAPE, dtype="int32")
    flat = layers.Dense(3)(layers.GlobalAveragePooling2D()(image))
    x = layers.Multiply(name="three")([image, image, layers.Conv2D(3, 1)(image)])
    x = layers.Multiply(name="axes")([x, flat])
    twice = layers.Multiply(name="twice")
    x = twice([twice([x, image]), image])
    x = layers.Normalization(axis=1, mean=[0.0] * 8, variance=[1.0] * 8, name="rows")(x)
    x = layers.Normalization(axis=None, mean=0.0, variance=2.0, invert=True, name="inverse")(x)
    x = layers.Normalization(mean=[0.0] * 3, variance=[1.0, 2.0, 400.0], name="apart")(x)
    x = x / layers.Rescaling(0.5, name="integers")(words)
    x = tf.subtract(tf.abs(x), tf.Variable([1.0, 2.0, 3.0]))
    survey = QAT().survey(keras.Model([image, words], layers.Dense(2)(layers.Flatten()(x))))
    assert survey.unsupported[name] == reason

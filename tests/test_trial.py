"""What cannot be quantized is known before training: the untrained model's file is judged as the final one will be."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Images
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import tflite_logits
from experiments.runs.result_cache import ResultCache
from experiments.runs.trial import constants_varied, load_or_try, try_conversion
from experiments.strategy import Strategy
from experiments.strategy.annotate import Annotate
from experiments.strategy.post_training import PTQInt8, PTQInt16x8
from experiments.strategy.prune_qat import PruneQAT
from experiments.strategy.qat import QAT
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.system.keras_version import Version
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import Expectation, broken
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Scheme
from experiments.training.loop import Trained

pytestmark = pytest.mark.tensorflow


def images(count: int) -> Images:
    return np.random.default_rng(0).random((min(count, 8), 16, 16, 3)).astype(np.float32)


def model_of(body: Callable[[Any, Any], Any]) -> Any:
    """A small classifier around a body, whose weights are not those of the start: biases are other than 0."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(body(layers, x))
    model = keras.Model(image, layers.Dense(4, name="head")(x))
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0, 0.1, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def mobilenet_v3(layers: Any, x: Any) -> Any:
    """A block of MobileNetV3: hard-swish as x + 3, ReLU6 and products, squeeze and excitation, an addition."""
    y = layers.BatchNormalization(name="norm")(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
    y = layers.Multiply(name="swish")([y, layers.ReLU(6.0, name="relu6")(y + 3.0) * (1.0 / 6.0)])
    s = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze_pool")(y)
    s = layers.Conv2D(8, 1, name="excite")(layers.Conv2D(4, 1, activation="relu", name="squeeze")(s))
    y = layers.Multiply(name="scale")([y, layers.ReLU(6.0, name="gate")(s + 3.0) * (1.0 / 6.0)])
    return layers.Add(name="add")([x, layers.Conv2D(8, 1, name="project")(y)])


def squeeze_and_excitation(layers: Any, x: Any) -> Any:
    s = layers.Reshape((1, 1, 8), name="reshape")(layers.GlobalAveragePooling2D(name="squeeze_pool")(x))
    s = layers.Dense(8, activation="sigmoid", name="excite")(layers.Dense(4, activation="swish", name="squeeze")(s))
    return layers.Conv2D(8, 3, name="conv")(layers.Multiply(name="scale")([x, s]))


def transformer(layers: Any, x: Any) -> Any:
    x = layers.Dense(8, name="embed")(layers.Reshape((64, 8), name="tokens")(x))
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    y = layers.LayerNormalization(name="norm")(x)
    y = y + layers.Dense(8, name="mlp_2")(layers.Dense(16, activation="gelu", name="mlp_1")(y))
    return layers.Reshape((8, 8, 8), name="map")(y)


def swish_within(layers: Any, x: Any) -> Any:
    return layers.Conv2D(8, 3, name="after")(layers.Conv2D(8, 3, activation="swish", name="swish")(x))


def leaky_relu6(layers: Any, x: Any) -> Any:
    """A ReLU that TFMOT takes for any other, and of which the converter makes five ops."""
    leaky = layers.ReLU(6.0, negative_slope=0.1, name="leaky")(layers.Conv2D(8, 3, name="before")(x))
    return layers.Conv2D(8, 3, name="after")(leaky)


def elu(layers: Any, x: Any) -> Any:
    return layers.Conv2D(8, 3, name="after")(layers.ELU(name="elu")(layers.Conv2D(8, 3, name="before")(x)))


def transposed_without_bias(layers: Any, x: Any) -> Any:
    return layers.Conv2DTranspose(8, 3, use_bias=False, activation="relu", name="up")(x)


BODIES = (mobilenet_v3, squeeze_and_excitation, transformer, swish_within, leaky_relu6, elu, transposed_without_bias)


@cache
def tried(body: Callable[[Any, Any], Any], strategy: Strategy) -> tuple[Any, list[Any], Scheme, Expectation]:
    """A model, its weights before the trial, and what the trial found, for all tests."""
    model = model_of(body)
    before = model.get_weights()
    return model, before, *try_conversion(strategy, strategy.scheme(model), model, images)


def expected_after_trial(strategy: Strategy, model: Any) -> Expectation:
    return try_conversion(strategy, strategy.scheme(model), model, images)[1]


# Without training the trial is the conversion itself, so a few kinds of what it corrects are enough at each change.
@pytest.mark.parametrize(
    ("body", "strategy"),
    [
        pytest.param(body, strategy, id=f"{body.__name__}-{type(strategy).__name__}",
                     marks=() if body in usual else pytest.mark.nightly)
        for strategy, usual in (
            (QAT(), BODIES), (PTQInt8(calibration_samples=8), (squeeze_and_excitation, transformer, elu))
        )
        for body in BODIES
    ],
)  # fmt: skip
def test_the_file_meets_the_expectation_that_the_trial_corrected(
    body: Callable[[Any, Any], Any], strategy: Strategy
) -> None:
    model, _, scheme, expectation = tried(body, strategy)
    file = convert(strategy.apply(scheme, model, Trained.untouched, images).model, scheme, images)
    assert broken(expectation, read_ops(file.content, [layer.name for layer in model.layers])) == ()
    assert np.isfinite(tflite_logits(file, images(2))).all()


def test_a_layer_that_the_converter_would_leave_in_float_is_not_annotated() -> None:
    *_, expectation = tried(leaky_relu6, QAT())
    assert expectation.left_float["before"] == "the converter leaves its CONV_2D in float"
    assert expectation.chosen is not None and "before" not in expectation.chosen


@pytest.mark.parametrize("body", [mobilenet_v3, squeeze_and_excitation])
def test_gates_and_their_products_are_quantized(body: Callable[[Any, Any], Any]) -> None:
    assert not tried(body, QAT())[-1].partial


@pytest.mark.parametrize("strategy", [PTQInt8(calibration_samples=8), PTQInt16x8(calibration_samples=8)])
def test_an_op_without_an_integer_kernel_is_named_if_everything_else_is_quantized(strategy: Strategy) -> None:
    *_, expectation = tried(elu, strategy)
    assert list(expectation.left_float) == ["ELU of elu"]
    assert "no int" in expectation.left_float["ELU of elu"]


@pytest.mark.parametrize(
    "strategy", [Annotate(layers=("before",)), QAT(unsupported="error"), PruneQAT()], ids=lambda s: type(s).__name__
)
def test_layers_that_must_be_quantized_and_cannot_be_are_an_error_with_what_to_type(strategy: Strategy) -> None:
    with pytest.raises(UserError, match=r"before \(the converter leaves.*'strategy\.layers=\[stem,after,head\]'"):
        expected_after_trial(strategy, model_of(leaky_relu6))


def test_a_layer_with_swish_is_quantized_and_so_is_what_follows() -> None:
    assert not tried(swish_within, QAT())[-1].partial


def test_a_file_in_which_nothing_would_be_quantized_is_refused() -> None:
    from experiments.system.tensorflow import keras

    image = keras.Input((16, 16, 3))
    model = keras.Model(image, keras.layers.Flatten()(keras.layers.ELU(name="elu")(image)))
    with pytest.raises(UserError, match="leaves every op of this model in float instead of int8"):
        expected_after_trial(PTQInt8(), model)


@pytest.mark.parametrize("strategy", [QAT(), PruneQAT()], ids=lambda s: type(s).__name__)
def test_small_weights_are_not_all_zero_in_the_trial(strategy: Strategy) -> None:
    """Layers with the same kernel share it in the file, under the name of one of them."""
    model = model_of(swish_within)
    model.set_weights([weights / 100 for weights in model.get_weights()])
    scheme = strategy.scheme(model)
    file = convert(strategy.prepare_untrained(scheme, model, images), scheme, images)
    assert all(op.sparsity < 1 for op in read_ops(file.content, []) if op.weights)


def test_the_trial_leaves_the_weights_as_they_were() -> None:
    model, before, *_ = tried(mobilenet_v3, QAT())
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("version", [2, 3])
def test_shifts_of_constant_weights_do_not_add_up_with_the_depth_and_leave_variances_positive(version: Version) -> None:
    from experiments.system.tensorflow import keras_version

    keras = keras_version(version)
    norm = keras.layers.BatchNormalization(moving_variance_initializer="zeros")
    model = keras.Sequential([keras.Input((64,)), norm])
    with constants_varied(model):
        gamma, beta, mean, variance = model.get_weights()
    assert variance.min() > 0
    for weights, constant in ((gamma, 1), (beta, 0), (mean, 0)):
        assert weights.min() < constant < weights.max()


@pytest.mark.parametrize("version", [2, 3])
def test_a_model_with_a_normalization_of_one_channel_has_a_trial(
    version: Version,
) -> None:
    from experiments.system.tensorflow import keras_version

    layers = keras_version(version).layers
    examples = np.random.default_rng(0).uniform(0, 255, (32, 8, 8, 1)).astype(np.float32)
    (normalization := layers.Normalization()).adapt(examples)
    image = layers.Input((8, 8, 1))
    hidden = layers.Flatten()(layers.Conv2D(4, 3)(normalization(image)))
    model = keras_version(version).Model(image, layers.Dense(3)(hidden))
    before = np.asarray(model(examples))
    _, expectation = try_conversion(QAT(), QAT().scheme(model), model, lambda count: examples[:count])
    assert not expectation.left_float
    np.testing.assert_array_equal(model(examples), before)


def test_a_layer_of_keras_3_that_computes_with_integers_stays_float_and_is_named() -> None:
    from experiments.system.tensorflow import keras_3

    layers = keras_3().layers
    image = layers.Input((8, 8, 1), dtype="uint8")
    hidden = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255, name="scaled")(image))
    model = keras_3().Model(image, layers.Dense(3)(layers.Flatten()(hidden)))
    examples = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    _, expectation = try_conversion(QAT(), QAT().scheme(model), model, lambda count: examples[:count])
    assert expectation.left_float == {"scaled": "its inputs are integers, not floats with a range to learn"}


def test_a_trial_is_made_once_for_a_model_and_a_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Mnist(train_samples=200, test_samples=10).load()
    results, strategy, model = ResultCache(Cache(dir=tmp_path), data, 0, 1), QAT(), model_of(leaky_relu6)
    monkeypatch.setattr(ResultCache, "calibration", property(lambda _: images))
    scheme = strategy.scheme(model)
    *first, made = load_or_try(results, strategy, scheme, model, "digest")
    *again, made_again = load_or_try(results, strategy, scheme, model, "digest")
    assert (made, made_again) == (True, False)
    assert again == first == list(try_conversion(strategy, scheme, model, images))


def test_a_model_that_is_not_trained_further_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, model = PTQInt8(), model_of(mobilenet_v3)
    scheme = strategy.scheme(model)
    whole = convert(model, scheme, images)
    monkeypatch.setattr("experiments.runs.trial.convert", None)
    assert try_conversion(strategy, scheme, model, images, whole)[1].types == "int8"


def of_all_brightness(most: float = 4.0) -> Images:
    return images(8) * np.linspace(0.02 * most, most, 8, dtype=np.float32)[:, None, None, None]


def test_images_with_equal_outputs_under_the_initial_ranges_differ_before_training() -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole, start_ranges

    model, scaled_twice = model_of(lambda layers, x: x), of_all_brightness(most=4 / 255**2)
    quantized = annotated_whole(model)
    start_ranges(quantized, model, scaled_twice)
    assert np.ptp(quantized(scaled_twice, training=False), axis=0).max() > 0


def test_a_model_that_keeps_zeros_starts_from_such_ranges_as_well() -> None:
    from experiments.quantization.tfmot.annotation import start_ranges
    from experiments.quantization.tfmot.compression import to_quantize

    model, scaled_twice = model_of(lambda layers, x: x), of_all_brightness(most=4 / 255**2)
    quantized = to_quantize(model, ["zeros"])
    start_ranges(quantized, model, scaled_twice)
    assert np.ptp(quantized(scaled_twice, training=False), axis=0).max() > 0


def test_outputs_that_the_first_ranges_would_clip_follow_the_model_before_training() -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole, start_ranges

    model, given = model_of(lambda layers, x: x), of_all_brightness()
    model.layers[-1].set_weights([each * 200 for each in model.layers[-1].get_weights()])  # like targets in hundreds
    quantized = annotated_whole(model)
    start_ranges(quantized, model, given)
    expected = model(given, training=False)
    assert np.abs(quantized(given, training=False) - expected).max() < 0.05 * np.ptp(expected)


def test_a_model_whose_images_differ_starts_as_tfmot_made_it() -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole, start_ranges

    model = model_of(lambda layers, x: x)
    quantized = annotated_whole(model)
    before = quantized.get_weights()
    start_ranges(quantized, model, of_all_brightness())
    assert all(np.array_equal(now, then) for now, then in zip(quantized.get_weights(), before, strict=True))


def test_the_first_range_of_a_layer_called_twice_holds_the_values_of_both_calls() -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole, start_ranges
    from experiments.system.tensorflow import keras

    layers = keras.layers
    image = keras.Input((16, 16, 3))
    same = layers.Conv2D(3, 1, kernel_initializer=keras.initializers.Constant(0.01), name="same")
    model = keras.Model(image, layers.Flatten()(same(same(image))))  # the second outputs are 30 times smaller
    quantized = annotated_whole(model)
    given = of_all_brightness(most=0.04)
    start_ranges(quantized, model, given)
    (most,) = (w.numpy() for w in quantized.weights if w.name.endswith("same/post_activation_max:0"))
    assert most == pytest.approx(0.01 * given.sum(axis=-1).max(), rel=0.01)

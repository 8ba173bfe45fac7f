"""The truth gate: a file that is not what its strategy promises is found out, and the difference said in words."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from experiments.dataset import Dataset, Images
from experiments.dataset.mnist import Mnist
from experiments.strategy.annotate import Annotate
from experiments.strategy.qat import QAT
from experiments.system.errors import UserError
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import Expectation, broken, wrong_interface
from experiments.tflite.graph import Op, interface, read_ops, tensors
from experiments.tflite.schemes import Float32, Learned
from experiments.tflite.selective import held_in_float
from experiments.training.loop import Trained
from tests.tiny import product_file

INT8 = Op(
    index=0, op="CONV_2D", layer="conv", input_type="int8", weights_type="int8", output_type="int8", per_channel=True,
    weights=100, weights_bytes=100, macs=1000, sparsity=0.5, clusters=16, inputs=(0, 1, 2), outputs=(3,),
)  # fmt: skip
FLOAT = replace(INT8, input_type="float32", weights_type="float32", output_type="float32")
HYBRID = replace(FLOAT, weights_type="int8")
POOL = replace(FLOAT, op="MAX_POOL_2D", layer="pool", weights=0, weights_type="")


@pytest.mark.parametrize(
    ("expectation", "op"),
    [
        (Expectation("int8"), INT8),
        (Expectation("float32"), FLOAT),
        (Expectation("hybrid int8"), HYBRID),
        (Expectation("hybrid int8"), POOL),  # without weights there is nothing to be hybrid
        (Expectation("hybrid int8", least_weights=1024), FLOAT),
        (Expectation("int16x8"), replace(INT8, input_type="int16", output_type="int16")),
        (Expectation("int16x8"), replace(INT8, input_type="int16", output_type="int16", weights=0, weights_type="")),
        (Expectation("int8", chosen=frozenset({"conv"}), kernels=frozenset({"conv"})), INT8),
        (Expectation("int8", chosen=frozenset({"dense"})), FLOAT),
        (Expectation("int8", chosen=frozenset({"dense"}), rest="hybrid int8"), HYBRID),
        (Expectation("int8", sparsity=0.5, clusters=16), INT8),
    ],
    ids=str,
)
def test_a_file_that_meets_its_expectation_has_no_difference(expectation: Expectation, op: Op) -> None:
    assert broken(expectation, [op]) == ()


@pytest.mark.parametrize(
    ("expectation", "op", "said"),
    [
        (Expectation("int8"), FLOAT, "conv (CONV_2D) computes in float32 instead of int8"),
        (Expectation("int8"), HYBRID, "conv (CONV_2D) computes in hybrid int8 instead of int8"),
        (Expectation("hybrid int8"), FLOAT, "conv (CONV_2D) computes in float32 instead of hybrid int8"),
        (Expectation("int8", chosen=frozenset({"dense"})), INT8, "conv (CONV_2D) computes in int8 instead of float32"),
        (
            Expectation("int8", chosen=frozenset()),
            replace(INT8, layer=""),
            "an unnamed layer (CONV_2D) computes in",
        ),
        (Expectation("int8", kernels=frozenset({"dense"})), INT8, "dense is not in the file"),
        (
            Expectation("hybrid int8"),
            replace(POOL, op="WHILE"),
            "pool (WHILE) cannot be checked, but must compute in",
        ),
        (Expectation("int8", sparsity=0.8), INT8, "50.0% of the weights are zero instead of 80.0%"),
        (Expectation("int8", clusters=8), INT8, "conv has 16 distinct weights in a channel instead of at most 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_from_the_expectation_is_described(expectation: Expectation, op: Op, said: str) -> None:
    (difference,) = broken(expectation, [op])
    assert difference.startswith(said)


BACK = replace(POOL, op="DEQUANTIZE", layer="conv", input_type="int8", inputs=(3,), outputs=(4,))
AGAIN = replace(POOL, op="QUANTIZE", layer="dense", output_type="int8", inputs=(4,), outputs=(5,))
FLAT = replace(POOL, op="RESHAPE", layer="flatten", input_type="int8", output_type="int8", inputs=(5, 9), outputs=(6,))
OUT = replace(BACK, layer="flatten", inputs=(6,), outputs=(7,))


@pytest.mark.parametrize(
    ("ops", "last"),
    [
        ([INT8, BACK, AGAIN], "QUANTIZE after dense"),  # int8 to float to int8
        ([AGAIN, FLAT, OUT], "DEQUANTIZE after flatten"),  # float to int8 to float, across an op that only moves
        ([AGAIN, replace(FLAT, op="MAX_POOL_2D"), OUT], "DEQUANTIZE after flatten"),
    ],
    ids=["side by side", "across a reshape", "across a pool"],
)
def test_conversions_without_a_purpose_are_found(ops: list[Op], last: str) -> None:
    assert broken(Expectation("int8"), ops) == (f"1 redundant type conversions, first up to the {last}",)


def test_conversions_around_a_computing_op_are_accepted() -> None:
    inside = replace(INT8, inputs=(5, 1, 2), outputs=(6,))
    assert broken(Expectation("int8"), [AGAIN, inside, OUT]) == ()


def test_a_product_of_two_values_has_no_weights_that_could_be_quantized() -> None:
    *_, product = read_ops(product_file().content, ["attention"])
    assert (product.op, product.weights) == ("BATCH_MATMUL", 0)
    assert broken(Expectation("hybrid int8"), [product]) == ()


@cache
def data() -> Dataset:
    return Mnist(train_samples=200, test_samples=100).load()


def calibration(count: int) -> Images:
    return data().calibration(min(count, 20), seed=0)[:]


def article_cnn() -> Any:
    from experiments.model.article_cnn import ArticleCNN
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return ArticleCNN().build(data().input_shape, data().classes)


def found(content: bytes, expectation: Expectation, model: Any) -> str:
    return "; ".join(broken(expectation, read_ops(content, [layer.name for layer in model.layers])))


@pytest.mark.parametrize(
    ("taken", "given", "differences"),
    [
        ("int8", "int8", ()),
        ("float32", "int8", ("the input of the file is float32 instead of int8",)),
        ("int8", "float32", ("the output of the file is float32 instead of int8",)),
    ],
)
def test_the_types_of_input_and_output_are_part_of_an_expectation(
    taken: str, given: str, differences: tuple[str, ...]
) -> None:
    assert wrong_interface(Expectation("int8", interface="int8"), taken, given) == differences


@pytest.mark.tensorflow
def test_an_interface_that_the_converter_leaves_in_float_is_caught() -> None:
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)), keras.layers.ELU(name="elu"), keras.layers.Flatten(),
            keras.layers.Dense(10, name="dense"),
        ]
    )  # fmt: skip
    strategy = QAT(interface="int8")
    file = convert(strategy.prepare(model, Trained.untouched, calibration).model, strategy.scheme(model), calibration)
    differences = wrong_interface(strategy.expectation(model), *interface(file.content))
    assert "the input of the file is float32 instead of int8" in "; ".join(differences)


@pytest.mark.tensorflow
@pytest.mark.parametrize("others", [0, 1])
def test_integers_of_the_model_itself_are_no_wrong_interface(others: int) -> None:
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    words = keras.Input((3,), name="words", dtype="int32")
    table = [keras.Input((2,), name="table")] * others
    seen = keras.layers.Flatten()(keras.layers.Embedding(10, 4)(words))
    joined = keras.layers.Concatenate()([seen, *table]) if others else seen
    file = convert(keras.Model([*table, words], keras.layers.Dense(2)(joined)), Float32(), calibration)
    assert interface(file.content) == ("float32" if others else "", "float32")
    assert wrong_interface(Expectation("float32"), *interface(file.content)) == ()
    named = [each.get("signature_name") for each in tensors(file.content)[0]]
    assert named == (["words", "table"] if others else [None])


@pytest.mark.tensorflow
def test_annotation_the_usual_way_before_a_flatten_is_caught() -> None:
    import tensorflow_model_optimization as tfmot

    from experiments.system.tensorflow import keras

    def usual(layer: Any) -> Any:
        chosen = layer.name == "dense"
        return tfmot.quantization.keras.quantize_annotate_layer(layer) if chosen else layer

    model = article_cnn()
    annotated = tfmot.quantization.keras.quantize_apply(keras.models.clone_model(model, clone_function=usual))
    file = convert(annotated, Learned(), calibration)
    assert "dense (FULLY_CONNECTED) computes in float32 instead of int8" in found(
        file.content, Annotate().expectation(model), model
    )


def straight(settings: Callable[[Any], None]) -> tuple[bytes, Any, Any]:
    """A partially annotated model, converted by hand with these settings."""
    from experiments.system.tensorflow import tf

    model = article_cnn()
    strategy = Annotate(layers=("conv2d",))
    converter = tf.lite.TFLiteConverter.from_keras_model(strategy.prepare(model, Trained.untouched, calibration).model)
    settings(converter)
    return bytes(converter.convert()), strategy.expectation(model), model


@pytest.mark.tensorflow
def test_a_partially_annotated_model_given_a_representative_data_set_is_caught() -> None:
    from experiments.system.tensorflow import tf

    def calibrated(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration(10))

    differences = found(*straight(calibrated))
    assert "conv2d_1 (CONV_2D) computes in int8 instead of float32" in differences
    assert "dense (FULLY_CONNECTED) computes in int8 instead of float32" in differences


@pytest.mark.tensorflow
def test_a_quantization_aware_model_converted_without_optimizations_is_caught() -> None:
    from experiments.system.tensorflow import tf

    model = article_cnn()
    trained = QAT().prepare(model, Trained.untouched, calibration).model
    content = bytes(tf.lite.TFLiteConverter.from_keras_model(trained).convert())
    assert "conv2d (CONV_2D) computes in float32 instead of int8" in found(content, QAT().expectation(model), model)


@pytest.mark.tensorflow
def test_dense_batchnorm_relu_which_tfmot_accepts_and_leaves_float_is_caught() -> None:
    import tensorflow_model_optimization as tfmot

    model = behind_dense()
    file = convert(tfmot.quantization.keras.quantize_model(model), Learned(), calibration)
    assert "computes in float32 instead of int8" in found(file.content, Expectation("int8"), model)


def behind_dense() -> Any:
    from experiments.system.tensorflow import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    head = [
        layers.Dense(8, name="d0"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
        layers.Dense(10, name="d1"),
    ]
    return keras.Sequential([layers.InputLayer((28, 28, 1)), layers.Flatten(), *head])


def mixed() -> Any:
    """A model of which TFMOT refuses a part, in the way of squeeze and excitation."""
    from experiments.system.tensorflow import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = layers.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="alone")(x)
    scale = layers.Dense(8, activation="sigmoid", name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="multiply")([x, scale])
    x = layers.Conv2D(8, 3, activation="elu", name="odd")(x)
    x = layers.LayerNormalization(name="norm")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10, name="classifier")(x))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("model", "left_float"),
    [(mixed, {"alone", "odd", "norm"}), (behind_dense, {"d0", "bn", "relu"})],
)
def test_qat_annotates_what_it_can_and_says_what_stays_float(model: Callable[[], Any], left_float: set[str]) -> None:
    whole = model()
    expectation = QAT().expectation(whole)
    assert expectation.partial
    assert set(expectation.left_float) == left_float
    trained = QAT().prepare(whole, Trained.untouched, calibration).model
    assert found(convert(trained, Learned(), calibration).content, expectation, whole) == ""


def separable() -> Any:
    """Separable convolutions, beside a layer that is called as TFMOT calls the halves it splits them into."""
    from experiments.system.tensorflow import keras

    layers = keras.layers
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    body = [
        layers.Conv2D(4, 3, strides=2, activation="relu", name="conv2d"),
        layers.SeparableConv2D(8, 3, activation="relu", name="first"),
        layers.SeparableConv2D(8, 3, use_bias=False, name="second"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
    ]
    return keras.Sequential([layers.InputLayer((28, 28, 1)), *body, layers.Flatten(), layers.Dense(10, name="dense")])


@pytest.mark.tensorflow
@pytest.mark.parametrize("chosen", [("first",), ("second",), ("conv2d", "second"), ("first", "dense")], ids=",".join)
def test_both_ops_of_a_separable_convolution_are_found_by_its_name(chosen: tuple[str, ...]) -> None:
    model, strategy = separable(), Annotate(layers=chosen)
    trained = strategy.prepare(model, Trained.untouched, calibration).model
    assert (
        found(convert(trained, strategy.scheme(model), calibration).content, strategy.expectation(model), model) == ""
    )


@pytest.mark.tensorflow
def test_unsupported_layers_are_all_named_where_they_are_an_error() -> None:
    with pytest.raises(UserError, match=r"alone \(.*odd \(.*elu.*norm \(.*layers=\[conv,squeeze,classif"):
        QAT(unsupported="error").expectation(mixed())


@pytest.mark.tensorflow
def test_a_chosen_layer_with_batchnorm_behind_a_dense_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"bn \(BatchNormalization that.*strategy\.layers=\[d1\]"):
        Annotate(layers=("d0",)).expectation(behind_dense())


def test_ops_that_the_float_file_has_in_another_number_cannot_be_matched() -> None:
    ops = [INT8, replace(INT8, index=1)]
    with pytest.raises(
        UserError, match=r"conv cannot stay float, since it becomes 2 CONV_2D ops with quantization and 1"
    ):
        held_in_float(ops, ops, {("conv", "CONV_2D"): [[None, None, None]]})

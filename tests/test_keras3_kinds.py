"""Quantization-aware training of each kind of layer of Keras 3: every op of its file is int8, as its parent is."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.dataset.named import together
from experiments.system.errors import UserError
from experiments.tflite.conversion import convert
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Learned

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
IMAGE, SERIES, ROW = (6, 6, 4), (10, 6), (8,)


@pytest.fixture(autouse=True)
def same_values_in_any_order() -> None:
    """The values of a test do not depend on the tests that its process ran before."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def keras() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3()


def stack(*kinds: tuple[str, dict[str, Any]] | str, shape: tuple[int, ...] = IMAGE) -> Callable[[], Any]:
    """Layers in a row, each given by its class and arguments."""

    def build() -> Any:
        layers: list[Any] = []
        for place, kind in enumerate(kinds):
            name, arguments = (kind, {}) if isinstance(kind, str) else kind
            layers.append(getattr(keras().layers, name)(name=f"layer_{place}", **arguments))
        return keras().Sequential([keras().Input(shape, name="image"), *layers])

    return build


def graph(answer: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    """A function of an image and of what a convolution makes of it."""

    def build() -> Any:
        image = keras().Input(IMAGE, name="image")
        return keras().Model(image, answer(image, keras().layers.Conv2D(4, 1, name="conv")(image)))

    return build


def layer(name: str, **arguments: Any) -> Any:
    return getattr(keras().layers, name)(name=name.lower(), **arguments)


def ops() -> Any:
    return keras().ops


def conv(**arguments: Any) -> tuple[str, dict[str, Any]]:
    return "Conv2D", {"filters": 4, "kernel_size": 3, "padding": "same", **arguments}


def same(name: str, filters: int | None = 5, **arguments: Any) -> tuple[str, dict[str, Any]]:
    """A convolution of this class with a kernel of three, that keeps the size."""
    return name, {**({"filters": filters} if filters else {}), "kernel_size": 3, "padding": "same", **arguments}


DENSE = ("Dense", {"units": 3})
BLOCKS: dict[str, Callable[[], Any]] = {
    "convolution, dilated, with BatchNorm": stack(conv(dilation_rate=2), "BatchNormalization", "ReLU"),
    "convolution with groups": stack(conv(filters=8, groups=2), "BatchNormalization", "ReLU", conv()),
    "unit length": stack(conv(), "UnitNormalization", conv()),
    "convolution of a series": stack(same("Conv1D", activation="relu"), shape=SERIES),
    "causal convolution of a series": stack(
        ("Conv1D", {"filters": 5, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}), shape=SERIES
    ),
    "convolution of a series with BatchNorm": stack(
        same("Conv1D", strides=2), "BatchNormalization", "ReLU", shape=SERIES
    ),
    "depthwise, two for a channel, with BatchNorm": stack(
        same("DepthwiseConv2D", None, depth_multiplier=2), "BatchNormalization", "ReLU"
    ),
    "depthwise of a series with BatchNorm": stack(
        same("DepthwiseConv1D", None), "BatchNormalization", "ReLU", shape=SERIES
    ),
    "separable": stack(same("SeparableConv2D", strides=2, activation="relu")),
    "separable with BatchNorm": stack(same("SeparableConv2D", depth_multiplier=2), "BatchNormalization", "ReLU"),
    "separable of a series with BatchNorm": stack(same("SeparableConv1D"), "BatchNormalization", "ReLU", shape=SERIES),
    "transposed": stack(same("Conv2DTranspose", strides=2, activation="relu")),
    "transposed with BatchNorm": stack(same("Conv2DTranspose", strides=2), "BatchNormalization", "ReLU"),
    "transposed without a bias": stack(same("Conv2DTranspose", strides=2, activation="relu", use_bias=False)),
    "transposed of a series": stack(same("Conv1DTranspose", strides=2, activation="relu"), shape=SERIES),
    "dense with BatchNorm": stack(DENSE, "BatchNormalization", "ReLU", DENSE, shape=ROW),
    "dense on a series": stack(("Dense", {"units": 3, "activation": "relu"}), shape=SERIES),
    "BatchNorm alone": stack("BatchNormalization", "ReLU", conv()),
    "BatchNorm alone, of rows": stack("BatchNormalization", DENSE, shape=ROW),
    "BatchNorm behind a ReLU": stack(conv(activation="relu"), "BatchNormalization", conv()),
    "rescaling": stack(("Rescaling", {"scale": 0.5, "offset": -0.5}), conv()),
    "rescaling by channel": stack(("Rescaling", {"scale": [1.0, 2.0, 3.0, 4.0], "offset": 1.0}), conv()),
    "normalization": stack(
        ("Normalization", {"mean": [0.1, 0.2, 0.3, 0.4], "variance": [1.0, 2.0, 0.5, 0.1]}), conv()
    ),
    "nearest upsampling": stack(conv(), "UpSampling2D", conv()),
    "bilinear upsampling": stack(conv(), ("UpSampling2D", {"interpolation": "bilinear"}), conv()),
    "upsampling of a series": stack("UpSampling1D", same("Conv1D"), shape=SERIES),
    "mean of places": stack(conv(), ("AveragePooling2D", {"pool_size": 2}), conv()),
    "mean of all places": stack(conv(), "GlobalAveragePooling2D", DENSE),
    "mean of a series": stack("GlobalAveragePooling1D", DENSE, shape=SERIES),
    "greatest of all places": stack(conv(), "GlobalMaxPooling2D", DENSE),
    "padding, cropping, another shape": stack(
        "ZeroPadding2D",
        conv(),
        ("Cropping2D", {"cropping": 2}),
        ("Reshape", {"target_shape": (16, 4)}),
        ("Permute", {"dims": (2, 1)}),
        DENSE,
    ),
    **{
        f"{name} within a convolution": stack(conv(activation=name), conv())
        for name in ("relu6", "sigmoid", "tanh", "silu", "hard_silu", "leaky_relu", "gelu", "hard_sigmoid")
    },
    **{
        f"{name} on its own": stack(conv(), ("Activation", {"activation": name}), conv())
        for name in ("relu6", "sigmoid", "tanh", "silu", "hard_silu", "softmax", "gelu", "hard_sigmoid")
    },
    "Softmax": stack(DENSE, "Softmax", shape=ROW),
    "LeakyReLU": stack(conv(), "LeakyReLU", conv()),
    "PReLU": stack(conv(), ("PReLU", {"shared_axes": [1, 2]}), conv()),
    "sum of three, with ReLU": graph(lambda x, y: layer("ReLU")(layer("Add")([x, y, x]))),
    "product": graph(lambda x, y: layer("Multiply")([x, y])),
    "difference": graph(lambda x, y: layer("Subtract")([x, y])),
    "mean of three": graph(lambda x, y: layer("Average")([x, y, x])),
    "concatenation of a skip connection": graph(
        lambda x, y: layer("Conv2D", filters=2, kernel_size=1)(
            layer("Concatenate")([y, layer("UpSampling2D")(layer("Dense", units=3)(layer("MaxPooling2D")(y)))])
        )
    ),
    "greater": graph(lambda x, y: layer("Maximum")([x, y])),
    "lesser": graph(lambda x, y: layer("Minimum")([x, y])),
    "concatenation": graph(lambda x, y: layer("Conv2D", filters=2, kernel_size=1)(layer("Concatenate")([x, y]))),
    "squeeze and excitation": graph(
        lambda x, y: layer("Multiply")(
            [y, layer("Conv2D", filters=4, kernel_size=1, activation="sigmoid")(
                layer("GlobalAveragePooling2D", keepdims=True)(x)
            )]
        )
    ),
    "operation: sum and ReLU": graph(lambda x, y: ops().relu(x + y)),
    "operation: factor and offset": graph(lambda x, y: (x / 2.0 - 1.0) * np.array([1, 2, -3, 4], np.float32) - y),
    "operation: a constant less values": graph(lambda x, y: 1.0 - y),
    "operation: mean": graph(lambda x, y: ops().mean(y, axis=(1, 2))),
    "operation: gates": graph(lambda x, y: ops().sigmoid(x) * ops().tanh(y)),
    "operation: swish and hard swish": graph(lambda x, y: ops().maximum(ops().silu(x), ops().hard_silu(y))),
    "operation: concatenation": graph(lambda x, y: ops().concatenate([x, y], axis=-1)),
    "operation: parts, put together again": graph(lambda x, y: ops().stack(ops().split(y, 2, axis=-1), axis=1)),
    "operation: opposite, size, square and sum": graph(
        lambda x, y: ops().sum(ops().square(-y) + ops().absolute(x), axis=-1, keepdims=True)
    ),
    "operation: limits": graph(lambda x, y: ops().clip(y, -0.5, 0.5)),
    "operation: product of matrices": graph(lambda x, y: ops().matmul(x, ops().transpose(y, (0, 1, 3, 2)))),
    "operation: gelu and hard sigmoid": graph(lambda x, y: ops().gelu(x) * ops().hard_sigmoid(y)),
    "operation: part of an image": graph(lambda x, y: layer("Conv2D", filters=3, kernel_size=3)(y[:, 1:])),
}  # fmt: skip


def made(build: Callable[[], Any]) -> Any:
    """A model with weights as after some training."""
    keras().utils.set_random_seed(0)
    model = build()
    for each in model.layers:
        if isinstance(each, keras().layers.BatchNormalization):
            channels = each.moving_mean.shape
            each.moving_mean.assign(0.3 * RNG.normal(size=channels))
            each.moving_variance.assign(0.2 + 2 * RNG.random(channels))
            each.gamma.assign(0.3 + RNG.normal(size=channels))
        elif getattr(each, "use_bias", False):
            each.bias.assign(0.2 * RNG.normal(size=each.bias.shape))
        elif isinstance(each, keras().layers.PReLU):
            each.alpha.assign(0.3 * RNG.random(each.alpha.shape))
    return model


def values(model: Any) -> Any:
    return RNG.normal(size=(32, *model.inputs[0].shape[1:])).astype(np.float32)


def quantized(model: Any, examples: Any, **bits: Any) -> Any:
    from experiments.quantization.keras3.annotation import annotated, start_ranges

    copy = annotated(model, **bits)
    start_ranges(copy, examples)
    return copy


def answers(content: bytes, examples: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    found = []
    for example in examples:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], example[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(found)


def content_of(copy: Any) -> bytes:
    return convert(copy, Learned(), lambda count: np.zeros(count, np.float32)).content


def steps_apart(copy: Any, content: bytes, examples: Any) -> float:
    """The largest difference between a file and its parent, in steps of an output of 8 bits."""
    wanted = np.asarray(copy(examples, training=False))
    return float(np.abs(answers(content, examples) - wanted).max() / np.ptp(wanted) * 255)


# These are tried every night, for others are tried at each change that cover them:
COVERED = (
    # the same activation in the other place, within a convolution or on its own;
    *(f"{name} on its own" for name in ("relu6", "sigmoid", "silu", "gelu")),
    *(f"{name} within a convolution" for name in ("tanh", "hard_silu", "hard_sigmoid")),
    # the same layer with BatchNorm, and with weights of 4 bits;
    *("separable", "transposed", "convolution of a series"),
    # the same in front of convolutions of which it becomes a part, or not.
    *("rescaling", "rescaling by channel"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly if name in COVERED else []) for name in BLOCKS]
)
def test_every_op_is_int8_and_the_file_has_the_outputs_of_its_keras_model(name: str) -> None:
    from experiments.quantization.keras3.annotation import fake_quantization_off
    from experiments.quantization.keras3.graph import survey_layers

    model = made(BLOCKS[name])
    examples = values(model)
    copy = quantized(model, examples)
    with fake_quantization_off():
        assert np.asarray(copy(examples)) == pytest.approx(np.asarray(model(examples)), abs=1e-4)
    surveyed = [each.name for each in survey_layers(model)]
    content = content_of(copy)
    found = [op for op in read_ops(content, surveyed) if op.computes]
    assert [(op.layer, op.op) for op in found if op.types != "int8"] == []
    assert {op.layer for op in found} <= set(surveyed)
    assert steps_apart(copy, content, examples) < 4  # of several ops, each of which may round otherwise


FACTOR, BOTH = {"scale": 0.5}, {"scale": 0.5, "offset": -1.0}
ADAPTED = ("Normalization", {"mean": [0.1, 0.2, 0.3, 0.4], "variance": [1.0, 2.0, 1.5, 1.2]})
PADDED, VALID = same("Conv2D", use_bias=False), ("Conv2D", {"filters": 5, "kernel_size": 3, "activation": "relu"})


@pytest.mark.parametrize(
    ("kinds", "ops"),
    [
        ([("Rescaling", FACTOR), PADDED, "BatchNormalization", "ReLU"], "CONV_2D"),
        ([("Rescaling", FACTOR), "ZeroPadding2D", VALID], "CONV_2D"),
        ([("Rescaling", BOTH), VALID], "CONV_2D"),
        ([("Rescaling", BOTH), PADDED], "CONV_2D DEPTHWISE_CONV_2D"),  # zeros around the image have no offset
        ([("Rescaling", BOTH), "MaxPooling2D", VALID], "CONV_2D DEPTHWISE_CONV_2D"),
        ([("Rescaling", {"scale": [1.0, 2.0, 3.0, 4.0]}), VALID], "CONV_2D DEPTHWISE_CONV_2D"),  # too different
        ([ADAPTED, VALID], "CONV_2D"),
        ([("Rescaling", FACTOR), "Flatten", DENSE], "FULLY_CONNECTED"),
    ],
    ids=str,
)
def test_what_scales_the_input_becomes_part_of_the_first_layer_where_that_is_exact(kinds: Any, ops: str) -> None:
    from experiments.quantization.keras3.annotation import fake_quantization_off

    model = made(stack(*kinds))
    examples = 100 * values(model)
    copy = quantized(model, examples)
    with fake_quantization_off():
        assert np.asarray(copy(examples)) == pytest.approx(np.asarray(model(examples)), rel=1e-4, abs=1e-3)
    content = content_of(copy)
    found = [op for op in read_ops(content, [each.name for each in model.layers]) if op.computes]
    assert {op.op for op in found} - {"MAX_POOL_2D", "PAD"} == set(ops.split())
    assert {op.types for op in found} == {"int8"}
    assert steps_apart(copy, content, examples) < 4


@pytest.mark.parametrize(
    ("build", "refused"),
    [
        (stack(conv(activation="silu"), conv()), {"layer_0": "LOGISTIC"}),
        (stack(conv(activation="gelu"), ("Activation", {"activation": "hard_sigmoid"}), conv()), {
            "layer_0": "GELU", "layer_1": "ADD"}),
        (stack(conv(), "PReLU", DENSE, "Softmax"), {"layer_1": "PRELU", "layer_3": "SOFTMAX"}),
        (graph(lambda x, y: layer("Concatenate")([x, layer("Conv2D", filters=3, kernel_size=1)(y)])), {
            "concatenate": "CONCATENATION"}),
        (stack(("Dense", {"units": 3, "activation": "tanh"}), DENSE, shape=ROW), {"layer_0": "TANH"}),
        (stack(conv(), "UnitNormalization", conv()), {"layer_1": "SUM"}),
        (stack(conv(), "LayerNormalization", conv(), "RMSNormalization", conv()), {
            "layer_1": "ADD", "layer_3": "ADD"}),
    ],
)  # fmt: skip
def test_qat_with_16_bit_activations_leaves_out_layers_by_name_that_the_converter_refuses(
    build: Callable[[], Any], refused: dict[str, str]
) -> None:
    from experiments.runs.trial import try_conversion
    from experiments.strategy.annotate import Annotate
    from experiments.strategy.qat import QAT

    model = made(build)
    examples = values(model)
    strategy = QAT(activation_bits=16)
    scheme, _ = try_conversion(strategy, strategy.scheme(model), model, lambda count: examples[:count])
    assert isinstance(scheme, Learned)
    refuses = {"SUM": "LiteRT computes SUM wrongly"}
    reasons = {
        name: f"{refuses.get(op, f'the converter refuses {op}')} with 16-bit activations"
        for name, op in refused.items()
    }
    assert dict(scheme.left_float) == reasons
    name, reason = next(iter(reasons.items()))
    with pytest.raises(UserError, match=re.escape(f"{name} ({reason})")):
        Annotate(layers=(name,), activation_bits=16).scheme(model)


def test_scaling_is_an_op_of_its_own_where_folding_it_in_would_add_clusters() -> None:
    from experiments.quantization.keras3.compression import to_quantize

    model = made(stack(ADAPTED, VALID))
    for keep, ops in ((["zeros"], {"CONV_2D"}), (["clusters"], {"DEPTHWISE_CONV_2D", "CONV_2D"})):
        found = read_ops(content_of(to_quantize(model, keep)), [each.name for each in model.layers])
        assert {op.op for op in found if op.computes} == ops


def test_a_bias_that_is_the_same_for_all_channels_keeps_its_value() -> None:
    model = made(stack(conv(), same("DepthwiseConv2D", None)))
    for each in model.layers:
        if each.weights:
            each.bias.assign(np.full(each.bias.shape, 0.7))
    examples = values(model)
    copy = quantized(model, examples)
    assert steps_apart(copy, content_of(copy), examples) < 4


def test_values_that_are_put_together_have_one_scale_so_that_the_file_converts_none() -> None:
    model = made(BLOCKS["concatenation of a skip connection"])
    copy = quantized(model, values(model))
    found = [op.op for op in read_ops(content_of(copy), ())]
    assert found.count("QUANTIZE") == 1  # of the input
    assert sum("output" in each.path for each in copy.get_layer("quant_concatenate").variables) == 0


@pytest.mark.parametrize("factors", [[0.0, 1.0, -1e-9, 2.0], [0.0] * 4], ids=str)
def test_a_batchnorm_with_factors_of_zero_is_folded(factors: list[float]) -> None:
    model = made(stack(conv(use_bias=False), "BatchNormalization", "ReLU", conv()))
    norm = model.get_layer("layer_1")
    norm.gamma.assign(factors)
    norm.beta.assign([0.5, -1.0, 2.0, 0.1])
    examples = values(model)
    copy = quantized(model, examples)
    content = content_of(copy)
    assert {op.types for op in read_ops(content, ()) if op.computes} == {"int8"}
    assert steps_apart(copy, content, examples) < 4
    assert np.asarray(copy.get_layer("quant_layer_1").layer.gamma) == pytest.approx(factors, abs=0)


def test_a_relu_that_is_never_active_keeps_a_range_that_xnnpack_takes() -> None:
    model = made(stack(conv(activation="relu"), conv()))
    next(each for each in model.layers if each.weights).bias.assign(np.full(4, -1e3))
    examples = values(model)
    copy = quantized(model, examples)
    for _ in range(3):
        copy(examples, training=True)
    assert np.isfinite(answers(content_of(copy), examples)).all()  # the interpreter uses XNNPACK, and would refuse


@pytest.mark.parametrize("name", ["dense with BatchNorm", "separable with BatchNorm", "transposed with BatchNorm"])
def test_what_is_trained_learns(name: str) -> None:
    from experiments.system.tensorflow import tf

    model = made(BLOCKS[name])
    examples = values(model)
    copy = quantized(model, examples)
    before = [np.asarray(variable) for variable in copy.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(copy(examples, training=True) ** 2)
    gradients = tape.gradient(loss, [variable.value for variable in copy.trainable_variables])
    assert all(np.any(gradient) for variable, gradient in zip(copy.trainable_variables, gradients, strict=True)
               if "bias" not in variable.path)  # fmt: skip  # BatchNorm takes the bias away again
    changed = [not np.array_equal(a, np.asarray(b)) for a, b in zip(before, copy.non_trainable_variables, strict=True)]
    assert all(changed) or all(
        changed[place] for place, variable in enumerate(copy.non_trainable_variables) if "moving" in variable.path
    )


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("dense with BatchNorm", {"int8x4"}),
        ("separable", {"int8x4"}),
        ("convolution of a series", {"int8x4"}),
        ("transposed", {"int8"}),
    ],
)
def test_weights_of_4_bits_where_tflite_has_kernels_for_them(name: str, types: set[str]) -> None:
    model = made(BLOCKS[name])
    examples = values(model)
    copy = quantized(model, examples, weight_bits=4)
    content = content_of(copy)
    assert {op.types for op in read_ops(content, [each.name for each in model.layers]) if op.computes} == types
    assert steps_apart(copy, content, examples) < 4


def test_calls_of_one_layer_have_ranges_of_their_own_and_one_kernel() -> None:
    def build() -> Any:
        image = keras().Input(IMAGE, name="image")
        shared = [layer("Conv2D", filters=3, kernel_size=3), layer("BatchNormalization"), layer("ReLU")]
        branches = []
        for values in (image, 100.0 * image):
            for each in shared:
                values = each(values)  # noqa: PLW2901
            branches.append(values)
        return keras().Model(image, layer("Subtract")(branches))

    model = made(build)
    examples = values(model)
    copy = quantized(model, examples)
    assert len(copy.trainable_variables) == len(model.trainable_variables)
    ranges = {each.path: float(np.asarray(each)) for each in copy.get_layer("quant_relu").variables}
    assert len(ranges) == 4
    assert len(set(ranges.values())) > 2
    content = content_of(copy)
    assert {op.types for op in read_ops(content, [each.name for each in model.layers]) if op.computes} == {"int8"}
    assert steps_apart(copy, content, examples) < 4


@pytest.mark.parametrize("kind", ["Conv2D", "GRU"])
def test_a_layer_called_twice_is_quantized_as_two_layers_with_its_weights(kind: str) -> None:
    """Each call starts with the limits of its own values, and moves towards those in training."""
    shape, arguments = {
        "Conv2D": (IMAGE, {"filters": 2, "kernel_size": 3}),
        "GRU": ((3, 4), {"units": 2, "use_bias": False}),
    }[kind]

    def build(*names: str) -> Any:
        called = {name: getattr(keras().layers, kind)(name=name, **arguments) for name in names}
        given = [keras().Input(shape, name=name) for name in ("small", "large")]
        return keras().Model(given, [called[name](each) for name, each in zip(names, given, strict=True)])

    def limits_and_outputs(copy: Any) -> list[Any]:
        limits = sorted(float(np.asarray(each)) for each in copy.non_trainable_variables if not each.shape)
        return [limits, *(np.asarray(each).tolist() for each in copy(examples, training=False))]

    models = [made(lambda: build("same", "same")), build("one", "other")]
    for each in models[1].layers[2:]:
        each.set_weights(models[0].get_layer("same").get_weights())
    examples = [values(models[0]), 100 * values(models[0])]
    shared, apart = (quantized(each, together(dict(zip(("small", "large"), examples, strict=True)))) for each in models)
    first = limits_and_outputs(shared)
    assert first == limits_and_outputs(apart)
    for copy in (shared, apart):
        copy([0.5 * each for each in examples], training=True)
    assert first != limits_and_outputs(shared) == limits_and_outputs(apart)


def test_several_inputs_and_outputs() -> None:
    def build() -> Any:
        one, other = keras().Input(IMAGE, name="one"), keras().Input(ROW, name="other")
        both = layer("Concatenate")([layer("Flatten")(layer("Conv2D", filters=3, kernel_size=3)(one)), other])
        return keras().Model(
            {"one": one, "other": other}, {"first": layer("Dense", units=2)(both), "second": layer("Softmax")(both)}
        )

    model = made(build)
    examples = {each.name: RNG.normal(size=(8, *each.shape[1:])).astype(np.float32) for each in model.inputs}
    copy = quantized(model, together(examples))
    found = copy(examples, training=False)
    assert found.keys() == {"first", "second"}
    for name, wanted in model(examples, training=False).items():
        assert np.asarray(found[name]) == pytest.approx(np.asarray(wanted), abs=0.1)
    assert copy.output_names == model.output_names

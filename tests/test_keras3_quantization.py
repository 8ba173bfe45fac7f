"""Quantization-aware training of Keras 3 models: exactly the chosen layers compute in int8, as their parent does."""

from collections.abc import Collection, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest

from experiments.quantization.survey import Survey
from experiments.system.errors import UserError
from experiments.tflite.conversion import convert
from experiments.tflite.graph import SCALE_KEEPING, idle_conversions, read_ops
from experiments.tflite.schemes import Learned

pytestmark = pytest.mark.tensorflow

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).random((32, *SHAPE), np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, len(IMAGES))


def layers() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3().layers


def seeded(build: Any) -> Any:
    from experiments.system.tensorflow import keras_3

    keras_3().utils.set_random_seed(0)
    return build()


def article() -> Any:
    """The article's network, small."""
    from experiments.system.tensorflow import keras_3

    conv = {"kernel_size": 3, "padding": "same", "activation": "relu"}
    return keras_3().Sequential(
        [
            keras_3().Input(SHAPE, name="image"),
            layers().Conv2D(4, **conv, name="conv2d"),
            layers().Conv2D(4, **conv, name="conv2d_1"),
            layers().Dropout(0.5, seed=3, name="dropout"),
            layers().Conv2D(4, **conv, name="conv2d_2"),
            layers().Dropout(0.25, seed=4, name="dropout_1"),
            layers().Flatten(name="flatten"),
            layers().Dense(3, name="dense"),
        ],
        name="article_cnn",
    )


def residual() -> Any:
    """Convolutions, one of them depthwise, with BatchNorm, an addition and a mean."""
    from experiments.system.tensorflow import keras_3

    def normalised(x: Any, convolution: Any) -> Any:
        return layers().BatchNormalization(name=f"{convolution.name}_bn")(convolution(x))

    image = keras_3().Input(SHAPE, name="image")
    x = layers().ReLU(name="stem_relu")(normalised(image, layers().Conv2D(4, 3, padding="same", name="stem")))
    y = normalised(x, layers().DepthwiseConv2D(3, padding="same", name="depthwise"))
    y = layers().ReLU(6.0, name="depthwise_relu")(y)
    y = normalised(y, layers().Conv2D(4, 1, use_bias=False, name="pointwise"))
    x = layers().Activation("relu", name="add_relu")(layers().Add(name="add")([x, y]))
    x = layers().GlobalAveragePooling2D(name="pool")(layers().MaxPooling2D(name="down")(x))
    model = keras_3().Model(image, layers().Dense(3, name="dense")(x), name="residual")
    for layer in model.layers:
        if isinstance(layer, layers().BatchNormalization):  # as after some training
            layer.moving_mean.assign([0.1, -0.2, 0.3, 0.0])
            layer.moving_variance.assign([0.5, 2.0, 1.0, 0.1])
            layer.gamma.assign([1.0, -1.5, 0.5, 2.0])
    return model


def quantized(model: Any, names: Collection[str] | None = None, **bits: Any) -> Any:
    from experiments.quantization.keras3.annotation import annotated, start_ranges

    copy = annotated(model, names, **bits)
    start_ranges(copy, IMAGES)
    return copy


def file_of(copy: Any) -> bytes:
    return convert(copy, Learned(), lambda count: IMAGES[:count]).content


def answers(content: bytes, *inputs: Any) -> Any:
    """What a file gives for each of the examples."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    found = []
    for example in zip(*inputs, strict=True):
        for detail, value in zip(interpreter.get_input_details(), example, strict=True):
            interpreter.set_tensor(detail["index"], value[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(found)


def int8_layers(content: bytes, model: Any) -> set[str]:
    ops = read_ops(content, [layer.name for layer in model.layers])
    assert idle_conversions(ops) == []
    return {op.layer for op in ops if op.computes and op.op not in SCALE_KEEPING and op.types == "int8"}


def float_layers(content: bytes, model: Any) -> set[str]:
    ops = read_ops(content, [layer.name for layer in model.layers])
    return {op.layer for op in ops if op.computes and op.op not in SCALE_KEEPING and op.types != "int8"}


def units(model: Any) -> list[tuple[str, ...]]:
    from experiments.quantization.keras3.graph import survey_layers

    return list(Survey(survey_layers(model)).units.values())


def in_ops(names: Collection[str], content: bytes, model: Any) -> set[str]:
    """Those of the layers that ops of the file are called by: of what is fused, one layer gives its name."""
    return {name for name in names if name in int8_layers(content, model) | float_layers(content, model)}


def close(copy: Any, content: bytes) -> bool:
    """Whether a file gives what its parent gives, but for two steps of its output."""
    wanted = np.asarray(copy(IMAGES, training=False))
    return bool(np.abs(answers(content, IMAGES) - wanted).max() <= np.ptp(wanted) * 2 / 127)


@pytest.mark.parametrize("build", [article, residual], ids=lambda build: build.__name__)
def test_all_layers_compute_in_int8_and_the_file_has_the_outputs_of_its_keras_model(build: Any) -> None:
    model = seeded(build)
    copy = quantized(model)
    content = file_of(copy)
    assert float_layers(content, model) == set()
    assert close(copy, content)


# The first, the last, neighbours, layers with one in float between them, and with several; the others every night.
EACH_TIME = ((0,), (3,), (1, 2), (0, 2), (0, 3), (1, 2, 3))
SUBSETS = [
    pytest.param(places, marks=[] if places in EACH_TIME else pytest.mark.nightly)
    for places in chain.from_iterable(combinations(range(4), count) for count in (1, 2, 3))
]


@pytest.fixture(scope="module")
def article_model() -> Any:
    return seeded(article)


@pytest.mark.parametrize("places", SUBSETS, ids=str)
def test_exactly_the_chosen_layers_of_the_article_compute_in_int8(places: Sequence[int], article_model: Any) -> None:
    names = [["conv2d", "conv2d_1", "conv2d_2", "dense"][place] for place in places]
    copy = quantized(article_model, names)
    content = file_of(copy)
    assert int8_layers(content, article_model) == set(names)
    assert close(copy, content)


# One choice at each change; the others are more of the same.
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2))])
def test_exactly_the_chosen_layers_of_a_residual_network_compute_in_int8(seed: int) -> None:
    model = seeded(residual)
    kept = [
        unit for unit in units(model) if np.random.default_rng([seed, len(unit), *map(ord, unit[0])]).random() < 0.5
    ]
    names = {name for unit in kept for name in unit}
    copy = quantized(model, names)
    content = file_of(copy)
    assert int8_layers(content, model) == in_ops(names, content, model)
    assert float_layers(content, model).isdisjoint(names)
    assert close(copy, content)


def test_layers_that_become_one_op_are_one_unit() -> None:
    assert units(seeded(residual)) == [
        ("stem", "stem_bn", "stem_relu"),
        ("depthwise", "depthwise_bn", "depthwise_relu"),
        ("pointwise", "pointwise_bn"),
        ("add", "add_relu"),
        ("pool",),
        ("dense",),
    ]


@pytest.mark.parametrize("build", [article, residual], ids=lambda build: build.__name__)
def test_a_copy_has_the_outputs_of_the_model_while_fake_quantization_is_off(build: Any) -> None:
    from experiments.model.copies import first_difference
    from experiments.quantization.keras3.annotation import annotated, fake_quantization_off

    model = seeded(build)
    copy = annotated(model)
    with fake_quantization_off():
        assert first_difference(copy, model, IMAGES, tolerance=1e-6) is None
    assert np.abs(np.asarray(copy(IMAGES)) - np.asarray(model(IMAGES))).max() > 1e-4


def test_ranges_of_activations_start_at_what_calibration_images_cause() -> None:
    copy = quantized(seeded(article))
    found = {variable.path: float(variable.numpy()) for variable in copy.variables if variable.shape == ()}
    image = {path.rpartition("_")[2]: value for path, value in found.items() if "image" in path}
    assert image == {"min": 0.0, "max": pytest.approx(IMAGES.max())}


def trained(copy: Any, epochs: int, graph: bool = False, callbacks: Sequence[Any] = ()) -> Any:
    """The model after this training, which without a graph takes less time than the tracing of one."""
    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    if not copy.compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        copy.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False, run_eagerly=not graph)
    copy.fit(IMAGES, LABELS, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return copy


def test_training_resumes_to_the_bit_from_the_variables() -> None:
    from experiments.system.tensorflow import keras_3

    once, resumed = (quantized(seeded(article)) for _ in range(2))
    states: list[list[Any]] = []

    def keep(_epoch: int, _logs: Any) -> None:
        variables = [*once.variables, *once.optimizer.variables]
        states.append([keras_3().ops.convert_to_numpy(variable) for variable in variables])

    keeping = keras_3().callbacks.LambdaCallback(on_epoch_end=keep)
    trained(once, epochs=4, graph=True, callbacks=[keeping])
    trained(resumed, epochs=0, graph=True)
    resumed.optimizer.build(resumed.trainable_variables)
    for own, wanted in zip([*resumed.variables, *resumed.optimizer.variables], states[1], strict=True):
        own.assign(wanted)
    trained(resumed, epochs=2)
    for own, wanted in zip(resumed.variables, once.variables, strict=True):
        assert np.array_equal(np.asarray(own), np.asarray(wanted)), own.path


def test_the_weights_of_a_trained_copy_make_a_float_model() -> None:
    from experiments.model.copies import first_difference
    from experiments.quantization.keras3.annotation import fake_quantization_off, in_float

    model = seeded(residual)
    copy = trained(quantized(model), epochs=1)
    plain = in_float(copy, model)
    with fake_quantization_off():
        assert first_difference(plain, copy, IMAGES, tolerance=1e-6) is None
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]


def test_what_decides_the_results_is_in_the_config() -> None:
    model = seeded(article)
    configs = {
        quantized(model, names, **bits).to_json()
        for names, bits in [(None, {}), (["dense"], {}), (None, {"weight_bits": 4}), (None, {"activation_bits": 16})]
    }
    assert len(configs) == 4


def test_a_model_within_a_model_is_refused() -> None:
    from experiments.quantization.keras3.graph import survey_layers
    from experiments.system.tensorflow import keras_3

    inner = keras_3().Sequential([keras_3().Input(SHAPE), layers().Conv2D(2, 3)], name="trunk")
    with pytest.raises(UserError, match=r"trunk is a model\. Quantization-aware training requires a model of layers"):
        survey_layers(keras_3().Sequential([keras_3().Input(SHAPE), inner, layers().Flatten()]))


def test_a_layer_of_an_unknown_kind_says_so() -> None:
    from experiments.quantization.keras3.annotation import annotated
    from experiments.quantization.keras3.graph import survey_layers
    from experiments.system.tensorflow import keras_3

    class Own(layers().Conv2D):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return 2 * super().call(inputs)

    model = keras_3().Sequential([keras_3().Input(SHAPE), Own(2, 3, name="own"), layers().Conv2D(2, 3, name="conv")])
    assert {each.name: each.obstacle for each in survey_layers(model)} == {"own": "Own is not supported", "conv": None}
    with pytest.raises(UserError, match=r"own \(Own is not supported\)"):
        annotated(model, ["own"])


def test_float_layers_between_chosen_ones_are_out_of_the_converters_reach() -> None:
    """It would take the scale of one part of the concatenation for the other, and resize in integers."""
    from experiments.system.tensorflow import keras_3

    def build() -> Any:
        image = keras_3().Input(SHAPE, name="image")
        one, other = (layers().Conv2D(4, 3, padding="same", name=name)(image) for name in ("one", "other"))
        both = layers().Concatenate(name="both")([one, 20.0 * other])
        large = layers().UpSampling2D(2, interpolation="bilinear", name="large")(both)
        return keras_3().Model(image, layers().Conv2D(3, 3, name="last")(large))

    model = seeded(build)
    copy = quantized(model, ["one", "last"])
    content = file_of(copy)
    ops = read_ops(content, [each.name for each in model.layers])
    assert {op.layer for op in ops if op.computes and op.types == "int8"} == {"one", "last"}
    assert "CAST" not in {op.op for op in ops}
    assert close(copy, content)

"""Keras 3 models within models, in other floats, or for batches of one size: built anew, with the same outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.model.copies import first_difference, layer_of, nodes_of
from experiments.model.flattening import flatten
from experiments.model.keras_file import KerasFile
from experiments.quantization.selection import Layer, select
from experiments.system.errors import UserError

pytestmark = pytest.mark.tensorflow

SHAPE = (6, 6, 1)
IMAGES = np.random.default_rng(0).random((8, *SHAPE), np.float32)


@pytest.fixture(autouse=True)
def names_from_the_start() -> None:
    keras().backend.clear_session(free_memory=False)  # which takes longer than most of these tests


def keras() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3()


def sequential(*layers: Any, name: str | None = None, batch: int | None = None) -> Any:
    return keras().Sequential([keras().Input(SHAPE, batch_size=batch), *layers], name=name)


def trunk() -> Any:
    layers = keras().layers
    model = sequential(
        layers.Conv2D(1, 3, padding="same", name="conv"), layers.BatchNormalization(name="bn"), name="trunk"
    )
    model.layers[1].moving_mean.assign([0.3])
    return model


def head() -> list[Any]:
    return [keras().layers.Flatten(name="flatten"), keras().layers.Dense(3, name="head")]


def ending(values: Any) -> Any:
    for layer in head():
        values = layer(values)
    return values


def test_a_model_that_was_never_called_has_inputs(tmp_path: Path) -> None:
    sequential(*head(), name="reg").save(tmp_path / "model.keras")
    loaded = keras().models.load_model(tmp_path / "model.keras")
    assert flatten(loaded, [SHAPE], "model.path=model.keras").inputs


def within_a_sequential() -> Any:
    return sequential(trunk(), *head())


def within_a_model_within_a_model() -> Any:
    images = keras().Input(SHAPE, name="images")
    outer = keras().Sequential([keras().Input(SHAPE), trunk(), keras().layers.ReLU(name="relu")], name="outer")
    return keras().Model(images, ending(outer(images)))


def called_twice() -> Any:
    images, shared = keras().Input(SHAPE, name="images"), trunk()
    return keras().Model(images, ending(shared(keras().layers.ReLU(name="relu")(shared(images)))))


def two_of_one_name() -> Any:
    images = keras().Input(SHAPE, name="images")
    return keras().Model(images, ending(sequential(trunk(), name="a")(sequential(trunk(), name="b")(images))))


def with_operations() -> Any:
    entry = keras().Input(SHAPE, name="images")
    values = keras().layers.Conv2D(1, 3, padding="same", name="conv")(2 * entry)
    inner = keras().Model(entry, keras().ops.concatenate([keras().ops.relu(values + entry)[:, 1:], entry], axis=1))
    inner.name = "trunk"
    images = keras().Input(SHAPE, name="images")
    return keras().Model(images, ending(inner(images) ** 2))


NAMES = {
    within_a_sequential: ["trunk.conv", "trunk.bn", "flatten", "head"],
    within_a_model_within_a_model: ["outer.trunk.conv", "outer.trunk.bn", "outer.relu", "flatten", "head"],
    called_twice: ["trunk.conv", "trunk.bn", "relu", "flatten", "head"],
    two_of_one_name: ["b.trunk.conv", "b.trunk.bn", "a.trunk.conv", "a.trunk.bn", "flatten", "head"],
    with_operations: ["trunk.conv", "flatten", "head"],
}


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_layers_within_models_are_layers_with_the_names_of_both_and_the_outputs_stay(kind: Callable[[], Any]) -> None:
    model = kind()
    flat = flatten(model, [SHAPE], "model.path=x")
    assert [layer.name for layer in flat.layers[1:]] == NAMES[kind]
    assert first_difference(flat, model, IMAGES) is None


def test_operations_keep_their_names_with_that_of_the_model_they_are_in() -> None:
    flat = flatten(with_operations(), [SHAPE], "model.path=x")
    names = [layer_of(node).name for node in nodes_of(flat)]
    assert len(names) == len(set(names))
    assert {"trunk.relu", "trunk.add", "trunk.concatenate"} <= set(names)


def test_what_is_called_twice_has_its_weights_once() -> None:
    assert len(flatten(called_twice(), [SHAPE], "model.path=x").weights) == len(called_twice().weights)


def test_a_model_in_the_required_form_is_unchanged() -> None:
    model = sequential(*head())
    assert flatten(model, [SHAPE], "model.path=x") is model


@pytest.mark.parametrize("pattern", ["trunk.conv", "conv", "Conv2D", "trunk.c.*"])
def test_layers_within_models_are_chosen(pattern: str) -> None:
    flat = flatten(within_a_sequential(), [SHAPE], "model.path=x")
    layers = [Layer(layer.name, type(layer).__name__, bool(layer.weights)) for layer in flat.layers]
    assert select(layers, [pattern]) == ("trunk.conv",)


def test_a_frozen_trunk_stays_frozen() -> None:
    model = within_a_sequential()
    model.layers[0].trainable = False
    flat = flatten(model, [SHAPE], "model.path=x")
    assert [weight.path for weight in flat.trainable_weights] == ["head/kernel", "head/bias"]


def test_one_frozen_layer_of_a_trunk_stays_frozen_alone() -> None:
    model = within_a_sequential()
    model.layers[0].layers[0].trainable = False
    flat = flatten(model, [SHAPE], "model.path=x")
    assert {weight.path.split("/")[0] for weight in flat.trainable_weights} == {"trunk.bn", "head"}


def test_a_training_argument_within_a_model_has_no_effect_as_in_keras_3_itself() -> None:
    images, inner = keras().Input(SHAPE), trunk()
    model = keras().Model(images, ending(inner(images, training=False)))
    flat = flatten(model, [SHAPE], "model.path=x")
    assert np.allclose(flat(IMAGES, training=True), model(IMAGES, training=True), atol=1e-6)
    assert not np.allclose(flat(IMAGES, training=True), flat(IMAGES, training=False), atol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_other_floats_become_float32_within_models_too(policy: str) -> None:
    keras().config.set_dtype_policy(policy)
    try:
        model = within_a_sequential()
    finally:
        keras().config.set_dtype_policy("float32")
    flat = flatten(model, [SHAPE], "model.path=x")
    assert {layer.dtype_policy.name for layer in flat.layers} == {"float32"}
    assert {weight.dtype for weight in flat.weights} == {"float32"}


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_size_in_the_input_is_removed(batch: int) -> None:
    flat = flatten(sequential(*head(), batch=batch), [SHAPE], "model.path=x")
    assert flat.input_shape == (None, *SHAPE)
    assert flat(IMAGES).shape == (8, 3)


def test_a_model_that_computes_with_its_batch_size_is_refused() -> None:
    images = keras().Input(SHAPE, batch_size=4)
    model = keras().Model(images, ending(keras().ops.reshape(images, (4, 6, 6, 1))))
    with pytest.raises(UserError, match=r"model\.path=x: requires batches of any size, but .* with keras, copy the"):
        flatten(model, [SHAPE], "model.path=x")


def test_a_stateful_layer_is_reset_with_each_batch(capsys: pytest.CaptureFixture[str]) -> None:
    layers = keras().layers
    model = sequential(layers.Reshape((6, 6)), layers.LSTM(3, stateful=True, name="lstm"), layers.Dense(3), batch=4)
    flat = flatten(model, [SHAPE], "model.path=x")
    assert "saved as stateful; its state is reset for each batch here: lstm" in capsys.readouterr().out
    assert np.array_equal(flat(IMAGES), flat(IMAGES))


def test_images_of_any_size_become_those_of_the_data() -> None:
    model = keras().Sequential(
        [keras().Input((None, None, 1)), keras().layers.Conv2D(3, 3), keras().layers.GlobalAveragePooling2D()]
    )
    assert flatten(model, [SHAPE], "model.path=x").input_shape == (None, *SHAPE)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore")
def test_what_a_nested_normalization_has_learned_is_there_in_both_formats(tmp_path: Path, name: str) -> None:
    normalization = keras().layers.Normalization()
    normalization.adapt(200 * IMAGES)
    model = sequential(sequential(normalization), *head())
    model.save(tmp_path / name)
    loaded = KerasFile(path=tmp_path / name).build(SHAPE, 3)
    assert np.allclose(loaded(IMAGES), model(IMAGES), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV3Small",
        *(pytest.param(each, marks=pytest.mark.nightly) for each in ("MobileNetV2", "EfficientNetB0")),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_a_network_of_keras_applications_becomes_a_flat_backbone_with_a_new_head(
    version: Any, name: str, tmp_path: Path
) -> None:
    from experiments.system.tensorflow import keras_version

    keras = keras_version(version)
    net = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(96, 96, 3))
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, name="head")]
    keras.Sequential([keras.Input((96, 96, 3)), net, *layers]).save(tmp_path / "model.keras")
    flat = KerasFile(path=tmp_path / "model.keras").build((96, 96, 3), 3)  # it refuses other outputs
    assert len(flat.layers) > len(net.layers)
    assert not any(hasattr(layer, "layers") for layer in flat.layers)

"""Models within models, in other floats, or for batches of one size: built anew, with the same outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.model.copies import first_difference
from experiments.model.flattening import flatten, without_additions
from experiments.strategy.annotate import Annotate
from experiments.strategy.post_training import PTQInt8
from experiments.system.errors import UserError
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Float32
from experiments.training.loop import Trained

pytestmark = pytest.mark.tensorflow

SHAPE = (6, 6, 1)
IMAGES = np.random.default_rng(0).random((8, *SHAPE), np.float32)


def sequential(*layers: Any, name: str | None = None, batch: int | None = None) -> Any:
    from experiments.system.tensorflow import keras

    return keras.Sequential([keras.layers.InputLayer(SHAPE, batch_size=batch), *layers], name=name)


def trunk() -> Any:
    from experiments.system.tensorflow import keras

    model = sequential(
        keras.layers.Conv2D(1, 3, padding="same", name="conv"), keras.layers.BatchNormalization(name="bn"), name="trunk"
    )
    model.layers[1].moving_mean.assign([0.3])
    return model


def head() -> list[Any]:
    from experiments.system.tensorflow import keras

    return [keras.layers.Flatten(name="flatten"), keras.layers.Dense(3, name="head")]


def within_a_sequential() -> Any:
    return sequential(trunk(), *head())


def alone() -> Any:
    from experiments.system.tensorflow import keras

    model = keras.Sequential([sequential(*head(), name="trunk")])
    model(IMAGES)
    return model


def within_a_model_within_a_model() -> Any:
    return sequential(sequential(trunk(), name="outer"), *head())


def with_branches() -> Any:
    from experiments.system.tensorflow import keras

    images = keras.Input(SHAPE)
    values = [keras.layers.Conv2D(1, 3, name=name)(images) for name in "ab"]
    return sequential(keras.Model(images, keras.layers.Add(name="add")(values), name="two"), *head())


def called_twice() -> Any:
    from experiments.system.tensorflow import keras

    images, same = keras.Input(SHAPE), trunk()
    both = keras.layers.Concatenate()([same(images), same(2 * images)])
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(both)))


NAMES = {
    within_a_sequential: ["trunk/conv", "trunk/bn", "flatten", "head"],
    alone: ["trunk/flatten", "trunk/head"],
    within_a_model_within_a_model: ["outer/trunk/conv", "outer/trunk/bn", "flatten", "head"],
    with_branches: ["two/a", "two/b", "two/add", "flatten", "head"],
    called_twice: ["tf.math.multiply", "trunk/conv", "trunk/bn", "concatenate", "flatten", "dense"],
}


def built(kind: Callable[[], Any]) -> Any:
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return kind()


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_layers_within_models_are_layers_with_the_names_of_both(kind: Callable[[], Any]) -> None:
    assert [layer.name for layer in flatten(built(kind), [SHAPE], "a model").layers[1:]] == NAMES[kind]


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_the_outputs_stay_the_same(kind: Callable[[], Any]) -> None:
    model = built(kind)
    assert first_difference(flatten(model, [SHAPE], "a model"), model, IMAGES) is None


def test_what_is_called_twice_has_its_weights_once() -> None:
    model = built(called_twice)
    assert flatten(model, [SHAPE], "a model").count_params() == model.count_params()


def test_a_model_in_the_required_form_is_unchanged() -> None:
    model = built(lambda: sequential(*head()))
    assert flatten(model, [SHAPE], "a model") is model


@pytest.mark.parametrize("kind", [within_a_sequential, within_a_model_within_a_model], ids=lambda kind: kind.__name__)
def test_the_ops_of_a_file_are_those_of_the_layers(kind: Callable[[], Any]) -> None:
    model = flatten(built(kind), [SHAPE], "a model")
    file = convert(model, Float32(), lambda count: IMAGES[:count])
    layers = [layer.name for layer in model.layers]
    assert {op.layer for op in read_ops(file.content, layers) if op.weights} == {NAMES[kind][0], "head"}


@pytest.mark.parametrize("pattern", ["trunk/conv", "conv", "Conv2D", "trunk/.*"])
def test_layers_within_models_are_chosen(pattern: str) -> None:
    expectation = PTQInt8(layers=(pattern,)).expectation(flatten(built(within_a_sequential), [SHAPE], "a model"))
    assert expectation.chosen == frozenset({"trunk/conv", "trunk/bn"})


def test_layers_within_models_are_trained_quantization_aware() -> None:
    model = flatten(built(within_a_sequential), [SHAPE], "a model")
    strategy = Annotate(layers=("conv",))
    trained = strategy.prepare(model, Trained.untouched, lambda count: IMAGES[:count])
    file = convert(trained.model, strategy.scheme(model), lambda count: IMAGES[:count])
    ops = read_ops(file.content, [layer.name for layer in model.layers])
    assert broken(strategy.expectation(model), ops) == ()


def test_a_frozen_trunk_stays_frozen() -> None:
    model = built(within_a_sequential)
    model.get_layer("trunk").trainable = False
    trained = flatten(model, [SHAPE], "a model").trainable_weights
    assert [weight.name for weight in trained] == ["head/kernel:0", "head/bias:0"]


def test_batchnorm_called_with_training_false_keeps_its_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.system.tensorflow import keras

    def fixed() -> Any:
        images = keras.Input(SHAPE)
        return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(trunk()(images, training=False))))

    model = flatten(built(fixed), [SHAPE], "a model")
    model(5 + IMAGES, training=True)
    assert np.asarray(model.get_layer("trunk/bn").moving_mean) == pytest.approx([0.3])
    assert "called with training=False, so not trained: trunk/bn" in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_other_floats_become_float32_within_models_too(policy: str) -> None:
    from experiments.system.tensorflow import keras

    keras.mixed_precision.set_global_policy(policy)
    try:
        model = built(within_a_sequential)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    same = flatten(model, [SHAPE], "a model")
    kept = {(layer.compute_dtype, layer.variable_dtype) for layer in same._flatten_layers(include_self=False)}
    assert kept == {("float32", "float32")}


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_size_in_the_input_is_removed(batch: int) -> None:
    model = built(lambda: sequential(*head(), batch=batch))
    assert flatten(model, [SHAPE], "a model").input_shape == (None, *SHAPE)


def test_a_model_that_computes_with_its_batch_size_is_refused() -> None:
    from experiments.system.tensorflow import keras, tf

    images = keras.Input(SHAPE, batch_size=4)
    model = keras.Model(images, keras.layers.Dense(3)(tf.reshape(images, [4, 36])))
    with pytest.raises(UserError, match=r"^a model: requires batches of any size, but cannot be rebuilt"):
        flatten(model, [SHAPE], "a model")


def test_a_stateful_layer_is_reset_with_each_batch(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.system.tensorflow import keras

    layers = [keras.layers.Reshape((6, 6)), keras.layers.GRU(3, stateful=True, name="gru")]
    model = flatten(built(lambda: sequential(*layers, batch=2)), [SHAPE], "a model")
    assert np.array_equal(model(IMAGES), model(IMAGES))
    assert "saved as stateful; its state is reset for each batch here: gru" in capsys.readouterr().out


@pytest.mark.parametrize("within", [False, True])
def test_a_loss_that_was_added_to_a_model_is_left_out_and_it_can_be_pruned(
    within: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.quantization.tfmot.compression import pruned, to_prune
    from experiments.system.tensorflow import keras, tf

    def penalized() -> Any:
        images = keras.Input(SHAPE)
        values = trunk()(images) if within else keras.layers.Conv2D(1, 3)(images)
        model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(values)))
        model.add_loss(tf.reduce_mean(tf.abs(values)))
        return model

    model = built(penalized)
    flat = flatten(model, [SHAPE], f"model {within}")  # a message with the same start is printed once
    assert f"model {within}: trained by the loss of the task alone" in capsys.readouterr().out
    flat(IMAGES)
    assert (len(model.losses), len(flat.losses)) == (1, 0)
    assert first_difference(pruned(to_prune(flat, 0.5)), model, IMAGES) is None


def test_a_model_that_code_builds_loses_what_add_loss_added_and_is_otherwise_left_as_it_is() -> None:
    from experiments.system.tensorflow import keras, tf

    def penalized() -> Any:
        images = keras.Input(SHAPE)
        values = keras.layers.Flatten()(images)
        model = keras.Model(images, keras.layers.Dense(3)(values))
        model.add_loss(tf.reduce_mean(values))
        return model

    plain, model = built(trunk), built(penalized)
    assert without_additions(plain, SHAPE, "model=own") is plain
    without = without_additions(model, SHAPE, "model=own")
    assert without.losses == []
    assert first_difference(without, model, IMAGES) is None


def test_the_words_that_a_lookup_has_learned_are_in_its_configuration() -> None:
    from experiments.system.tensorflow import keras, tf

    lookup = keras.layers.IntegerLookup(name="lookup")
    lookup.adapt(np.array([4, 4, 2]))
    images = keras.Input(SHAPE)
    model = keras.Model(images, keras.layers.Embedding(4, 3)(lookup(tf.cast(keras.layers.Flatten()(images), "int64"))))
    same = flatten(model, [SHAPE], "a model")
    assert same.get_layer("lookup").get_config()["vocabulary"] == [4, 2]


def test_bins_that_keras_leaves_out_when_it_loads_a_file_are_there(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    bins = keras.layers.Discretization(num_bins=4, name="bins")
    bins.adapt(IMAGES)
    sequential(bins).save(tmp_path / "model.keras")
    model = flatten(keras.models.load_model(tmp_path / "model.keras"), [SHAPE], "a model")
    assert np.unique(model(IMAGES)).tolist() == [0, 1, 2, 3]

"""Models as other people build them: each is right, or refused before any training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset.named import together
from experiments.measure.interpreter import load_interpreter
from experiments.measure.op_profile import extract_ops
from experiments.model.copies import first_difference
from experiments.model.keras_file import KerasFile
from experiments.system.errors import UserError
from experiments.system.keras_version import Version
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Float32, Int8, Int16x8
from experiments.tflite.selective import put_back_to_float

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

RANDOM = np.random.default_rng(0)


def keras(version: Version = 3) -> Any:
    from experiments.system.tensorflow import keras_version

    return keras_version(version)


def layers(version: Version = 3) -> Any:
    return keras(version).layers


def without_samples(_: int) -> Any:
    raise AssertionError("float conversion requires no calibration samples")


def test_adapted_boundaries_of_a_discretization_survive_loading(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(50, 6)).astype(np.float32)
    bins = layers().Discretization(num_bins=4)
    bins.adapt(values)
    given = keras().Input((6,))
    model = keras().Model(given, layers().Dense(3)(layers().Flatten()(layers().Embedding(4, 2)(bins(given)))))
    model.save(tmp_path / "bins.keras")
    loaded = KerasFile(path=tmp_path / "bins.keras").build((6,), 3)
    assert first_difference(loaded, model, values[:8]) is None


def test_a_model_whose_inputs_are_a_dict_is_taken(tmp_path: Path) -> None:
    one, other = keras().Input((6,), name="zebra"), keras().Input((2,), name="ant")
    outputs = layers().Dense(3)(layers().Concatenate()([one, layers().Dense(2)(other)]))
    model = keras().Model({"z": one, "a": other}, outputs)
    model.save(tmp_path / "named.keras")
    loaded = KerasFile(path=tmp_path / "named.keras").build({"zebra": (6,), "ant": (2,)}, 3)
    z, a = RANDOM.random((4, 6), np.float32), RANDOM.random((4, 2), np.float32)
    np.testing.assert_allclose(
        loaded([{"zebra": z, "ant": a}[each.name] for each in loaded.inputs]), model({"z": z, "a": a}), atol=1e-6
    )


def test_a_model_whose_only_input_is_in_a_dict_is_taken(tmp_path: Path) -> None:
    given = keras().Input((6,), name="picture")
    model = keras().Model({"picture": given}, {"logits": layers().Dense(3)(given)})
    model.save(tmp_path / "one.keras")
    loaded = KerasFile(path=tmp_path / "one.keras").build((6,), 3)
    values = RANDOM.random((4, 6), np.float32)
    np.testing.assert_allclose(loaded(values), model({"picture": values})["logits"], atol=1e-6)


def test_a_nested_model_with_several_inputs_and_outputs_is_flattened(tmp_path: Path) -> None:
    one, other = keras().Input((6,)), keras().Input((6,))
    dense = layers().Dense(4, name="dense")(one)
    inner = keras().Model([one, other], [dense, layers().Add()([one, other])], name="inner")
    given = keras().Input((6,))
    model = keras().Model(given, layers().Concatenate()(inner([given, layers().ReLU()(given)])))
    model.save(tmp_path / "nested.keras")
    loaded = KerasFile(path=tmp_path / "nested.keras").build((6,), 10)
    assert "inner.dense" in [each.name for each in loaded.layers]


def test_a_float16_input_becomes_a_float32_one(tmp_path: Path) -> None:
    given = keras().Input((6,), dtype="float16")
    keras().Model(given, layers().Dense(3)(layers().Dense(8)(given))).save(tmp_path / "half.keras")
    assert KerasFile(path=tmp_path / "half.keras").build((6,), 3).inputs[0].dtype == "float32"


def test_an_output_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    given = keras().Input((6,))
    logits = layers().Dense(3)(given)
    keras().Model(given, [logits, logits]).save(tmp_path / "twice.keras")
    with pytest.raises(UserError, match="requires outputs that differ"):
        KerasFile(path=tmp_path / "twice.keras").build((6,), 3)


def test_loops_keep_their_constants_when_a_file_is_edited() -> None:
    given = keras().Input((5, 3))
    content = convert(keras().Model(given, layers().GRU(4)(given)), Float32(), without_samples).content
    assert "WHILE" in [op.op for op in read_ops(content, ())]
    load_interpreter(TFLiteModel(put_back_to_float(content, {})))


def test_masks_of_recurrent_dropout_are_no_part_of_the_file() -> None:
    given = keras().Input((5, 3))
    model = keras().Model(given, layers().LSTM(4, dropout=0.5, recurrent_dropout=0.5, name="lstm")(given))
    ops = read_ops(convert(model, Float32(), without_samples).content, ["lstm"])
    assert "ASSIGN_VARIABLE" not in [op.op for op in ops]
    assert model.get_layer("lstm").cell.recurrent_dropout == 0.5


def test_a_file_with_numbers_of_words_as_floats_runs() -> None:
    given = keras().Input((5,))
    words = layers().Embedding(4, 3, mask_zero=True)(given)
    model = keras().Model(given, layers().GlobalAveragePooling1D()(words))
    load_interpreter(convert(model, Float32(), without_samples))


def test_weights_that_are_not_finite_are_refused_before_the_converter_crashes() -> None:
    given = keras().Input((5,))
    model = keras().Model(given, layers().Dense(3, bias_initializer=keras().initializers.Constant(np.nan))(given))
    with pytest.raises(UserError, match="bias: is not finite"):
        convert(model, Float32(), without_samples)


def test_a_layer_that_takes_the_same_values_twice_can_be_quantized() -> None:
    from experiments.quantization.keras3.annotation import annotated, fake_quantization_off

    given = keras().Input((5, 4))
    model = keras().Model(given, layers().Dense(3)(layers().Attention()([given, given])))
    with fake_quantization_off():
        assert first_difference(annotated(model), model, RANDOM.random((4, 5, 4), np.float32)) is None


def test_a_batchnorm_that_two_layers_share_stays_float() -> None:
    from experiments.quantization.tfmot.annotation import survey

    given, shared = keras(2).Input((6, 6, 2)), layers(2).BatchNormalization(name="shared")
    values = shared(layers(2).Conv2D(2, 1)(shared(layers(2).Conv2D(2, 1)(given))))
    assert "shared" in survey(keras(2).Model(given, values)).unsupported


def test_a_recurrent_layer_is_calibrated_step_by_step() -> None:
    given = keras().Input((5, 3))
    model = keras().Model(given, layers().GRU(4, name="gru")(given))
    values = RANDOM.random((8, 5, 3), np.float32)
    file = convert(model, Int8(8), lambda count: values[:count])
    ops = read_ops(file.content, ["gru"])
    assert {"WHILE"}.isdisjoint(op.op for op in ops) and "int8" in [op.types for op in ops]
    assert model.get_layer("gru").unroll is False


def test_a_series_of_many_steps_is_refused_for_calibration() -> None:
    given = keras().Input((200, 3))
    model = keras().Model(given, layers().GRU(4, name="gru")(given))
    with pytest.raises(UserError, match="gru: is a loop in TFLite"):
        convert(model, Int8(1), lambda count: RANDOM.random((count, 200, 3), np.float32))


def test_a_lookup_is_refused_with_its_name() -> None:
    given = keras().Input((2,), dtype="int64")
    words = layers().IntegerLookup(vocabulary=[3, 5], name="words")(given)
    model = keras().Model(given, layers().Embedding(4, 2)(words))
    with pytest.raises(UserError, match="the layer words"):
        convert(model, Float32(), without_samples)


def test_a_class_that_changes_how_its_parent_computes_is_not_taken_for_it() -> None:
    from experiments.quantization.keras3.graph import survey_layers

    class Doubled(layers().Attention):  # type: ignore[misc]
        def _calculate_scores(self, query: Any, key: Any) -> Any:
            return 2 * super()._calculate_scores(query, key)

    given = keras().Input((5, 3))
    model = keras().Model(given, Doubled()([given, given]))
    assert [each.obstacle for each in survey_layers(model)] == ["Doubled is not supported"]


def test_a_convolution_over_time_is_refused_for_clustering() -> None:
    from experiments.quantization.tfmot.compression import refuse

    given = keras(2).Input((3, 6, 6, 2))
    model = keras(2).Model(given, layers(2).ConvLSTM2D(2, 3, name="over_time")(given))
    with pytest.raises(UserError, match="over_time"):
        refuse(model, cluster=True)


def test_a_concatenation_keeps_the_order_of_its_inputs_when_a_batchnorm_is_folded() -> None:
    from experiments.quantization.tfmot.annotation import annotated_whole, fake_quantization_off

    given = keras(2).Input((6, 6, 2))
    folded = layers(2).ReLU()(layers(2).BatchNormalization()(layers(2).Conv2D(3, 1)(given)))
    model = keras(2).Model(given, layers(2).Concatenate()([folded, layers(2).Conv2D(2, 1)(given)]))
    with fake_quantization_off():
        assert first_difference(annotated_whole(model), model, RANDOM.random((4, 6, 6, 2), np.float32)) is None


def test_word_indices_beside_other_inputs_can_have_int16_activations() -> None:
    words, values = keras().Input((6,), dtype="int32", name="words"), keras().Input((4,), name="values")
    table = layers().Flatten()(layers().Embedding(9, 3)(words))
    model = keras().Model([words, values], layers().Dense(3, name="logits")(layers().Concatenate()([table, values])))
    parts = {"words": RANDOM.integers(0, 9, (8, 6)).astype(np.int32), "values": RANDOM.random((8, 4), np.float32)}
    file = convert(model, Int16x8(8), lambda count: together(parts)[:count])
    assert [op.types for op in read_ops(file.content, ["logits"]) if op.computes] == ["int16x8"]


@pytest.mark.parametrize("masked", [False, True])
def test_sums_of_int16_which_litert_computes_wrongly_are_refused(masked: bool) -> None:
    given = keras().Input((4, 3))
    if masked:
        mean = layers().GlobalAveragePooling1D(name="pooled")(layers().Masking()(given))
    else:
        mean = layers().Lambda(lambda x: keras().ops.sum(x, axis=1), output_shape=(3,), name="pooled")(given)
    model = keras().Model(given, layers().Dense(2)(mean))
    values = RANDOM.random((4, 4, 3), np.float32)
    with pytest.raises(UserError, match=r"pooled: sums int16 values"):
        convert(model, Int16x8(4), lambda count: values[:count])


def test_ops_with_a_single_number_as_constant_are_timed_alone() -> None:
    given = keras().Input((4, 3))
    model = keras().Model(given, layers().GRU(2, name="gru")(given))
    values = RANDOM.random((4, 4, 3), np.float32)
    file = convert(model, Int16x8(4), lambda count: values[:count])
    extracted, _ = extract_ops(file, read_ops(file.content, ["gru"]), values)
    assert extracted

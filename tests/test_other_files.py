"""Models that have no Keras layers: SavedModels and TFLite files, for quantization after training."""

from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.measure.accuracy import tflite_logits
from experiments.model.keras_file import KerasFile
from experiments.model.saved_model import SavedModelFolder
from experiments.model.tflite_file import TFLiteFile
from experiments.runs.configuration import compose_request
from experiments.strategy.none import Nothing
from experiments.strategy.post_training import PTQDynamic, PTQFloat16, PTQInt4, PTQInt8, PTQInt16x8
from experiments.system.errors import UserError
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.expectation import differences, expected
from experiments.tflite.flatbuffer import editable, name_of_code, packed
from experiments.tflite.graph import interface, read_ops

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).random((16, *SHAPE), np.float32)
STRATEGIES = {
    "none": Nothing(), "ptq_dynamic": PTQDynamic(), "ptq_float16": PTQFloat16(), "ptq_int8": PTQInt8(),
    "ptq_int16x8": PTQInt16x8(), "ptq_int4": PTQInt4(),
}  # fmt: skip
INT8_ENDS = PTQInt8(interface="int8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A float model as a SavedModel and as a TFLite file, with the outputs that it has."""
    from experiments.system.tensorflow import keras, tf

    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.layers.InputLayer(SHAPE), *layers])
    model.save(folder / "saved", save_format="tf")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "float.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in IMAGES)
    (folder / "int8.tflite").write_bytes(converter.convert())
    np.save(folder / "outputs.npy", model(IMAGES).numpy())
    yield folder


@pytest.mark.tensorflow
def test_a_saved_model_that_keras_wrote_by_default_is_taken_as_a_keras_file_too(files: Path) -> None:
    option = KerasFile(path=files / "saved")
    option.check()
    assert not option.trainable
    np.testing.assert_allclose(option.build(SHAPE, 3)(IMAGES), np.load(files / "outputs.npy"), atol=1e-5)


def opened(files: Path, name: str) -> Any:
    option = TFLiteFile(path=files / name) if name.endswith(".tflite") else SavedModelFolder(path=files / name)
    option.check()
    return option.build(SHAPE, 3)


def converted(model: Any, scheme: Any) -> TFLiteModel:
    return convert(model, scheme, lambda count: IMAGES[:count])


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["saved", "float.tflite"])
def test_the_model_has_the_outputs_of_the_file(files: Path, name: str) -> None:
    model = opened(files, name)
    np.testing.assert_allclose(model(IMAGES), np.load(files / "outputs.npy"), atol=1e-5)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), np.load(files / "outputs.npy"), atol=1e-5)
    assert not model.trainable_weights


@pytest.mark.tensorflow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["saved", "float.tflite"])
def test_every_post_training_strategy_makes_the_file_that_is_expected(files: Path, name: str, strategy: str) -> None:
    model = opened(files, name)
    scheme = STRATEGIES[strategy].scheme(model)
    ops = read_ops(converted(model, scheme).content, [layer.name for layer in model.layers])
    assert not differences(expected(scheme, model), ops)


@pytest.mark.tensorflow
def test_a_file_without_a_signature_gives_the_same_as_one_with_it(files: Path, tmp_path: Path) -> None:
    model = editable((files / "float.tflite").read_bytes())
    model.signatureDefs = []
    (tmp_path / "x.tflite").write_bytes(packed(model))
    scheme = PTQInt8().scheme(None)
    found = [tflite_logits(converted(opened(*place), scheme), IMAGES)
             for place in ((files, "float.tflite"), (tmp_path, "x.tflite"))]  # fmt: skip
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["saved", "float.tflite"])
def test_the_interface_is_that_of_the_strategy(files: Path, name: str) -> None:
    model = opened(files, name)
    assert interface(converted(model, INT8_ENDS.scheme(model)).content) == ("int8", "int8")
    assert interface(converted(model, PTQInt8().scheme(model)).content) == ("float32", "float32")


@pytest.mark.tensorflow
def test_the_float_reference_of_a_tflite_file_is_the_file_itself(files: Path) -> None:
    assert (
        converted(opened(files, "float.tflite"), Nothing().scheme(None)).content
        == (files / "float.tflite").read_bytes()
    )


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["saved", "float.tflite"])
def test_the_digest_of_a_model_file_follows_its_content(files: Path, name: str, tmp_path: Path) -> None:
    import shutil

    from experiments.record.identity import model_digest

    copy = tmp_path / f"other_{name}"
    (shutil.copy if (files / name).is_file() else shutil.copytree)(files / name, copy)
    kind = TFLiteFile if name.endswith(".tflite") else SavedModelFolder
    options = [kind(path=path) for path in (files / name, copy)]
    first, second = (model_digest(option.build(SHAPE, 3), option) for option in options)
    assert first == second


@pytest.mark.tensorflow
def test_a_quantized_file_is_refused_with_its_types(files: Path) -> None:
    with pytest.raises(UserError, match=r"quantized already \(.*tensors? of int8.*give the float32 file"):
        opened(files, "int8.tflite")


@pytest.mark.tensorflow
def test_a_damaged_file_is_refused_in_one_message(files: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes((files / "float.tflite").read_bytes()[:300])
    with pytest.raises(UserError, match="a damaged TFLite file"):
        opened(tmp_path, "x.tflite")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(UserError, match="a damaged SavedModel"):
        opened(tmp_path, "saved")


def edited(files: Path, change: Callable[[Any], None], folder: Path) -> str:
    """The name of a copy of the float file, changed."""
    model = editable((files / "float.tflite").read_bytes())
    change(model)
    (folder / "x.tflite").write_bytes(packed(model))
    return "x.tflite"


@pytest.mark.tensorflow
def test_a_file_with_a_custom_operation_is_refused_by_its_name(files: Path, tmp_path: Path) -> None:
    def make_custom(model: Any) -> None:
        code = next(code for code in model.operatorCodes if name_of_code(code) == "FULLY_CONNECTED")
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"MyDense"

    with pytest.raises(UserError, match=r"MyDense.*Export the model without custom operations"):
        opened(tmp_path, edited(files, make_custom, tmp_path))


def loop_that_writes(mark: Path) -> bytes:
    """A float file whose loop runs an operation of TensorFlow that writes a file."""
    from experiments.system.tensorflow import tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4))])  # type: ignore[untyped-decorator]
    def function(images: Any) -> Any:
        def body(step: Any, value: Any) -> tuple[Any, Any]:
            tf.io.write_file(str(mark), "x")
            return step + 1, value * 2

        return tf.while_loop(lambda step, _: step < 2, body, (0, images))[1]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    return bytes(converter.convert())


@pytest.mark.tensorflow
def test_an_operation_of_tensorflow_within_a_loop_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(loop_that_writes(tmp_path / "mark"))
    with pytest.raises(UserError, match=r"has operations of TensorFlow \(FlexWriteFile\)"):
        opened(tmp_path, "x.tflite")
    assert not (tmp_path / "mark").exists()


@pytest.mark.tensorflow
def test_a_file_with_two_signatures_is_refused_with_their_names(files: Path, tmp_path: Path) -> None:
    def add_signature(model: Any) -> None:
        other = copy(model.signatureDefs[0])
        other.signatureKey = b"other"
        model.signatureDefs.append(other)

    with pytest.raises(UserError, match=r"several signatures \(other, serving_default\)"):
        opened(tmp_path, edited(files, add_signature, tmp_path))


def module(batch: int | None = None, write: Path | None = None) -> Any:
    from experiments.system.tensorflow import tf

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(tf.ones((64, 3)))

        @tf.function(input_signature=[tf.TensorSpec((batch, *SHAPE), tf.float32)])  # type: ignore[untyped-decorator]
        def serve(self, images: Any) -> Any:
            if write:
                tf.io.write_file(str(write), "x")
            return {"logits": tf.reshape(images, (-1, 64)) @ self.kernel}

    return Module()


@pytest.mark.tensorflow
def test_a_file_for_images_of_any_size_or_for_fixed_batches_is_refused(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras, tf

    for shape, told in (
        ((None, None, None, 2), "requires an input of a fixed shape; the file takes any"),
        ((4, 3, 3, 2), r"requires batches of one; the file takes \(4, 3, 3, 2\)"),
    ):
        pooled = keras.layers.GlobalAveragePooling2D()
        model = keras.Sequential([keras.layers.InputLayer(batch_input_shape=shape), pooled])
        (tmp_path / "x.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
        with pytest.raises(UserError, match=told):
            TFLiteFile(path=tmp_path / "x.tflite").build((3, 3, 2), 2)


@pytest.mark.tensorflow
def test_loops_of_a_file_cannot_be_calibrated(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras, tf

    model = keras.Sequential([keras.layers.InputLayer((5, 2), batch_size=1), keras.layers.SimpleRNN(3)])
    (tmp_path / "rnn.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    loaded = TFLiteFile(path=tmp_path / "rnn.tflite").build((5, 2), 3)
    with pytest.raises(UserError, match=r"has a loop \(WHILE\), whose ranges cannot be calibrated"):
        convert(loaded, PTQInt8().scheme(loaded), lambda count: np.zeros((count, 5, 2), np.float32))


@pytest.mark.tensorflow
def test_an_lstm_of_a_file_starts_from_nothing_with_each_example(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras, tf

    model = keras.Sequential([keras.layers.InputLayer((5, 2), batch_size=1), keras.layers.LSTM(3)])
    (tmp_path / "lstm.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    series = np.random.default_rng(0).random((6, 5, 2), np.float32)
    found = TFLiteFile(path=tmp_path / "lstm.tflite").build((5, 2), 3)(series)
    np.testing.assert_allclose(found, np.concatenate([model(each[None]) for each in series]), atol=1e-5)


@pytest.mark.tensorflow
def test_models_that_give_other_outputs_each_time_are_refused(tmp_path: Path) -> None:
    from experiments.system.tensorflow import tf

    class Counting(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec((1, 3), tf.float32)])  # type: ignore[untyped-decorator]
        def serve(self, values: Any) -> Any:
            return {"logits": values + self.count.assign_add(1.0)}

    made = Counting()
    tf.saved_model.save(made, str(tmp_path / "saved"), signatures=made.serve)
    with pytest.raises(UserError, match=r"gives different outputs for the same input \(A"):
        SavedModelFolder(path=tmp_path / "saved").build((3,), 3)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    (tmp_path / "x.tflite").write_bytes(converter.convert())
    with pytest.raises(UserError, match=r"gives different outputs for the same input \(A"):
        TFLiteFile(path=tmp_path / "x.tflite").build((3,), 3)


@pytest.mark.tensorflow
def test_a_signature_for_batches_of_one_takes_any_number_of_images(tmp_path: Path) -> None:
    from experiments.system.tensorflow import tf

    made = module(batch=1)
    tf.saved_model.save(made, str(tmp_path / "one"), signatures=made.serve)
    model = opened(tmp_path, "one")
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0)[:, 0], IMAGES.sum((1, 2, 3)), rtol=1e-5)
    assert read_ops(converted(model, PTQInt8().scheme(model)).content, ())


@pytest.mark.tensorflow
def test_what_keras_exports_needs_no_signature_to_be_named(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras_version

    keras = keras_version(3)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.export(tmp_path / "exported", verbose=False)
    assert SavedModelFolder(path=tmp_path / "exported").build((4,), 3).output_shape == (None, 3)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("signatures", "told"),
    [
        ((), r"has no serving signature\. Export the model with model\.export"),
        (("first", "second"), r"has several signatures \(first, second\)\. Choose one with model\.signature=NAME"),
    ],
)
def test_signatures_are_missing_or_have_to_be_chosen(tmp_path: Path, signatures: tuple[str, ...], told: str) -> None:
    from experiments.system.tensorflow import tf

    made = module()
    tf.saved_model.save(made, str(tmp_path / "saved"), signatures=dict.fromkeys(signatures, made.serve))
    with pytest.raises(UserError, match=told):
        opened(tmp_path, "saved")
    if signatures:
        assert SavedModelFolder(path=tmp_path / "saved", signature="second").build(SHAPE, 3).output_shape == (None, 3)
        with pytest.raises(UserError, match=r"model\.signature=third: the SavedModel has first, second"):
            SavedModelFolder(path=tmp_path / "saved", signature="third").build(SHAPE, 3)


def sends_for_debugging(images: Any, mark: Path) -> Any:
    from tensorflow.python.ops.gen_debug_ops import debug_identity

    return debug_identity(images, tensor_name="images:0", debug_urls=[f"file://{mark}"])


def caches_on_the_disk(images: Any, mark: Path) -> Any:
    from experiments.system.tensorflow import tf

    return images + tf.data.Dataset.from_tensors(0.0).cache(str(mark)).get_single_element()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("reach", "named"), [(sends_for_debugging, "DebugIdentity"), (caches_on_the_disk, "CacheDataset")]
)
def test_operations_that_reach_outside_are_refused_although_tensorflow_calls_them_stateless(
    reach: Callable[[Any, Path], Any], named: str, tmp_path: Path
) -> None:
    from experiments.system.tensorflow import tf

    mark, made = tmp_path / "mark", tf.Module()
    made.serve = tf.function(lambda images: tf.reshape(reach(images, mark), (-1, 64))[:, :3],
                             input_signature=[tf.TensorSpec((None, *SHAPE))])  # fmt: skip
    tf.saved_model.save(made, str(tmp_path / "saved"), signatures=made.serve)
    with pytest.raises(UserError, match=f"reach outside of the model: .*{named}"):
        opened(tmp_path, "saved")
    assert not mark.exists()


@pytest.mark.tensorflow
def test_operations_that_write_files_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    from experiments.system.tensorflow import tf

    made = module(write=tmp_path / "mark")
    tf.saved_model.save(made, str(tmp_path / "saved"), signatures=made.serve)
    with pytest.raises(UserError, match=r"may reach outside of the model: WriteFile\. If you trust.*model\.trust=true"):
        opened(tmp_path, "saved")
    assert not (tmp_path / "mark").exists()


# Without TensorFlow.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["strategy=qat"], "strategy=qat: trains the model, and model=saved_model has operations.*strategy=ptq_int8.*"),
        (["strategy=finetune"], "strategy=finetune: trains the model"),
        (["strategy=ptq_int8", "strategy.layers=[conv]"], "strategy.layers: model=saved_model has no Keras layers"),
        (["strategy=none", "epochs=1"], "training.epochs=1: model=saved_model cannot be trained. Type epochs=0"),
    ],
)
def test_what_requires_keras_layers_is_refused_with_what_to_give_instead(arguments: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        compose_request(["model=saved_model", "model.path=x", "epochs=0", *arguments])


def test_a_path_of_another_kind_is_refused_with_the_option_for_it(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    with pytest.raises(UserError, match=r"not a TFLite file.*model=keras_file"):
        TFLiteFile(path=tmp_path / "x.tflite").check()
    with pytest.raises(UserError, match=r"a SavedModel is a folder.*model=tflite_file"):
        SavedModelFolder(path=tmp_path / "x.tflite").check()
    with pytest.raises(UserError, match="no SavedModel, which is a folder"):
        SavedModelFolder(path=tmp_path).check()

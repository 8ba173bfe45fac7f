"""Model files that need code of their user, given by model.module; and files that are no model."""

import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from experiments.model.keras_file import KerasFile
from experiments.model.user_module import find_module, provided_names
from experiments.record.identity import model_digest
from experiments.system.contents import contents_of
from experiments.system.errors import UserError
from experiments.system.user_code import with_imports
from tests.conftest import run, save_images
from tests.hostile import dense, layer, model, save

LAYERS = """
    import tensorflow as tf
    from {package} import keras

    @keras.saving.register_keras_serializable(package="mine")
    class Registered(keras.layers.Layer):
        def call(self, x):
            return x + 1.0

    class Scale(keras.layers.Layer):
        def __init__(self, factor=2.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {{**super().get_config(), "factor": self.factor}}

    def squareplus(x):
        return (x + tf.sqrt(x * x + 4.0)) / 2.0
    """


def write(path: Path, code: str = LAYERS.format(package="tensorflow")) -> Path:
    path.write_text(dedent(code))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Without TensorFlow: what is wrong with a module shows in its text.


@pytest.mark.parametrize("given", ["layers.py", "./layers.py", "layers", "package.layers", "package/layers.py"])
def test_a_module_is_found_by_its_path_or_its_name_from_the_working_directory_on(folder: Path, given: str) -> None:
    (folder / "package").mkdir()
    for place in (folder, folder / "package"):
        write(place / "layers.py")
    assert find_module(given).file.samefile(folder / ("package/layers.py" if "package" in given else "layers.py"))


def test_a_package_is_found_by_its_folder(folder: Path) -> None:
    (folder / "package").mkdir()
    write(folder / "package" / "__init__.py")
    assert find_module("./package").name == find_module("package").name == "package"


def test_the_home_folder_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    written = write(folder / "layers.py")
    assert find_module("~/layers.py").file == written


@pytest.mark.parametrize("given", ["layer.py", "layer"])
def test_a_missing_module_is_refused_with_similar_names(folder: Path, given: str) -> None:
    write(folder / "layers.py")
    with pytest.raises(UserError, match=f"model.module={given}: no such .*did you mean layers.*PYTHONPATH"):
        find_module(given)


@pytest.mark.parametrize("code", ["x = 1\ndef f(:\n", "x = 1\ndef\n"])
def test_a_syntax_error_is_refused_with_its_line(folder: Path, code: str) -> None:
    (folder / "layers.py").write_text(code)
    with pytest.raises(UserError, match=r"model\.module=layers\.py: line 2: .*def"):
        find_module("layers.py")


def test_a_module_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "layers.py").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(UserError, match=r"model\.module=layers\.py"):
        find_module("layers.py")


def test_names_are_read_without_running_the_module(folder: Path) -> None:
    write(folder / "layers.py", LAYERS.format(package="tensorflow") + "\n    raise SystemExit")
    assert provided_names(find_module("layers.py")) == frozenset(
        {"Registered", "mine>Registered", "Scale", "squareplus"}
    )


@pytest.mark.parametrize(
    "code",
    ["from other import *", "import keras_cv", "x.get_custom_objects()['a'] = 1", "register_keras_serializable()(A)"],
)
def test_names_that_show_only_when_the_module_is_run_are_left_until_then(folder: Path, code: str) -> None:
    write(folder / "layers.py", code)
    assert provided_names(find_module("layers.py")) is None


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_an_object_that_the_module_lacks_is_refused_with_similar_names(folder: Path, ending: str) -> None:
    write(folder / "layers.py", "class Scaled: pass\nclass Other: pass")
    path = save(model(layer("Scale", name="scale")), folder / f"model.{ending}")
    with pytest.raises(
        UserError, match=r"Scale in layer 'model/scale', which model\.module=layers\.py does not define.*mean Scaled"
    ):
        KerasFile(path=path, module="layers.py").check()


def test_a_function_that_the_module_lacks_is_named(folder: Path) -> None:
    write(folder / "layers.py", "def square_plus(x): return x")
    path = save(model(dense(activation="squareplus")), folder / "model.h5")
    with pytest.raises(UserError, match=r"activation=squareplus in layer 'model/dense'.*mean square_plus"):
        KerasFile(path=path, module="layers").check()


def test_what_the_module_defines_may_be_named(folder: Path) -> None:
    write(folder / "layers.py", "class Scale: pass\ndef squareplus(x): return x")
    path = save(model(layer("Scale", name="scale"), dense(activation="squareplus")), folder / "model.h5")
    KerasFile(path=path, module="layers.py").check()


def test_a_lambda_is_refused_with_the_way_out_where_a_module_is_given_too(folder: Path) -> None:
    write(folder / "layers.py")
    path = save(model(layer("Lambda", name="l")), folder / "model.h5")
    with pytest.raises(UserError, match=r"layer with get_config.*model\.module=FILE\.py.*model\.trust=true"):
        KerasFile(path=path, module="layers.py").check()


def test_the_key_of_a_run_holds_the_module_and_what_it_imports(folder: Path) -> None:
    write(folder / "layers.py", "import inner")
    write(folder / "inner.py", "x = 1")
    write(folder / "script.py", "x = 1")
    option = KerasFile(path=save(model(dense()), folder / "model.h5"), module="layers.py")
    before = contents_of(option)
    (folder / "script.py").write_text("x = 2")
    assert contents_of(option) == before
    (folder / "inner.py").write_text("x = 2")
    assert contents_of(option) != before


def test_imports_are_followed_through_packages(folder: Path) -> None:
    for name in ("a/__init__.py", "a/b/__init__.py", "a/b/one.py", "a/two.py", "top.py", "a/unused.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "a/b/one.py").write_text("from ..two import x\ndef f():\n    import top, os, numpy\n")
    (folder / "top.py").write_text("import a.b.one")
    found = with_imports([folder / "a/b/one.py"])
    names = ["a/__init__.py", "a/b/__init__.py", "a/b/one.py", "a/two.py", "top.py"]
    assert [str(path.relative_to(folder)) for path in found] == names


# With TensorFlow.


def saved(path: Path, *layers: Any) -> Any:
    """A model of these layers and a classifier behind them, saved to `path`."""
    from experiments.system.tensorflow import keras

    outputs = [keras.layers.Flatten(), keras.layers.Dense(3, name="logits")]
    made = keras.Sequential([keras.layers.InputLayer((8, 8, 1)), *layers, *outputs])
    made.save(path)
    return made


def objects(path: Path) -> dict[str, Any]:
    """What the module in this file defines, for building a model with it."""
    return dict(find_module(str(path)).load())


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("imported", ["from tensorflow import keras", "import tf_keras as keras"])
@pytest.mark.parametrize("kind", ["Scale", "Registered", "squareplus", "silu"])
def test_a_model_with_user_code_has_the_outputs_with_which_it_was_saved(
    folder: Path, kind: str, imported: str, ending: str
) -> None:
    from experiments.system.tensorflow import keras, tf

    code = LAYERS.format(package="tensorflow").replace("from tensorflow import keras", imported)
    own = objects(write(folder / "layers.py", code))
    activation = tf.nn.silu if kind == "silu" else own["squareplus"]
    conv = keras.layers.Conv2D(4, 3, activation=activation, name="conv")
    made = saved(folder / f"model.{ending}", *([own[kind]()] if kind[0].isupper() else []), conv)
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    loaded = KerasFile(path=folder / f"model.{ending}", module="layers.py").build((8, 8, 1), 3)
    np.testing.assert_allclose(loaded(images), made(images), atol=1e-6)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A layer and an activation of a user's own, between two convolutions."""
    from experiments.system.tensorflow import keras

    folder = tmp_path_factory.mktemp("own")
    own = objects(write(folder / "my_layers.py"))
    layers = (
        keras.layers.Conv2D(4, 3, activation="relu", name="first"),
        own["Scale"](name="scale"),
        keras.layers.Conv2D(4, 3, activation=own["squareplus"], name="second"),
    )
    saved(folder / "model.keras", *layers)
    return KerasFile(path=folder / "model.keras", module=str(folder / "my_layers.py"))


@pytest.mark.tensorflow
def test_user_defined_layers_stay_float_and_the_reason_is_known_before_training(own_model: KerasFile) -> None:
    from experiments.strategy.qat import QAT

    left_float = QAT().expectation(own_model.build((8, 8, 1), 3)).left_float
    assert left_float["scale"].startswith("Scale is not supported")
    assert left_float["second"].startswith("Conv2D with activation squareplus")
    assert "first" not in left_float


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["scale", "second"])
def test_choosing_a_user_defined_layer_is_refused_by_name(own_model: KerasFile, name: str) -> None:
    from experiments.strategy.annotate import Annotate

    with pytest.raises(UserError, match=f"Layers that do not support quantization-aware training.*{name} .*ptq_int8"):
        Annotate(layers=(name,)).expectation(own_model.build((8, 8, 1), 3))


@pytest.mark.tensorflow
def test_copies_of_a_model_with_user_code_have_its_outputs(own_model: KerasFile) -> None:
    from experiments.model.copies import copied, first_difference

    built = own_model.build((8, 8, 1), 3)
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    assert first_difference(copied(built), built, images) is None


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["Scale", "squareplus"])
def test_digests_and_training_keys_include_user_code(folder: Path, kind: str) -> None:
    from experiments.system.tensorflow import keras
    from experiments.training.loop import digest_of

    own = objects(write(folder / "layers.py"))
    saved(folder / "model.h5", own["Scale"]() if kind == "Scale" else keras.layers.Dense(2, activation=own[kind]))
    option = KerasFile(path=folder / "model.h5", module="layers.py")
    made = option.build((8, 8, 1), 3)
    before = model_digest(made, option), digest_of(made)
    with (folder / "layers.py").open("a") as file:
        file.write("\n# another comment")
    assert all(was != now for was, now in zip(before, (model_digest(made, option), digest_of(made)), strict=True))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = 1\n1 / 0", r"cannot be imported \(line 2 of layers\.py: ZeroDivisionError: division by zero\)"),
        ("import sys\nsys.exit(3)", r"cannot be imported \(line 2 of layers\.py: SystemExit: 3\)"),
        ("import absent_package", r"cannot be imported \(.*requires the module absent_package, which is not installed"),
        ("import inner", r"cannot be imported \(line 1 of inner\.py: SyntaxError"),
    ],
)
def test_an_error_while_the_module_is_imported_is_one_message(folder: Path, code: str, told: str) -> None:
    write(folder / "inner.py", "def f(:")
    write(folder / "layers.py", code)
    path = save(model(dense()), folder / "model.h5")
    with pytest.raises(UserError, match=rf"model\.module=layers\.py: {told}"):
        KerasFile(path=path, module="layers.py").build((4,), 2)


@pytest.mark.tensorflow
def test_an_object_that_only_shows_to_be_absent_when_the_module_is_run_is_named(folder: Path) -> None:
    write(folder / "other.py", "class Scaled: pass")
    write(folder / "layers.py", "from other import *")
    option = KerasFile(path=save(model(layer("Scale", name="scale")), folder / "model.h5"), module="layers.py")
    option.check()
    with pytest.raises(UserError, match=r"which model\.module=layers\.py does not define. Did you mean Scaled"):
        option.build((4,), 2)


@pytest.mark.tensorflow
def test_a_layer_that_fails_is_reported_with_its_own_line_and_not_in_keras_words(folder: Path) -> None:
    own = objects(write(folder / "layers.py"))
    saved(folder / "model.h5", own["Scale"]())
    text = (folder / "layers.py").read_text()
    (folder / "layers.py").write_text(text.replace("self.factor = factor", "self.factor = factor / 0"))
    with pytest.raises(
        UserError, match=r"model\.module=layers\.py fails .* line 1\d of layers\.py \(ZeroDivisionError: float division"
    ):
        KerasFile(path=folder / "model.h5", module="layers.py").build((8, 8, 1), 3)


@pytest.mark.tensorflow
def test_a_layer_of_keras_3_is_refused_with_the_import_to_write(folder: Path) -> None:
    write(folder / "layers.py", "import keras\nclass Scale(keras.layers.Layer): pass")
    path = save(model(layer("Scale", name="scale")), folder / "model.h5")
    with pytest.raises(UserError, match=r"Scale is a Keras 3 class.*import tf_keras as keras"):
        KerasFile(path=path, module="layers.py").build((4,), 2)


@pytest.mark.tensorflow
def test_a_module_named_like_one_of_python_is_not_confused_with_it(folder: Path) -> None:
    own = objects(write(folder / "copy.py"))
    saved(folder / "model.keras", own["Scale"]())
    assert KerasFile(path=folder / "model.keras", module="copy.py").build((8, 8, 1), 3).output_shape == (None, 3)


# By the command line.


@pytest.mark.endtoend
def test_a_model_with_a_user_defined_layer_is_trained_quantization_aware_except_for_that_layer(folder: Path) -> None:
    from experiments.compare import load
    from experiments.system.tensorflow import keras

    own = objects(write(folder / "my_layers.py"))
    convolutions = [keras.layers.Conv2D(4, 3, activation="relu", name=name) for name in ("first", "second")]
    saved(folder / "net.keras", convolutions[0], own["Scale"](name="scale"), convolutions[1])
    save_images(folder / "images.npz")
    done = run(
        folder, "experiments.run", "model=keras_file", "model.path=net.keras", "model.module=my_layers",
        "dataset=npz", "dataset.path=images.npz", "epochs=0", "finetune.epochs=1", "strategy=qat",
        "latency.seconds=0.1", measured=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = load(f"sqlite:///{os.fspath(folder)}/mlflow.db").to_dict("records")
    assert (row["status"], row["verified"], row["partial"]) == ("FINISHED", "true", "true")
    assert "scale" in row["left_float"]

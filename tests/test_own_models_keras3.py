"""Keras 3 files that need code of their user, given by model.module."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from experiments.model.copies import copied, first_difference
from experiments.model.keras_file import KerasFile
from experiments.model.user_module import find_module
from experiments.system.errors import UserError
from experiments.system.user_code import sources_of

pytestmark = pytest.mark.tensorflow

IMAGES = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
LAYERS = """
    import keras
    from keras import ops

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
            return {**super().get_config(), "factor": self.factor}

    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, x):
            return self.dense(self.flatten(x))

    def own_squareplus(x):
        return (x + ops.sqrt(x * x + 4.0)) / 2.0
    """


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers3.py").write_text(dedent(LAYERS))
    return tmp_path


def keras() -> Any:
    from experiments.system.tensorflow import keras_3

    return keras_3()


def own() -> dict[str, Any]:
    """Return what the module defines, for building a model with it."""
    return dict(find_module("layers3.py").load(version=3))


def saved(path: Path, *layers: Any) -> Any:
    ends = [keras().layers.Flatten(), keras().layers.Dense(3, name="logits")]
    made = keras().Sequential([keras().Input((8, 8, 1)), *layers, *ends])
    made.save(path)
    return made


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("kind", ["Scale", "Registered", "own_squareplus"])
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_own_code_has_the_outputs_with_which_it_was_saved(folder: Path, kind: str, ending: str) -> None:
    defined = own()
    conv = keras().layers.Conv2D(4, 3, activation=defined["own_squareplus"], name="conv")
    made = saved(folder / f"model.{ending}", *([defined[kind]()] if kind[0].isupper() else []), conv)
    option = KerasFile(path=folder / f"model.{ending}", module="layers3.py")
    option.check()
    loaded = option.build((8, 8, 1), 3)
    np.testing.assert_allclose(loaded(IMAGES), made(IMAGES), atol=1e-6)
    assert first_difference(copied(loaded), loaded, IMAGES) is None
    assert folder / "layers3.py" in sources_of(loaded)


def test_user_code_is_part_of_the_digest_within_nested_models_too(folder: Path) -> None:
    defined = own()
    inner = keras().Sequential([keras().Input((8, 8, 1)), defined["Scale"](name="scale")], name="inner")
    saved(folder / "model.keras", inner)
    loaded = KerasFile(path=folder / "model.keras", module="layers3.py").build((8, 8, 1), 3)
    assert "inner.scale" in [layer.name for layer in loaded.layers]


def test_a_class_of_keras_2_is_refused_with_the_import_to_write(folder: Path) -> None:
    saved(folder / "model.keras")
    (folder / "layers2.py").write_text("from tensorflow import keras\nclass Scale(keras.layers.Layer): pass")
    with pytest.raises(UserError, match=r"Scale is a Keras 2 class, but the model file requires Keras 3.*'import ker"):
        KerasFile(path=folder / "model.keras", module="layers2.py").build((8, 8, 1), 3)


def test_a_class_without_its_module_is_refused_with_its_name(folder: Path) -> None:
    saved(folder / "model.keras", own()["Scale"]())
    with pytest.raises(UserError, match=r"it names \w*layers3\.Scale in layer .*model\.module=FILE\.py"):
        KerasFile(path=folder / "model.keras").check()


def test_a_lambda_is_run_only_in_a_trusted_file(folder: Path) -> None:
    made = saved(folder / "model.keras", keras().layers.Lambda(lambda x: x * 2))
    with pytest.raises(UserError, match="a Lambda layer contains Python code"):
        KerasFile(path=folder / "model.keras").check()
    loaded = KerasFile(path=folder / "model.keras", trust=True).build((8, 8, 1), 3)
    np.testing.assert_allclose(loaded(IMAGES), made(IMAGES), atol=1e-6)


def test_a_model_written_as_a_class_is_wrapped_and_stays_one_layer(folder: Path) -> None:
    net = own()["Net"]()
    outputs = np.asarray(net(IMAGES))
    net.save(folder / "model.keras")
    loaded = KerasFile(path=folder / "model.keras", module="layers3.py").build((8, 8, 1), 3)
    np.testing.assert_allclose(loaded(IMAGES), outputs, atol=1e-6)
    assert first_difference(copied(loaded), loaded, IMAGES) is None

"""The architectures, and models from files."""

import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.ds_cnn import DSCNN
from experiments.model.keras_file import KerasFile
from experiments.model.mlp import MLP
from experiments.model.mobilenet_v1 import MobileNetV1
from experiments.model.resnet8 import ResNet8
from experiments.record.identity import model_digest
from experiments.system.errors import UserError

ARCHITECTURES = (ArticleCNN(), MLP(), DSCNN(), ResNet8(), MobileNetV1())
IN_KERAS_3 = (ArticleCNN(keras=3), MLP(keras=3), DSCNN(keras=3), ResNet8(keras=3), MobileNetV1(keras=3))


@pytest.mark.tensorflow
def test_the_article_cnn_has_the_article_s_parameters() -> None:
    assert ArticleCNN().build((28, 28, 1), 10).count_params() == 149_178


@pytest.mark.tensorflow
def test_resnet8_has_the_parameters_of_mlperf_tiny() -> None:
    assert ResNet8().build((32, 32, 3), 10).count_params() == 78_666


@pytest.mark.tensorflow
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *IN_KERAS_3], ids=str)
@pytest.mark.parametrize("shape", [(28, 28, 1), (17, 24, 3)])
def test_every_architecture_takes_any_image(architecture: Architecture, shape: tuple[int, ...]) -> None:
    model = architecture.build(shape, 4)
    assert (model.input_shape[1:], model.output_shape) == (shape, (None, 4))


@pytest.mark.tensorflow
@pytest.mark.parametrize(("second", "third"), zip(ARCHITECTURES, IN_KERAS_3, strict=True), ids=str)
def test_an_architecture_has_the_same_layers_in_both_versions_of_keras(
    second: Architecture, third: Architecture
) -> None:
    from experiments.system.keras_version import version_of

    models = [architecture.build((28, 28, 1), 10) for architecture in (second, third)]
    assert [version_of(model) for model in models] == [2, 3]
    first, other = (
        [(layer.name, type(layer).__name__, layer.count_params()) for layer in model.layers if layer.name != "image"]
        for model in models
    )
    assert first == other
    assert model_digest(models[0], second) != model_digest(models[1], third)


@pytest.mark.tensorflow
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *IN_KERAS_3], ids=str)
def test_layers_have_the_same_names_however_often_a_model_is_built(architecture: Architecture) -> None:
    first, second = (architecture.build((28, 28, 1), 10) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_saved_model_comes_back_with_its_weights(tmp_path: Path, ending: str) -> None:
    model = MLP().build((8, 8, 1), 3)
    model.save(tmp_path / f"model{ending}")
    option = KerasFile(path=tmp_path / f"model{ending}")
    option.check()
    loaded = option.build((8, 8, 1), 3)
    assert all((a == b).all() for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))


def digest(architecture: Architecture, seed: int = 0) -> str:
    from experiments.system.tensorflow import clear_session, keras

    clear_session()
    keras.utils.set_random_seed(seed)
    return model_digest(architecture.build((8, 8, 1), 3), architecture)


@pytest.mark.tensorflow
def test_the_digest_of_a_model_trained_here_depends_on_settings_but_not_on_the_seed() -> None:
    assert digest(MLP(), seed=0) == digest(MLP(), seed=1)
    assert digest(MLP(keras=3), seed=0) == digest(MLP(keras=3), seed=1)
    assert digest(MLP()) != digest(MLP(units=(8,)))


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_the_digest_of_a_given_model_depends_on_weights_but_not_on_the_path(tmp_path: Path, ending: str) -> None:
    model = MLP(units=(4,)).build((8, 8, 1), 3)
    for name in ("one", "copy"):
        model.save(tmp_path / f"{name}{ending}")
    model.set_weights([weights + 0.1 for weights in model.get_weights()])
    model.save(tmp_path / f"retrained{ending}")
    one, copy, retrained = (
        digest(KerasFile(path=tmp_path / f"{name}{ending}")) for name in ("one", "copy", "retrained")
    )
    assert (one == copy, one == retrained) == (True, False)


@pytest.mark.tensorflow
def test_the_code_of_a_users_architecture_is_part_of_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "of_a_user.py"
    source.write_text("from experiments.model.mlp import MLP\n\n\nclass Own(MLP):\n    pass\n")
    own = import_module("of_a_user").Own()
    before = digest(own)
    source.write_text(source.read_text() + "# changed\n")
    assert digest(own) != before


def test_a_file_with_a_damaged_directory_is_a_damaged_model(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"\0\0\0\0"))
    with pytest.raises(UserError, match=r"model.path=.*model.keras: a damaged Keras model"):
        KerasFile(path=path).check()


@pytest.mark.tensorflow
def test_a_model_that_takes_whole_numbers_is_refused(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    layers = [keras.Input((8, 8, 1), dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(3)]).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"requires inputs of float, int32 or int64, not uint8"):
        KerasFile(path=tmp_path / "model.keras").build((8, 8, 1), 3)


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_code_in_a_model_file_is_run_only_where_the_file_is_trusted(tmp_path: Path, ending: str) -> None:
    from experiments.system.tensorflow import keras

    inputs = keras.Input((8, 8, 1))
    output = keras.layers.Lambda(lambda x: x[:, 0, :3, 0])(inputs)
    keras.Model(inputs, output).save(tmp_path / f"model{ending}")
    with pytest.raises(UserError, match="a Lambda layer contains Python code"):
        KerasFile(path=tmp_path / f"model{ending}").build((8, 8, 1), 3)
    trusted = KerasFile(path=tmp_path / f"model{ending}", trust=True).build((8, 8, 1), 3)
    assert trusted.output_shape == (None, 3)


@pytest.mark.tensorflow
def test_a_model_for_other_images_is_refused(tmp_path: Path) -> None:
    MLP().build((8, 8, 1), 3).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"requires examples of shape \(8, 8, 1\), but the data set has \(28, 28, 1\)"):
        KerasFile(path=tmp_path / "model.keras").build((28, 28, 1), 3)


@pytest.mark.tensorflow
def test_a_model_for_images_of_any_size_is_made_one_for_those_of_the_data_set(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras

    layers = [keras.layers.Conv2D(3, 3, name="conv"), keras.layers.GlobalAveragePooling2D(name="pool")]
    saved = keras.Sequential([keras.Input((None, None, 1)), *layers])
    saved.save(tmp_path / "model.keras")
    model = KerasFile(path=tmp_path / "model.keras").build((8, 8, 1), 3)
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    assert (model.input_shape, [layer.name for layer in model.layers[1:]]) == ((None, 8, 8, 1), ["conv", "pool"])
    assert np.array_equal(model(images), saved(images))


def test_a_zip_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("x_train.npy", "")
    with pytest.raises(UserError, match="a zip file, but not a Keras model"):
        KerasFile(path=tmp_path / "model.keras").check()


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_text("weights")
    with pytest.raises(UserError, match="not a Keras model, or a truncated one"):
        KerasFile(path=tmp_path / "model.h5").check()

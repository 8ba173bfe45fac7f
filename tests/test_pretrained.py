"""Transfer learning: a new head where the outputs do not fit, frozen layers, and their statistics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.model.pretrained import Pretrained
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.system.keras_version import Version
from experiments.training.loop import Training, fit

pytestmark = pytest.mark.tensorflow

SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Mnist(train_samples=300, test_samples=50).load()


def saved(version: Version, folder: Path, top: str = "dense") -> Path:
    """A file of a small network for 5 classes, or of its feature maps."""
    from experiments.system.tensorflow import clear_session, keras_version

    clear_session()
    keras = keras_version(version)
    layers = keras.layers
    images = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(4, 3, strides=4, name="conv_1")(images)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.5, name="bn_1")(x))
    x = layers.Conv2D(6, 3, activation="relu", name="conv_2")(x)
    if top != "maps":
        x = layers.Dense(5, name="top")(layers.GlobalAveragePooling2D(name="average")(x))
        x = layers.Softmax(name="probabilities")(x)
    path = folder / f"{top}_{version}.keras"
    keras.Model(images, x, name="network").save(path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Any, str], Path]:
    folder = tmp_path_factory.mktemp("files")
    return {(version, top): saved(version, folder, top) for version in (2, 3) for top in ("dense", "maps")}


def names(model: Any) -> list[str]:
    return [layer.name for layer in model.layers]


@pytest.mark.parametrize("version", [2, 3])
def test_outputs_that_do_not_fit_get_a_new_head_the_same_for_every_seed(version: Version, files: Any) -> None:
    from experiments.system.tensorflow import keras

    built = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        built.append(Pretrained(path=files[version, "dense"]).build(SHAPE, 10))
    assert names(built[0]) == ["image", "conv_1", "bn_1", "relu", "conv_2", "average", "head"]
    assert built[0].outputs[0].shape[-1] == 10
    for one, other in zip(built[0].get_weights(), built[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("version", [2, 3])
def test_outputs_that_fit_are_kept_unless_a_new_head_is_typed(version: Version, files: Any) -> None:
    path = files[version, "dense"]
    assert names(Pretrained(path=path).build(SHAPE, 5))[-2:] == ["top", "probabilities"]
    assert names(Pretrained(path=path, head="new").build(SHAPE, 5))[-2:] == ["average", "head"]
    assert names(Pretrained(path=path, features="relu").build(SHAPE, 5))[-3:] == ["relu", "pooling", "head"]


@pytest.mark.parametrize("version", [2, 3])
def test_feature_maps_are_averaged_for_the_head(version: Version, files: Any) -> None:
    model = Pretrained(path=files[version, "maps"]).build(SHAPE, 10)
    assert names(model)[-3:] == ["conv_2", "pooling", "head"]


@pytest.mark.parametrize("version", [2, 3])
def test_frozen_layers_keep_weights_and_statistics(version: Version, files: Any, data: Dataset, tmp_path: Path) -> None:
    model = Pretrained(path=files[version, "dense"], freeze=0.67).build(SHAPE, 10)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    settings = Training(epochs=1, batch_size=50, optimizer="adamw", weight_decay=0.1)
    fit(model, data=data, settings=settings, seed=0, cache=Cache(dir=tmp_path), title="training")
    changed = [
        layer.name
        for layer in model.layers
        if any((one != other).any() for one, other in zip(layer.get_weights(), before[layer.name], strict=True))
    ]
    assert changed == ["conv_2", "head"]


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (0, ()),
        (1, ("conv_1", "bn_1", "conv_2")),
        (0.34, ("conv_1",)),
        (["conv*"], ("conv_1", "conv_2")),
        (["bn_1", "head"], ("bn_1", "head")),
    ],
)
def test_layers_are_chosen_by_a_share_or_by_name(freeze: Any, expected: tuple[str, ...], files: Any) -> None:
    model = Pretrained(path=files[2, "dense"], freeze=freeze).build(SHAPE, 10)
    frozen = tuple(layer.name for layer in model.layers if layer.weights and not layer.trainable)
    assert frozen == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["cnv_1"]}, r"model.freeze=\[cnv_1\]: no layer with weights is named cnv_1.*Did you mean conv_1"),
        ({"features": "averag"}, r"model.features=averag: no such layer. Did you mean average\?"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_near_matches(
    settings: dict[str, Any], message: str, files: Any
) -> None:
    with pytest.raises(UserError, match=message):
        Pretrained(path=files[2, "dense"], **settings).build(SHAPE, 10)


@pytest.mark.parametrize("freeze", [1.5, -1, True, "conv", [1]])
def test_other_selections_are_refused(freeze: object, files: Any) -> None:
    with pytest.raises(ValidationError, match="requires a share from 0 to 1, or a list of layers"):
        Pretrained(path=files[2, "dense"], freeze=freeze)


UNFREEZE = {1: ["conv_2"], 2: 1}


def unfrozen(path: Path, cache: Path, data: Dataset, epochs: int, **settings: Any) -> Any:
    given = Training(**{"epochs": epochs, "batch_size": 50, "unfreeze": UNFREEZE, **settings})
    model = Pretrained(path=path, freeze=1).build(SHAPE, 10)
    return fit(model, data=data, settings=given, seed=0, cache=Cache(dir=cache), title="training").model


def trainable(model: Any) -> list[str]:
    return [layer.name for layer in model.layers if layer.weights and layer.trainable]


def bits(model: Any) -> bytes:
    return b"".join(each.tobytes() for each in model.get_weights())


@pytest.mark.parametrize("version", [2, 3])
def test_layers_are_unfrozen_after_their_epochs_and_resuming_gives_the_same_bits(
    version: Version, files: Any, data: Dataset, tmp_path: Path
) -> None:
    path = files[version, "dense"]
    start = {layer.name: layer.get_weights() for layer in Pretrained(path=path, freeze=1).build(SHAPE, 10).layers}
    trained = []
    for epochs in (1, 2, 3):  # each resumes the one before it
        model = unfrozen(path, tmp_path / "resumed", data, epochs)
        trained.append(trainable(model))
        changed = [
            layer.name
            for layer in model.layers
            if any((one != other).any() for one, other in zip(layer.get_weights(), start[layer.name], strict=True))
        ]
        assert changed == trained[-1]
    assert trained == [["head"], ["conv_2", "head"], ["conv_1", "bn_1", "conv_2", "head"]]
    assert bits(model) == bits(unfrozen(path, tmp_path / "through", data, 3))
    best = unfrozen(path, tmp_path / "through", data, 3, keep="best", learning_rate=1.0)
    again = unfrozen(path, tmp_path / "through", data, 3, keep="best", learning_rate=1.0)  # from the cache only
    assert (bits(best), trainable(best)) == (bits(again), trainable(again))


@pytest.mark.parametrize(
    ("unfreeze", "freeze", "message"),
    [
        ({1: 1}, 0, r"training.unfreeze={1:1}: requires frozen layers, and the model has none.*model\.freeze=1"),
        ({2: ["cnv_1"]}, 1, r"unfreeze={2: \[cnv_1\]}: no frozen layer is named cnv_1.*Did you mean conv_1"),
        ({2: "last:4"}, 1, r"unfreeze={2: last:4}: requires 4 frozen layers, and the model has 3"),
    ],
)
def test_unfreezing_what_is_not_frozen_is_refused(unfreeze: Any, freeze: float, message: str, files: Any) -> None:
    from experiments.training.unfreezing import unfreezing_for

    model = Pretrained(path=files[3, "dense"], freeze=freeze).build(SHAPE, 10)
    with pytest.raises(UserError, match=message):
        unfreezing_for(model, unfreeze)
    assert unfreezing_for(model, {}).trained == {}


def test_shares_and_counts_are_taken_from_the_outputs(files: Any) -> None:
    from experiments.training.unfreezing import unfreezing_for

    found = unfreezing_for(Pretrained(path=files[3, "dense"], freeze=1).build(SHAPE, 10), {5: 0.5, 2: "last:1", 9: 1})
    stages = [set(found.after(epoch)) for epoch in (1, 2, 4, 5, 9)]
    assert stages == [set(), {"conv_2"}, {"conv_2"}, {"bn_1", "conv_2"}, {"conv_1", "bn_1", "conv_2"}]


@pytest.mark.parametrize("unfreeze", [3, {0: 1}, {"a": 1}, {1: 0}, {1: 1.5}, {1: "conv"}, {1: []}, {True: 1}])
def test_other_schedules_of_unfreezing_are_refused(unfreeze: object) -> None:
    with pytest.raises(ValidationError, match=r"as in {2: last:3, 4: 0.5, 6: 1}|requires a share of the frozen layers"):
        Training(epochs=1, unfreeze=unfreeze)


def test_further_training_unfreezes_nothing() -> None:
    with pytest.raises(UserError, match=r"finetune\.unfreeze: .*Unfreeze them with training\.unfreeze"):
        Training(epochs=1, unfreeze={1: 1}).check("finetune")

"""Training: the same command gives the same weights, and continuing is training straight through."""

import hashlib
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.system.cache import Cache
from experiments.training import loop, randomness
from experiments.training.loop import Trained, Training, digest_of, fit, trajectory_key
from experiments.training.precision import Precision, in_precision
from experiments.training.randomness import mixed
from tests.conftest import run

pytestmark = pytest.mark.tensorflow

SETTINGS: dict[str, Any] = {"batch_size": 100}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Mnist(train_samples=500, test_samples=50).load()


def small(shape: tuple[int, ...], classes: int) -> Any:
    """A network with the layers of the article's, but fewer of them: most of the time goes into tracing."""
    from experiments.system.tensorflow import keras

    layers = keras.layers
    ends = layers.Dropout(0.5), layers.Flatten(), layers.Dense(classes)
    return keras.Sequential([layers.InputLayer(shape), layers.Conv2D(8, 3, strides=3, activation="relu"), *ends])


def start(kind: str, data: Dataset, seed: int = 0) -> Any:
    """An untrained model with dropout or BatchNorm, float or quantization-aware."""
    from experiments.model.article_cnn import ArticleCNN
    from experiments.model.ds_cnn import DSCNN
    from experiments.quantization.tfmot.annotation import annotated_whole
    from experiments.quantization.tfmot.compression import clustered, to_cluster, to_prune, to_quantize
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    name = kind.partition("_with_")[0]
    builders: dict[str, Callable[..., Any]] = {
        "article": ArticleCNN().build, "ds_cnn": DSCNN(filters=8, blocks=1).build, "small": small
    }  # fmt: skip
    model = builders[name](data.input_shape, data.classes)
    wrapped: dict[str, Callable[[], Any]] = {
        "": lambda: model,
        "qat": lambda: annotated_whole(model),
        "pruning": lambda: to_prune(model, 0.8),
        "clustering": lambda: to_cluster(model, 16),
        "clustering and zeros": lambda: to_cluster(model, 16, keep_zeros=True),
        "qat that keeps zeros": lambda: to_quantize(model, ["zeros"]),
        "qat that keeps clusters": lambda: to_quantize(clustered(to_cluster(model, 16)), ["clusters"]),
    }
    return wrapped[kind.partition("_with_")[2]]()


def trained(
    kind: str, epochs: int, data: Dataset, cache: Path, seed: int = 0, precision: Precision = "float32"
) -> Trained:
    from experiments.quantization.tfmot.compression import pruning_callbacks

    settings = Training(epochs=epochs, **SETTINGS, precision=precision)
    callbacks = pruning_callbacks() if kind.endswith("pruning") else []
    return fit(
        start(kind, data, seed),
        callbacks,
        data=data,
        settings=settings,
        seed=seed,
        cache=Cache(dir=cache),
        title="training",
    )


def bits(model: Any) -> str:
    """A digest of the weights and of the optimizer's state, where the model itself was trained and no twin of it."""
    state = model.optimizer.variables if model.optimizer else []
    arrays = [*model.get_weights(), *(variable.numpy() for variable in state)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the trainings that several tests need."""
    return tmp_path_factory.mktemp("shared")


def stopped_after_the_first_epoch(straight: Trained, shared: Path, folder: Path) -> Path:
    """A cache as a training leaves it that was stopped after its first epoch."""
    name = f"training/{straight.key}"
    shutil.copytree(shared / name, folder / name, ignore=shutil.ignore_patterns("00002-*"))
    return folder


# The float network is continued in bfloat16 below, and in float32 every night.
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("ds_cnn", marks=pytest.mark.nightly),
        "ds_cnn_with_qat",
        "small_with_pruning",
        "small_with_clustering and zeros",
        "small_with_qat that keeps zeros",
        "small_with_qat that keeps clusters",
    ],
)
def test_continuing_gives_the_bits_of_training_straight_through(
    kind: str, data: Dataset, shared: Path, tmp_path: Path
) -> None:
    straight = trained(kind, 2, data, shared)
    continued = trained(kind, 2, data, stopped_after_the_first_epoch(straight, shared, tmp_path))
    assert bits(continued.model) == bits(straight.model)
    assert (continued.epochs_reused, continued.epochs_trained) == (1, 1)


@pytest.mark.parametrize("kind", ["ds_cnn", pytest.param("article", marks=pytest.mark.nightly)])
def test_continuing_in_bfloat16_gives_the_same_bits_and_a_float32_model(
    kind: str, data: Dataset, shared: Path, tmp_path: Path
) -> None:
    straight = trained(kind, 2, data, shared, precision="mixed_bfloat16")
    stopped = stopped_after_the_first_epoch(straight, shared, tmp_path)
    continued = trained(kind, 2, data, stopped, precision="mixed_bfloat16")
    assert bits(continued.model) == bits(straight.model)
    assert {layer.compute_dtype for layer in continued.model.layers} == {"float32"}


@pytest.mark.parametrize("kind", ["small", "ds_cnn_with_qat"])
def test_an_epoch_has_the_bits_of_keras_own_pass_over_the_arrays(kind: str, data: Dataset, shared: Path) -> None:
    from experiments.system.tensorflow import keras

    plain, settings = start(kind, data), Training(epochs=1, **SETTINGS)
    loop._compile(plain, settings)
    order = np.random.default_rng([0, 0]).permutation(len(data.train))
    keras.utils.set_random_seed(mixed(0, 0))
    validation = (data.validation.x, data.validation.y)
    x, y = data.train.x[order], data.train.y[order]
    plain.fit(x, y, settings.batch_size, shuffle=False, verbose=0, validation_data=validation)
    assert bits(trained(kind, 1, data, shared).model) == bits(plain)


def traces_of_two_epochs(layer: str, data: Dataset, folder: Path) -> tuple[int, str]:
    """How often the training step of a model with this layer was traced, and the bits that came of it."""
    from experiments.system.tensorflow import keras

    traces = []

    class Own(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def call(self, values: Any, training: bool = False) -> Any:
            traces.extend([training] if training else [])
            return values + np.random.standard_normal() if layer == "NumPy" else values

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    drawing = {"Dropout": [layers.Dropout(0.5)], "GaussianNoise": [layers.GaussianNoise(0.1)]}.get(layer, [])
    body = [layers.InputLayer(data.input_shape), layers.Flatten(), Own(name="own"), *drawing, layers.Dense(10)]
    model = keras.Sequential(body)
    traces.clear()
    settings = Training(epochs=2, **SETTINGS)
    fitted = fit(model, data=data, settings=settings, seed=0, cache=Cache(dir=folder), title="training")
    return len(traces), bits(fitted.model)


# The first step is traced twice in any case, because it makes the variables of the optimizer.
@pytest.mark.parametrize(("layer", "expected"), [("none", 2), ("Dropout", 3), ("GaussianNoise", 3), ("NumPy", 3)])
def test_a_step_that_draws_random_numbers_is_traced_in_each_epoch_and_others_once(
    layer: str, expected: int, data: Dataset, tmp_path: Path
) -> None:
    assert traces_of_two_epochs(layer, data, tmp_path)[0] == expected


def test_a_step_that_is_traced_once_gives_the_bits_of_one_traced_in_each_epoch(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, once = traces_of_two_epochs("none", data, tmp_path / "once")
    monkeypatch.setattr(randomness, "_draws", lambda _step: True)
    assert traces_of_two_epochs("none", data, tmp_path / "each") == (3, once)


def bits_in_a_fresh_process(kind: str, epochs: int, cache: Path) -> str:
    cache.mkdir(exist_ok=True)
    (cache / "training_of_test.py").write_text(
        "from pathlib import Path; from tests.test_training import *\n"
        "data = Mnist(train_samples=500, test_samples=50).load()\n"
        f"print(bits(trained({kind!r}, {epochs}, data, Path({str(cache)!r})).model))"
    )
    done = run(cache, "training_of_test")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_fresh_processes_that_continue_one_another_give_the_bits_of_one(data: Dataset, tmp_path: Path) -> None:
    kind = "small_with_qat"
    here = bits(trained(kind, 2, data, tmp_path / "here").model)
    bits_in_a_fresh_process(kind, 1, tmp_path / "there")
    assert bits_in_a_fresh_process(kind, 2, tmp_path / "there") == here


def test_fewer_epochs_are_a_state_of_a_longer_training(data: Dataset, shared: Path) -> None:
    longer = trained("small", 2, data, shared)
    shorter = trained("small", 1, data, shared)
    assert (shorter.epochs_reused, shorter.epochs_trained) == (1, 0)
    assert shorter.history["loss"] == longer.history["loss"][:1]


def test_seeds_give_different_weights(data: Dataset, shared: Path) -> None:
    one, other = (trained("small", 1, data, shared, seed=seed).model for seed in (0, 1))
    assert bits(one) != bits(other)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 99},
        {"learning_rate": 0.01},
        {"optimizer": "sgd"},
        {"precision": "mixed_bfloat16"},
        {"unfreeze": {1: 1}},
    ],
)
def test_everything_that_decides_the_weights_is_part_of_the_key(change: dict[str, Any], data: Dataset) -> None:
    usual = Training(epochs=1, **SETTINGS)
    changed = Training(**{"epochs": 1, **SETTINGS, **change})
    model = start("ds_cnn", data)
    assert trajectory_key(model, data, changed, 0) != trajectory_key(model, data, usual, 0)


def test_the_number_of_epochs_is_not_part_of_the_key(data: Dataset) -> None:
    model = start("ds_cnn", data)
    keys = {trajectory_key(model, data, Training(epochs=n, **SETTINGS), 0) for n in (1, 20)}
    assert len(keys) == 1


def test_no_epochs_leave_the_model_as_it_is(data: Dataset, tmp_path: Path) -> None:
    result = trained("small", 0, data, tmp_path)
    assert (result.key, result.seconds, dict(result.history)) == ("", 0.0, {})


def test_training_in_bfloat16_gives_other_weights_and_learns(data: Dataset, shared: Path) -> None:
    usual = trained("ds_cnn", 2, data, shared)
    short = trained("ds_cnn", 2, data, shared, precision="mixed_bfloat16")
    assert bits(short.model) != bits(usual.model)
    assert short.history["loss"][1] < short.history["loss"][0]


def test_in_bfloat16_every_layer_but_inputs_and_the_last_computes_in_it(data: Dataset) -> None:
    from experiments.model.resnet8 import ResNet8

    model = ResNet8().build(data.input_shape, data.classes)
    with in_precision(model, "mixed_bfloat16", data.train.x[:8]) as twin:
        dtypes = [layer.compute_dtype for layer in twin.layers]
    assert set(dtypes[1:-1]) == {"bfloat16"}
    assert dtypes[-1] == "float32"
    assert {weights.dtype.name for weights in twin.weights} == {"float32"}


def test_a_layer_inside_a_model_inside_a_model_computes_in_bfloat16_too(data: Dataset) -> None:
    from experiments.system.tensorflow import keras

    layers = keras.layers
    inner = keras.Sequential([layers.InputLayer(data.input_shape), layers.Conv2D(2, 3), layers.Flatten()])
    model = keras.Sequential([layers.InputLayer(data.input_shape), inner, layers.Dense(data.classes)])
    with in_precision(model, "mixed_bfloat16", data.train.x[:8]) as twin:
        assert twin.layers[0].layers[0].compute_dtype == "bfloat16"


OWN_LAYER = """
from experiments.system.tensorflow import keras

class Doubled(keras.layers.Layer):
    def call(self, values):
        return 2 * values
"""


def test_changed_code_of_a_user_defined_layer_is_another_model(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.system.tensorflow import keras

    (tmp_path / "layers_of_a_training.py").write_text(OWN_LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    own = import_module("layers_of_a_training").Doubled(name="doubled")
    model = keras.Sequential([keras.Input(data.input_shape), keras.layers.Flatten(), own, keras.layers.Dense(10)])
    before = digest_of(model)
    assert digest_of(model) == before
    (tmp_path / "layers_of_a_training.py").write_text(OWN_LAYER.replace("2 *", "3 *"))
    assert digest_of(model) != before

"""Settings of training: schedules, optimizers, weight decay, the best epoch, and their exactness when resumed."""

from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.system.keras_version import Version
from experiments.task import Head
from experiments.task.binary import BinaryHead
from experiments.task.boxes import Decoding
from experiments.task.classification import ClassHead, Meaning
from experiments.task.detection import BoxHead
from experiments.task.multilabel import LabelHead
from experiments.task.reconstruction import ReconstructionHead
from experiments.task.regression import NumberHead
from experiments.task.segmentation import PixelHead
from experiments.tflite.conversion import convert
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Float32
from experiments.training import loop
from experiments.training.augmentation import ARGUMENTS, REQUIRED, augmentation_for, check_places
from experiments.training.best_epoch import best_epoch, end_of
from experiments.training.loop import Trained, Training, fit, trajectory_key
from experiments.training.schedules import rate, schedule_of
from experiments.training.weighting import check, loss_for, weights_of

EPOCHS, STEPS = 4, 5
AUGMENTATION = [
    {"RandomFlip": {"mode": "horizontal"}},
    {"RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1}},
    {"RandomContrast": {"factor": 0.2}},
    {"GaussianNoise": {"stddev": 0.1}},
]
SETTINGS: list[dict[str, Any]] = [
    {
        "schedule": "cosine", "warmup_epochs": 1, "optimizer": "adamw", "weight_decay": 0.01,
        "label_smoothing": 0.1, "class_weights": "balanced",
    },
    {"schedule": {"step": {"every": 1}}, "optimizer": {"sgd": {"momentum": 0.9}}, "augmentation": AUGMENTATION},
    {"optimizer": "nadam"},
]  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Mnist(train_samples=300, test_samples=50).load()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ({"step": {"every": 2}}, [1, 1, 0.1, 0.1]),
        ({"step": {"epochs": [1, 3], "factor": 0.5}}, [1, 0.5, 0.5, 0.25]),
        ({"exponential": {"factor": 0.5}}, [1, 0.5, 0.25, 0.125]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ({"linear": {"end": 0.2}}, [1, 0.8, 0.6, 0.4]),
    ],
)
def test_a_schedule_is_a_share_of_the_learning_rate(setting: object, expected: list[float]) -> None:
    given = [rate(schedule_of(setting), 2.0, 0, epoch, 4) for epoch in range(4)]
    np.testing.assert_allclose(given, [2 * each for each in expected])


def test_the_learning_rate_rises_from_zero_in_the_warm_up_and_steps_count_from_the_start() -> None:
    given = [rate(schedule_of({"step": {"epochs": [3]}}), 1.0, 2, epoch, 4) for epoch in (0, 0.5, 1, 2, 3)]
    np.testing.assert_allclose(given, [0, 0.25, 0.5, 1, 0.1])


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_rates_are_those_of_keras(version: Version) -> None:
    from experiments.system.tensorflow import keras_version

    schedules = keras_version(version).optimizers.schedules
    total, warm = EPOCHS * STEPS, STEPS
    keras: list[tuple[Any, object, float]] = [
        (schedules.CosineDecay(0.1, total, alpha=0.1), {"cosine": {"end": 0.1}}, 0),
        (schedules.CosineDecay(0.0, total - warm, warmup_target=0.1, warmup_steps=warm), "cosine", 1),
        (schedules.PolynomialDecay(0.1, total, 0.02), {"linear": {"end": 0.2}}, 0),
        (schedules.ExponentialDecay(0.1, STEPS, 0.9), "exponential", 0),
    ]
    for wanted, setting, warmup in keras:
        given = [rate(schedule_of(setting), 0.1, warmup, step / STEPS, EPOCHS) for step in range(total)]
        np.testing.assert_allclose(given, [float(wanted(step)) for step in range(total)], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "unknown name cosin. Did you mean cosine?"),
        ({"schedule": {"step": {"evry": 3}}}, "step has no argument evry. Did you mean every?"),
        ({"schedule": {"step": {"every": 0}}}, "every=0: input should be greater than 0"),
        ({"schedule": "step"}, "step requires `every` or `epochs`"),
        ({"schedule": 3}, "requires a name, or one name with arguments"),
        ({"optimizer": "adan"}, "unknown name adan. Did you mean adam or nadam"),
        ({"optimizer": {"sgd": 0.9}}, r"sgd requires named arguments, as in {sgd: {momentum: value}}"),
        ({"augmentation": ["RandomFlop"]}, "unknown name RandomFlop. Did you mean RandomFlip"),
        ({"augmentation": "RandomFlip"}, r"requires a list, as in \[RandomFlip"),
        ({"augmentation": [{"RandomRotation": {"fctor": 0.1}}]}, "has no argument fctor. Did you mean factor?"),
        ({"augmentation": [{"RandomFlip": {"mode": "sideways"}}]}, "mode=sideways. Known: horizontal, horizontal_and"),
        ({"augmentation": ["RandomTranslation"]}, "RandomTranslation requires height_factor and width_factor, as in"),
        ({"class_weights": "balance"}, "unknown name balance. Did you mean balanced?"),
        ({"class_weights": {"1": 0}}, "a positive weight for each class"),
        ({"label_smoothing": 1}, "less than 1"),
        ({"keep": "bets"}, "'last' or 'best'"),
        ({"patience": 0}, "greater than 0"),
        ({"weight_decay": -1}, "greater than or equal to 0"),
    ],
)
def test_wrong_values_are_refused_with_near_matches(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Training(epochs=1, **settings)


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(UserError, match=r"finetune.warmup_epochs=3: requires at most finetune.epochs=2"):
        Training(epochs=2, warmup_epochs=3).check("finetune")


def test_training_stops_when_the_loss_has_not_fallen_for_as_many_epochs_as_its_patience() -> None:
    history = {"val_loss": [3.0, 2.0, 2.5, 2.0, 1.0]}
    assert [end_of(history, patience) for patience in (None, 1, 2, 3)] == [None, 3, 4, None]
    assert best_epoch(history) == 5
    assert best_epoch({"val_loss": [3.0, 2.0, 2.0]}) == 2
    assert best_epoch({"val_loss": [float("nan"), 2.0, 3.0]}) == 2


def network(version: Version) -> Any:
    """A model with BatchNorm and Dropout, always with the same weights."""
    from experiments.system.tensorflow import clear_session, keras_version

    clear_session()
    keras = keras_version(version)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = images = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(4, 3, strides=4, name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.9, name="bn")(x))
    x = layers.Dropout(0.5, name="dropout")(layers.Flatten(name="flatten")(x))
    return keras.Model(images, layers.Dense(10, name="dense")(x), name="network")


def trained(version: Version, epochs: int, data: Dataset, folder: Path, **settings: Any) -> Trained:
    asked = Training(epochs=epochs, batch_size=100, **settings)
    return fit(network(version), data=data, settings=asked, seed=0, cache=Cache(dir=folder), title="training")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for trainings with the usual settings, which several tests compare theirs with."""
    return tmp_path_factory.mktemp("plain")


def weights(result: Trained) -> bytes:
    return b"".join(value.tobytes() for value in result.model.get_weights())


def bits(result: Trained) -> bytes:
    return weights(result) + b"".join(np.asarray(value).tobytes() for value in result.model.optimizer.variables)


def forget(folder: Path, *epochs: int) -> None:
    """Remove the states after these epochs, like an interruption or a full cache."""
    for epoch in epochs:
        (state,) = folder.glob(f"training/*/{epoch:05d}-*.npz")
        state.unlink()


@pytest.mark.tensorflow
# The other two are tried every night: test_training.py and test_training_keras3.py resume in both versions as well.
@pytest.mark.parametrize(
    ("version", "settings"),
    [
        pytest.param(
            version, settings, marks=[] if version == usual else pytest.mark.nightly, id=f"{version}-{settings}"
        )
        for usual, settings in zip((3, 2, 2), SETTINGS, strict=True)
        for version in (2, 3)
    ],
)
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    version: Version, settings: dict[str, Any], data: Dataset, plain: Path, tmp_path: Path
) -> None:
    straight = trained(version, 2, data, tmp_path, **settings)
    forget(tmp_path, 2)
    resumed = trained(version, 2, data, tmp_path, **settings)
    assert (resumed.epochs_reused, resumed.epochs_trained) == (1, 1)
    assert bits(resumed) == bits(straight)
    assert weights(straight) != weights(trained(version, 2, data, plain))


@pytest.mark.tensorflow
def test_nadam_is_resumed_exactly_in_a_model_that_draws_nothing(data: Dataset, tmp_path: Path) -> None:
    from experiments.system.tensorflow import clear_session, keras

    def nadam(epochs: int) -> bytes:
        clear_session()
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        asked = Training(epochs=epochs, batch_size=100, optimizer="nadam")
        return bits(fit(model, data=data, settings=asked, seed=0, cache=Cache(dir=tmp_path), title="training"))

    straight = nadam(3)
    forget(tmp_path, 2, 3)
    assert nadam(3) == straight


@pytest.mark.tensorflow
def test_only_a_schedule_that_needs_the_number_of_epochs_has_it_in_the_key(data: Dataset) -> None:
    model = network(2)

    def keys(**settings: Any) -> int:
        asked = [Training(epochs=epochs, **settings) for epochs in (1, 5)]
        return len({trajectory_key(model, data, each, 0) for each in asked})

    assert [keys(schedule=each) for each in ("constant", "cosine", "linear", "exponential")] == [1, 2, 2, 1]
    assert keys(keep="best", patience=2) == 1


JUDGED_ALIKE: dict[str, list[Head]] = {
    "binary": [BinaryHead(1, "logits"), BinaryHead(1, "logits", 0.2), BinaryHead(1, "logits", 0.5, "accuracy")],
    "multilabel": [LabelHead(3, "logits"), LabelHead(3, "logits", 0.2), LabelHead(3, "logits", 0.5, "macro_f1")],
    "regression": [NumberHead(1), NumberHead(1, "mse", "rmse")],
    "reconstruction": [ReconstructionHead(4), ReconstructionHead(4, "mse"), ReconstructionHead(4, "auc", 10)],
    "detection": [BoxHead(4, Decoding()), BoxHead(4, Decoding(suppressed=0.5, least=0.1), "map50")],
}
TRAINED_OTHERWISE: list[list[Head]] = [
    [BinaryHead(1, "logits"), BinaryHead(1, "sigmoid")],
    [NumberHead(1), NumberHead(1, "huber")],
    [BoxHead(4, Decoding()), BoxHead(4, Decoding(target_form="xywh")), BoxHead(4, Decoding(scale=(2, 2)))],
    [PixelHead(4, logits=True), PixelHead(4, logits=True, ignored=255), PixelHead(4, logits=False)],
]


@pytest.mark.parametrize("heads", JUDGED_ALIKE.values(), ids=JUDGED_ALIKE)
def test_what_only_judges_the_outputs_makes_no_other_training(heads: list[Head]) -> None:
    assert [head.identity for head in heads] == [heads[0].identity] * len(heads)


@pytest.mark.parametrize("heads", TRAINED_OTHERWISE, ids=lambda heads: type(heads[0]).__name__)
def test_what_decides_the_loss_makes_another_training(heads: list[Head]) -> None:
    assert len({str(head.identity) for head in heads}) == len(heads)


def test_a_subclass_may_train_with_what_only_judges_in_its_base_class() -> None:
    class Own(BinaryHead):
        """A head of a user, whose loss has the threshold."""

    assert Own(1, "logits", 0.2).identity != Own(1, "logits", 0.3).identity


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_the_accuracy_in_training_does_not_depend_on_the_threshold(version: Version) -> None:
    from experiments.system.tensorflow import keras_version

    keras = keras_version(version)
    (metric,) = BinaryHead(1, "logits", 0.9).training_metrics(keras)
    metric.update_state(np.array([1.0, 0.0, 0.0]), np.array([0.1, -0.1, 0.1]))
    assert float(metric.result()) == pytest.approx(2 / 3)


@pytest.mark.tensorflow
def test_another_kind_of_gpu_is_another_training(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = network(2), Training(epochs=1)
    before = trajectory_key(model, data, settings, 0)
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0/information").write_text("Model: \t NVIDIA H200\nIRQ: 1\n")
    monkeypatch.setattr(loop, "GPU_INFORMATION", tmp_path)
    loop.numerics.cache_clear()
    assert loop.numerics()["gpus"].endswith("['NVIDIA H200']")
    assert trajectory_key(model, data, settings, 0) != before
    loop.numerics.cache_clear()


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_the_best_epoch_has_the_weights_of_that_epoch_even_if_its_state_was_dropped(
    version: Version, data: Dataset, tmp_path: Path
) -> None:
    noisy: dict[str, Any] = {"learning_rate": 0.3}  # so that the last epoch is not the best
    last = trained(version, 3, data, tmp_path, **noisy)
    best = best_epoch(last.history)
    assert best < 3
    wanted = weights(trained(version, best, data, tmp_path, **noisy))
    kept = trained(version, 3, data, tmp_path, keep="best", **noisy)
    assert (kept.kept, kept.epochs_reused, kept.epochs_trained) == (best, 3, 0)
    assert kept.history == last.history
    assert weights(kept) == wanted
    forget(tmp_path, *range(1, best + 1))
    assert weights(trained(version, 3, data, tmp_path, keep="best", **noisy)) == wanted


@pytest.mark.tensorflow
def test_a_training_with_patience_ends_where_one_that_went_further_would_have(data: Dataset, tmp_path: Path) -> None:
    noisy: dict[str, Any] = {"learning_rate": 0.3}
    further = trained(2, 3, data, tmp_path, **noisy)
    end = end_of(further.history, 1)
    assert end is not None
    assert end < 3
    wanted = bits(trained(2, end, data, tmp_path, **noisy))
    for folder in (tmp_path, tmp_path / "new"):
        stopped = trained(2, 3, data, folder, patience=1, **noisy)
        assert stopped.kept == end
        assert len(stopped.history["loss"]) == end
        assert bits(stopped) == wanted


@pytest.mark.tensorflow
def test_the_best_epoch_requires_validation_images(tmp_path: Path) -> None:
    data = Mnist(train_samples=100, test_samples=50, validation_split=0).load()
    with pytest.raises(
        UserError, match=r"training.keep=best: requires validation examples.*dataset.validation_split=0.1"
    ):
        trained(2, 1, data, tmp_path, keep="best")


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_biases_and_normalization_do_not_decay(version: Version) -> None:
    from experiments.training.loop import _compile

    model = network(version)
    _compile(model, Training(epochs=1, optimizer="adamw", learning_rate=0.5, weight_decay=0.1))
    before = model.get_weights()
    optimizer = model.optimizer
    zero = [(0 * weight, weight) for weight in model.trainable_variables]
    optimizer.apply_gradients(zero)
    for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        decays = len(weight.shape) > 1
        np.testing.assert_allclose(new, old * (0.95 if decays else 1), rtol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_each_augmentation_depends_on_seed_epoch_and_batch_only(name: str) -> None:
    from experiments.system.tensorflow import keras_3, tf

    known = signature(getattr(keras_3().layers, name).__init__).parameters
    assert set(ARGUMENTS[name]) <= set(known)
    needed = {each for each, value in known.items() if value.default is value.empty} - {"self", "kwargs"}
    assert needed == set(REQUIRED.get(name, ()))
    images = np.random.default_rng(0).random((4, 12, 12, 3), np.float32)
    others: dict[str, dict[str, float]] = {"RandomPosterization": {"factor": 4}, "RandomShear": {"x_factor": 0.3}}
    given = others.get(name, dict.fromkeys(REQUIRED.get(name, ()), 0.3))
    augmented = augmentation_for([{name: given}], images)
    batches = tf.data.Dataset.from_tensor_slices(np.concatenate([images, images])).map(lambda image: (image,)).batch(4)

    def drawn(seed: int, epoch: int) -> list[Any]:
        return [batch.numpy() for (batch,) in augmented(batches, seed, epoch)]

    first, again, other = drawn(0, 0), drawn(0, 0), drawn(0, 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)
    assert np.all(np.isfinite(first))


@pytest.mark.tensorflow
def test_values_stay_in_the_range_of_the_images_and_grey_images_need_no_channels() -> None:
    from experiments.system.tensorflow import tf

    images = np.random.default_rng(0).random((64, 12, 12), np.float32)
    augmented = augmentation_for([{"RandomBrightness": {"factor": 0.9}}], images)
    (changed,) = (batch.numpy() for (batch,) in augmented(tf.data.Dataset.from_tensors((images,)), 0, 0))
    assert changed.shape == images.shape
    assert (changed.min(), changed.max()) == (0, 1)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("setting", "shape", "message"),
    [
        (["RandomFlip"], (4, 20), r"RandomFlip requires images \(height, width, channels\), not .*shape \(20,\)"),
        ([{"RandomHue": {"factor": 0.1}}], (4, 8, 8, 2), r"cannot apply these layers to examples of the shape"),
    ],
)
def test_layers_that_do_not_fit_are_refused(setting: object, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        augmentation_for(setting, np.zeros(shape, np.float32))


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_no_file_has_augmentation(version: Version, data: Dataset, plain: Path, tmp_path: Path) -> None:
    usual = trained(version, 1, data, plain)
    augmented = trained(version, 1, data, tmp_path, augmentation=AUGMENTATION)
    assert weights(usual) != weights(augmented)
    ops = [
        [
            (op.op, op.inputs, op.outputs, op.weights_bytes)
            for op in read_ops(convert(each.model, Float32(), lambda count: data.test.x[:count]).content, [])
        ]
        for each in (usual, augmented)
    ]
    assert ops[0] == ops[1]


def test_balanced_weights_count_all_classes_the_same(data: Dataset) -> None:
    weights = weights_of("balanced", data)
    assert weights is not None
    counted = [weights[number] * np.count_nonzero(data.train.y == number) for number in range(10)]
    np.testing.assert_allclose(counted, [len(data.train) / 10] * 10)


def test_weights_are_given_by_the_names_of_classes(data: Dataset) -> None:
    named = replace(data, labels={number: f"digit {number}" for number in range(10)})
    assert weights_of({"digit 3": 2}, named) == {number: 2.0 if number == 3 else 1.0 for number in range(10)}
    assert Training(epochs=1, class_weights={3: 2, "other": 1}).class_weights == {"3": 2, "other": 1}
    assert weights_of({3: 2}, data) == weights_of({"digit 3": 2}, named)
    with pytest.raises(UserError, match=r"the data have no class digit3\. Did you mean digit 3"):
        weights_of({"digit3": 2}, named)


def test_weights_have_the_numbers_of_a_model_file_with_more_outputs_than_the_data_have_classes(data: Dataset) -> None:
    y = np.where(data.train.y < 5, 2, 9)  # two of ten outputs, whose labels count from 1
    few = replace(data, train=replace(data.train, y=y), classes=2, labels={2: "3", 9: "10"})
    assert weights_of({"3": 2}, few) == {number: 2.0 if number == 2 else 1.0 for number in range(10)}
    with pytest.raises(UserError, match="the data have no class 9"):
        weights_of({"9": 2}, few)
    balanced = weights_of("balanced", few)
    assert balanced is not None
    assert [balanced[number] * np.count_nonzero(y == number) for number in (2, 9)] == [len(y) / 2] * 2


@pytest.mark.parametrize("head", [PixelHead, BoxHead, ReconstructionHead])
def test_images_are_not_moved_away_from_their_targets(head: type[Head]) -> None:
    check_places([{"GaussianNoise": {"stddev": 0.1}}, "RandomErasing"], head.by_place)
    with pytest.raises(UserError, match="RandomFlip moves the content of an image, but not the targets"):
        check_places(["RandomErasing", "RandomFlip"], head.by_place)
    check_places(["RandomFlip"], NumberHead.by_place)


@pytest.mark.parametrize("settings", [(0.1, "none"), (0.0, "balanced")])
def test_smoothing_and_class_weights_require_classes(settings: tuple[float, str]) -> None:
    with pytest.raises(UserError, match="requires task=classification, not task=regression"):
        check(NumberHead(1), *settings)


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("meaning", ["logits", "softmax", "sigmoid"])
def test_smoothed_labels_have_keras_loss(version: Version, meaning: Meaning) -> None:
    from experiments.system.tensorflow import keras_version

    keras = keras_version(version)
    labels, outputs = np.array([0, 2]), np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], np.float32)
    smooth = np.eye(3, dtype=np.float32)[labels] * 0.8 + 0.2 / 3
    given = loss_for(ClassHead(3, meaning), keras, 0.2)(labels, outputs)
    if meaning == "sigmoid":
        smooth = np.eye(3, dtype=np.float32)[labels] * 0.8 + 0.1
        wanted = keras.losses.binary_crossentropy(smooth, outputs)
    else:
        wanted = keras.losses.categorical_crossentropy(smooth, outputs, from_logits=meaning == "logits")
    np.testing.assert_allclose(given, wanted, rtol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_weights_of_classes_multiply_their_losses(version: Version, data: Dataset, plain: Path, tmp_path: Path) -> None:
    usual = trained(version, 1, data, plain)
    triple = trained(version, 1, data, tmp_path, class_weights=dict.fromkeys(range(10), 3))
    ratio = triple.history["loss"][0] / usual.history["loss"][0]
    assert 2.8 < ratio < 3.1  # adam divides by the scale of the gradients
    assert triple.history["val_loss"][0] == pytest.approx(usual.history["val_loss"][0], rel=1e-3)

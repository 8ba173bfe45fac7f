"""Tasks other than classification: their targets, their heads, and runs on small data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Split
from experiments.dataset.npz import Npz
from experiments.measure.plausibility import score_warnings
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Task
from experiments.task.auto import Auto
from experiments.task.binary import Binary
from experiments.task.metrics import Better, ErrorAuc, ReconstructionError
from experiments.task.multilabel import Multilabel
from experiments.task.own import OwnTask
from experiments.task.reconstruction import Reconstruction
from experiments.task.regression import Regression
from experiments.task.segmentation import Segmentation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 8)).astype(np.float32)
NUMBERS = (2 * X[:, 0] + X[:, 1]).astype(np.float32)
MAPS = np.zeros((200, 8, 8), np.int64)
for each, (row, column) in enumerate(RNG.integers(0, 5, (200, 2))):
    MAPS[each, row : row + 3, column : column + 3] = 1
IMAGES = (MAPS[..., np.newaxis] + 0.1 * RNG.normal(size=(*MAPS.shape, 1))).astype(np.float32)
ANOMALY = np.repeat([0, 1], 50)
SOURCES: dict[str, tuple[Any, Any, Any, Any]] = {
    "numbers": (X[:300], NUMBERS[:300], X[300:], NUMBERS[300:]),
    "two classes": (X[:300], X[:300, 0] > 0, X[300:], X[300:, 0] > 0),
    "rows": (X[:300], X[:300, :3] > 0, X[300:], X[300:, :3] > 0),
    "maps": (IMAGES[:150], MAPS[:150], IMAGES[150:], MAPS[150:]),
    "normal": (X[:300], np.zeros(300), X[300:], np.zeros(100)),
    "anomalies": (X[:300] / 9, np.zeros(300), np.concatenate([X[300:350] / 9, X[350:]]), ANOMALY),
}


def saved(folder: Path, name: str) -> Path:
    path = folder / "data.npz"
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), SOURCES[name], strict=True)))
    return path


@pytest.mark.parametrize(
    ("name", "task"),
    [("numbers", Regression), ("two classes", None), ("rows", Multilabel), ("maps", Segmentation)],
)
def test_targets_show_the_task(
    name: str, task: type[Task] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = Auto().resolve(Npz(path=saved(tmp_path, name)).examples())
    assert chosen.name == (task.name if task else "classification")
    assert (f"task: {chosen.name} (targets are" in capsys.readouterr().out.replace("\n", " ")) == (task is not None)


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        ("numbers", np.array(["a"] * 300), "task=regression requires numbers. For classes: task=classification"),
        ("numbers", np.full(300, np.nan), "300 values that are not finite"),
        ("numbers", np.zeros(299), "x_train has 300 examples, but y_train has 299 targets"),
        ("rows", np.full((300, 3), 2), r"task=multilabel requires rows of 0 and 1"),
        ("maps", np.zeros((300, 3)), r"task=segmentation requires the number of a class"),
        ("anomalies", np.ones(300), r"y_train has 300 anomalies; .* keep = y_train == 0"),
        (None, np.full((300, 3), 2), "the task is ambiguous. To predict these numbers, type task=regression"),
    ],
)
def test_targets_of_another_kind_are_refused(kind: Any, y: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_train=X[:300], y_train=y, x_test=X[300:], y_test=y[:100])
    with pytest.raises(UserError, match=message):
        Npz(path=tmp_path / "data.npz").examples(kind)


def test_reconstruction_requires_no_targets_in_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_train=X[:300], x_test=X[300:])
    found = Npz(path=tmp_path / "data.npz").examples("anomalies")
    assert (found.test.y == 0).all()
    with pytest.raises(UserError, match="requires the array y_train"):
        Npz(path=tmp_path / "data.npz").examples()


def data_of(name: str, folder: Path, kind: Any = None) -> Dataset:
    return Npz(path=saved(folder, name)).examples(kind).for_new_model()


def model_with(*shape: int) -> Any:
    """What a head looks at first: the shape of the outputs."""
    return SimpleNamespace(outputs=[SimpleNamespace(shape=(None, *shape))])


@pytest.mark.parametrize(
    ("task", "name", "shape", "message"),
    [
        (
            Regression(),
            "numbers",
            (3,),
            r"the targets have the shape \(n, 1\), but the model has outputs",
        ),
        (Multilabel(), "rows", (2,), r"the targets have 3 labels, but the model has outputs of shape \(n, 2\)"),
        (Segmentation(), "maps", (2,), r"requires a model with outputs of shape \(n, 8, 8, classes\)"),
        (Segmentation(), "maps", (8, 8, 1), r"the targets have the class 1, but the model has outputs for 1 classes"),
        (Reconstruction(), "anomalies", (5,), r"whose outputs have the shape of its input, \(8,\), not \(5,\)"),
        (Reconstruction(metric="auc"), "normal", (8,), "requires normal examples and anomalies in the test part"),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_refused(
    task: Task, name: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        task.head(model_with(*shape), data_of(name, tmp_path, task.kind))


def test_a_new_model_has_no_output_for_ignored_pixels(tmp_path: Path) -> None:
    x, y, x_test, y_test = SOURCES["maps"]
    border = np.where(np.arange(8) == 0, 255, y)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=border, x_test=x_test, y_test=y_test)
    task = Segmentation(ignored=255)
    assert task.counted(Npz(path=tmp_path / "data.npz").examples(task.kind)).for_new_model().classes == 2


def test_a_regression_no_better_than_a_constant_has_a_warning(tmp_path: Path) -> None:
    data = data_of("numbers", tmp_path)
    head = Regression().head(model_with(1), data)
    near = data.test.y + np.float32(0.1)
    assert not list(score_warnings(near, data, head, 1))
    (warning,) = score_warnings(np.zeros_like(data.test.y), data, head, 0)
    assert warning.startswith("at chance: the MAE of the float model is 1.")
    assert warning.endswith("such as epochs=20.")


def test_a_threshold_is_a_probability_whatever_the_outputs_mean() -> None:
    from experiments.task.binary import BinaryHead

    probabilities = np.array([0.2, 0.6, 0.8])
    logits = np.log(probabilities / (1 - probabilities))
    forms = {
        BinaryHead(1, "sigmoid", 0.7): probabilities[:, np.newaxis],
        BinaryHead(1, "logits", 0.7): logits[:, np.newaxis],
        BinaryHead(2, "softmax", 0.7): np.stack([1 - probabilities, probabilities], axis=1),
        BinaryHead(2, "logits", 0.7): np.stack([np.zeros(3), logits], axis=1),
    }
    assert [head.predict(outputs.astype(np.float32)).tolist() for head, outputs in forms.items()] == [[0, 0, 1]] * 4


@option(frozen=True, config=OPTION, kw_only=True)
class WithinOne(OwnTask):
    """The share of numbers that are predicted to within 1."""

    metric_name: ClassVar[str] = "within_1"
    better: ClassVar[Better] = "higher"

    def score(self, outputs: Any, truth: Any) -> npt.NDArray[Any]:
        return np.abs(outputs[:, 0] - truth) < 1  # type: ignore[no-any-return]


@option(frozen=True, config=OPTION, kw_only=True)
class LargestMiss(OwnTask):
    """The largest error of a set."""

    metric_name: ClassVar[str] = "worst"
    better: ClassVar[Better] = "lower"

    def metric(self, outputs: Any, truth: Any) -> float:
        return float(np.abs(outputs[:, 0] - truth).max())


@option(frozen=True, config=OPTION, kw_only=True)
class TwoMeasures(WithinOne, LargestMiss):
    """It defines too much."""


def test_a_users_task_requires_a_score_or_a_metric(tmp_path: Path) -> None:
    data = data_of("numbers", tmp_path, "own")
    for task, own in ((WithinOne(), "within_1"), (LargestMiss(), "worst")):
        metric = task.head(model_with(1), data).metric
        values = metric.replicates(data.test.y.reshape(-1, 1) + np.float32(0.5), data.test)
        assert metric.name == own
        assert values[0] == values[7] == pytest.approx(1 if own == "within_1" else 0.5)
    for wrong in (TwoMeasures(), OwnTask()):
        with pytest.raises(UserError, match=r"requires metric_name, and one of score\(outputs, truth\) and metric"):
            wrong.head(model_with(1), data)


def test_binary_refuses_more_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.task.classification import ClassHead, Classification

    monkeypatch.setattr(Classification, "head", lambda *_: ClassHead(3, "logits"))
    with pytest.raises(UserError, match="requires two classes and a model with one or two outputs"):
        Binary().head(model_with(3), data_of("two classes", tmp_path))


def test_a_recording_is_judged_by_the_mean_error_of_its_windows(tmp_path: Path) -> None:
    data = data_of("anomalies", tmp_path, "anomalies")
    test = Split(data.test.x, np.repeat([0, 1], 50))
    errors = np.tile([0.0, 3.0], 50) + np.repeat(
        [0, 1], 50
    )  # of windows; those of a recording differ more than its mean
    outputs = (data.test.x[:] + np.sqrt(errors)[:, np.newaxis]).astype(np.float32)
    assert ErrorAuc().value(outputs, test) == pytest.approx(0.75)
    judged = ErrorAuc(10)
    assert (judged.value(outputs, test), judged.units(test)) == (1, 10)
    assert judged.replicates(outputs, test)[1:].max() == 1
    assert ReconstructionError(10).value(outputs, test) == pytest.approx(ReconstructionError().value(outputs, test))


@pytest.mark.parametrize(
    ("windows", "message"),
    [(7, "100 is no multiple of 7"), (20, "1 recordings of the test part have normal windows and anomalies")],
)
def test_windows_that_make_no_recordings_are_refused(windows: int, message: str, tmp_path: Path) -> None:
    data = data_of("anomalies", tmp_path, "anomalies")
    with pytest.raises(UserError, match=message):
        Reconstruction(windows=windows).head(model_with(8), data)


def test_windows_are_not_drawn_one_by_one(tmp_path: Path) -> None:
    source = Npz(path=saved(tmp_path, "anomalies"), test_samples=50)
    with pytest.raises(UserError, match=r"dataset\.test_samples=50: draws single windows, and task\.windows=10"):
        Reconstruction(windows=10).check(source)

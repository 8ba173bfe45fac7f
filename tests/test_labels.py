"""Labels in their stored forms, and their class numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset
from experiments.dataset.labels import class_numbers, describe_renumbering, output_numbers, read_labels
from experiments.dataset.npz import Npz
from experiments.system.errors import UserError

TRUE = np.arange(20) % 3


def loaded(folder: Path, y: Any) -> Dataset:
    np.savez(folder / "data.npz", x_train=np.zeros((20, 4)), y_train=y, x_test=np.zeros((20, 4)), y_test=y)
    return Npz(path=folder / "data.npz", validation_split=0).load()


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (TRUE, {0: "0", 1: "1", 2: "2"}),
        (TRUE + 1, {0: "1", 1: "2", 2: "3"}),
        (TRUE * 300 + 7, {0: "7", 1: "307", 2: "607"}),
        (TRUE.astype(np.uint8).reshape(-1, 1), {0: "0", 1: "1", 2: "2"}),
        (TRUE.astype(np.float32), {0: "0", 1: "1", 2: "2"}),
        (np.eye(3)[TRUE], {0: "0", 1: "1", 2: "2"}),
        (np.eye(3, dtype=np.uint8)[TRUE], {0: "0", 1: "1", 2: "2"}),
        (np.eye(3, dtype=bool)[TRUE], {0: "0", 1: "1", 2: "2"}),
        (np.array(["cat", "dog", "owl"])[TRUE], {0: "cat", 1: "dog", 2: "owl"}),
        (np.array([b"cat", b"dog", b"owl"])[TRUE], {0: "cat", 1: "dog", 2: "owl"}),
    ],
    ids=[
        "integers",
        "from one",
        "gaps",
        "(n, 1)",
        "floats",
        "one-hot",
        "one-hot uint8",
        "one-hot bool",
        "str",
        "bytes",
    ],
)
def test_labels_of_any_form_become_class_numbers(tmp_path: Path, stored: Any, names: dict[int, str]) -> None:
    data = loaded(tmp_path, stored)
    assert (data.train.y.tolist(), data.classes, data.labels) == (TRUE.tolist(), 3, names)


def test_bool_labels_are_two_classes(tmp_path: Path) -> None:
    data = loaded(tmp_path, TRUE > 0)
    assert (data.train.y.tolist(), data.classes) == ((TRUE > 0).astype(int).tolist(), 2)


def test_renumbered_labels_are_reported(tmp_path: Path) -> None:
    assert loaded(tmp_path, np.array(["cat", "dog", "owl"])[TRUE]).notes == (
        "labels are numbered as classes: cat = 0, dog = 1, owl = 2 (3 classes)",
    )


def test_labels_equal_to_class_numbers_are_not_reported() -> None:
    assert describe_renumbering({0: 0, 1: 1}) == ""


@pytest.mark.parametrize(
    ("labels", "outputs", "numbers"),
    [
        ([3, 500, 998], 1000, {3: 3, 500: 500, 998: 998}),  # they index the outputs, whichever of them occur
        ([1, 2, 3], 3, {1: 0, 2: 1, 3: 2}),
        ([2, 3], 3, {2: 1, 3: 2}),  # from 1, of which the first does not occur
        ([5, 70], 2, {5: 0, 70: 1}),
        (["cat", "dog"], 2, {"cat": 0, "dog": 1}),
        ([0, 1], 1, {0: 0, 1: 1}),
        ([-1, 1], 1, {-1: 0, 1: 1}),
        (["cat", "dog"], 1, {"cat": 0, "dog": 1}),
    ],
)
def test_labels_are_assigned_to_outputs_of_an_existing_model(
    labels: Any, outputs: int, numbers: dict[Any, int]
) -> None:
    assert output_numbers(labels, labels, outputs) == numbers


@pytest.mark.parametrize(
    ("labels", "outputs", "message"),
    [
        ([0, 1, 2], 2, "has 2 outputs but the data set has 3 classes"),
        ([0, 1, 2], 1, "one output, for two classes, but the data set has 3 classes"),
        (["cat", "dog"], 3, r"the assignment is unknown\..*names\.index\(label\) for label in y_train"),
        ([7, 30], 3, "the assignment is unknown"),
        ([1], 3, "Classification requires two or more classes"),
    ],
)
def test_labels_that_cannot_be_assigned_are_rejected(labels: Any, outputs: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        output_numbers(labels, labels, outputs)


def test_test_labels_missing_in_training_are_rejected_with_code_to_remove_them() -> None:
    with pytest.raises(UserError, match=r"y_test has the label 2, .*keep = np\.isin\(y_test, y_train\)"):
        class_numbers([0, 1], [0, 2])


def test_stray_label_adds_only_one_class() -> None:
    assert class_numbers([0, 1, 255], [0, 1]) == {0: 0, 1: 1, 255: 2}


def test_labels_of_bytes_are_text() -> None:
    assert read_labels(np.array([b"a", b"b"]), 2, "train").tolist() == ["a", "b"]

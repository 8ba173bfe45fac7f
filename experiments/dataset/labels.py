"""Labels as people store them, and the class number that each stands for: the index of a model's output."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from experiments.dataset.saving import saving
from experiments.system.errors import UserError

Label: TypeAlias = int | str
BEYOND = 2**63  # what int64 does not hold
SHOWN = 8  # labels that a message lists
RULE = "Labels are one a example, (n,): integers, strings, bool; or one-hot, (n, classes)"


def read_labels(labels: npt.NDArray[Any], examples: int, part: str) -> npt.NDArray[Any]:
    """One label for each example, (n,): int64, or str where the labels are words.

    Accepted are integers, bool, floats and strings that hold integers, other strings, each also as (n, 1); and one-hot
    rows.

    Raises:
        UserError: they are none of these, or not as many as there are examples.
    """
    name = f"y_{part}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 0 or labels.ndim > 2:
        raise UserError(f"{name} has the shape {labels.shape}. {RULE}; a label for each pixel or step is none.")
    if len(labels) != examples:
        raise UserError(f"x_{part} holds {examples} images and y_{part} {len(labels)} labels: they must be as many.")
    if labels.ndim == 2:
        return _from_rows(labels, name)
    match labels.dtype.kind:
        case "b" | "i" | "u":
            _check_range(labels, name)
            return labels.astype(np.int64)
        case "f":
            return _from_floats(labels, name)
        case "U":
            return _from_strings(labels)
        case "S":
            return _from_strings(np.char.decode(labels, "utf-8", "replace"))
    raise UserError(f"{name} has the dtype {labels.dtype}. {RULE}.")


def _from_rows(labels: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    """The place of the one in each one-hot row."""
    if labels.dtype.kind not in "biuf":
        raise UserError(f"{name} has the shape {labels.shape} and the dtype {labels.dtype}. {RULE}.")
    ones = labels == 1
    if np.all(ones | (labels == 0)) and np.all(ones.sum(axis=1) == 1):
        return np.asarray(ones.argmax(axis=1), np.int64)
    totals = labels.sum(axis=1, dtype=np.float64)
    if labels.min() >= 0 and np.allclose(totals, 1, atol=1e-3):
        raise UserError(
            f"{name} has rows of probabilities, {labels.shape}, and accuracy needs one class an example. Take the most "
            f"likely: {saving(y='{}.argmax(axis=1)')}"
        )
    odd = int(np.flatnonzero((ones.sum(axis=1) != 1) | ~np.all(ones | (labels == 0), axis=1))[0])
    raise UserError(
        f"{name} has the shape {labels.shape}, and its row {odd} is not one-hot (one 1, and 0 elsewhere): "
        f"{labels[odd].tolist()[:SHOWN]}. {RULE}; several classes for one example (multi-label) are not supported."
    )


def _from_strings(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers where every string is one: '10' would stand before '2' among strings."""
    return labels.astype(np.int64) if all(re.fullmatch(r"-?\d{1,18}", text) for text in np.unique(labels)) else labels


def _from_floats(labels: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    broken = np.flatnonzero(~np.isfinite(labels) | (labels != np.round(labels)))
    if broken.size:
        raise UserError(
            f"{name} has the dtype {labels.dtype} and holds {labels[broken[0]]:g}: a class has no fraction. {RULE}; "
            "targets of a regression are not supported."
        )
    _check_range(labels, name)
    return labels.astype(np.int64)


def _check_range(labels: npt.NDArray[Any], name: str) -> None:
    if labels.size and (largest := max(int(labels.max()), -int(labels.min()))) >= BEYOND:
        raise UserError(
            f"{name} holds the label {largest}, and labels are smaller than 2**63. Number the classes: "
            f"{saving(y='np.searchsorted(np.unique(y_train), {})')}"
        )


def class_numbers(train: Sequence[Label], test: Sequence[Label]) -> Mapping[Label, int]:
    """The class number of each label for a model that is built for these classes: its rank among the training labels.

    `train` and `test` are the distinct labels of each part, sorted.

    Raises:
        UserError: there is one class only, or a test label that no training example has.
    """
    if len(train) == 1:
        raise UserError(
            f"y_train holds the label {train[0]} only: with one class every answer is right. Give two or more."
        )
    if isinstance(train[0], int) and train[0] < 0 and len(train) > 2:
        raise UserError(
            f"y_train holds the label {train[0]}: labels below 0 mark what has no class. Leave those examples out, "
            "keep = y_train >= 0; x_train, y_train = x_train[keep], y_train[keep], and so in test; or give them a "
            f"class: {saving(y=f'{{}} + {-train[0]}')}"
        )
    if strangers := [label for label in test if label not in set(train)]:
        known = f"from {train[0]} to {train[-1]}" if isinstance(train[0], int) else f"{listed(train)}"
        raise UserError(
            f"y_test holds the label {listed(strangers)}, but the training labels run {known} ({len(train)} classes): "
            "a model cannot know a class that it was never shown. Leave those examples out: keep = np.isin(y_test, "
            "y_train); np.savez('data.npz', x_train=x_train, y_train=y_train, x_test=x_test[keep], y_test=y_test[keep])"
        )
    return {label: rank for rank, label in enumerate(train)}


def output_numbers(train: Sequence[Label], test: Sequence[Label], outputs: int) -> Mapping[Label, int]:
    """The class number of each label for a model that is given with so many outputs; one output tells two classes.

    Integers from 0 to outputs - 1 are indices of the outputs, and integers from 1 to outputs one more than these. Any
    other labels that are as many as the outputs stand for them in sorted order.

    Raises:
        UserError: there are more labels than outputs, or it cannot be told which output each stands for.
    """
    labels = sorted({*train, *test})
    classes = max(outputs, 2)
    if len(labels) == 1:
        raise UserError(
            f"y_train and y_test hold the label {labels[0]} only: with one class every answer is right. Give more."
        )
    if len(labels) > classes:
        can = "one output, which tells two classes apart" if outputs == 1 else f"{outputs} outputs"
        raise UserError(
            f"model.path: the model has {can}, but the data set has {len(labels)} classes ({listed(labels)}). Give the "
            "data that it was trained for; regression is not supported."
        )
    first, last = labels[0], labels[-1]
    if isinstance(first, int) and isinstance(last, int):
        if first >= 0 and last < classes:
            return {label: int(label) for label in labels}
        if first >= 1 and last == classes:
            return {label: int(label) - 1 for label in labels}
    if len(labels) == classes:
        return {label: rank for rank, label in enumerate(labels)}
    raise UserError(
        f"model.path: the model has {outputs} outputs, and the data set {len(labels)} labels, {listed(labels)}: which "
        "output does each stand for? Save indices of the outputs, with names = [...] in the order of the outputs: "
        + saving(y="np.array([names.index(label) for label in {}])")
    )


def listed(labels: Sequence[Label]) -> str:
    """Some labels for a message."""
    rest = f", ... ({len(labels)} in all)" if len(labels) > SHOWN else ""
    return ", ".join(str(label) for label in labels[:SHOWN]) + rest


def renumbering(numbers: Mapping[Label, int]) -> str:
    """What is said where labels are not the numbers of their classes; empty where they are."""
    changed = [(label, number) for label, number in numbers.items() if label != number]
    if not changed:
        return ""
    shown = ", ".join(f"{label} = {number}" for label, number in changed[:SHOWN])
    return f"labels are numbered as classes: {shown}{', ...' if len(changed) > SHOWN else ''} ({len(numbers)} classes)"


def unseen(train: Sequence[Label], test: npt.NDArray[Any]) -> str:
    """What is said of a given model's data where test labels occur in no training example; empty where none do."""
    counts = Counter(label for label in test.tolist() if label not in set(train))
    if not counts:
        return ""
    return (
        f"y_test holds {len(counts)} labels that no training example has ({listed(sorted(counts))}; "
        f"{sum(counts.values())} examples)"
    )

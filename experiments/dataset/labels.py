"""Labels in their stored forms, and their class numbers, which are the indices of a model's outputs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from experiments.dataset.place import ARRAYS, Place
from experiments.dataset.saving import save_line
from experiments.system.errors import UserError

Label: TypeAlias = int | str
LIMIT = 2**63  # exceeds int64
SHOWN = 8  # labels to list in a message


def read_labels(labels: npt.NDArray[Any], examples: int, part: str, place: Place = ARRAYS) -> npt.NDArray[Any]:
    """Return one label for each example, (n,): int64, or str for words.

    Accepted are integers, bool, floats and strings with integer values, and other strings, each also as (n, 1); and
    one-hot rows.

    Raises:
        UserError: the labels are none of these, or their number differs from that of the examples.
    """
    name = place.targets(part)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 0 or labels.ndim > 2:
        raise UserError(
            f"{name} has the shape {labels.shape}. {place.rule}. For a class for each pixel, type task=segmentation; "
            "for numbers to predict, task=regression."
        )
    if len(labels) != examples:
        raise UserError(
            f"{place.inputs(part.partition('/')[0])} has {examples} examples, but {name} has {len(labels)} labels. "
            "Both require the same number."
        )
    if labels.ndim == 2:
        return _from_rows(labels, name, place)
    match labels.dtype.kind:
        case "b" | "i" | "u":
            _check_range(labels, name, place)
            return labels.astype(np.int64)
        case "f":
            return _from_floats(labels, name, place)
        case "U":
            return _from_strings(labels)
        case "S":
            return _from_strings(np.char.decode(labels, "utf-8", "replace"))
    raise UserError(f"{name} has the dtype {labels.dtype}. {place.rule}.")


def _from_rows(labels: npt.NDArray[Any], name: str, place: Place) -> npt.NDArray[np.int64]:
    """Return the class of each one-hot row."""
    if labels.dtype.kind not in "biuf":
        raise UserError(f"{name} has the shape {labels.shape} and the dtype {labels.dtype}. {place.rule}.")
    ones = labels == 1
    if np.all(ones | (labels == 0)) and np.all(ones.sum(axis=1) == 1):
        return np.asarray(ones.argmax(axis=1), np.int64)
    totals = labels.sum(axis=1, dtype=np.float64)
    if labels.min() >= 0 and np.allclose(totals, 1, atol=1e-3):
        raise UserError(
            f"{name} has rows of probabilities, {labels.shape}; accuracy requires one class per example. Use the most "
            f"likely one: {save_line(y='{}.argmax(axis=1)')}"
        )
    invalid = int(np.flatnonzero((ones.sum(axis=1) != 1) | ~np.all(ones | (labels == 0), axis=1))[0])
    raise UserError(
        f"{name} has the shape {labels.shape}, but its row {invalid} is not one-hot (one 1, all others 0): "
        f"{labels[invalid].tolist()[:SHOWN]}. {place.rule}. For several labels per example, type "
        "task=multilabel; for numbers to predict, task=regression."
    )


def _from_strings(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert to integers if every string is one, since '10' would sort before '2' as a string; not '01' beside '1'."""
    distinct = np.unique(labels)
    if not all(re.fullmatch(r"-?\d{1,18}", text) for text in distinct):
        return labels
    return labels.astype(np.int64) if len(np.unique(distinct.astype(np.int64))) == len(distinct) else labels


def _from_floats(labels: npt.NDArray[Any], name: str, place: Place) -> npt.NDArray[np.int64]:
    broken = np.flatnonzero(~np.isfinite(labels) | (labels != np.round(labels)))
    if broken.size:
        raise UserError(
            f"{name} has the dtype {labels.dtype} and the value {labels[broken[0]]:g}, which is not an integer. "
            f"{place.rule}. For numbers to predict, type task=regression."
        )
    _check_range(labels, name, place)
    return labels.astype(np.int64)


def _check_range(labels: npt.NDArray[Any], name: str, place: Place) -> None:
    if labels.size and (largest := max(int(labels.max()), -int(labels.min()))) >= LIMIT:
        raise UserError(
            f"{name} has the label {largest}; labels require values below 2**63. Number the classes"
            f"{place.code(': ', save_line(y='np.searchsorted(np.unique(y_train), {})')) or '.'}"
        )


def class_numbers(train: Sequence[Label], test: Sequence[Label], place: Place = ARRAYS) -> Mapping[Label, int]:
    """Return the class number of each label for a new model: its rank among the training labels.

    `train` and `test` are the distinct labels of each part, sorted.

    Raises:
        UserError: there is only one class, or a test label has no training example.
    """
    if len(train) == 1:
        raise UserError(f"{place.train} has only the label {train[0]}. Classification requires two or more classes.")
    if isinstance(train[0], int) and train[0] < 0 and len(train) > 2:
        raise UserError(
            f"{place.train} has the label {train[0]}: a negative label means that an example has no class. "
            f"{place.remove}. Or make them a class: add {-train[0]} to every label."
        )
    if unknown := [label for label in test if label not in set(train)]:
        valid = f"from {train[0]} to {train[-1]}" if isinstance(train[0], int) else f"{list_labels(train)}"
        raise UserError(
            f"{place.test} has the label {list_labels(unknown)}, but the training labels are {valid} ({len(train)} "
            f"classes). Every test label requires training examples. {place.keep_known}"
        )
    return {label: rank for rank, label in enumerate(train)}


def output_numbers(
    train: Sequence[Label], test: Sequence[Label], outputs: int, place: Place = ARRAYS
) -> Mapping[Label, int]:
    """Return the class number of each label for an existing model; a single output distinguishes two classes.

    Integers from 0 to outputs - 1 are indices of the outputs; integers from 1 to outputs are the indices plus one.
    Other labels, if there are as many as outputs, are assigned in sorted order.

    Raises:
        UserError: there are more labels than outputs, or the assignment is ambiguous.
    """
    labels = sorted({*train, *test})
    classes = max(outputs, 2)
    if len(labels) == 1:
        raise UserError(
            f"{place.train} and {place.test} have only the label {labels[0]}. Classification requires two or more "
            "classes."
        )
    if len(labels) > classes:
        has = "one output, for two classes," if outputs == 1 else f"{outputs} outputs"
        raise UserError(
            f"model.path: the model has {has} but the data set has {len(labels)} classes ({list_labels(labels)}). Use "
            "the data that the model was trained for; for numbers to predict, type task=regression."
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
        f"model.path: the model has {outputs} outputs, but the data set has {len(labels)} labels, "
        f"{list_labels(labels)}, so the assignment is unknown. {place.number}"
    )


def list_labels(labels: Sequence[Label]) -> str:
    """List the first labels for a message."""
    rest = f", ... ({len(labels)} in total)" if len(labels) > SHOWN else ""
    return ", ".join(str(label) for label in labels[:SHOWN]) + rest


def describe_renumbering(numbers: Mapping[Label, int]) -> str:
    """Return a note on labels that differ from their class numbers; empty if there are none."""
    changed = [(label, number) for label, number in numbers.items() if label != number]
    if not changed:
        return ""
    shown = ", ".join(f"{label} = {number}" for label, number in changed[:SHOWN])
    return f"labels are numbered as classes: {shown}{', ...' if len(changed) > SHOWN else ''} ({len(numbers)} classes)"


def describe_unseen(train: Sequence[Label], test: npt.NDArray[Any], place: Place = ARRAYS) -> str:
    """Return a note on test labels without training examples; empty if there are none."""
    counts = Counter(label for label in test.tolist() if label not in set(train))
    if not counts:
        return ""
    return (
        f"{place.test} has {len(counts)} labels that no training example has ({list_labels(sorted(counts))}; "
        f"{sum(counts.values())} examples)"
    )

"""What the examples of a source have to predict, by kind: classes, numbers, several classes, maps, or nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.saving import save_line
from experiments.system.errors import UserError

Array = npt.NDArray[Any]
# classes: one for each example; numbers: any; rows: 0 or 1 for each of several labels; maps: a class for each pixel;
# anomalies: 1 for an anomaly, which training has none of; own: whatever a user's task makes of it.
Kind = Literal["classes", "numbers", "rows", "maps", "anomalies", "own"]
PARTS = ("train", "test")


@dataclass(frozen=True)
class Targets:
    """The targets of both parts of a source, of a kind other than classes, one for each example."""

    train: Array
    test: Array


def kind_of(train: Array, test: Array) -> tuple[Kind, str]:
    """Return the kind of targets in the arrays of a source, and what shows it.

    Raises:
        UserError: several kinds are possible.
    """
    if any(_has_fractions(y) for y in (train, test)):
        return "numbers", "targets are float numbers"
    both = (train, test)
    if all(y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf" and np.isin(y, (0, 1)).all() for y in both):
        if all((y.sum(axis=1) == 1).all() for y in both):
            return "classes", "targets are one-hot rows"
        return "rows", "targets are rows of 0 and 1, with several or no 1"
    if all(y.ndim in (3, 4) and y.dtype.kind in "iu" for y in both):
        return "maps", "targets are a class for each pixel"
    if all(y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "iu" for y in both):
        raise UserError(
            f"y_train has the shape {train.shape} and integers other than 0 and 1, so the task is ambiguous. To "
            "predict these numbers, type task=regression; for classes, save one for each example."
        )
    return "classes", "targets are classes"


def _has_fractions(y: Array) -> bool:
    """Whether an array has finite floats that are no integers, and no rows of probabilities."""
    if y.dtype.kind != "f" or not y.size or not np.isfinite(y).all() or not (y != np.round(y)).any():
        return False
    probabilities = y.ndim == 2 and y.shape[1] > 1 and y.min() >= 0 and np.allclose(y.sum(axis=1), 1, atol=1e-3)
    return not probabilities


def read_targets(train: Array, test: Array, examples: tuple[int, int], kind: Kind) -> Targets:
    """Return the targets of a kind other than classes.

    Raises:
        UserError: they are of another kind, or their number differs from that of the examples.
    """
    readers: Mapping[str, Callable[[Array, int, str], Array]] = {
        "numbers": _numbers,
        "rows": _rows,
        "maps": _maps,
        "anomalies": _anomalies,
        "own": _own,
    }
    found = [
        readers[kind](y, count, f"y_{part}") for y, count, part in zip((train, test), examples, PARTS, strict=True)
    ]
    if found[0].shape[1:] != found[1].shape[1:]:
        raise UserError(
            f"y_train and y_test: require targets of the same shape, not {found[0].shape[1:]} and {found[1].shape[1:]}."
        )
    return Targets(*found)


def _rows(y: Array, examples: int, name: str) -> npt.NDArray[np.float32]:
    """Return rows of 0 and 1, (n, labels) float32."""
    _check_count(y, examples, name)
    if y.ndim != 2 or y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"{name} has the shape {y.shape} and the dtype {y.dtype}; task=multilabel requires rows of 0 and 1, one "
            "number for each label: (n, labels)."
        )
    return np.asarray(y, np.float32)


def _maps(y: Array, examples: int, name: str) -> npt.NDArray[np.int64]:
    """Return a class for each pixel, (n, height, width) int64."""
    _check_count(y, examples, name)
    y = y[..., 0] if y.ndim == 4 and y.shape[-1] == 1 else y
    if y.ndim != 3 or y.dtype.kind not in "biu" or (y.size and y.min() < 0):
        raise UserError(
            f"{name} has the shape {y.shape} and the dtype {y.dtype}; task=segmentation requires the number of a class "
            "for each pixel, from 0 on: integers (n, height, width)."
        )
    return y.astype(np.int64)


def _anomalies(y: Array, examples: int, name: str) -> npt.NDArray[np.int64]:
    """Return 1 for each anomaly and 0 for others, (n,) int64."""
    _check_count(y, examples, name)
    y = y.reshape(examples) if y.size == examples else y
    if y.ndim != 1 or y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"{name} has the shape {y.shape} and the dtype {y.dtype}; task=reconstruction requires 0 for a normal "
            "example and 1 for an anomaly, (n,), or no y_train and y_test at all."
        )
    if name == "y_train" and (count := int(np.count_nonzero(y))):
        raise UserError(
            f"y_train has {count:,} anomalies; task=reconstruction learns from normal examples only. Remove the "
            "others: keep = y_train == 0; x_train, y_train = x_train[keep], y_train[keep]"
        )
    return y.astype(np.int64)


def _own(y: Array, examples: int, name: str) -> Array:
    """Return any targets, as they are."""
    _check_count(y, examples, name)
    if y.dtype.kind not in "biuf":
        raise UserError(f"{name} has the dtype {y.dtype}; a task of your own requires numbers.")
    return y.astype(np.float32) if y.dtype.kind == "f" else y.astype(np.int64)


def _numbers(y: Array, examples: int, name: str) -> npt.NDArray[np.float32]:
    """Return numbers to predict, (n, ...) float32; one number for each example becomes (n, 1)."""
    if y.dtype.kind not in "biuf":
        raise UserError(
            f"{name} has the dtype {y.dtype}; task=regression requires numbers. For classes: task=classification"
        )
    _check_count(y, examples, name)
    if not np.isfinite(y).all():
        raise UserError(
            f"{name} has {np.count_nonzero(~np.isfinite(y)):,} values that are not finite (NaN or infinity); "
            "task=regression requires numbers. Remove those examples: keep = np.isfinite(y_train); x_train, y_train = "
            "x_train[keep], y_train[keep], and the same for test."
        )
    if (largest := float(np.abs(y).max(initial=0))) > float(np.finfo(np.float32).max):
        raise UserError(
            f"{name} has values up to {largest:g}; models require float32. "
            f"Scale them: {save_line(y=f'{{}} / {largest:g}')}"
        )
    return np.asarray(y.reshape(len(y), -1) if y.ndim == 1 else y, np.float32)


def _check_count(y: Array, examples: int, name: str) -> None:
    if y.ndim == 0 or len(y) != examples:
        count = len(y) if y.ndim else 0
        raise UserError(
            f"x_{name[2:]} has {examples} examples, but {name} has {count} targets. Both require the same number."
        )

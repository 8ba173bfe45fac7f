"""What the examples of a source have to predict, by kind: classes, numbers, several classes, maps, or nothing."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.saving import save_line
from experiments.system.errors import UserError

Array = npt.NDArray[Any]
Kind = Literal["classes", "numbers"]


@dataclass(frozen=True)
class Targets:
    """The targets of both parts of a source, of a kind other than classes, one for each example."""

    train: Array
    test: Array


def kind_of(train: Array, test: Array) -> tuple[Kind, str]:
    """Return the kind of targets in the arrays of a source, and what shows it."""
    if any(_has_fractions(y) for y in (train, test)):
        return "numbers", "targets are float numbers"
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
    found = [
        _numbers(y, count, f"y_{part}")
        for y, count, part in zip((train, test), examples, ("train", "test"), strict=True)
    ]
    if found[0].shape[1:] != found[1].shape[1:]:
        raise UserError(
            f"y_train and y_test: require targets of the same shape, not {found[0].shape[1:]} and {found[1].shape[1:]}."
        )
    return Targets(*found)


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

"""What the examples of a source have to predict, by kind: classes, numbers, several classes, maps, or nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import Stored, parts_of
from experiments.dataset.place import ARRAYS, Place
from experiments.dataset.rows import Rows
from experiments.dataset.saving import save_line
from experiments.dataset.values import Scaling
from experiments.system.errors import UserError

Array = npt.NDArray[Any]
# classes: one for each example; numbers: any; rows: 0 or 1 for each of several labels; maps: a class for each pixel;
# boxes: rows of class and box; anomalies: 1 for an anomaly, which training has none of; own: whatever a user's task
# makes of it.
Kind = Literal["classes", "numbers", "rows", "maps", "boxes", "anomalies", "own"]
PARTS = ("train", "test")
ROW = 5  # numbers of a box with its class


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
    both = (train, test)
    if all(_has_boxes(y) for y in both):
        return "boxes", "targets are rows of a class and a box"
    if any(_has_fractions(y) for y in both):
        return "numbers", "targets are float numbers"
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


def _has_boxes(y: Array) -> bool:
    """Whether an array has rows of five floats, of which the first is a class, or -1."""
    return y.ndim == 3 and y.shape[2] == ROW and y.dtype.kind == "f" and y.size > 0 and _are_classes(y[..., 0])


def _are_classes(numbers: Array) -> bool:
    return bool(np.isfinite(numbers).all() and (numbers >= -1).all() and (numbers == np.round(numbers)).all())


def read_targets(
    train: Array, test: Array, examples: tuple[int, int], kind: Kind, output: str = "", place: Place = ARRAYS
) -> Targets:
    """Return the targets of a kind other than classes; `output` is the name of one of several outputs.

    Raises:
        UserError: they are of another kind, or their number differs from that of the examples.
    """
    readers: Mapping[str, Callable[[Array, str, Place], Array]] = {
        "numbers": _numbers,
        "rows": _rows,
        "maps": _maps,
        "boxes": _boxes,
        "anomalies": _anomalies,
        "own": _own,
    }
    end = f"/{output}" if output else ""
    found = []
    for y, count, part in zip((train, test), examples, PARTS, strict=True):
        _check_count(y, count, part, end, place)
        found.append(readers[kind](y if kind == "maps" else np.asarray(y), f"{part}{end}", place))
    if kind == "boxes":
        most = max(y.shape[1] for y in found)
        found = [np.pad(y, ((0, 0), (0, most - y.shape[1]), (0, 0)), constant_values=-1) for y in found]
    if found[0].shape[1:] != found[1].shape[1:]:
        raise UserError(
            f"{place.train} and {place.test}: require targets of the same shape, not {found[0].shape[1:]} and "
            f"{found[1].shape[1:]}."
        )
    return Targets(*found)


def _rows(y: Array, part: str, place: Place) -> npt.NDArray[np.float32]:
    """Return rows of 0 and 1, (n, labels) float32."""
    if y.ndim != 2 or y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"{_described(y, part, place)}; task=multilabel requires rows of 0 and 1, one number for each label: (n, "
            f"labels).{_as_arrays(place)}"
        )
    return np.asarray(y, np.float32)


def largest_class(y: Any, ignored: int | None) -> int:
    """Return the largest number among classes of pixels, in memory or in a file; 0 if all of them are `ignored`."""
    counted = (part[part != ignored] for part in parts_of(y))
    return max((int(part.max()) for part in counted if part.size), default=0)


def _maps(y: Stored, part: str, place: Place) -> Any:
    """Return a class for each pixel, (n, height, width) int64, as rows: they are kept as they are stored."""
    form = y.shape[1:3] if y.ndim == 4 and y.shape[-1] == 1 else y.shape[1:]
    if len(form) != 2 or y.dtype.kind not in "biu" or (len(y) and prod(form) and y.min() < 0):
        raise UserError(
            f"{_described(y, part, place)}; task=segmentation requires the number of a class for each pixel, from 0 "
            f"on: integers (n, height, width).{_as_arrays(place)}"
            f"{' For boxes, type task=detection.' if y.ndim == 3 and y.shape[2] == ROW else ''}"
        )
    return Rows(y, Scaling(dtype=np.dtype(np.int64)), form=form)


def _boxes(y: Array, part: str, place: Place) -> npt.NDArray[np.float32]:
    """Return rows of class and box, (n, most boxes, 5) float32; the class -1 stands for no box."""
    name = place.targets(part)
    if y.ndim != 3 or y.shape[2] != ROW or y.dtype.kind not in "iuf":
        raise UserError(
            f"{_described(y, part, place)}; task=detection requires rows of class and box, (n, most boxes, 5), with "
            f"the class -1 in rows without a box.{_as_arrays(place)}"
        )
    if not _are_classes(y[..., 0]):
        raise UserError(
            f"{name}: the first number of each row is the class, from 0 on, or -1 for no box; it has others, such as "
            f"{_other_than_class(y[..., 0]):g}. If the class is the last one: np.roll({name}, 1, axis=-1)"
        )
    real = y[..., 0] >= 0
    if not np.isfinite(y[real]).all():
        raise UserError(f"{name} has boxes with values that are not finite (NaN or infinity). Remove these boxes.")
    return np.where(real[..., np.newaxis], y, -1).astype(np.float32)


def _other_than_class(numbers: Array) -> float:
    others = (number for number in numbers.ravel() if not _are_classes(np.array([number])))
    return float(next(others))


def _anomalies(y: Array, part: str, place: Place) -> npt.NDArray[np.int64]:
    """Return 1 for each anomaly and 0 for others, (n,) int64."""
    y = y.reshape(len(y)) if y.size == len(y) else y
    if y.ndim != 1 or y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"{_described(y, part, place)}; task=reconstruction requires 0 for a normal example and 1 for an "
            f"anomaly{place.code(', (n,), or ', 'no y_train and y_test at all')}."
        )
    if part.startswith("train") and (count := int(np.count_nonzero(y))):
        raise UserError(
            f"{place.train} has {count:,} anomalies; task=reconstruction learns from normal examples only. "
            f"{place.keep_normal}"
        )
    return y.astype(np.int64)


def _own(y: Array, part: str, place: Place) -> Array:
    """Return any targets, as they are."""
    if y.dtype.kind not in "biuf":
        raise UserError(f"{_described(y, part, place)}; a task of your own requires numbers.")
    return y.astype(np.float32) if y.dtype.kind == "f" else y.astype(np.int64)


def _numbers(y: Array, part: str, place: Place) -> npt.NDArray[np.float32]:
    """Return numbers to predict, (n, ...) float32; one number for each example becomes (n, 1)."""
    name = place.targets(part)
    if y.dtype.kind not in "biuf":
        raise UserError(
            f"{_described(y, part, place)}; task=regression requires numbers. For classes: task=classification"
        )
    if not np.isfinite(y).all():
        raise UserError(
            f"{name} has {np.count_nonzero(~np.isfinite(y)):,} values that are not finite (NaN or infinity); "
            "task=regression requires numbers. Remove those examples"
            + place.code(
                ": ",
                "keep = np.isfinite(y_train); x_train, y_train = x_train[keep], y_train[keep], and the same for test",
            )
            + "."
        )
    if (largest := float(np.abs(y).max(initial=0))) > float(np.finfo(np.float32).max):
        raise UserError(
            f"{name} has values up to {largest:g}; models require float32. Scale them"
            f"{place.code(': ', save_line(y=f'{{}} / {largest:g}')) or '.'}"
        )
    return np.asarray(y.reshape(len(y), -1) if y.ndim == 1 else y, np.float32)


def _described(y: Any, part: str, place: Place) -> str:
    """Describe targets of another kind than a task requires."""
    if place.arrays:
        return f"{place.targets(part)} has the shape {y.shape} and the dtype {y.dtype}"
    return f"{place.targets(part)} has one value for each example, such as {y.tolist()[0]}"


def _as_arrays(place: Place) -> str:
    """Return where such targets can be, for a source that has none."""
    return "" if place.arrays else " Save examples and targets as arrays, for dataset=npz."


def _check_count(y: Array, examples: int, part: str, end: str, place: Place) -> None:
    if y.ndim == 0 or len(y) != examples:
        count = len(y) if y.ndim else 0
        raise UserError(
            f"{place.inputs(part)} has {examples} examples, but {place.targets(part + end)} has {count} targets. Both "
            "require the same number."
        )

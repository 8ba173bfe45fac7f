"""Scale stored image values to float32 values for models."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import Stored
from experiments.dataset.place import ARRAYS, Place
from experiments.dataset.saving import save_line
from experiments.system.errors import UserError

Scale = Literal["auto", "none", "unit", "symmetric"]
BYTE = 255  # the largest value of 8 bits
UNLIKE = 100  # ratio of the largest values of both parts from which on one of them was probably scaled
FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Scaling:
    """x = stored / divisor, float32; if symmetric, 2 x - 1."""

    divisor: float = 1.0
    symmetric: bool = False
    integers: bool = False  # whether the stored values are integers
    assumed: str = ""  # assumption about the arrays, for the user
    dtype: np.dtype[Any] = FLOAT  # of the values for a model; integers, such as numbers of words, are never scaled

    def apply(self, stored: Stored) -> npt.NDArray[Any]:
        """Convert stored values to those for a model."""
        values = np.asarray(stored, self.dtype)
        if values is stored and (self.divisor != 1 or self.symmetric):
            values = values.copy()  # changed in place below
        if self.divisor != 1:
            values /= np.float32(self.divisor)
        if self.symmetric:
            values *= np.float32(2)
            values -= np.float32(1)
        return values

    def undo(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Convert a model's values back to stored ones."""
        unit = (values + np.float32(1)) / np.float32(2) if self.symmetric else values
        return unit * np.float32(self.divisor)


def check_images(images: Stored, part: str, entry: str = "", place: Place = ARRAYS) -> None:
    """Check that an array has images, series or features, (n, ...); `entry` is the name of one of several inputs.

    Raises:
        UserError: the shape or dtype is not supported, or a value is not finite.
    """
    name = place.inputs(part, entry)
    if images.ndim < 2:
        line = (
            f" For one feature per example: {save_line(x='{}.reshape(-1, 1)', entry=entry)}" if images.ndim == 1 else ""
        )
        raise UserError(
            f"{name} has the shape {images.shape}; it requires (n, height, width), (n, height, width, channels), "
            f"(n, steps, channels) or (n, features).{line}"
        )
    if len(images) == 0:
        raise UserError(f"{name} has no examples.")
    if 0 in images.shape:
        raise UserError(f"{name} has the shape {images.shape}; it requires at least one value for each example.")
    if images.dtype.kind not in "biuf":
        raise UserError(
            f"{name} has the dtype {images.dtype}; examples require integers, bool or floats. To convert numbers: "
            f"{save_line(x='{}.astype(np.float32)', entry=entry)}"
        )
    if images.dtype.kind != "f":
        return
    largest = max(abs(float(images.min())), abs(float(images.max())))  # NaN if any value is
    if not np.isfinite(largest):
        raise UserError(
            f"{name} has values that are not finite (NaN or infinity)."
            + place.code(" To replace them by 0: ", save_line(x="np.nan_to_num({}, posinf=0, neginf=0)", entry=entry))
        )
    if largest > float(np.finfo(np.float32).max):
        raise UserError(
            f"{name} has values up to {largest:g}; models require float32, up to {np.finfo(np.float32).max:g}."
            + place.code(" Scale them: ", save_line(x=f"{{}} / {largest:g}", entry=entry))
        )


def scaling_of(train: Stored, test: Stored, scale: Scale, entry: str = "", place: Place = ARRAYS) -> Scaling:
    """Return the scaling of stored values, the same for both parts.

    `auto` divides integers by the largest value of their type (255 for 8 bits, and for wider integers within 0..255),
    and does not change floats and bool; `none` changes nothing; `unit` scales to 0..1, `symmetric` to -1..1. `entry` is
    the name of one of several inputs.

    Raises:
        UserError: the range of the values is ambiguous.
    """
    if (train.dtype.kind == "f") != (test.dtype.kind == "f"):
        raise UserError(
            f"{place.inputs('train', entry)} has the dtype {train.dtype}, but {place.inputs('test', entry)} has "
            f"{test.dtype}. Both require the same, since integers are scaled and floats are not."
            + place.code(" If both have the same range: ", save_line(x=f"{{}}.astype(np.{train.dtype})", entry=entry))
        )
    floats = train.dtype.kind == "f"
    if floats and scale == "auto":
        return Scaling(assumed=_note_unscaled(train, test, entry, place))
    if scale == "none":
        return Scaling(integers=not floats)
    divisor, assumed = (
        _float_divisor(train, test, scale, entry, place) if floats else _integer_divisor(train, test, entry, place)
    )
    return Scaling(divisor, scale == "symmetric", not floats, assumed)


def range_warnings(train: Stored, test: Stored, place: Place = ARRAYS) -> tuple[str, ...]:
    """Return a warning if images of both parts were scaled differently, such as to 0..1 and to 0..255."""
    first, second = (max(abs(float(each.min())), abs(float(each.max()))) for each in (train, test))
    if train.ndim < 3 or min(first, second) == 0 or max(first, second) < UNLIKE * min(first, second):
        return ()
    ranges = [f"from {float(each.min()):g} to {float(each.max()):g}" for each in (train, test)]
    return (
        f"ranges: {place.inputs('train')} has values {ranges[0]}, but {place.inputs('test')} {ranges[1]}. Both require "
        "the same scale.",
    )


def _note_unscaled(train: Stored, test: Stored, entry: str, place: Place) -> str:
    """Return a note on floats in the range of bytes, from which most models learn badly; empty for others."""
    if train.ndim < 3 or len(train) == 0:
        return ""
    low, high = _range(train, test)
    if low < 0 or not BYTE / 2 < high <= BYTE:
        return ""
    return (
        f"{place.inputs('train', entry)} has floats from {low:g} to {high:g}, used unscaled; {_typed('unit', entry)} "
        "divides them by 255"
    )


def _float_divisor(train: Stored, test: Stored, scale: Scale, entry: str, place: Place) -> tuple[float, str]:
    low, high = _range(train, test)
    if low < 0 or high > BYTE:
        raise UserError(
            f"dataset.scale={scale}: requires floats in 0..1 or 0..255, not {low:g} to {high:g}{_of(entry)}. Type "
            f"{_typed('none', entry)} to use them unscaled"
            + (place.code(", or scale them: ", save_line(x=f"({{}} - {low:g}) / {high - low:g}", entry=entry)) or ".")
        )
    return (
        (1.0, "")
        if high <= 1
        else (float(BYTE), f"{place.inputs('train', entry)} has floats from {low:g} to {high:g}, divided by 255")
    )


def _integer_divisor(train: Stored, test: Stored, entry: str, place: Place) -> tuple[float, str]:
    name = place.inputs("train", entry)
    both = f"{name} and {place.inputs('test', entry)}"
    kinds = {train.dtype, test.dtype}
    if kinds == {np.dtype(bool)}:
        return 1.0, f"{name} has bool, used as 0 and 1"
    low, high = _range(train, test)
    named = " and ".join(sorted(str(kind) for kind in kinds))
    if kinds == {np.dtype(np.uint8)}:
        dark = high == 1
        return float(BYTE), _note_dark(name, named, entry) if dark else ""
    if low < 0:
        raise UserError(
            f"{both} have {named} from {low:g} to {high:g}; negative integers require a scale. Unscaled: "
            f"{_typed('none', entry)}. Scaled to -1..1: "
            + save_line(x=f"{{}}.astype(np.float32) / {max(-low, high):g}", entry=entry)
        )
    if high <= 1:
        return 1.0, f"{name} has {named} of 0 and 1 only, used unscaled"
    if high <= BYTE:
        return float(BYTE), f"{name} has {named} from {low:g} to {high:g}, divided by 255 like 8-bit images"
    if len(kinds) == 1 and train.dtype.kind == "u":
        return float(np.iinfo(train.dtype).max), ""
    raise UserError(
        f"{both} have {named} from {low:g} to {high:g}; integers above 255 require a scale. Unscaled: "
        f"{_typed('none', entry)}. Scaled to 0..1: " + save_line(x=f"{{}}.astype(np.float32) / {high:g}", entry=entry)
    )


def _note_dark(name: str, named: str, entry: str) -> str:
    return f"{name} has {named} of 0 and 1 only, divided by 255; type {_typed('none', entry)} to use them unscaled"


def _of(entry: str) -> str:
    return f" as x_train/{entry} has" if entry else ""


def _typed(scale: Scale, entry: str) -> str:
    return f"dataset.scale={{{entry}: {scale}}}" if entry else f"dataset.scale={scale}"


def _range(train: Stored, test: Stored) -> tuple[float, float]:
    return float(min(train.min(), test.min())), float(max(train.max(), test.max()))

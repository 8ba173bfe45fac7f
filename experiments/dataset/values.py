"""Scale stored image values to float32 values for models."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import Stored
from experiments.dataset.saving import save_line
from experiments.system.errors import UserError

Scale = Literal["auto", "none", "unit", "symmetric"]
BYTE = 255  # the largest value of 8 bits


@dataclass(frozen=True)
class Scaling:
    """x = stored / divisor, float32; if symmetric, 2 x - 1."""

    divisor: float = 1.0
    symmetric: bool = False
    integers: bool = False  # whether the stored values are integers
    assumed: str = ""  # assumption about the arrays, for the user

    def apply(self, stored: Stored) -> npt.NDArray[np.float32]:
        """Convert stored values to those for a model."""
        values = np.asarray(stored, np.float32)
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


def check_images(images: Stored, part: str) -> None:
    """Check that an array has images, series or features, (n, ...).

    Raises:
        UserError: the shape or dtype is not supported, or a value is not finite.
    """
    name = f"x_{part}"
    if images.ndim < 2:
        line = f" For one feature per example: {save_line(x='{}.reshape(-1, 1)')}" if images.ndim == 1 else ""
        raise UserError(
            f"{name} has the shape {images.shape}; it requires (n, height, width), (n, height, width, channels), "
            f"(n, steps, channels) or (n, features).{line}"
        )
    if len(images) == 0:
        raise UserError(f"{name} has no images.")
    if images.dtype.kind not in "biuf":
        raise UserError(
            f"{name} has the dtype {images.dtype}; images require integers, bool or floats. To convert numbers: "
            f"{save_line(x='{}.astype(np.float32)')}"
        )
    if images.dtype.kind != "f":
        return
    largest = max(abs(float(images.min())), abs(float(images.max())))  # NaN if any value is
    if not np.isfinite(largest):
        raise UserError(
            f"{name} has values that are not finite (NaN or infinity). To replace them by 0: "
            f"{save_line(x='np.nan_to_num({}, posinf=0, neginf=0)')}"
        )
    if largest > float(np.finfo(np.float32).max):
        raise UserError(
            f"{name} has values up to {largest:g}; models require float32, up to {np.finfo(np.float32).max:g}. Scale "
            f"them: {save_line(x=f'{{}} / {largest:g}')}"
        )


def scaling_of(train: Stored, test: Stored, scale: Scale) -> Scaling:
    """Return the scaling of stored values, the same for both parts.

    `auto` divides integers by the largest value of their type (255 for 8 bits, and for wider integers within 0..255),
    and does not change floats and bool; `none` changes nothing; `unit` scales to 0..1, `symmetric` to -1..1.

    Raises:
        UserError: the range of the values is ambiguous.
    """
    if (train.dtype.kind == "f") != (test.dtype.kind == "f"):
        raise UserError(
            f"x_train has the dtype {train.dtype}, but x_test has {test.dtype}. Both require the same, since integers "
            "are scaled and floats are not. If both have the same range: " + save_line(x="{}.astype(x_train.dtype)")
        )
    floats = train.dtype.kind == "f"
    if floats and scale == "auto":
        return Scaling(assumed=_note_unscaled(train, test))
    if scale == "none":
        return Scaling(integers=not floats)
    divisor, assumed = _float_divisor(train, test, scale) if floats else _integer_divisor(train, test)
    return Scaling(divisor, scale == "symmetric", not floats, assumed)


def _note_unscaled(train: Stored, test: Stored) -> str:
    """Return a note on floats in the range of bytes, from which most models learn badly; empty for others."""
    if train.ndim < 3 or len(train) == 0:
        return ""
    low, high = _range(train, test)
    if low < 0 or not BYTE / 2 < high <= BYTE:
        return ""
    return f"x_train has floats from {low:g} to {high:g}, used unscaled; dataset.scale=unit divides them by 255"


def _float_divisor(train: Stored, test: Stored, scale: Scale) -> tuple[float, str]:
    low, high = _range(train, test)
    if low < 0 or high > BYTE:
        raise UserError(
            f"dataset.scale={scale}: requires floats in 0..1 or 0..255, not {low:g} to {high:g}. Type "
            "dataset.scale=none to use them unscaled, or scale them: "
            + save_line(x=f"({{}} - {low:g}) / {high - low:g}")
        )
    return (1.0, "") if high <= 1 else (float(BYTE), f"x_train has floats from {low:g} to {high:g}, divided by 255")


def _integer_divisor(train: Stored, test: Stored) -> tuple[float, str]:
    kinds = {train.dtype, test.dtype}
    if kinds == {np.dtype(bool)}:
        return 1.0, "x_train has bool, used as 0 and 1"
    low, high = _range(train, test)
    named = " and ".join(sorted(str(kind) for kind in kinds))
    if kinds == {np.dtype(np.uint8)}:
        dark = high == 1
        return float(BYTE), _note_dark(named) if dark else ""
    if low < 0:
        raise UserError(
            f"x_train and x_test have {named} from {low:g} to {high:g}; negative integers require a scale. Unscaled: "
            "dataset.scale=none. Scaled to -1..1: " + save_line(x=f"{{}}.astype(np.float32) / {max(-low, high):g}")
        )
    if high <= 1:
        return 1.0, f"x_train has {named} of 0 and 1 only, used unscaled"
    if high <= BYTE:
        return float(BYTE), f"x_train has {named} from {low:g} to {high:g}, divided by 255 like 8-bit images"
    if len(kinds) == 1 and train.dtype.kind == "u":
        return float(np.iinfo(train.dtype).max), ""
    raise UserError(
        f"x_train and x_test have {named} from {low:g} to {high:g}; integers above 255 require a scale. Unscaled: "
        f"dataset.scale=none. Scaled to 0..1: {save_line(x=f'{{}}.astype(np.float32) / {high:g}')}"
    )


def _note_dark(named: str) -> str:
    return f"x_train has {named} of 0 and 1 only, divided by 255; type dataset.scale=none to use them unscaled"


def _range(train: Stored, test: Stored) -> tuple[float, float]:
    return float(min(train.min(), test.min())), float(max(train.max(), test.max()))

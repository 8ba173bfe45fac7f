"""The values of images as people store them, and how they become the float32 that models take."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset.saving import saving
from experiments.system.errors import UserError

Scale = Literal["auto", "none", "unit", "symmetric"]
Array = npt.NDArray[Any]
BYTE = 255  # the largest value of 8 bits


@dataclass(frozen=True)
class Scaling:
    """x = stored / divisor, float32; where it is symmetric, 2 x - 1 of that."""

    divisor: float = 1.0
    symmetric: bool = False
    integers: bool = False  # whether integers are stored
    assumed: str = ""  # what had to be assumed of the arrays, for the user

    def applied(self, stored: Array) -> npt.NDArray[np.float32]:
        """What a model sees of stored values."""
        values = np.asarray(stored, np.float32)
        if self.divisor != 1:
            values = values / np.float32(self.divisor)
        return values * np.float32(2) - np.float32(1) if self.symmetric else values

    def undone(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What was stored, of what a model sees."""
        unit = (values + np.float32(1)) / np.float32(2) if self.symmetric else values
        return unit * np.float32(self.divisor)


def check_images(images: Array, part: str) -> None:
    """Whether an array can be one of images, series or features, (n, ...).

    Raises:
        UserError: its shape, its kind of values, or a value that is not finite.
    """
    name = f"x_{part}"
    if images.ndim < 2:
        line = f" A feature each: {saving(x='{}.reshape(-1, 1)')}" if images.ndim == 1 else ""
        raise UserError(
            f"{name} has the shape {images.shape}: it needs one axis for the images and one or more for each "
            f"image, as (n, height, width), (n, height, width, channels), (n, steps, channels), (n, features).{line}"
        )
    if len(images) == 0:
        raise UserError(f"{name} holds no image.")
    if images.dtype.kind not in "biuf":
        raise UserError(
            f"{name} has the dtype {images.dtype}: images are integers, bool or floats. Where its values are numbers: "
            f"{saving(x='{}.astype(np.float32)')}"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise UserError(
            f"{name} holds values that are not finite (NaN or infinity). Where 0 can stand for them: "
            f"{saving(x='np.nan_to_num({}, posinf=0, neginf=0)')}"
        )
    if images.dtype.kind == "f" and (large := float(np.abs(images).max(initial=0))) > np.finfo(np.float32).max:
        raise UserError(
            f"{name} holds values up to {large:g}, and models take float32, up to {np.finfo(np.float32).max:g}. Scale "
            f"them: {saving(x=f'{{}} / {large:g}')}"
        )


def scaling_of(train: Array, test: Array, scale: Scale) -> Scaling:
    """How stored values become what a model sees: the same for both parts, by what both hold.

    `auto` divides integers by their largest value (255 for 8 bits, and for wider integers that are all within 0..255)
    and leaves floats and bool as they are; `none` leaves all values as they are; `unit` gives 0..1, `symmetric` -1..1.

    Raises:
        UserError: the values do not show what they mean.
    """
    if (train.dtype.kind == "f") != (test.dtype.kind == "f"):
        raise UserError(
            f"x_train has the dtype {train.dtype}, and x_test {test.dtype}: integers are scaled by their largest value "
            "and floats are not, so both need the same. Where their values mean the same: "
            + saving(x="{}.astype(x_train.dtype)")
        )
    floats = train.dtype.kind == "f"
    if floats and scale == "auto":
        return Scaling(assumed=_unscaled(train, test))
    if scale == "none":
        return Scaling(integers=not floats)
    divisor, assumed = _float_divisor(train, test, scale) if floats else _integer_divisor(train, test)
    return Scaling(divisor, scale == "symmetric", not floats, assumed)


def _unscaled(train: Array, test: Array) -> str:
    """What is said of floats that look like bytes: as they are, most models learn badly from them."""
    if train.ndim < 3 or len(train) == 0:
        return ""
    low, high = _range(train, test)
    if low < 0 or not BYTE / 2 < high <= BYTE:
        return ""
    return f"x_train holds floats from {low:g} to {high:g}: taken as they are; dataset.scale=unit divides them by 255"


def _float_divisor(train: Array, test: Array, scale: Scale) -> tuple[float, str]:
    low, high = _range(train, test)
    if low < 0 or high > BYTE:
        raise UserError(
            f"dataset.scale={scale}: x_train and x_test hold floats from {low:g} to {high:g}, and it takes floats of "
            "0..1 or 0..255. Give dataset.scale=none, which leaves them as they are, or save them so: "
            + saving(x=f"({{}} - {low:g}) / {high - low:g}")
        )
    return (1.0, "") if high <= 1 else (float(BYTE), f"x_train holds floats from {low:g} to {high:g}: divided by 255")


def _integer_divisor(train: Array, test: Array) -> tuple[float, str]:
    kinds = {train.dtype, test.dtype}
    if kinds == {np.dtype(bool)}:
        return 1.0, "x_train holds bool: taken as 0 and 1"
    low, high = _range(train, test)
    named = " and ".join(sorted(str(kind) for kind in kinds))
    if kinds == {np.dtype(np.uint8)}:
        dark = high == 1
        return float(BYTE), _dark(named) if dark else ""
    if low < 0:
        raise UserError(
            f"x_train and x_test hold {named} from {low:g} to {high:g}: how to scale integers below 0 has to be said. "
            "As they are: dataset.scale=none. Scaled to -1..1: "
            + saving(x=f"{{}}.astype(np.float32) / {max(-low, high):g}")
        )
    if high <= 1:
        return 1.0, f"x_train holds {named} of 0 and 1 only: taken as they are"
    if high <= BYTE:
        return float(BYTE), f"x_train holds {named} from {low:g} to {high:g}: taken for 8 bits and divided by 255"
    if len(kinds) == 1 and train.dtype.kind == "u":
        return float(np.iinfo(train.dtype).max), ""
    raise UserError(
        f"x_train and x_test hold {named} from {low:g} to {high:g}: how to scale such integers above 255 has to be "
        f"said. As they are: dataset.scale=none. Scaled to 0..1: {saving(x=f'{{}}.astype(np.float32) / {high:g}')}"
    )


def _dark(named: str) -> str:
    return f"x_train holds {named} of 0 and 1 only, and is divided by 255: dataset.scale=none leaves it as it is"


def _range(train: Array, test: Array) -> tuple[float, float]:
    return float(min(train.min(), test.min())), float(max(train.max(), test.max()))

"""Shapes of one example: stored, for the bundled architectures, and for an existing model."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from math import prod

from experiments.dataset.saving import save_line
from experiments.system.errors import UserError

Shape = tuple[int, ...]
IMAGE_AXES = 3


@dataclass(frozen=True)
class Entry:
    """An input of a model: the shape of one example, None for any length, and the type of its values."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"


Entries = Mapping[str, Entry]  # the inputs of a model by name, in its order


def image_shape(stored: Shape) -> Shape:
    """Return the shape for the bundled architectures: grey images (height, width) get a channel axis.

    Raises:
        UserError: the examples have more axes than images.
    """
    if len(stored) > IMAGE_AXES:
        raise UserError(
            f"x_train has examples of shape {stored}; the bundled architectures require images, (height, width, "
            f"channels). Use your own model with model=keras_file model.path=..., or reshape each example to an image: "
            f"{save_line(x=f'{{}}.reshape{(-1, *stored[:2], prod(stored[2:]))}')}"
        )
    return (*stored, 1) if len(stored) == 2 else stored


def channel_warnings(stored: Shape) -> tuple[str, ...]:
    """Return a warning if images seem to be (channels, height, width), of which a new model would make narrow ones."""
    if len(stored) != IMAGE_AXES or stored[0] not in (1, 3) or stored[1] != stored[2] or stored[1] <= stored[0]:
        return ()
    return (
        f"channel order: images of shape {stored} are used as (height, width, channels), but seem to be (channels, "
        f"height, width). Change the order: {save_line(x='{}.transpose(0, 2, 3, 1)')}",
    )


def shape_for(wanted: tuple[int | None, ...], stored: Shape, entry: str = "", shaped_by: str = "") -> Shape:
    """Return the shape of stored examples for a model: unchanged, with or without a last axis of 1, or flattened.

    Args:
        wanted: The input shape of the model without the batch; None stands for any length.
        stored: The shape of an example.
        entry: The name of one of several inputs.
        shaped_by: What to type for examples of another shape; empty for arrays, for which code is suggested.

    Raises:
        UserError: none of these fits the model.
    """
    if (shape := fitting(wanted, stored)) is not None:
        return shape
    if entry:
        raise UserError(
            f"model.path: the input {entry} of the model requires examples of shape {wanted}, but x_train/{entry} has "
            f"{stored}. {_suggest_conversion(stored, wanted, entry)}"
        )
    raise UserError(
        f"model.path: the model requires examples of shape {wanted}, but the data set has {stored}. "
        f"{shaped_by or _suggest_conversion(stored, wanted)}"
    )


def fitting(wanted: tuple[int | None, ...], stored: Shape) -> Shape | None:
    """See shape_for; returns None if nothing fits."""
    forms = [stored, (*stored, 1)]
    if len(stored) > 1 and stored[-1] == 1:
        forms.append(stored[:-1])
    if len(wanted) == 1:
        forms.append((prod(stored),))
    return next((form for form in forms if _fits(form, wanted)), None)


def _fits(shape: Shape, wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, n) for n, w in zip(shape, wanted, strict=True))


def _suggest_conversion(stored: Shape, wanted: tuple[int | None, ...], entry: str = "") -> str:
    """Return code that converts the images, if the shapes suggest one."""
    for order in permutations(range(len(stored))):
        if _fits(tuple(stored[axis] for axis in order), wanted):
            axes = ", ".join(str(axis) for axis in (0, *(axis + 1 for axis in order)))
            return f"Change the order of the axes: {save_line(x=f'{{}}.transpose({axes})', entry=entry)}"
    if None not in wanted and prod(n or 1 for n in wanted) == prod(stored):
        return f"Reshape them: {save_line(x=f'{{}}.reshape{(-1, *wanted)}', entry=entry)}"
    if len(wanted) == 3 and len(stored) in (2, 3):
        height, width, channels = image_shape(stored)
        image = "{}" if len(stored) == 3 else "{}[..., None]"
        if _fits((height, width), wanted[:2]):
            if (channels, wanted[2]) == (1, 3):
                return f"Repeat the grey channel: {save_line(x=f'np.repeat({image}, 3, axis=-1)', entry=entry)}"
            if (channels, wanted[2]) == (3, 1):
                grey = "{0}.mean(axis=-1, keepdims=True).astype({0}.dtype)"
                return f"Convert them to grey: {save_line(x=grey, entry=entry)}"
        elif wanted[2] in (None, channels):
            size = (wanted[0] or height, wanted[1] or width)
            resized = f"tf.image.resize({image}, {size}).numpy().round().astype(np.uint8)"
            return f"Resize them (for uint8 images): {save_line(x=resized, entry=entry)}"
    return "Use the data set that the model was trained on: dataset=..."

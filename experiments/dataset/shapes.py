"""The shape of one example: as it is stored, as an architecture here expects it, and as a given model takes it."""

from itertools import permutations
from math import prod

from experiments.dataset.saving import saving
from experiments.system.errors import UserError

Shape = tuple[int, ...]
IMAGE_AXES = 3


def image_shape(stored: Shape) -> Shape:
    """What architectures that are built to fit take: grey images (height, width) get a channel axis.

    Raises:
        UserError: the examples have more axes than images have.
    """
    if len(stored) > IMAGE_AXES:
        raise UserError(
            f"x_train holds examples of the shape {stored}, and the architectures here are built for images, (height, "
            f"width, channels). Give a model of your own for them, with model=keras_file model.path=..., or make one "
            f"image of each: {saving(x=f'{{}}.reshape{(-1, *stored[:2], prod(stored[2:]))}')}"
        )
    return (*stored, 1) if len(stored) == 2 else stored


def shape_for(wanted: tuple[int | None, ...], stored: Shape) -> Shape:
    """How a given model takes stored examples: as they are, with or without a last axis of 1, or in one row.

    `wanted` is the input shape of the model without the batch; None stands for any length.

    Raises:
        UserError: it takes none of these.
    """
    if (shape := fitting(wanted, stored)) is not None:
        return shape
    raise UserError(
        f"model.path: takes images of the shape {wanted}, but those of the data set have {stored}. "
        f"{_mended(stored, wanted)}"
    )


def fitting(wanted: tuple[int | None, ...], stored: Shape) -> Shape | None:
    """See shape_for; None where a model takes them in no form."""
    forms = [stored, (*stored, 1)]
    if len(stored) > 1 and stored[-1] == 1:
        forms.append(stored[:-1])
    if len(wanted) == 1:
        forms.append((prod(stored),))
    return next((form for form in forms if _fits(form, wanted)), None)


def _fits(shape: Shape, wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, n) for n, w in zip(shape, wanted, strict=True))


def _mended(stored: Shape, wanted: tuple[int | None, ...]) -> str:
    """What to do about it, where the shapes show that."""
    for order in permutations(range(len(stored))):
        if _fits(tuple(stored[axis] for axis in order), wanted):
            axes = ", ".join(str(axis) for axis in (0, *(axis + 1 for axis in order)))
            return f"Change the order of the axes: {saving(x=f'{{}}.transpose({axes})')}"
    if None not in wanted and prod(n or 1 for n in wanted) == prod(stored):
        return f"Arrange the same values anew: {saving(x=f'{{}}.reshape{(-1, *wanted)}')}"
    if len(wanted) == 3 and len(stored) in (2, 3):
        height, width, channels = image_shape(stored)
        image = "{}" if len(stored) == 3 else "{}[..., None]"
        if _fits((height, width), wanted[:2]):
            if (channels, wanted[2]) == (1, 3):
                return f"Make grey images three channels: {saving(x=f'np.repeat({image}, 3, axis=-1)')}"
            if (channels, wanted[2]) == (3, 1):
                return f"Make them grey: {saving(x='{0}.mean(axis=-1, keepdims=True).astype({0}.dtype)')}"
        elif wanted[2] in (None, channels):
            size = (wanted[0] or height, wanted[1] or width)
            resized = f"tf.image.resize({image}, {size}).numpy().round().astype(np.uint8)"
            return f"Change their size (here of uint8 images): {saving(x=resized)}"
    return "Give the data set that the model was trained on, with dataset=..."

"""Data sets with several inputs: arrays by the name of the input, in the form that a model requires."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from experiments.dataset.arrays import Stored
from experiments.dataset.place import ARRAYS, Place
from experiments.dataset.rows import NamedRows, rows_of
from experiments.dataset.saving import save_line
from experiments.dataset.shapes import Entries, Entry, Shape, shape_for
from experiments.dataset.values import Scale, Scaling, check_images, scaling_of
from experiments.system.errors import UserError, suggestion

Inputs: TypeAlias = "Stored | Mapping[str, Stored]"  # a mapping has an array for each input
Scales = Scale | tuple[tuple[str, Scale], ...]  # pairs of an input and its scale


def count(inputs: Inputs) -> int:
    """Return the number of examples."""
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def check_inputs(train: Inputs, test: Inputs, place: Place = ARRAYS) -> None:
    """Check the arrays of the examples of both parts.

    Raises:
        UserError: an array is not supported, the parts differ in their inputs or shapes, or the inputs in their length.
    """
    if isinstance(train, Mapping) != isinstance(test, Mapping):
        raise UserError("x_train and x_test: require the same inputs, but only one of them has several.")
    if not isinstance(train, Mapping):
        assert not isinstance(test, Mapping)
        check_pair(train, test, place=place)
        return
    assert isinstance(test, Mapping)
    if set(train) != set(test) or not train:
        raise UserError(
            f"x_train and x_test: require the same inputs, not {_listed(train)} and {_listed(test)}: an array "
            "x_train/NAME and an array x_test/NAME for each."
        )
    for name in train:
        check_pair(train[name], test[name], name)
    for part, arrays in (("train", train), ("test", test)):
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"x_{part}/{name} has {count}" for name, count in lengths.items())
            raise UserError(f"Each input requires the same number of examples, but {counts}.")


def check_pair(train: Stored, test: Stored, entry: str = "", place: Place = ARRAYS) -> None:
    """Check the arrays of one input."""
    check_images(train, "train", entry, place)
    check_images(test, "test", entry, place)
    if train.shape[1:] != test.shape[1:]:
        raise UserError(
            f"{place.inputs('train', entry)} and {place.inputs('test', entry)}: require examples of the same shape, "
            f"not {train.shape[1:]} and {test.shape[1:]}."
        )


def check_names(given: Iterable[str], entries: Entries) -> None:
    """Check that the data set has the inputs of a model.

    Raises:
        UserError: an input is missing, or one is unknown.
    """
    given = tuple(given)
    missing, unknown = [each for each in entries if each not in given], [each for each in given if each not in entries]
    if not missing and not unknown:
        return
    wrong = [f"has no x_train/{name}. {suggestion(name, unknown)}" for name in missing if unknown]
    wrong = wrong or [f"has no {', '.join(f'x_train/{name}' for name in missing)}." for _ in missing[:1]]
    wrong = wrong or [f"has x_train/{', x_train/'.join(unknown)}, which the model does not take. Leave it out."]
    raise UserError(
        f"model.path: the model has the inputs {described(entries)}; the data set has {_listed(given)}. It {wrong[0]}"
    )


def forms(entries: Entries, stored: Shape | Mapping[str, Shape]) -> list[Shape]:
    """Return the shape of an example for each input of a model, from the stored shape, or shapes by name.

    Raises:
        UserError: the inputs differ in their names, or a shape does not fit.
    """
    if isinstance(stored, Mapping):
        check_names(stored, entries)
        return [shape_for(entry.shape, stored[name], name) for name, entry in entries.items()]
    if len(entries) > 1:
        raise refuse_single(entries)
    return [shape_for(entry.shape, stored) for entry in entries.values()]


def refuse_single(entries: Entries) -> UserError:
    """Return the error for a data set with one input and a model with several."""
    arrays = ", ".join(f"'x_{part}/{name}': ..." for name in entries for part in ("train", "test"))
    return UserError(
        f"model.path: the model has the inputs {described(entries)}, but the data set has one. Save an array for each "
        f"input, by its name, for dataset=npz: np.savez('data.npz', y_train=y_train, y_test=y_test, **{{{arrays}}})"
    )


def described(entries: Entries) -> str:
    """List the inputs of a model with their shapes and types."""
    return ", ".join(f"{name} {entry.dtype} {entry.shape}" for name, entry in entries.items())


def scaling_for(stored: tuple[Stored, Stored], entry: Entry, name: str, scale: Scale) -> Scaling:
    """Return the scaling of an input, as its arrays of both parts and the type that the model requires show."""
    return integer_scaling(stored, entry, name) or scaling_of(*stored, scale, name)


def integer_scaling(
    stored: tuple[Stored, Stored], entry: Entry, name: str = "", place: Place = ARRAYS
) -> Scaling | None:
    """Return the scaling for an input of integers, such as numbers of words, which are not changed; None for floats.

    Raises:
        UserError: the arrays have floats, or values that the type of the input lacks.
    """
    dtype = np.dtype(entry.dtype)
    if dtype.kind not in "iu":
        return None
    for part, array in zip(("train", "test"), stored, strict=True):
        named = place.inputs(part, name)
        if array.dtype.kind not in "biu":
            raise UserError(
                f"{named} has the dtype {array.dtype}, but the model requires {dtype} for this input."
                + place.code(" ", save_line(x=f"{{}}.astype(np.{dtype})", entry=name))
            )
        limits, low, high = np.iinfo(dtype), int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise UserError(f"{named} has values from {low} to {high}; the model requires {dtype}.")
    return Scaling(integers=True, dtype=dtype)


def pairs(given: object) -> object:
    """Return scales by name as pairs, which unlike a mapping can be part of a key."""
    return tuple(sorted(given.items())) if isinstance(given, Mapping) else given


def scale_of(scale: Scales, name: str) -> Scale:
    """Return the scale of an input."""
    return scale if isinstance(scale, str) else dict(scale).get(name, "auto")


def check_scales(scale: Scales, names: Iterable[str]) -> None:
    """Check that scales by name are those of inputs.

    Raises:
        UserError: a name is unknown, or there is only one input.
    """
    known = tuple(names)
    for name, _ in () if isinstance(scale, str) else scale:
        if name not in known:
            found = suggestion(name, known) if known else "The data set has one input: dataset.scale=none"
            raise UserError(f"dataset.scale: the data set has no input {name}. {found}")


def named_rows(arrays: Mapping[str, Stored]) -> NamedRows:
    """Return the examples of a part, without scaling, which depends on the model."""
    return NamedRows(parts={name: rows_of(array, Scaling()) for name, array in arrays.items()})


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"x_train/{name}" for name in names) or "none"


def pick(values: Any, output: str | None) -> str:
    """Return the output whose targets judge the model: the only one, or that of `task.output`.

    Raises:
        UserError: several outputs have targets and none is chosen, or the chosen one has none.
    """
    names = list(values)
    if output is None and len(names) == 1:
        return str(names[0])
    if output is None:
        raise UserError(
            f"task.output: is required, since the data set has targets of several outputs: {', '.join(names)}. All of "
            f"them are trained; the score is that of one. Type task.output={names[0]}."
        )
    if output not in names:
        raise UserError(f"task.output={output}: the data set has no y_train/{output}. {suggestion(output, names)}")
    return output

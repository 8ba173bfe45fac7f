"""Values with several names, such as the inputs of a model: structured arrays of NumPy, with a field for each name.

A structured array has a length, slices, joins and digests like any other array, so what treats examples as rows need
not know how many inputs a row has. Only where a model or a file takes or gives values are the fields taken apart.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def together(parts: Mapping[str, Array]) -> Array:
    """Return arrays (n, ...) as one, (n,), with a field for each."""
    fields = [(name, values.dtype, values.shape[1:]) for name, values in parts.items()]
    joined = np.empty(len(next(iter(parts.values()))), fields)
    for name, values in parts.items():
        joined[name] = values
    return joined


def is_named(values: Any) -> bool:
    """Whether values have several names."""
    return values.dtype.names is not None


def apart(values: Array) -> dict[str, Array]:
    """Return the values of each name, (n, ...); those of a plain array with the name ''."""
    if values.dtype.names is None:
        return {"": values}
    return {name: np.ascontiguousarray(values[name]) for name in values.dtype.names}


def fields(values: Any) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the type of each name's values, and the shape of one; for a plain array, its own."""
    if values.dtype.names is None:
        return [(values.dtype, tuple(values.shape[1:]))]
    return [(values.dtype[name].base, values.dtype[name].shape) for name in values.dtype.names]


def under(name: str, values: Array) -> Array:
    """Return the values of one name; plain values are returned unchanged. Those of a mapped file are not read yet."""
    if values.dtype.names is None:
        return values
    return values[name] if isinstance(values, np.memmap) else np.ascontiguousarray(values[name])


def as_inputs(values: Array) -> Any:
    """Return values as a Keras model takes them: an array, or a list in the order of the inputs."""
    return values if values.dtype.names is None else list(apart(values).values())

"""Examples as a model takes them: kept as they are stored, and converted to float32 when they are read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import CHUNK_BYTES, Stored
from experiments.dataset.named import together
from experiments.dataset.values import Scaling

Images = npt.NDArray[np.float32]
AT_ONCE_BYTES = 64 * 2**20  # of images that are evaluated together


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples (n, ...), float32 or a model's integers, of which only those that are read are in memory.

    Slices, arrays of positions and single positions give arrays, as in NumPy; so do further indices: `x[:, 0]`.
    """

    stored: Stored
    scaling: Scaling = field(default_factory=Scaling)
    places: npt.NDArray[np.int64] | None = None  # positions in `stored`; None: all
    form: tuple[int, ...] | None = None  # the shape of an example; None: as stored

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values for a model."""
        return self.scaling.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples, and the shape of each."""
        return (len(self), *(self.stored.shape[1:] if self.form is None else self.form))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.stored if self.places is None else self.places)

    def __getitem__(self, key: Any) -> Images:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int | np.integer):
            place = range(len(self))[int(first)]
            return np.asarray(self._read(slice(place, place + 1))[(0, *rest)])
        images = self._read(first)
        return np.asarray(images[(slice(None), *rest)]) if rest else images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __iter__(self) -> Iterator[Images]:
        return (image for images in self.chunks() for image in images)

    def take(self, places: npt.NDArray[np.int64]) -> "Rows":
        """Return the examples at these positions, in this order."""
        return replace(self, places=places if self.places is None else self.places[places])

    def by_name(self, places: npt.NDArray[np.int64]) -> dict[str, Images]:
        """Return the examples at these positions for each input, (n, ...); those of the only one have the name ''."""
        return {"": self[places]}

    def reshape(self, form: tuple[int, ...]) -> "Rows":
        """Return the same examples, each in this shape."""
        return replace(self, form=form)

    def chunks(self) -> Iterator[Images]:
        """Yield all examples, in parts of a few megabytes."""
        step = max(1, CHUNK_BYTES // max(1, self.dtype.itemsize * prod(self.shape[1:])))
        return (self._read(slice(start, start + step)) for start in range(0, len(self), step))

    def moments(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean and standard deviation over all axes but the last."""
        total = squares = np.zeros(self.shape[-1])
        for images in self.chunks():
            values = images.reshape(-1, self.shape[-1]).astype(np.float64)
            total, squares = total + values.sum(axis=0), squares + np.square(values).sum(axis=0)
        count = prod(self.shape[:-1])
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))

    def _read(self, rows: slice | npt.NDArray[Any]) -> Images:
        images = self.scaling.apply(self.stored[rows if self.places is None else self.places[rows]])
        return images if self.form is None else images.reshape(len(images), *self.form)


@dataclass(frozen=True, eq=False)
class NamedRows(Rows):
    """Examples with several inputs: rows of each, by its name, in the order of the model's inputs.

    What is read is a structured array (n,), with a field for each input; see experiments.dataset.named.
    """

    stored: Stored = field(default_factory=lambda: np.empty(0))
    parts: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """A field for each input."""
        return np.dtype([(name, rows.dtype, rows.shape[1:]) for name, rows in self.parts.items()])

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples."""
        return (len(self),)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def take(self, places: npt.NDArray[np.int64]) -> "NamedRows":
        """Return the examples at these positions, in this order."""
        return NamedRows(parts={name: part.take(places) for name, part in self.parts.items()})

    def by_name(self, places: npt.NDArray[np.int64]) -> dict[str, Images]:
        """See Rows.by_name; without the structured array, which would be a second copy."""
        return {name: part[places] for name, part in self.parts.items()}

    def _read(self, rows: slice | npt.NDArray[Any]) -> npt.NDArray[Any]:
        return together({name: part[rows] for name, part in self.parts.items()})


def at_once(images: "Rows | Images", most: int, result_bytes: int = 0) -> int:
    """Return how many images to hold in memory at once: `most`, or fewer large ones, in multiples of 8 if possible.

    `result_bytes` is the size of what is computed from each.
    """
    fitting = AT_ONCE_BYTES // max(1, images.dtype.itemsize * prod(images.shape[1:]), result_bytes)
    return most if fitting >= most else max(1, fitting // 8 * 8 or fitting)


def rows_of(stored: Stored, scaling: Scaling) -> Rows:
    """Return stored examples as rows; floats of 64 bits in memory are converted now, since they take twice the room."""
    if isinstance(stored, np.ndarray) and stored.dtype.kind == "f":
        stored = stored.astype(np.float32, copy=False)
    return Rows(stored, scaling)


def as_rows(values: "Rows | npt.NDArray[Any]") -> Rows:
    """Return values of any type, such as targets, as rows that are read unchanged."""
    return values if isinstance(values, Rows) else Rows(values, Scaling(dtype=values.dtype))

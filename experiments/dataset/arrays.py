"""Arrays of examples in files: read row by row, so that they may be larger than memory.

Rows are read with `pread` instead of a memory map: the pages of a map that were read count as the process's memory, and
a map of 16 GB would seem to take 16 GB. The system caches the file either way, for all processes together.
"""

import io
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from experiments.system.disk import explain_os_error
from experiments.system.errors import UserError
from experiments.system.locks import open_in_use
from experiments.system.temporary import temporary_folder

CHUNK_BYTES = 8 * 2**20  # of a pass over all rows


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """An array (n, ...) in a file, with the smallest and largest value; what is read of it is an array in memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float
    high: float
    offset: int = 0  # bytes before the first row

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def min(self) -> float:
        """Return the smallest value; NaN if there is a NaN."""
        return self.low

    def max(self) -> float:
        """Return the largest value; NaN if there is a NaN."""
        return self.high

    def __getitem__(self, rows: slice | npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
        places = np.arange(len(self))[rows]
        read = np.empty((len(places), *self.shape[1:]), self.dtype)
        if len(places) == 0 or read.nbytes == 0:
            return read
        if (np.diff(places) == 1).all():
            self._fill(read, int(places[0]))
        else:
            for row, place in zip(read, places.tolist(), strict=True):
                self._fill(row, place)
        return read

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as one in another process, opens the file itself."""
        return {name: value for name, value in vars(self).items() if name != "_descriptor"}

    def open(self) -> None:
        """Open the file now: from then on, the cache does not remove it.

        Raises:
            FileNotFoundError: there is no such file.
        """
        assert self._descriptor >= 0

    def _fill(self, target: npt.NDArray[Any], first: int) -> None:
        """Fill an array with the rows from `first` on."""
        size = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        view, position = target.reshape(-1).view(np.uint8).data, self.offset + first * size
        while view:
            count = os.preadv(self._descriptor, [view], position)
            if count == 0:
                raise OSError(f"{self.path}: is shorter than it was. It has changed during the run.")
            view, position = view[count:], position + count

    @cached_property
    def _descriptor(self) -> int:
        descriptor = open_in_use(self.path)
        weakref.finalize(self, os.close, descriptor)
        return descriptor


Stored: TypeAlias = "npt.NDArray[Any] | ArrayFile"


def chunks(length: int, row_bytes: int) -> Iterator[slice]:
    """Yield consecutive slices of rows that together are `length` rows, each of about CHUNK_BYTES."""
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def row_bytes(values: Any) -> int:
    """Return the size of a row of values, in memory or in a file."""
    return int(values.dtype.itemsize * prod(values.shape[1:]))


def parts_of(values: Any) -> Iterator[npt.NDArray[Any]]:
    """Yield all rows of values, in memory or in a file, in arrays of at most CHUNK_BYTES: small ones in one array."""
    for rows in chunks(len(values), row_bytes(values)):
        yield np.ascontiguousarray(values[rows])


def by_parts(compute: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], values: Any) -> npt.NDArray[Any]:
    """Return what `compute` makes of all rows, one by one, while it is given a few megabytes of them at once."""
    return np.concatenate([compute(part) for part in parts_of(values)])


def write_rows(write: Callable[[Any], Any], parts: Iterable[npt.NDArray[Any]], length: int) -> None:
    """Write arrays that together have `length` rows as one .npy file."""
    for number, part in enumerate(parts):
        if number == 0:
            header = io.BytesIO()
            descr = np.lib.format.dtype_to_descr(part.dtype)
            about = {"shape": (length, *part.shape[1:]), "fortran_order": False, "descr": descr}
            np.lib.format.write_array_header_1_0(header, about)
            write(header.getvalue())
        write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def kept(parts: Iterable[npt.NDArray[Any]], length: int) -> npt.NDArray[Any]:
    """Return arrays that together have `length` rows as one: in memory, or a large one in a temporary mapped file.

    Raises:
        UserError: the file cannot be written.
    """
    rest = iter(parts)
    first = next(rest)
    if length * row_bytes(first) <= CHUNK_BYTES:
        return np.concatenate([first, *rest])
    with temporary_folder("outputs") as folder:
        try:
            with (folder / "rows.npy").open("wb") as file:
                write_rows(file.write, chain([first], rest), length)
        except OSError as error:
            raise UserError(
                f"Temporary files cannot be written: {explain_os_error(error, folder)}. Free "
                f"{length * row_bytes(first) / 2**30:,.2f} GiB there, or set TMPDIR."
            ) from error
        return mapped(folder / "rows.npy")  # which lasts longer than its name


def mapped(path: Path) -> npt.NDArray[Any]:
    """Return the array of a .npy file, whose pages the system reads when they are used, and can drop.

    For values that code of others takes as an array. As long as it is used, the cache does not remove the file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    descriptor = open_in_use(path)
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(cast(Any, found)._mmap, os.close, descriptor)  # all views of the array share it
    return found

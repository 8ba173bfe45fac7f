"""Arrays of examples in files: read row by row, so that they may be larger than memory.

Rows are read with `pread` instead of a memory map: the pages of a map that were read count as the process's memory, and
a map of 16 GB would seem to take 16 GB. The system caches the file either way, for all processes together.
"""

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from experiments.system.locks import open_in_use

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

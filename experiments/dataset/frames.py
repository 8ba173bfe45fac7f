"""Tables in CSV or Parquet files: columns of numbers, and the messages for what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil

from experiments.system.errors import UserError, first_line, suggestion
from experiments.system.extras import require
from experiments.system.files import check_regular

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 8  # columns to name in a message
AHEAD = 16 * 2**20  # bytes; smaller files are read, and so checked, before anything is run
COPIES = 2  # of the values in memory: the columns, and the array of them


@dataclass(frozen=True)
class Frame:
    """The columns of a file; `where` is the setting that names it, for the messages."""

    where: str
    columns: "pd.DataFrame"

    def __len__(self) -> int:
        return len(self.columns)

    def require(self, names: Sequence[str], setting: str) -> None:
        """Raise UserError if a column is missing; `setting` is the one that names them."""
        present = [str(name) for name in self.columns]
        if missing := [name for name in names if name not in present]:
            raise UserError(
                f"{setting}: {self.where} has no column {', '.join(missing)}. {suggestion(missing[0], present)}"
            )

    def others(self, used: Sequence[str | None]) -> list[str]:
        """Return the columns that are not among `used`."""
        return [str(name) for name in self.columns if name not in used]

    def numbers(self, names: Sequence[str], setting: str) -> npt.NDArray[np.float32]:
        """Return these columns as an array (rows, columns); missing values are NaN.

        Raises:
            UserError: a column has texts.
        """
        texts = [name for name in names if self.columns[name].dtype.kind not in "biuf"]
        if texts:
            raise UserError(
                f"{self.where}: requires numbers, but {_columns(texts)} has other values, such as "
                f"{self.columns[texts[0]].dropna().iloc[:1].tolist()}. Encode them as numbers, or name the columns to "
                f"use: {setting}=[{','.join(name for name in names if name not in texts)}]"
            )
        return self.columns[list(names)].to_numpy(np.float32)

    def complete(self, names: Sequence[str], leave_out: bool) -> "Frame":
        """Return the rows without missing values in these columns.

        Raises:
            UserError: there are missing values, and `leave_out` is not set; or nothing is left.
        """
        missing = self.columns[list(names)].isna()
        rows = missing.any(axis=1)
        if not rows.any():
            return self
        if not leave_out:
            counts = missing.sum()
            where = ", ".join(f"{name} ({counts[name]})" for name in names if counts[name])
            raise UserError(
                f"{self.where}: {int(rows.sum())} of {len(self)} rows have missing values (NaN), in {where}. Fill "
                "them, or type dataset.skip_broken=true to leave these rows out."
            )
        if rows.all():
            raise UserError(f"{self.where}: every row has missing values.")
        return Frame(self.where, self.columns[~rows])

    def labels(self, name: str) -> npt.NDArray[Any]:
        """Return a column as labels or targets."""
        column = self.columns[name]
        return column.to_numpy() if column.dtype.kind in "biuf" else column.astype(str).to_numpy(np.str_)


def check_frame(path: Path, key: str) -> None:
    """Check that a file can be read as a table, and fits into memory; `key` is the setting that names it.

    Raises:
        UserError: it cannot, or its format is another.
    """
    where = f"{key}={path}"
    check_regular(path, where)
    if path.suffix.lower() == ".parquet":
        require("parquet", where)
        from pyarrow import ArrowException, parquet

        try:
            about = parquet.read_metadata(path)
        except (ArrowException, OSError) as error:
            raise UserError(f"{where}: not a Parquet file ({first_line(error)}).") from error
        needed = about.num_rows * about.num_columns * 8
    elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
        needed = path.stat().st_size
    else:
        raise UserError(f"{where}: requires a .csv, .tsv or .parquet file.")
    if COPIES * needed > (free := psutil.virtual_memory().available):
        raise UserError(
            f"{where}: takes about {COPIES * needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free. "
            "Use fewer rows or columns, or save float32 arrays for dataset=npz."
        )


def read_frame(path: Path, key: str) -> Frame:
    """Read a table; `key` is the setting that names the file.

    Raises:
        UserError: it cannot be read, or has no rows.
    """
    check_frame(path, key)
    import pandas as pd

    where = f"{key}={path}"
    try:
        if path.suffix.lower() == ".parquet":
            frame = Frame(where, pd.read_parquet(path))
        else:
            frame = Frame(where, pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ","))
    except (ValueError, OSError) as error:  # ParserError and UnicodeDecodeError are ValueErrors
        raise UserError(f"{where}: cannot be read ({first_line(error)}).") from error
    if len(frame) == 0:
        raise UserError(f"{where}: has no rows.")
    return frame


def is_class(target: npt.NDArray[Any]) -> bool:
    """Whether a column has classes, by which examples can be stratified, and not measured values."""
    return target.dtype.kind != "f" or bool((target == np.round(target)).all())


def _columns(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"the column {shown}" if len(names) == 1 else f"each of {shown}{', ...' if len(names) > SHOWN else ''}"

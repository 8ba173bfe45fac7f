"""Tables in CSV or Parquet files: columns of numbers, and the messages for what is missing."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil

from experiments.dataset.targets import Kind
from experiments.system.errors import UserError, first_line, suggestion
from experiments.system.extras import require
from experiments.system.files import check_regular

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 8  # columns to name in a message
AHEAD = 16 * 2**20  # bytes; smaller files are read, and so checked, before anything is run
COPIES = 2  # of the values in memory: the columns, and the array of them
FEW = 10  # different values, which may be classes
STEPS = 16  # of float32 that the values of a column have to extend over
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
DECIMAL = ", decimal=','"  # the argument for reading them
NUMBERS = (Number, np.bool_)  # objects of a column
NESTED = (list, tuple, dict, np.ndarray)


@dataclass(frozen=True)
class Frame:
    """The columns of a file; `where` is the setting that names it, for the messages."""

    where: str
    columns: "pd.DataFrame"

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Return the number of each row in the file, from 1 on."""
        return np.asarray(self.columns.index, np.int64) + 1

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

    def numbers(self, names: Sequence[str], setting: str) -> npt.NDArray[np.float64]:
        """Return these columns as an array (rows, columns); missing values are NaN.

        Raises:
            UserError: a column has texts.
        """
        texts = [name for name in names if self.columns[name].dtype.kind not in "biuf"]
        if texts:
            other = _other(self.columns[texts[0]])
            how = f"Encode them as numbers{_without(texts, names, setting, ', or name the columns to use')}."
            if isinstance(other, str) and DECIMAL_COMMA.fullmatch(other):
                how = f"To read decimal commas: {_convert(DECIMAL)}"
            raise UserError(
                f"{self.where}: requires numbers, but {_columns(texts)} has other values, such as {other!r}. {how}"
            )
        return self.columns[list(names)].to_numpy(np.float64)

    def check_single(self, values: npt.NDArray[np.float64], names: Sequence[str], setting: str, way_out: str) -> None:
        """Check that float32, in which models compute, can hold the values (rows, columns) of these columns.

        Raises:
            UserError: values are too large, or differ by less than float32 shows.
        """
        low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)  # without NaN
        largest = np.maximum(np.abs(low), np.abs(high))
        with np.errstate(over="ignore"):
            infinite = np.isinf(largest.astype(np.float32))
        steps = np.spacing(np.where(infinite, 0, largest).astype(np.float32))
        for place, name in enumerate(names):
            if infinite[place]:
                raise UserError(f"{self.where}: the column {name} has values up to {largest[place]:g}; models require "
                                f"float32, up to {np.finfo(np.float32).max:g}. Divide them.")  # fmt: skip
            if low[place] < high[place] < low[place] + STEPS * float(steps[place]):
                raise UserError(
                    f"{self.where}: the column {name} has values from {low[place]:.15g} to {high[place]:.15g}. Models "
                    f"compute in float32, which hardly distinguishes these. {way_out}"
                    f"{_without([name], names, setting, 'Or leave the column out')}"
                )

    def counters(self, names: Sequence[str]) -> list[str]:
        """Return the columns that number the rows."""
        count = np.arange(len(self))
        numbered = [name for name in names if self.columns[name].dtype.kind in "iuf" and len(self) > 2]
        return [
            name for name in numbered if (self.columns[name].to_numpy() - self.columns[name].iloc[0] == count).all()
        ]

    def complete(self, names: Sequence[str], leave_out: bool) -> "Frame":
        """Return the rows without missing or infinite values in these columns.

        Raises:
            UserError: there are missing values, and `leave_out` is not set; or nothing is left.
        """
        names = list(dict.fromkeys(names))
        floats = [name for name in names if self.columns[name].dtype.kind == "f"]
        missing = self.columns[names].isna()
        for name in floats:
            missing[name] |= np.isinf(self.columns[name])
        rows = missing.any(axis=1)
        if not rows.any():
            return self
        if not leave_out:
            counts = missing.sum()
            where = ", ".join(f"{name} ({counts[name]})" for name in names if counts[name])
            texts = any(counts[name] and self.columns[name].dtype.kind not in "biuf" for name in names)
            raise UserError(
                f"{self.where}: {int(rows.sum())} of {len(self)} rows have missing or infinite values, in {where}. "
                "Fill them, or type dataset.skip_broken=true to leave these rows out."
                f"{' The texts NA, None and null stand for missing values in a file.' if texts else ''}"
            )
        if rows.all():
            raise UserError(f"{self.where}: every row has missing values.")
        return Frame(self.where, self.columns[~rows])

    def labels(self, name: str) -> npt.NDArray[Any]:
        """Return a column as labels or targets.

        Raises:
            UserError: the column has several values in each row.
        """
        column = self.columns[name]
        if column.dtype.kind in "biuf":
            return column.to_numpy()
        if (nested := next((each for each in column if isinstance(each, NESTED)), None)) is not None:
            raise UserError(
                f"{self.where}: the column {name} requires one value in each row, not several, such as {nested}."
            )
        # Not to_numpy(np.str_), which cuts all texts to their first letter if one is missing.
        return np.array([str(text) for text in column], np.str_)


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
            columns = pd.read_parquet(path)
            columns = columns.reset_index(drop=not any(columns.index.names))
        else:
            columns = _read_text(path, where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: requires text in UTF-8 ({first_line(error)}).") from error
    except (ValueError, OSError) as error:  # ParserError is a ValueError
        raise UserError(f"{where}: cannot be read ({first_line(error)}).") from error
    names = [str(name) for name in columns.columns]
    _refuse_equal_names(names, where)
    columns.columns = pd.Index(names)
    for name in names:
        if columns[name].dtype.kind not in "biuf":
            columns[name] = _plain(columns[name])
    frame = Frame(where, columns)
    if len(frame) == 0:
        raise UserError(f"{where}: has no rows.")
    return frame


def _read_text(path: Path, where: str) -> "pd.DataFrame":
    """Read a CSV or TSV file, after checking that its columns are those that pandas would read.

    Raises:
        UserError: its columns are separated by other characters, or its rows have more values than names.
    """
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    first = pd.read_csv(
        path, sep=separator, skipinitialspace=True, header=None, nrows=1, dtype=str, keep_default_na=False
    )
    header = [str(name) for name in first.iloc[0]]
    if len(header) == 1 and (other := next((each for each in ";\t|," if each in header[0]), None)):
        with path.open(encoding="utf-8-sig") as file:
            values = re.split(rf"[{other}\n]", "".join(islice(file, 1, 20)))
        commas = any(DECIMAL_COMMA.fullmatch(value.strip()) for value in values)
        raise UserError(
            f"{where}: its columns are separated by {other!r}; requires {separator!r}. "
            f"Convert it: {_convert(f', sep={other!r}{DECIMAL * commas}')}"
        )
    _refuse_equal_names([name for name in header if name], where)  # pandas would rename the second one
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, sep=separator, skipinitialspace=True, index_col=False)
        except pd.errors.ParserWarning as error:
            raise UserError(f"{where}: its rows have more values than its first line has names.") from error


def _refuse_equal_names(names: Sequence[str], where: str) -> None:
    """Raise UserError if two columns have one name."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{where}: has several columns {twice[0]}. Each requires a name of its own: rename them.")


def _convert(arguments: str) -> str:
    """Return the line of code that saves a text file in the required form, with further arguments for reading it."""
    return f"pandas.read_csv(FILE{arguments}).to_csv('data.csv', index=False)"


def _plain(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column of a Parquet file with numbers as such, which may be stored as categories or single objects."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(np.asarray(column), column.index, name=column.name)
    if column.dtype.kind == "O" and all(isinstance(each, NUMBERS) for each in column.dropna()):
        return column.astype(np.float64)
    return column


def is_class(target: npt.NDArray[Any], kind: Kind | None) -> bool:
    """Whether a column has classes, by which examples can be stratified, and not numbers to predict."""
    return kind not in ("numbers", "own") and (target.dtype.kind != "f" or bool((target == np.round(target)).all()))


def suggest_regression(target: npt.NDArray[Any], name: str, kind: Kind | None) -> str:
    """Return what to type if a column has many different integers, which are treated as classes."""
    distinct = len(np.unique(target))
    if not is_class(target, kind) or target.dtype.kind not in "iuf" or distinct <= max(FEW, len(target) // 2):
        return ""
    return f" {name} has {distinct} different values, treated as classes; to predict numbers, type task=regression."


def row_number_warnings(frame: Frame, names: Sequence[str], setting: str) -> tuple[str, ...]:
    """Return a warning if columns that nobody chose number the rows, which may reveal the class in a sorted file."""
    return tuple(
        f"row numbers: the column {name} numbers the rows, and so may reveal the position in the file to the model"
        f"{_without([name], names, setting, '. Leave it out')}."
        for name in frame.counters(names)
    )


def _without(left_out: Sequence[str], names: Sequence[str], setting: str, how: str) -> str:
    """Return what to type for all other columns; empty if there are none."""
    rest = ",".join(name for name in names if name not in left_out)
    return f"{how}: {setting}=[{rest}]" if rest else ""


def _other(column: "pd.Series[Any]") -> object:
    """Return the first value that is no number, or the first value."""
    values = column.dropna().tolist()

    def is_number(value: Any) -> bool:
        try:
            float(value)
        except (TypeError, ValueError):
            return False
        return True

    return next((value for value in values if not is_number(value)), values[0] if values else None)


def _columns(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"the column {shown}" if len(names) == 1 else f"each of {shown}{', ...' if len(names) > SHOWN else ''}"

"""Select rows by a condition, sort them, and select columns by name."""

from collections.abc import Sequence

import pandas as pd

from experiments.comparison.columns import MODEL, NOUNS, SUBJECTS, TEST, VOID, check_comparable, names_of, timed
from experiments.comparison.condition import meets
from experiments.comparison.names import display_names
from experiments.system.errors import OPTION, UserError, suggestion


def select_rows(table: pd.DataFrame, condition: str, prefix: str = OPTION) -> pd.DataFrame:
    """Return the rows that meet a condition in the syntax of pandas' `query`; `prefix` is that of names in messages.

    Raises:
        UserError: the condition cannot be parsed, names an unknown column, is not a condition, or no row meets it.
    """
    found = table[meets(table, condition, prefix)]
    if found.empty:
        raise UserError(f"{prefix}where {condition!r}: no run meets this condition.")
    return found


def sort_rows(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Sort the rows by these columns; `-name` sorts descending. Empty cells come last.

    Raises:
        UserError: there is no such column.
    """
    names = [require_column(table, key.removeprefix("-"), "--sort") for key in keys]
    rising = [not key.startswith("-") for key in keys]
    return table.sort_values(names, ascending=rising, kind="stable", na_position="last")


def select_columns(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return only these columns, in this order.

    Raises:
        UserError: there is no such column.
    """
    return table[[require_column(table, name, "--columns") for name in names]]


def matrix(table: pd.DataFrame, rows: str, columns: str, value: str) -> pd.DataFrame:
    """Return a pivot table, such as accuracy by strategy and epochs; a cell with several runs has their mean.

    Invalid timings are omitted; a run without the setting is under an empty one.

    Raises:
        UserError: a column does not exist, or the value is not numeric.
    """
    for name in (rows, columns, value):
        require_column(table, name, "--pivot")
    if not pd.api.types.is_numeric_dtype(table[value]):
        raise UserError(f"--pivot {rows} {columns} {value}: requires a numeric last column; {value} has text.")
    check_comparable(table, value, "--pivot")
    if len({rows, columns, value}) < 3:
        raise UserError(f"--pivot {rows} {columns} {value}: requires three different columns.")
    if timed(value):
        table = table[table["speed"] != VOID]
    table = table.assign(**{name: display_names(table, name) for name in (rows, columns) if name in SUBJECTS})
    table = table[table[value].notna()]
    if table.empty:
        raise UserError(f"--pivot {rows} {columns} {value}: no run has a value in {value}.")
    _check_one_task_a_cell(table, rows, columns, value)
    named = table.assign(
        **{name: table[name].astype(object).where(table[name].notna(), "") for name in (rows, columns)}
    )
    cells = named.pivot_table(index=rows, columns=columns, values=value, aggfunc="mean", sort=False)
    return cells[sorted(cells.columns, key=lambda name: (isinstance(name, str), name))]


def _check_one_task_a_cell(table: pd.DataFrame, rows: str, columns: str, value: str) -> None:
    """Reject means over several models or data sets."""
    for kind, key in (("model", MODEL), ("dataset", TEST)):
        if (table.groupby([rows, columns], dropna=False)[key].nunique() > 1).any():
            raise UserError(
                f"--pivot {rows} {columns} {value}: runs of several {NOUNS[kind]} share a cell "
                f"({', '.join(display_names(table, kind).unique()[:3])}), so their mean is meaningless. Use {kind} as "
                f"one of the two columns, or select the runs of one with --where \"{kind}_name == '...'\" or by its "
                "digest."
            )


def require_column(table: pd.DataFrame, name: str, option: str) -> str:
    """Check that a column exists; returns its name.

    Raises:
        UserError: it does not exist.
    """
    if name not in (names := names_of(table)):
        raise UserError(f"{option} {name}: no column has this name. {suggestion(name, names)}")
    return name

"""What of a comparison is asked for: rows by a condition, their order, and columns by name."""

from collections.abc import Sequence

import pandas as pd

from experiments.comparison.columns import MODEL, NOUNS, SUBJECTS, TEST, VOID, check_comparable, names_of, timed
from experiments.comparison.condition import holds
from experiments.comparison.names import titled
from experiments.system.errors import UserError, suggestion


def where(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which a condition of pandas' `query` holds; columns with a dot stand between backquotes.

    Raises:
        UserError: the condition cannot be read, names an unknown column, is no condition, or holds for no row.
    """
    found = table[holds(table, condition)]
    if found.empty:
        raise UserError(f"--where {condition!r}: this holds for no run.")
    return found


def in_order(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows by these columns, the first first; `-name` is from the highest down. Empty cells come last.

    Raises:
        UserError: there is no such column.
    """
    names = [known(table, key.removeprefix("-"), "--sort") for key in keys]
    rising = [not key.startswith("-") for key in keys]
    return table.sort_values(names, ascending=rising, kind="stable", na_position="last")


def only(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """These columns alone, in this order.

    Raises:
        UserError: there is no such column.
    """
    return table[[known(table, name, "--columns") for name in names]]


def matrix(table: pd.DataFrame, rows: str, columns: str, value: str) -> pd.DataFrame:
    """A value by two settings, such as accuracy by strategy and epochs; of several runs in a cell, the mean.

    Invalid timings do not count; a run that has no such setting stands under an empty one.

    Raises:
        UserError: there is no such column, or the value is no number.
    """
    for name in (rows, columns, value):
        known(table, name, "--pivot")
    if not pd.api.types.is_numeric_dtype(table[value]):
        raise UserError(f"--pivot {rows} {columns} {value}: the last of them holds words, and a number is needed.")
    check_comparable(table, value, "--pivot")
    if len({rows, columns, value}) < 3:
        raise UserError(f"--pivot {rows} {columns} {value}: rows, columns and value need three different columns.")
    if timed(value):
        table = table[table["speed"] != VOID]
    table = table.assign(**{name: titled(table, name) for name in (rows, columns) if name in SUBJECTS})
    table = table[table[value].notna()]
    if table.empty:
        raise UserError(f"--pivot {rows} {columns} {value}: no run here has a value of {value}.")
    _check_one_task_a_cell(table, rows, columns, value)
    named = table.assign(
        **{name: table[name].astype(object).where(table[name].notna(), "") for name in (rows, columns)}
    )
    cells = named.pivot_table(index=rows, columns=columns, values=value, aggfunc="mean", sort=False)
    return cells[sorted(cells.columns, key=lambda name: (isinstance(name, str), name))]


def _check_one_task_a_cell(table: pd.DataFrame, rows: str, columns: str, value: str) -> None:
    """The mean over several models or data sets is a number of nothing."""
    for kind, key in (("model", MODEL), ("dataset", TEST)):
        if (table.groupby([rows, columns], dropna=False)[key].nunique() > 1).any():
            raise UserError(
                f"--pivot {rows} {columns} {value}: runs of several {NOUNS[kind]} share a cell "
                f"({', '.join(titled(table, kind).unique()[:3])}), and their mean says nothing. Give {kind} as one of "
                f"the two columns, or choose the runs of one with --where \"{kind}_name == '...'\" or by its digest."
            )


def known(table: pd.DataFrame, name: str, option: str) -> str:
    """The name of a column that there is.

    Raises:
        UserError: there is none of this name.
    """
    if name not in (names := names_of(table)):
        raise UserError(f"{option} {name}: there is no such column. {suggestion(name, names)}")
    return name

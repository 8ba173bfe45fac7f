"""What of a comparison is asked for: rows by a condition, their order, and columns by name."""

import re
from collections.abc import Sequence

import pandas as pd

from experiments.errors import UserError, first_line, near

EXAMPLE = "--where \"strategy == 'qat' and epochs >= 5\""


def where(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which a condition of pandas' `query` holds; columns with a dot stand between backquotes.

    Raises:
        UserError: the condition cannot be read, names an unknown column, or is no condition.
    """
    try:
        found = table.query(condition, engine="python")
    except Exception as error:  # pandas, Python's parser and the columns' types each raise their own
        unknown = re.search(r"name '(\w+)' is not defined", str(error))
        hint = near(unknown[1], map(str, table.columns)) if unknown else f"Write it as in {EXAMPLE}."
        raise UserError(f"--where {condition!r}: {first_line(error)}. {hint}") from error
    if not isinstance(found, pd.DataFrame):
        raise UserError(f"--where {condition!r}: this is a value, not a condition. Write it as in {EXAMPLE}.")
    return found


def in_order(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows by these columns, the first first; `-name` is from the highest down. Empty cells come last.

    Raises:
        UserError: there is no such column.
    """
    names = [known(table, key.removeprefix("-"), "--sort") for key in keys]
    rising = [not key.startswith("-") for key in keys]
    return table.sort_values(names, ascending=rising, kind="stable", na_position="last")


def known(table: pd.DataFrame, name: str, option: str) -> str:
    """The name of a column that there is.

    Raises:
        UserError: there is none of this name.
    """
    if name not in table.columns:
        raise UserError(f"{option} {name}: there is no such column. {near(name, map(str, table.columns))}")
    return name

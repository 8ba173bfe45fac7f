"""Tables as the README holds them, and cells as CSV files hold them."""

import pandas as pd

from experiments.comparison.files import as_markdown


def markdown(table: pd.DataFrame) -> str:
    """A table whose cells are text."""
    return f"{as_markdown(table)}\n"


def true(value: object) -> bool:
    """Whether a cell says so; it may be a word, for a CSV has no types."""
    return str(value) == "True"
